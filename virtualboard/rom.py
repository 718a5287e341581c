"""What the mask ROM of a RISC-V ESP32 does at reset: read an image from flash, print its log, name the entry.

Pure: flash comes in as a `read` function, the log and the segments go out as values. Does not know a CPU, a clock or
a port. Invariant: an image that the real ROM would not start gives `entry is None`, with the log that a person would
see on the wire; whatever flash holds, a value comes back.

The texts are those of real boards' logs as published in espressif/esp-idf issues #7734 (invalid header), #9547 and
#13472 (software resets), esp-rs/esp-idf-template #27 (checksum), platformio/platform-espressif32 #622 (SHA-256). The
image format is `esp_image_format.h` of ESP-IDF. Not modelled: direct boot, secure boot, flash encryption.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

POWERON = 0x01
SW_SYS = 0x03
TG0WDT_SYS = 0x07
TG1WDT_SYS = 0x08
RTCWDT_SYS = 0x09
TG0WDT_CPU = 0x0B
SW_CPU = 0x0C
RTCWDT_CPU = 0x0D
BROWN_OUT = 0x0F
RTCWDT_RTC = 0x10
TG1WDT_CPU = 0x11

RESET_CAUSES = {
    POWERON: "POWERON",
    SW_SYS: "RTC_SW_SYS_RST",
    0x05: "DSLEEP",
    TG0WDT_SYS: "TG0WDT_SYS_RST",
    TG1WDT_SYS: "TG1WDT_SYS_RST",
    RTCWDT_SYS: "RTCWDT_SYS_RST",
    TG0WDT_CPU: "TG0WDT_CPU_RST",
    SW_CPU: "RTC_SW_CPU_RST",
    RTCWDT_CPU: "RTCWDT_CPU_RST",
    BROWN_OUT: "BROWN_OUT_RST",
    RTCWDT_RTC: "RTCWDT_RTC_RST",
    TG1WDT_CPU: "TG1WDT_CPU_RST",
    0x12: "SUPER_WDT_RST",
    0x13: "GLITCH_RTC_RST",
    0x14: "EFUSE_RST",
    0x15: "USB_UART_CHIP_RESET",
    0x16: "USB_JTAG_CHIP_RESET",
    0x17: "POWER_GLITCH_RESET",
}
"""Code of the RTC reset state register -> name in the ROM's `rst:` field (ESP-IDF, `esp32c3/rom/rtc.h`)."""

CPU_RESETS = frozenset({TG0WDT_CPU, SW_CPU, RTCWDT_CPU, TG1WDT_CPU})
"""Resets of the CPU alone: peripherals keep running."""

STRAP_FLASH = 0xC
STRAP_DOWNLOAD = 0x4

INVALID_HEADER_LINES = 8
"""Lines that the ROM prints before its watchdog ends the attempt. A guess: logs show 7 to 18 and more."""

_MAGIC = 0xE9
_MAX_SEGMENTS = 16
_CHECKSUM_SEED = 0xEF
_MODES = {0: "QIO", 1: "QOUT", 2: "DIO", 3: "DOUT"}
_CLOCK_DIVIDERS = {0xF: 1, 0: 2, 1: 3, 2: 4}
"""Low nibble of header byte 3 -> divider of 80 MHz."""


@dataclass(frozen=True, slots=True)
class RomIdentity:
    """One chip's ROM: its banner lines and where it looks for the second stage."""

    banner: str
    build: str
    image_offset: int


