"""The ROM's C library against the one of this machine, and where that lacks a function, against its C meaning."""

from __future__ import annotations

import ctypes
import ctypes.util
import random
import sys
from collections.abc import Callable

import pytest

from tests.unit.rom_caller import RAM, FakeProgram
from virtualboard.rv32_rom_libc import LIBC
from virtualboard.rv32_rom_names import ADDRESSES, rom_name

needs_libc = pytest.mark.skipif(sys.platform == "win32", reason="there is no libc to compare with")

M32 = 0xFFFFFFFF
ALPHABETS = (b"ab", b"aAbB \t01x-+", bytes(range(1, 128)), bytes(range(1, 256)))
KINDS = [name for name in LIBC if name.startswith("is") and name not in ("isascii",)]


def host(name: str) -> Callable[..., int]:
    function = getattr(ctypes.CDLL(ctypes.util.find_library("c")), name)
    function.restype = ctypes.c_int64
    return function  # type: ignore[no-any-return]


def sign(value: int, bits: int = 32) -> int:
    value &= (1 << bits) - 1
    return 0 if value == 0 else -1 if value >> bits - 1 else 1


def texts(seed: int, count: int) -> list[tuple[bytes, bytes]]:
    dice = random.Random(seed)
    found = []
    for _ in range(count):
        letters = dice.choice(ALPHABETS)
        one, other = (bytes(dice.choices(letters, k=dice.randrange(24))) for _ in range(2))
        found.append((one, dice.choice((other, one, one[: len(one) // 2], one[1:], other[:1]))))
    return found


PAIRS = texts(1, 120)


@needs_libc
@pytest.mark.parametrize("name", ["strcmp", "strcoll", "strcasecmp"])
def test_comparisons(name: str) -> None:
    for a, b in PAIRS:
        expected = sign(host("strcmp" if name == "strcoll" else name)(a, b))
        assert sign(FakeProgram().call(name, a + b"\0", b + b"\0")) == expected, (a, b)


@needs_libc
@pytest.mark.parametrize("name", ["strncmp", "strncasecmp", "memcmp"])
def test_comparisons_of_a_length(name: str) -> None:
    for a, b in ((one + b"\0", other + b"\0") for one, other in PAIRS):
        for n in (0, 1, min(len(a), len(b)), min(len(a), len(b)) // 2):
            assert sign(FakeProgram().call(name, a, b, n)) == sign(host(name)(a, b, n)), (a, b, n)


@needs_libc
@pytest.mark.parametrize("name", ["strspn", "strcspn"])
def test_spans(name: str) -> None:
    for a, b in PAIRS:
        assert FakeProgram().call(name, a + b"\0", b + b"\0") == host(name)(a, b)


def found(program: FakeProgram, address: int) -> int | None:
    return address - RAM if address else None


@pytest.mark.parametrize(
    ("name", "find"),
    [
        ("strchr", lambda a, x: (a + b"\0").find(x)),
        ("strrchr", lambda a, x: (a + b"\0").rfind(bytes([x]))),
    ],
)
def test_finding_a_character(name: str, find: Callable[[bytes, int], int]) -> None:
    for a, b in PAIRS:
        for byte in (0, 97, *b[:2]):
            program = FakeProgram()
            at = find(a, byte)
            assert found(program, program.call(name, a + b"\0", 0x500 | byte)) == (None if at < 0 else at)


def test_finding_in_memory() -> None:
    program = FakeProgram()
    assert found(program, program.call("memchr", b"ab\0cb", ord("b") | 0x1200, 5)) == 1
    assert found(program, program.call("memrchr", b"ab\0cb", ord("b"), 5)) == 4
    assert program.call("memchr", b"ab\0cb", ord("c"), 3) == 0 and program.call("memrchr", b"abc", 0x78, 3) == 0


@pytest.mark.parametrize(("name", "fold"), [("strstr", bytes), ("strcasestr", bytes.lower)])
def test_finding_a_text(name: str, fold: Callable[[bytes], bytes]) -> None:
    for a, b in PAIRS:
        program = FakeProgram()
        at = fold(a).find(fold(b))
        assert found(program, program.call(name, a + b"\0", b + b"\0")) == (None if at < 0 else at)


def test_lengths() -> None:
    for a, _ in PAIRS:
        assert FakeProgram().call("strlen", a + b"\0rest") == len(a)
        for n in (0, 3, len(a), 100):
            assert FakeProgram().call("strnlen", a + b"\0", n) == min(len(a), n)


def test_filling_and_copying() -> None:
    program = FakeProgram()
    assert program.call("memset", b"........", 0x141, 3) == RAM and program.at(RAM, 8) == b"AAA....."
    program.call("bzero", b"........", 2)
    assert program.at(RAM, 4) == b"\0\0.."
    for name in ("memcpy", "memmove"):
        assert program.call(name, b"........", b"source", 4) == RAM and program.at(RAM, 8) == b"sour...."
    program.store(RAM, b"0123456789")
    program.call("memmove", RAM + 2, RAM, 6)
    assert program.at(RAM, 10) == b"0101234589", "what overlaps is read before it is written"
    program.store(RAM, b"0123456789")
    program.call("memmove", RAM, RAM + 2, 6)
    assert program.at(RAM, 10) == b"2345676789"


def test_copying_up_to_a_character() -> None:
    program = FakeProgram()
    assert program.call("memccpy", b"........", b"a:b", ord(":"), 3) == RAM + 2 and program.at(RAM, 4) == b"a:.."
    assert program.call("memccpy", b"........", b"abc", ord(":"), 3) == 0 and program.at(RAM, 4) == b"abc."


@pytest.mark.parametrize(
    ("name", "arguments", "result", "memory"),
    [
        ("strcpy", (b"xxxxxxxx", b"abc\0"), RAM, b"abc\0xxxx"),
        ("strncpy", (b"xxxxxxxx", b"abc\0", 6), RAM, b"abc\0\0\0xx"),
        ("strncpy", (b"xxxxxxxx", b"abc\0", 2), RAM, b"abxxxxxx"),
        ("strcat", (b"ab\0xxxxx", b"cd\0"), RAM, b"abcd\0xxx"),
        ("strncat", (b"ab\0xxxxx", b"cdef\0", 2), RAM, b"abcd\0xxx"),
        ("strncat", (b"ab\0xxxxx", b"c\0", 9), RAM, b"abc\0xxxx"),
        ("strlcpy", (b"xxxxxxxx", b"abcdef\0", 4), 6, b"abc\0xxxx"),
        ("strlcpy", (b"xxxxxxxx", b"ab\0", 8), 2, b"ab\0xxxxx"),
        ("strlcpy", (b"xxxxxxxx", b"ab\0", 0), 2, b"xxxxxxxx"),
        ("strlcat", (b"ab\0xxxxx", b"cdef\0", 5), 6, b"abcd\0xxx"),
        ("strlcat", (b"abcdexxx", b"cdef\0", 3), 7, b"abcdexxx"),
        ("strlwr", (b"aBZ[1\0x",), RAM, b"abz[1\0x"),
        ("strupr", (b"aBz{1\0x",), RAM, b"ABZ{1\0x"),
        ("itoa", (-5, b"xxxxxxxx", 10), RAM, b"-5\0xxxxx"),
        ("itoa", (-1, b"xxxxxxxxxxxx", 16), RAM, b"ffffffff\0xxx"),
        ("itoa", (0, b"xxxxxxxx", 2), RAM, b"0\0xxxxxx"),
        ("utoa", (-5, b"xxxxxxxxxxxx", 10), RAM, b"4294967291\0x"),
        ("utoa", (35, b"xxxxxxxx", 36), RAM, b"z\0xxxxxx"),
        ("utoa", (35, b"xxxxxxxx", 37), 0, b"\0xxxxxxx"),
        ("itoa", (35, b"xxxxxxxx", 1), 0, b"\0xxxxxxx"),
    ],
)
def test_what_is_written(name: str, arguments: tuple[int | bytes, ...], result: int, memory: bytes) -> None:
    program = FakeProgram()
    assert program.call(name, *arguments) == result and program.at(RAM, len(memory)) == memory


def tokens(name: str, text: bytes, delimiters: bytes) -> list[bytes | None]:
    """What repeated calls give; None for "no more"."""
    program = FakeProgram()
    program.store(RAM + 0x100, text + b"\0")
    program.store(RAM + 0x200, delimiters + b"\0")
    program.store_word(RAM + 0x300, RAM + 0x100 if name == "strsep" else 0)
    given: list[bytes | None] = []
    for turn in range(6):
        if name == "strsep":
            at = program.call(name, RAM + 0x300, RAM + 0x200)
        else:
            at = program.call(name, 0 if turn else RAM + 0x100, RAM + 0x200, RAM + 0x300)
        given.append(program.text(at) if at else None)
        if not at:
            return given
    return given


def test_tokens() -> None:
    assert tokens("strtok_r", b",a,,b,", b",") == [b"a", b"b", None]
    assert tokens("strtok_r", b"a b\tc", b" \t") == [b"a", b"b", b"c", None]
    assert tokens("strtok_r", b",,", b",") == [None]
    assert tokens("strsep", b"a,,b", b",") == [b"a", b"", b"b", None]
    assert tokens("strsep", b"", b",") == [None], "newlib's finds no empty token at the end (measured)"


@needs_libc
@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_characters(name: str) -> None:
    for code in range(128):
        assert bool(FakeProgram().call(name, code)) == bool(host(name)(code) & M32), code


def test_characters() -> None:
    for code in range(256):
        letter = chr(code) if code < 128 else ""
        assert FakeProgram().call("toupper", code) == ord(letter.upper() or chr(code))
        assert FakeProgram().call("tolower", code) == ord(letter.lower() or chr(code))
        assert FakeProgram().call("toascii", code) == code % 128
        assert bool(FakeProgram().call("isascii", code)) == (code < 128)


NUMBERS = (
    *(b"12", b"-77x", b"0x1fg", b"  +9", b"99999999999", b"-99999999999", b"0778", b"zz", b"", b"-", b"0x", b"0xg"),
    *(b"2147483648", b"-2147483648", b"4294967296", b" \t\n\v12", b"+-1", b"0b11", b"1_0"),
)


@needs_libc
@pytest.mark.parametrize("text", NUMBERS)
@pytest.mark.parametrize("base", [0, 2, 8, 10, 16, 36])
def test_numbers_in_text(text: bytes, base: int) -> None:
    """The host's `long` has 64 bits, so that the limits are put on its result."""
    buffer = ctypes.create_string_buffer(text)
    end = ctypes.c_void_p()
    value = host("strtol")(buffer, ctypes.byref(end), base)
    used = (end.value or 0) - ctypes.addressof(buffer)
    program = FakeProgram()
    signed = program.call("strtol", text + b"\0", RAM + 0x100, base)
    assert signed == max(-(1 << 31), min(value, (1 << 31) - 1)) & M32
    assert program.word(RAM + 0x100) == RAM + used
    assert program.call("strtoul", text + b"\0", 0, base) == (value & M32 if abs(value) <= M32 else M32)
    if base == 10:
        assert program.call("atoi", text + b"\0") == program.call("atol", text + b"\0") == signed


def test_absolute_values() -> None:
    for name in ("abs", "labs"):
        assert [FakeProgram().call(name, x) for x in (0, 7, -7, -(1 << 31))] == [0, 7, 7, 1 << 31]


def test_the_names_of_the_table() -> None:
    """Facts of the linker scripts, here as literal numbers."""
    known = {"rtc_get_reset_reason": 0x40000018, "ets_printf": 0x40000040, "memset": 0x40000354, "qsort": 0x40000434}
    known |= {"Cache_MMU_Init": 0x4000055C, "gpio_output_set": 0x400005B0, "crc32_le": 0x40000628}
    known |= {"__divdi3": 0x400007B4, "usb_uart_tx_one_char": 0x400008D8, "rom_i2c_writeReg": 0x4000195C}
    assert {name: ADDRESSES[name] for name in known} == known
    assert [rom_name(at) for at in known.values()] == list(known)
    assert (rom_name(0x40000356), rom_name(0x40000014), rom_name(0x400008E0)) == ("", "", "for Bluetooth")
