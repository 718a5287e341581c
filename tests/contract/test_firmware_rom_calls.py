"""A program in the form of ESP-IDF firmware on the virtual C3: with the ROM functions that come with the board, and
with the ROM of an ELF where this machine has one (ESP_ROM_ELF_DIR).

With `ESP_IDF_FIRMWARE` naming a merged image, that is booted too, until it says `HOTPLATE_FIRMWARE_SAYS` (a regular
expression)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import firmware_build as fb

fb.need_tools()

from tests.unit.test_rom_boot import make_image  # noqa: E402
from virtualboard.board import Board  # noqa: E402
from virtualboard.chips import CHIPS  # noqa: E402
from virtualboard.machine import executing  # noqa: E402
from virtualboard.nor import NorFlash  # noqa: E402
from virtualboard.port import BoardClock, VirtualPort  # noqa: E402
from virtualboard.rom_elf import RomElf, parse_rom_elf, rom_elf_of  # noqa: E402

pytestmark = pytest.mark.needs_zig

MAC = "7c:df:a1:11:22:33"
SOURCE = Path(__file__).parents[1] / "firmware_c" / "rom_calls" / "program.c"
LINKER_SCRIPT = """
SECTIONS {
  .iram 0x40380000 : { *(.text.start) *(.text*) }
  .dram 0x3fc90000 : { *(.rodata*) *(.srodata*) *(.data*) *(.sdata*) *(.bss*) *(.sbss*) *(COMMON) LONG(0) }
  /DISCARD/ : { *(.comment) *(.riscv.attributes) *(.eh_frame*) *(.note*) }
}
"""
TRANSCRIPT = """\
hello xxxxx 5|   -7|0000beef C%
waited yes, cpu 160
crc cbf43926 div 1428
id 1640c8
mmu 0 'flash through SPI1' 0
sha bf1678ba
ticks 5 yields 5
reset reason {}
"""


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("rom_calls")
    script, unit, program = out / "program.ld", out / "program.o", out / "program.elf"
    script.write_text(LINKER_SCRIPT)
    compile_, link, _ = fb._commands("zig")
    flags = ("-Os", "-std=gnu11", "-ffreestanding", "-fno-builtin", "-fno-stack-protector", "-fno-pie", "-Wall")
    env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(out / "zig"), "ZIG_LOCAL_CACHE_DIR": str(out / "zig")}
    for argv in (
        [*compile_, *flags, "-Werror", "-c", str(SOURCE), "-o", str(unit)],
        [*link, "-T", str(script), "-e", "start", str(unit), "-o", str(program)],
    ):
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    parts = parse_rom_elf(program.read_bytes(), program).parts
    segments = [(part.address, part.data + bytes(-len(part.data) % 4)) for part in parts]
    return make_image(segments, entry=0x40380000)


def board_with(flash: NorFlash, rom_elf: RomElf | None) -> VirtualPort:
    """A board whose time only reads move: what the host is slow at does not count."""
    clock = BoardClock(lambda: 0.0)
    return VirtualPort(Board(CHIPS["esp32c3"], flash, MAC, clock.now, machine_factory=executing(rom_elf)), clock)


def read_until(port: VirtualPort, pattern: bytes) -> bytes:
    text = b""
    while not re.search(pattern, text):
        more = port.read(1)
        assert more, text.decode(errors="replace")
        text += more
    return text


def transcript(image: bytes, rom_elf: RomElf | None, times: int) -> list[str]:
    """What the program says in its first lives."""
    flash = NorFlash(0x400000)
    flash.program(0, image)
    with board_with(flash, rom_elf) as port:
        port.timeout = 5
        lives = [read_until(port, rb"reset reason \d+\r\n$") for _ in range(times)]
    return [text.decode().partition("entry 0x40380000\r\n")[2] for text in lives]


def expected(reason: int) -> str:
    return TRANSCRIPT.format(reason).replace("\n", "\r\n")


def test_with_the_functions_that_come_with_the_board(image: bytes) -> None:
    assert transcript(image, None, 2) == [expected(1), expected(3)]


def test_with_the_rom_of_an_elf(image: bytes) -> None:
    rom_elf = rom_elf_of("esp32c3", None, os.environ)
    if rom_elf is None:
        pytest.skip("there is no ROM ELF: set ESP_ROM_ELF_DIR to where Espressif's esp-rom-elfs lie")
    said = transcript(image, rom_elf, 2)
    assert [text.replace("C% ", "C%") for text in said] == [expected(1), expected(3)]


def test_esp_idf_firmware_on_the_rom_of_an_elf() -> None:
    rom_elf, given = rom_elf_of("esp32c3", None, os.environ), os.environ.get("ESP_IDF_FIRMWARE")
    if rom_elf is None or not given:
        pytest.skip("set ESP_ROM_ELF_DIR, ESP_IDF_FIRMWARE and HOTPLATE_FIRMWARE_SAYS to boot firmware of ESP-IDF's")
    flash = NorFlash(0x400000)
    flash.program(0, Path(given).read_bytes())
    says = os.environ.get("HOTPLATE_FIRMWARE_SAYS", r"cpu_start: Starting scheduler")
    with board_with(flash, rom_elf) as port:
        port.timeout = 60
        text = read_until(port, says.encode())
    assert b"Guru Meditation" not in text
