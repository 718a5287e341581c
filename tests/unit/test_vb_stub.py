"""The flasher stub: how it is recognised, and the answers of both generations as literal bytes.

Source: `src/command_handler.c` of espressif/esp-flasher-stub (2), `stub_flasher.c` and `stub_commands.c` of
espressif/esptool-legacy-flasher-stub (1).
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_vb_loader import MAC, SYNC, block, frame, fuzz, in_download, say, survives
from virtualboard import stub
from virtualboard.board import Board, Mode
from virtualboard.chips import CHIPS
from virtualboard.nor import NorFlash
from virtualboard.slip import encode
from virtualboard.timing import Timing

OHAI = "c04f484149c0"


def shipped(chip: str, generation: int) -> dict[str, str | int]:
    """A stub as the installed esptool ships it."""
    spec = importlib.util.find_spec("esptool")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0], "targets", "stub_flasher", str(generation), f"{chip}.json")
    loaded: dict[str, str | int] = json.loads(path.read_text(encoding="ascii"))
    return loaded


def upload(board: Board, generation: int, *, spoil: bool = False) -> str:
    """Upload a shipped stub as esptool does; returns the answer to MEM_END."""
    image = shipped(board.chip.name, generation)
    for name in ("text", "data"):
        data = bytearray(base64.b64decode(str(image[name])))
        data[-1] ^= spoil
        blocks = -(-len(data) // 0x1800)
        say(board, frame(0x05, struct.pack("<4I", len(data), blocks, 0x1800, int(image[f"{name}_start"]))))
        for seq in range(blocks):
            answer = say(board, block(0x07, seq, bytes(data[seq * 0x1800 : seq * 0x1800 + 0x1800])))
            assert answer.endswith("00000000c0")
    return say(board, frame(0x06, struct.pack("<II", 0, int(image["entry"]))))


def in_stub(chip: str = "esp32c3", generation: int = 2, size: int = 0x400000) -> Board:
    board = in_download(chip, size)
    assert upload(board, generation).endswith(OHAI)
    return board


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("chip", CHIPS)
def test_every_shipped_stub_is_recognised(chip: str, generation: int) -> None:
    assert upload(in_download(chip), generation) == f"c0010604000000000000000000c0{OHAI}"


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_stub_of_another_version_is_recognised_too(chip: str, generation: int) -> None:
    """With other bytes, no hash of it is known; it greets all the same, and each generation has its own errors."""
    board = in_download(chip)
    assert upload(board, generation, spoil=True) == f"c0010604000000000000000000c0{OHAI}"
    assert say(board, frame(0x77)).endswith({1: "ff00c0", 2: "c300c0"}[generation])


def test_another_program_in_ram_is_not_a_stub() -> None:
    board = in_download()
    say(board, frame(0x05, struct.pack("<4I", 64, 1, 0x1800, 0x40380000)))
    say(board, block(0x07, 0, b"O.H.A.I." * 8))
    answer = bytes.fromhex(say(board, frame(0x06, struct.pack("<II", 0, 0x40380000))))
    assert b"OHAI" not in answer
    assert b"virtualboard: the program at 0x40380000 in RAM is not executed: " in answer
    assert board.mode is Mode.RAM


RISCV_LI = "li"
XTENSA_MOVI = "movi.n"


def letters(load: str, text: bytes) -> bytes:
    """Code that loads one letter after the other, with a call between them."""
    if load == RISCV_LI:
        return b"".join(struct.pack("<I", code << 20 | 10 << 7 | 0x13) + b"\x97\x00\x00\x00" for code in text)
    return b"".join(bytes([0x0C | (code >> 4 & 7) << 4, (code & 0xF) << 4 | 10]) + b"\xe5\x12\x34" for code in text)


def slip_code(riscv: bool, values: tuple[int, ...], size: int = 0x900) -> bytes:
    """Code of a size that loads these bytes: `li a1, value` or `movi a2, value`."""
    if riscv:
        words = b"".join(struct.pack("<I", value << 20 | 11 << 7 | 0x13) for value in values)
    else:
        words = b"".join(bytes([0x22, 0xA0, value]) for value in values)
    return words.ljust(size, b"\x00")


@pytest.mark.parametrize("riscv", [True, False])
@pytest.mark.parametrize(
    ("values", "size", "known"),
    [((0xC0, 0xDB), 0x900, True), ((0xC0, 0xDC), 0x900, False), ((0xDB,), 0x900, False), ((0xC0, 0xDB), 0x7FF, False)],
)
def test_a_stub_of_which_nothing_is_known_speaks_slip(
    riscv: bool, values: tuple[int, ...], size: int, known: bool
) -> None:
    """As every stub does, of whatever tool; it is then answered for, and not executed, so that it cannot hang."""
    chip = CHIPS["esp32c3" if riscv else "esp32s3"]
    found = stub.identify(chip, 0x40380000, [slip_code(riscv, values, size), b"data"], [0x40380000, 0x3FC90BB8])
    assert (found is not None) == known
    if found:
        assert found == (1, "speaking SLIP: nothing else of it is known")


def test_a_stub_that_this_board_could_not_run_is_answered_for_on_the_c3() -> None:
    told: list[str] = []
    board = in_download()
    board.trace = told.append
    code = slip_code(True, (0xC0, 0xDB))
    say(board, frame(0x05, struct.pack("<4I", len(code), 1, 0x1800, 0x40380000)))
    say(board, block(0x07, 0, code))
    assert say(board, frame(0x06, struct.pack("<II", 0, 0x40380000))).endswith(OHAI)
    assert told == [
        "MEM_BEGIN (0x05), 16 bytes: 1 x 12 bytes",
        f"MEM_DATA (0x07), {len(code) + 16} bytes: 1 x 12 bytes",
        "MEM_END (0x06), 8 bytes: 1 x 12 bytes",
        "a flasher stub of generation 1 starts at 0x40380000, known by speaking SLIP: nothing else of it is known",
    ]


def test_the_trace_says_modes_and_what_is_no_command() -> None:
    told: list[str] = []
    board = in_download()
    board.trace = told.append
    say(board, encode(b"\x01\x02\x03"))
    say(board, frame(0x99, b"abc"))
    board.press_reset(download=False)
    assert told[:2] == ["3 bytes that are no command", "unknown command (0x99), 3 bytes: 1 x 12 bytes"]
    assert told[-2:] == ["the chip is in mode 'leaving reset'", "the chip is in mode 'run'"]


@pytest.mark.parametrize(
    ("code", "greets"),
    [
        (b"....OHAI....", True),
        (b"\x37\x55\x41\x49" + b"\x13\x05\xf5\x84", True),  # lui a0, 0x49415; addi a0, a0, -0x7b1
        (b"\x01\x00\xb7\x57\x41\x49\x01\x00\x93\x87\xf7\x84", True),  # c.nop; lui a5; c.nop; addi a5, a5
        (b"\x37\x37\x55\x41\x49" + b"\x13\x05\xf5\x84", True),  # bytes before it that look like another lui
        (b"\x37\x55\x41\x49" + b"\x93\x85\xf5\x84", False),  # another register
        (b"\x37\x55\x41\x49" + b"\x13\x05\xf5\x85", False),  # another constant
        (b"\x37\x55\x41\x49", False),
        (letters(RISCV_LI, b"OHAI"), True),  # Rust: li a0, 'O'; call ...
        (letters(RISCV_LI, b"OHIA"), False),
        (letters(XTENSA_MOVI, b"IAHO"), True),  # and compiled in reverse
        (letters(XTENSA_MOVI, b"OHAI"), False),
        (b"", False),
    ],
)
def test_what_greets(code: bytes, greets: bool) -> None:
    assert stub.greets(code) is greets


@pytest.mark.parametrize(("entry", "generation"), [(0x40380E9A, 2), (0x403806D2, 1), (0x40380000, None)])
def test_without_esptool_the_entry_point_decides(
    entry: int, generation: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert stub.recognise(CHIPS["esp32c3"], entry, [b"code"]) == generation


def test_sync_answers_eight_times_with_value_zero() -> None:
    assert say(in_stub(), SYNC) == "c0010802000000000000" + "00c0" + "c001080200000000000000c0" * 7


def test_values_are_not_left_over() -> None:
    board = in_stub()
    assert say(board, frame(0x0A, struct.pack("<I", 0x40001000))) == "c0010a02006f50311b0000c0"
    assert say(board, frame(0x0D, bytes(4))) == "c0010d0200000000000000c0"


REFUSALS = {
    "no such command": (frame(0x77), "ff00", "c300"),
    "a command of the ROM": (frame(0x0E, bytes(8)), "ff00", "c300"),
    "sync too short": (frame(0x08, bytes(35)), "dbdc00", "dbdc00"),
    "read_reg too short": (frame(0x0A, bytes(3)), "dbdc00", "dbdc00"),
    "write_reg too short": (frame(0x09, bytes(15)), "dbdc00", "c800"),
    "attach too long": (frame(0x0D, bytes(8)), "0100", "dbdc00"),
    "set_params too short": (frame(0x0B, bytes(20)), "0100", "dbdc00"),
    "baud too short": (frame(0x0F, bytes(4)), "dbdc00", "dbdc00"),
    "md5 too short": (frame(0x13, bytes(8)), "0100", "dbdc00"),
    "md5 beyond the flash": (frame(0x13, struct.pack("<4I", 0x3FFFFF, 2, 0, 0)), "0100", "c400"),
    "security info with data": (frame(0x14, bytes(4)), "0100", "dbdc00"),
    "begin too short": (frame(0x02, bytes(12)), "0100", "dbdc00"),
    "begin of too large blocks": (frame(0x10, struct.pack("<5I", 4, 1, 0x4001, 0, 0)), "c200", "0000"),
    "begin of an encrypted write": (frame(0x02, struct.pack("<5I", 16, 1, 0x4000, 0, 1)), "0100", "c400"),
    "data without begin": (block(0x03, 0, b"data"), "c600", "c600"),
    "end without begin": (frame(0x04, bytes(4)), "c600", "c600"),
    "mem_data without begin": (block(0x07, 0, b"data"), "c600", "c600"),
    "mem_end without begin": (frame(0x06, struct.pack("<II", 1, 0)), "0000", "c600"),
    "erase not at a sector": (frame(0xD1, struct.pack("<II", 0x100, 0x1000)), "0100", "dbdc00"),
    "erase of half a sector": (frame(0xD1, struct.pack("<II", 0x1000, 0x800)), "0100", "dbdc00"),
    "read too short": (frame(0xD2, bytes(12)), "dbdc00", "dbdc00"),
}


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str, generation: int) -> None:
    wire, *statuses = REFUSALS[case]
    answer = say(in_stub(generation=generation), wire)
    assert answer.endswith(f"{statuses[generation - 1]}c0"), answer
    assert answer.count("c001") == 1


@pytest.mark.parametrize("generation", [1, 2])
def test_esp32_stub_has_no_security_info_and_the_others_have(generation: int) -> None:
    assert say(in_stub("esp32", generation), frame(0x14)) == "c001140200" + "00000000" + "ff00c0"
    body = "00000000000000000000000c090000000300000000" + "00c0"
    assert say(in_stub("esp32s3", generation), frame(0x14)) == "c001141600" + "00000000" + body


def test_user_code_is_run_without_an_answer_by_generation_1_only() -> None:
    assert say(in_stub(generation=2), frame(0xD3)) == ""
    log = bytes.fromhex(say(in_stub(generation=1), frame(0xD3)))
    assert log.startswith(b"ESP-ROM:esp32c3") and b"rst:0x3 (RTC_SW_SYS_RST),boot:0xc" in log


def test_what_is_no_request_is_answered_by_generation_2() -> None:
    reply = b"\xc0\x01\x08\x00\x00\x00\x00\x00\x00\xc0"
    assert say(in_stub(generation=2), reply) == "c0010802000000000" + "0c300c0"
    assert say(in_stub(generation=1), reply) == ""


@pytest.mark.parametrize(
    ("generation", "data", "status"),
    [
        (1, b"12345", "dbdc00"),  # words only
        (2, b"12345", "0000"),
        (1, b"123456789", "c900"),  # more than announced
        (2, b"123456789", "c900"),
    ],
)
def test_ram_uploads_have_no_checksum_but_a_length(generation: int, data: bytes, status: str) -> None:
    board = in_stub(generation=generation)
    say(board, frame(0x05, struct.pack("<4I", 8, 1, 8, 0x3FC90000)))
    assert say(board, block(0x07, 7, data, check=0)).endswith(f"{status}c0")


def test_generation_1_wants_all_of_a_ram_upload() -> None:
    board = in_stub(generation=1)
    say(board, frame(0x05, struct.pack("<4I", 8, 1, 8, 0x3FC90000)))
    say(board, block(0x07, 0, b"1234"))
    assert say(board, frame(0x06, struct.pack("<II", 1, 0))).endswith("0100c0")
    say(board, block(0x07, 0, b"5678"))
    assert say(board, frame(0x06, struct.pack("<II", 1, 0))).endswith("0000c0")


def test_md5_is_raw() -> None:
    digest = hashlib.md5(b"\xff" * 16).hexdigest()
    assert say(in_stub(), frame(0x13, struct.pack("<4I", 0, 16, 0, 0))) == f"c00113120000000000{digest}0000c0"


def begin(board: Board, op: int, offset: int, size: int) -> None:
    assert say(board, frame(op, struct.pack("<5I", size, 1, 0x4000, offset, 0))).endswith("0000c0")


@pytest.mark.parametrize(
    ("wire", "one", "two"),
    [
        (block(0x03, 0, b"data", check=0), "c100", "c100"),
        (frame(0x03, struct.pack("<4I", 5, 0, 0, 0) + b"data"), "dbdc00", "c900"),
        (frame(0x03, bytes(8)), "dbdc00", "c800"),
        (frame(0x04, struct.pack("<I", 1)), "c800", "dbdc00"),  # bytes remain
    ],
)
def test_refused_blocks(wire: bytes, one: str, two: str) -> None:
    for generation, status in ((1, one), (2, two)):
        board = in_stub(generation=generation)
        begin(board, 0x02, 0x10000, 0x100)
        assert say(board, wire).endswith(f"{status}c0")


def test_a_block_may_be_sent_again_after_a_bad_checksum() -> None:
    board = in_stub()
    begin(board, 0x02, 0x10010, 4)
    assert say(board, block(0x03, 0, b"data", check=0)).endswith("c100c0")
    assert say(board, block(0x03, 0, b"data" + b"\xff" * 100)).endswith("0000c0")
    assert say(board, frame(0x04, struct.pack("<I", 1))).endswith("0000c0")
    assert board.flash.read(0x1000E, 8) == b"\xff\xffdata\xff\xff"


@pytest.mark.parametrize("generation", [1, 2])
def test_sectors_are_erased_as_the_bytes_arrive_and_no_further(generation: int) -> None:
    board = in_stub(generation=generation)
    board.flash.program(0, bytes(0x5000))
    begin(board, 0x02, 0x1800, 0x2000)
    # Generation 2 erases the first sector while it waits for the first block.
    assert board.flash.read(0x1000, 0x1000) == (bytes(0x1000) if generation == 1 else b"\xff" * 0x1000)
    assert board.flash.read(0x2000, 0x3000) == bytes(0x3000)
    say(board, block(0x03, 0, b"a" * 0x100))
    assert board.flash.read(0x1000, 0x1000) == b"\xff" * 0x800 + b"a" * 0x100 + b"\xff" * 0x700
    assert board.flash.read(0x2000, 0x3000) == bytes(0x3000)


def test_aligned_blocks_of_64_kib_are_erased_at_once() -> None:
    board = in_stub()
    board.flash.program(0, bytes(0x40000))
    begin(board, 0x02, 0xF000, 0x12000)
    for sector in range(2):
        say(board, block(0x03, sector, b"a" * 0x1000))
    assert board.flash.read(0xF000, 0x11000) == b"a" * 0x2000 + b"\xff" * 0xF000
    assert board.flash.read(0x20000, 0x1000) == bytes(0x1000)


@pytest.mark.parametrize("generation", [1, 2])
def test_inflated_bytes_reach_the_flash_by_32_kib(generation: int) -> None:
    board = in_stub(generation=generation)
    image = hashlib.shake_256(b"noise").digest(0xA000)
    packed = zlib.compress(image, 9)
    begin(board, 0x10, 0x10000, len(image))
    say(board, block(0x11, 0, packed[:0x7000]))
    assert board.flash.read(0x10000, 4) == b"\xff" * 4
    say(board, block(0x11, 1, packed[0x7000:0x9000]))
    assert board.flash.read(0x10000, 0xA000) == image[:0x8000] + b"\xff" * 0x2000
    say(board, block(0x11, 2, packed[0x9000:]))
    assert board.flash.read(0x10000, 0xA000) == image
    assert say(board, frame(0x12, struct.pack("<I", 1))).endswith("0000c0")


def test_a_write_error_is_the_answer_to_the_next_command() -> None:
    board = in_stub()
    begin(board, 0x10, 0x10000, 0x1000)
    assert say(board, block(0x11, 0, b"garbage")).endswith("0000c0")
    assert say(board, frame(0xD0)).endswith("c700c0")
    board.flash.program(0, b"kept")  # the erase above was not executed, the next one is
    assert say(board, frame(0xD0)).endswith("0000c0")
    assert board.flash.read(0, 4) == b"\xff" * 4


def test_generation_1_keeps_a_write_error_for_the_commands_of_that_write() -> None:
    board = in_stub(generation=1)
    begin(board, 0x10, 0x10000, 0x1000)
    assert say(board, block(0x11, 0, b"garbage")).endswith("0000c0")
    assert say(board, frame(0x0D, bytes(4))).endswith("0000c0")
    for _ in range(2):
        assert say(board, block(0x11, 1, b"more")).endswith("c700c0")
    begin(board, 0x10, 0x10000, 4)
    assert say(board, block(0x11, 0, zlib.compress(b"data"))).endswith("0000c0")
    assert say(board, frame(0x12, struct.pack("<I", 1))).endswith("0000c0")


def test_generation_1_tells_at_the_end_that_the_stream_was_short() -> None:
    board = in_stub(generation=1)
    begin(board, 0x10, 0x10000, 100)
    assert say(board, block(0x11, 0, zlib.compress(b"short"))).endswith("0000c0")
    assert say(board, block(0x11, 1, b"")).endswith("c800c0")
    assert say(board, frame(0x12, struct.pack("<I", 1))).endswith("c800c0")


def test_a_block_after_the_end_of_the_stream_is_too_much() -> None:
    board = in_stub()
    begin(board, 0x10, 0x10000, 4)
    say(board, block(0x11, 0, zlib.compress(b"data")))
    assert say(board, block(0x11, 1, b"more")).endswith("c900c0")


def test_block_number_zero_starts_the_inflater_again() -> None:
    board = in_stub()
    packed = zlib.compress(b"x" * 100)
    begin(board, 0x10, 0x10000, 100)
    say(board, block(0x11, 0, packed[:2]))
    say(board, block(0x11, 0, packed))
    assert say(board, frame(0x12, struct.pack("<I", 1))).endswith("0000c0")
    assert board.flash.read(0x10000, 101) == b"x" * 100 + b"\xff"


def test_a_read_sends_one_block_per_acknowledgement_and_then_the_md5() -> None:
    board = in_stub()
    board.flash.program(0x1000, b"hello")
    answer = say(board, frame(0xD2, struct.pack("<4I", 0x1000, 6, 4, 64)))
    assert answer == "c001d20200000000000000c0" + "c0" + b"hell".hex() + "c0"
    assert say(board, b"\xc0\x04\x00\x00\x00\xc0") == "c0" + b"o\xff".hex() + "c0"
    assert say(board, b"\xc0\x06\x00\x00\x00\xc0") == "c0" + hashlib.md5(b"hello\xff").hexdigest() + "c0"
    assert say(board, SYNC).startswith("c00108")


def test_generation_1_sends_on_when_all_but_its_window_is_acknowledged() -> None:
    board = in_stub(generation=1)
    say(board, frame(0xD2, struct.pack("<4I", 0x1000, 12, 4, 1)))
    assert say(board, b"\xc0\x03\x00\x00\x00\xc0") == ""
    assert say(board, b"\xc0\x04\x00\x00\x00\xc0") == "c0ffffffffc0"
    md5 = hashlib.md5(b"\xff" * 8).hexdigest()
    assert say(board, b"\xc0\x09\x00\x00\x00\xc0") == f"c0{md5}c0"  # more than was sent: it gives up


def test_generation_1_with_a_window_of_64_bytes_has_small_blocks_in_flight() -> None:
    answer = say(in_stub(generation=1), frame(0xD2, struct.pack("<4I", 0x1000, 200, 16, 64)))
    assert answer == "c001d20200000000000000c0" + ("c0" + "ff" * 16 + "c0") * 4


def test_generation_2_counts_acknowledgements_and_ends_at_the_last_byte() -> None:
    board = in_stub()
    say(board, frame(0xD2, struct.pack("<4I", 0x1000, 8, 4, 64)))
    assert say(board, b"\xc0\x03\x00\x00\x00\xc0") == "c0ffffffffc0"
    assert say(board, b"\xc0\x07\x00\x00\x00\xc0") == ""
    assert say(board, b"\xc0\x08\x00\x00\x00\xc0") == "c0" + hashlib.md5(b"\xff" * 8).hexdigest() + "c0"


def test_an_empty_read_is_a_digest() -> None:
    answer = say(in_stub(), frame(0xD2, struct.pack("<4I", 0, 0, 0x1000, 64)))
    assert answer == "c001d20200000000000000c0c0d41d8cd98f00b204e9800998ecf8427ec0"


def test_a_read_of_too_large_blocks_brings_nothing_but_an_error_later() -> None:
    board = in_stub()
    assert say(board, frame(0xD2, struct.pack("<4I", 0, 0x2000, 0x1001, 64))) == "c001d20200000000000000c0"
    assert say(board, frame(0x0D, bytes(4))).endswith("dbdc00c0")
    assert say(board, frame(0x0D, bytes(4))).endswith("0000c0")


def test_while_it_writes_an_acknowledged_block_it_hears_nothing() -> None:
    now = [0.0]
    timing = Timing(jump_s=0.0, erase_sector_s=0.05, program_page_s=0.01)
    board = Board(CHIPS["esp32c3"], NorFlash(0x400000), MAC, lambda: now[0], execute=False, timing=timing)
    board.power_on()
    board.set_lines(False, True)
    board.set_lines(True, False)
    board.transmit()
    assert upload(board, 2).endswith(OHAI)
    begin(board, 0x02, 0x10000, 0x200)
    assert say(board, block(0x03, 0, b"x" * 0x100)).endswith("0000c0")
    assert say(board, SYNC) == ""
    assert board.wake_at() == pytest.approx(0.06)
    now[0] = 0.07
    board.advance()
    assert board.transmit().startswith(b"\xc0\x01\x08")


@pytest.mark.parametrize(("generation", "heard"), [(1, ""), (2, "c001080200000000000000c0" * 8)])
def test_a_command_ends_a_read_with_the_digest_of_what_was_sent(generation: int, heard: str) -> None:
    board = in_stub(generation=generation)
    say(board, frame(0xD2, struct.pack("<4I", 0, 0x2000, 0x1000, 64)))
    assert say(board, SYNC) == f"c0{hashlib.md5(bytes([255] * 0x1000)).hexdigest()}c0" + heard
    assert say(board, SYNC) == "c001080200000000000000c0" * 8


@pytest.mark.parametrize(("generation", "value"), [(1, "07071220"), (2, "00000000")])
def test_only_the_first_generation_goes_back_to_the_rom(generation: int, value: str) -> None:
    board = in_stub(generation=generation)
    begin(board, 0x02, 0, 0)
    say(board, frame(0x04, struct.pack("<I", 0)))
    assert say(board, SYNC)[10:18] == value


@given(st.sampled_from([1, 2]), st.lists(fuzz, max_size=8))
def test_no_client_upsets_the_stub(generation: int, pieces: list[bytes]) -> None:
    survives(lambda: in_stub(generation=generation, size=0x4000), pieces)
