"""The mask ROM's ELF: found, read, refused; and what it is like to run on it, with a ROM of our own."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.elf_bytes import elf
from virtualboard.chip_table import chip_named
from virtualboard.machine import rom_of
from virtualboard.rom_elf import RomElfError, RomPart, find_rom_elf, load_rom_elf, parse_rom_elf, rom_elf_of

WHERE = Path("rom.elf")


def test_parts_are_what_is_loaded() -> None:
    data = elf((0x40000000, b"text"), (0x3FCDF060, b"data", 0x40050000), (0x3FCE0000, b""))
    parts = parse_rom_elf(data, WHERE).parts
    assert parts == (RomPart(0x40000000, b"text"), RomPart(0x3FCDF060, b"data"), RomPart(0x40050000, b"data"))


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "unpack|magic"),
        (b"\x7fELG" + bytes(60), "does not begin with the ELF magic"),
        (elf((0, b"x"), bits=2), "class 2 and byte order 1 are not 32 bits, little-endian"),
        (elf((0, b"x"), order=2), "class 1 and byte order 2 are not"),
        (elf((0x40000000, b"x"), machine=94), "it is for machine 94, and RISC-V is 243"),
        (elf((0x40000000, b"text"))[:-1], "lie beyond the end of the file"),
        (elf(), "the ELF has nothing to load"),
    ],
)
def test_what_is_no_rom_is_refused(data: bytes, fact: str) -> None:
    with pytest.raises(RomElfError, match=fact) as error:
        parse_rom_elf(data, WHERE)
    assert str(error.value).startswith("rom.elf: error: ")
    assert "\nInstall Espressif's esp-rom-elfs" in str(error.value)


@given(st.integers(0, 600), st.integers(0, 599), st.integers(0, 255))
def test_damage_never_raises_anything_else(length: int, at: int, value: int) -> None:
    data = bytearray(elf((0x40000000, b"t" * 200), (0x3FF00000, b"d" * 200), (0x3FCDF060, b"v" * 40)))
    data[at % len(data)] = value
    try:
        parts = parse_rom_elf(bytes(data[:length]), WHERE).parts
    except RomElfError:
        return
    assert all(len(part.data) <= length for part in parts)


def test_the_newest_revision_is_taken(tmp_path: Path) -> None:
    for name in ("esp32c3_rev3_rom.elf", "esp32c3_rev10_rom.elf", "esp32c3_rev0_rom.elf", "esp32c6_rev90_rom.elf", "x"):
        (tmp_path / name).write_bytes(elf((0x40000000, name.encode())))
    found = find_rom_elf("esp32c3", tmp_path)
    assert found == tmp_path / "esp32c3_rev10_rom.elf"
    assert find_rom_elf("esp32p4", tmp_path) is None and find_rom_elf("esp32c3", tmp_path / "none") is None


def test_a_named_file_wins_over_the_environment(tmp_path: Path) -> None:
    there, named = tmp_path / "esp32c3_rev3_rom.elf", tmp_path / "mine.elf"
    there.write_bytes(elf((0x40000000, b"there")))
    named.write_bytes(elf((0x40000000, b"named")))
    environment = {"ESP_ROM_ELF_DIR": str(tmp_path)}

    def text(rom: object) -> bytes:
        return rom.parts[0].data  # type: ignore[attr-defined, no-any-return]

    assert text(rom_elf_of("esp32c3", None, environment)) == b"there"
    assert text(rom_elf_of("esp32c3", named, environment)) == b"named"
    assert rom_elf_of("esp32c3", None, {}) is None and rom_elf_of("esp32c6", None, environment) is None


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RomElfError, match="cannot read the ROM ELF: No such file"):
        load_rom_elf(tmp_path / "none.elf")
    with pytest.raises(RomElfError, match="cannot read the ROM ELF: Is a directory"):
        load_rom_elf(tmp_path)


def test_only_a_chip_that_executes_has_one(tmp_path: Path) -> None:
    file = tmp_path / "esp32_rev300_rom.elf"
    file.write_bytes(elf((0x40000000, b"x"), machine=94))
    assert rom_of(chip_named("esp32"), None, {"ESP_ROM_ELF_DIR": str(tmp_path)}) is None
    with pytest.raises(RomElfError, match="a virtual ESP32 executes nothing\nLeave the ROM ELF out"):
        rom_of(chip_named("esp32"), file, {})
    with pytest.raises(RomElfError, match="machine 94"):
        rom_of(chip_named("esp32c3"), file, {})


# --- a ROM of our own -------------------------------------------------------------------------------

pytest.importorskip("unicorn", reason="unicorn is not installed")

from tests.unit.test_rom_boot import make_image  # noqa: E402
from tests.unit.test_rv32 import A0, CODE, HERE, INTERRUPTS_OFF, RA, T0, T1, UART, call, li, load, pack, send  # noqa: E402
from virtualboard import rom  # noqa: E402
from virtualboard.nor import NorFlash  # noqa: E402
from virtualboard.rv32 import Rv32Machine  # noqa: E402

RETURN = RA << 15 | 0x67
MEMSET, INSTALL, DELAY = 0x40000354, 0x40000048, 0x40000050
FUNCTION, COUNT, CONSTANT = 0x40003000, 0x3FCDF700, 0x3FF00010


def jump_to(at: int, target: int) -> int:
    offset = target - at
    return (offset >> 20 & 1) << 31 | (offset >> 1 & 0x3FF) << 21 | (offset >> 11 & 1) << 20 | offset & 0xFF000 | 0x6F


def own_rom() -> bytes:
    """A table of functions as the real ROM has it, `memset` that says "m", `ets_install_uart_printf` that says "i" and
    counts in the ROM's data, and a delay that never ends."""
    table = bytearray(0x2000)
    for at, target in ((MEMSET, FUNCTION), (INSTALL, FUNCTION + 0x100), (DELAY, FUNCTION + 0x200)):
        struct.pack_into("<I", table, at - 0x40000000, jump_to(at, target))
    code = bytearray(0x300)
    functions = {
        0: [*li(A0, ord("m")), *send(A0), RETURN],
        0x100: [
            *(*li(A0, ord("i")), *send(A0), *load(A0, COUNT), 1 << 20 | A0 << 15 | A0 << 7 | 0x13),
            *(*li(T0, COUNT), A0 << 20 | T0 << 15 | 2 << 12 | 0x23, RETURN),
        ],
        0x200: HERE,
    }
    for at, words in functions.items():
        struct.pack_into(f"<{len(words)}I", code, at, *words)
    text, constants = ((0x40000000, bytes(table)), (FUNCTION, bytes(code))), (0x3FF00000, bytes(16) + b"Q")
    return elf(*text, constants, (COUNT, struct.pack("<I", 40), 0x40050000))


