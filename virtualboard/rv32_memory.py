"""The ESP32-C3's memory but for flash: both views of the SRAM, RTC memory, and the mask ROM.

Knows addresses; does not know peripherals, instructions or what a ROM does. Invariant: RAM keeps what it is given and
writes elsewhere get lost, as on the chip's buses; without a ROM of its owner's every ROM function is a `ret`, so that
calls can be done by the host.

Addresses: ESP32-C3 Technical Reference Manual, chapter 3 (system and memory).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Protocol

from virtualboard.rom_elf import RomPart
from virtualboard.rv32_windows import EXECUTE, READ, address_of

SRAM0_SIZE = 0x4000
"""Only on the instruction bus; the cache takes it where it is on."""
IRAM, _DRAM, _SRAM_SIZE = 0x4037C000, 0x3FC80000, 0x64000
_RTC_RAM, _RTC_RAM_SIZE = 0x50000000, 0x2000
ROM, ROM_SIZE = 0x40000000, 0x60000
_DROM, _DROM_SIZE, _DROM_IN_ROM = 0x3FF00000, 0x20000, 0x40000
ROM_DATA = range(_DROM, _DROM + _DROM_SIZE)
FUNCTIONS = range(ROM, ROM + 0x2000)
"""Where the ROM's table of functions lies, and the entry points that firmware calls."""
_RETURN = b"\x82\x80"
_DELAY, _JAL = 0x40000050, 0x6F


class MemoryMapper(Protocol):
    """What is needed of the CPU (`rv32_cpu.Rv32Cpu`)."""

    def mem_map(self, address: int, size: int, perms: int = 7) -> None: ...
    def mem_map_ptr(self, address: int, size: int, perms: int, ptr: int) -> None: ...
    def mem_write(self, address: int, data: bytes) -> None: ...


class Memory:
    """Maps everything into `cpu` at once. `parts`: of the owner's ROM ELF; none for functions done by the host.

    `delay`: where the code of `ets_delay_us` lies, which is a `ret` in any case."""

    def __init__(self, cpu: MemoryMapper, parts: Sequence[RomPart]) -> None:
        self.sram = mmap.mmap(-1, _SRAM_SIZE)
        whole = address_of(self.sram)
        cpu.mem_map_ptr(IRAM, _SRAM_SIZE, 7, whole)
        cpu.mem_map_ptr(_DRAM, _SRAM_SIZE - SRAM0_SIZE, 7, whole + SRAM0_SIZE)
        cpu.mem_map(_RTC_RAM, _RTC_RAM_SIZE)
        self._data = [part for part in parts if self._in_sram(part.address) is not None]
        if parts:
            self._rom = mmap.mmap(-1, ROM_SIZE)
            for part in parts:
                self._burn(part)
            self.delay = self._replace_delay()
            base = address_of(self._rom)
            cpu.mem_map_ptr(ROM, ROM_SIZE, READ | EXECUTE, base)
            cpu.mem_map_ptr(_DROM, _DROM_SIZE, READ | EXECUTE, base + _DROM_IN_ROM)
        else:
            cpu.mem_map(ROM, len(FUNCTIONS), READ | EXECUTE)
            cpu.mem_write(ROM, _RETURN * (len(FUNCTIONS) // 2))
            self.delay = _DELAY

    def _replace_delay(self) -> int:
        """Where the ROM's `ets_delay_us` begins: it becomes a `ret`, since it would count cycles that take no time."""
        at = _DELAY - ROM
        word = int.from_bytes(self._rom[at : at + 4], "little")
        if word & 0x7F == _JAL:
            offset = word >> 31 << 20 | word & 0xFF000 | word >> 9 & 0x800 | word >> 20 & 0x7FE
            at += offset - (offset >> 20 << 21)
        if 0 <= at < ROM_SIZE - 2:
            self._rom[at : at + 2] = _RETURN
        return ROM + at

    def fill_rom_data(self) -> None:
        """What the ROM's start code does: its own variables get their first values."""
        for part in self._data:
            self.load(part.address, part.data)

    def load(self, address: int, data: bytes) -> None:
        """Write where there is SRAM; the rest is lost."""
        at = self._in_sram(address)
        if at is not None:
            kept = data[: _SRAM_SIZE - at]
            self.sram[at : at + len(kept)] = kept

    @staticmethod
    def _in_sram(address: int) -> int | None:
        for base, offset in ((IRAM, 0), (_DRAM, SRAM0_SIZE)):
            if 0 <= address - base < _SRAM_SIZE - offset:
                return address - base + offset
        return None

    def _burn(self, part: RomPart) -> None:
        for base, size, offset in ((ROM, ROM_SIZE, 0), (_DROM, _DROM_SIZE, _DROM_IN_ROM)):
            at = part.address - base
            if 0 <= at < size:
                kept = part.data[: size - at]
                self._rom[offset + at : offset + at + len(kept)] = kept
