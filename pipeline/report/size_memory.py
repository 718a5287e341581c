"""Which memory a section of a program takes, by the chip's memory map.

Pure; the one table of address ranges, apart from `chips.py` since only sizes need it and every warm run reads that.
Sources: the memory maps of esptool's targets and of the chips' technical reference manuals. Does not know ELF files or
budgets. Invariant: every chip of `chips.CHIPS` has a map, whose ranges do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.formats.elf import LoadedSection

CODE, RODATA, IRAM, DATA, BSS, RTC, PSRAM = (
    *("flash_code", "flash_rodata", "iram", "dram_data", "dram_bss", "rtc", "psram"),
)
RESERVED, OTHER = "reserved", "other"
MEMORIES = (CODE, RODATA, IRAM, DATA, BSS, RTC, PSRAM, OTHER, RESERVED)
"""In the order in which they are shown. `reserved`: addresses alone, behind which there is no memory of its own
(ESP-IDF keeps the two buses of one memory apart so); it counts nowhere."""


class MemoryRange(NamedTuple):
    """Addresses of one kind of memory: `code`, `rodata` and `flash` (both) are windows into flash, `iram`, `dram` and
    `ram` (both) memory of the chip, `rtc` what stays on in sleep, `psram` outside the chip."""

    kind: str
    start: int
    end: int


_LATER_RTC = MemoryRange("rtc", 0x50000000, 0x50004000)


def _one_bus(flash: int, ram: int) -> tuple[MemoryRange, ...]:
    """Of the chips whose instruction and data bus see the same memory at the same addresses."""
    return (MemoryRange("flash", 0x42000000, flash), MemoryRange("ram", 0x40800000, ram), _LATER_RTC)


MEMORY_MAPS: Mapping[str, tuple[MemoryRange, ...]] = MappingProxyType(
    {
        "esp32": (
            MemoryRange("rodata", 0x3F400000, 0x3F800000),
            MemoryRange("psram", 0x3F800000, 0x3FC00000),
            MemoryRange("rtc", 0x3FF80000, 0x3FF82000),
            MemoryRange("dram", 0x3FFAE000, 0x40000000),
            MemoryRange("iram", 0x40070000, 0x400C0000),
            MemoryRange("rtc", 0x400C0000, 0x400C2000),
            MemoryRange("code", 0x400D0000, 0x40400000),
            MemoryRange("rtc", 0x50000000, 0x50002000),
        ),
        "esp32s2": (
            MemoryRange("rodata", 0x3F000000, 0x3F500000),
            MemoryRange("psram", 0x3F500000, 0x3FF80000),
            MemoryRange("rtc", 0x3FF9E000, 0x3FFA0000),
            MemoryRange("dram", 0x3FFB0000, 0x40000000),
            MemoryRange("iram", 0x40020000, 0x40070000),
            MemoryRange("rtc", 0x40070000, 0x40072000),
            MemoryRange("code", 0x40080000, 0x40800000),
            MemoryRange("rtc", 0x50000000, 0x50002000),
        ),
        "esp32s3": (
            MemoryRange("rodata", 0x3C000000, 0x3D000000),
            MemoryRange("psram", 0x3D000000, 0x3E000000),
            MemoryRange("dram", 0x3FC88000, 0x3FD00000),
            MemoryRange("iram", 0x40370000, 0x403E0000),
            MemoryRange("code", 0x42000000, 0x44000000),
            MemoryRange("rtc", 0x50000000, 0x50002000),
            MemoryRange("rtc", 0x600FE000, 0x60100000),
        ),
        "esp32c2": (
            MemoryRange("rodata", 0x3C000000, 0x3C400000),
            MemoryRange("dram", 0x3FCA0000, 0x3FCE0000),
            MemoryRange("iram", 0x4037C000, 0x403C0000),
            MemoryRange("code", 0x42000000, 0x42400000),
        ),
        "esp32c3": (
            MemoryRange("rodata", 0x3C000000, 0x3C800000),
            MemoryRange("dram", 0x3FC80000, 0x3FCE0000),
            MemoryRange("iram", 0x4037C000, 0x403E0000),
            MemoryRange("code", 0x42000000, 0x42800000),
            MemoryRange("rtc", 0x50000000, 0x50002000),
        ),
        "esp32c5": _one_bus(0x44000000, 0x40860000),
        "esp32c6": _one_bus(0x43000000, 0x40880000),
        "esp32c61": _one_bus(0x44000000, 0x40860000),
        "esp32h2": _one_bus(0x43000000, 0x40880000),
        "esp32p4": (
            MemoryRange("iram", 0x30100000, 0x30102000),
            MemoryRange("flash", 0x40000000, 0x48000000),
            MemoryRange("psram", 0x48000000, 0x4C000000),
            MemoryRange("ram", 0x4FF00000, 0x4FFC0000),
            MemoryRange("rtc", 0x50108000, 0x50110000),
        ),
    }
)


def memory_of(chip: str, section: LoadedSection) -> str:
    """A name of `MEMORIES`. A section is judged by where it begins."""
    kind = next((row.kind for row in MEMORY_MAPS[chip] if row.start <= section.address < row.end), "")
    if not section.has_bytes and (kind in ("code", "rodata", "flash") or ".dummy" in section.name):
        return RESERVED
    if kind in ("code", "rodata", "flash"):
        return CODE if section.executable else RODATA
    if kind in ("iram", "rtc", "psram"):
        return kind
    if kind in ("dram", "ram"):
        executable = kind == "ram" and section.executable
        return IRAM if executable else DATA if section.has_bytes else BSS
    return OTHER