ESP32C3_ROM = RomIdentity("ESP-ROM:esp32c3-api1-20210207", "Build:Feb  7 2021", 0x0)


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes that the ROM copies to `address`. Addresses that are not RAM swallow the write, as on the chip."""

    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class RomBoot:
    """What a reset led to. `entry` is None when the image cannot start: the ROM then waits for its watchdog, which
    resets the chip with cause TG0WDT_SYS, and all begins again."""

    log: bytes
    segments: tuple[Segment, ...]
    entry: int | None


def _banner(rom: RomIdentity, cause: int, strap: int, mode: str) -> list[str]:
    name = RESET_CAUSES.get(cause, "UNKNOWN")
    return [rom.banner, rom.build, f"rst:{cause:#x} ({name}),boot:{strap:#x} ({mode})"]


def _text(lines: list[str]) -> bytes:
    return "".join(line + "\r\n" for line in lines).encode("ascii")


def download_log(cause: int, rom: RomIdentity = ESP32C3_ROM) -> bytes:
    """The log of a reset with the boot button held: the ROM's loader listens."""
    return _text([*_banner(rom, cause, STRAP_DOWNLOAD, "DOWNLOAD(USB/UART0/1)"), "waiting for download"])


def boot(
    read: Callable[[int, int], bytes],
    flash_size: int,
    cause: int,
    saved_pc: int = 0,
    rom: RomIdentity = ESP32C3_ROM,
) -> RomBoot:
    """Boot from flash. `read(offset, size)` gives bytes of flash; `saved_pc` is where the CPU was at the reset."""
    lines = _banner(rom, cause, STRAP_FLASH, "SPI_FAST_FLASH_BOOT")
    if cause != POWERON:
        lines.append(f"Saved PC:0x{saved_pc:08x}")
    header = read(rom.image_offset, 24)
    magic, count, mode, speed, entry, wp_pin = struct.unpack_from("<BBBBIB", header)
    if magic != _MAGIC or count > _MAX_SEGMENTS:
        (word,) = struct.unpack_from("<I", header)
        lines += [f"invalid header: 0x{word:08x}"] * INVALID_HEADER_LINES
        return RomBoot(_text(lines), (), None)
    lines.append(f"SPIWP:{wp_pin:#x}")
    lines.append(f"mode:{_MODES.get(mode, 'DIO')}, clock div:{_CLOCK_DIVIDERS.get(speed & 0xF, 2)}")

    segments: list[Segment] = []
    at = rom.image_offset + 24
    checksum = _CHECKSUM_SEED
    for _ in range(count):
        address, size = struct.unpack("<II", read(at, 8))
        lines.append(f"load:0x{address:08x},len:{size:#x}")
        if at + 8 + size > flash_size - 48:  # runs off the flash: the ROM never gets out of the copy
            return RomBoot(_text(lines), (), None)
        data = read(at + 8, size)
        segments.append(Segment(address, data))
        checksum ^= _xor_bytes(data)
        at += 8 + size

    checksum_at = rom.image_offset + ((at - rom.image_offset) | 15)
    stored = read(checksum_at, 1)[0]
    if stored != checksum:
        lines += [f"Checksum failure. Calculated 0x{checksum:02x} stored 0x{stored:02x}", "ets_main.c 333 "]
        return RomBoot(_text(lines), (), None)
    lines += _hash_warning(read, rom.image_offset, checksum_at + 1)
    lines.append(f"entry 0x{entry:08x}")
    return RomBoot(_text(lines), tuple(segments), entry)


def _hash_warning(read: Callable[[int, int], bytes], start: int, end: int) -> list[str]:
    """The C3's ROM compares always, even when the header says that no hash follows, and boots anyway."""
    calculated = hashlib.sha256(read(start, end - start)).hexdigest()
    expected = read(end, 32).hex()
    if calculated == expected:
        return []
    return [
        "SHA-256 comparison failed:",
        f"Calculated: {calculated}",
        f"Expected: {expected}",
        "Attempting to boot anyway...",
    ]


def _xor_bytes(data: bytes) -> int:
    """XOR of all bytes, by halving: a Python loop over every byte would cost more than the rest of a boot."""
    value = int.from_bytes(data, "little")
    width = 1 << max(len(data) - 1, 0).bit_length()
    while width > 1:
        width //= 2
        value = (value >> (8 * width)) ^ (value & ((1 << (8 * width)) - 1))
    return value