def machine_with(program: list[int]) -> Rv32Machine:
    flash = NorFlash(0x40000)
    flash.program(0, make_image([(CODE, pack([INTERRUPTS_OFF, *program]))], entry=CODE))
    machine = Rv32Machine(flash, {}, lambda: 0.0, parse_rom_elf(own_rom(), WHERE))
    machine.reset(rom.POWERON)
    return machine


def after_the_log(machine: Rv32Machine) -> bytes:
    machine.run(20_000)
    log, _, rest = machine.transmit().partition(b"entry 0x40380000\r\n")
    assert log
    return rest


def test_functions_and_data_are_those_of_the_elf() -> None:
    program = [
        *call(MEMSET),
        *load(A0, CONSTANT),
        *send(A0),
        *load(A0, 0x40040010),
        *send(A0),
        *load(A0, COUNT),
        *send(A0),
    ]
    assert after_the_log(machine_with([*program, *HERE])) == b"imQQ)", "41: the ROM counted from its data's first value"


def test_data_begins_anew_at_each_reset_and_its_copy_is_in_the_rom() -> None:
    machine = machine_with([*load(A0, COUNT), *send(A0), *load(A0, 0x40050000), *send(A0), *HERE])
    assert after_the_log(machine) == b"i)("
    machine.reset(rom.SW_CPU)
    assert after_the_log(machine) == b"i)("


def test_a_delay_of_the_rom_takes_time_and_no_instructions() -> None:
    machine = machine_with([*li(A0, 2000), *call(DELAY), *li(A0, ord("d")), *send(A0), *HERE])
    executed = sum(machine.run(1000) for _ in range(4))
    assert executed >= 2000 * 160, "2 ms of 160 MHz"
    assert b"d" in after_the_log(machine)


def test_a_call_beyond_the_elf_is_code_that_is_not_there() -> None:
    handler = [*li(T1, 0x40380101), 0x305 << 20 | T1 << 15 | 1 << 12 | 0x73]
    flash = NorFlash(0x40000)
    code = pack([INTERRUPTS_OFF, *handler, *call(0x4005FF00)]).ljust(0x100, b"\0")
    trap = pack([0x342 << 20 | 2 << 12 | A0 << 7 | 0x73, *send(A0), *HERE])
    flash.program(0, make_image([(CODE, code + trap)], entry=CODE))
    machine = Rv32Machine(flash, {}, lambda: 0.0, parse_rom_elf(own_rom(), WHERE))
    machine.remarks = True
    machine.reset(rom.POWERON)
    assert after_the_log(machine) == b"i\x02", "illegal instruction: zeros are no code"
    assert UART == 0x60000000
