"""What the mask ROM does at reset: read an image from flash, print its log, name the entry.

Pure: flash comes in as a `read` function, the log and the segments go out as values. Does not know a CPU, a clock or
a port. Invariant: an image that the real ROM would not start gives `entry is None`, with the log that a person would
see on the wire; whatever flash holds, a value comes back.

The texts are those of real boards' logs. ESP32-C3: espressif/esp-idf issues #7734 (invalid header), #9547 and #13472
(software resets), esp-rs/esp-idf-template #27 (checksum), platformio/platform-espressif32 #622 (SHA-256). ESP32-S3:
esp-idf #10692 (checksum, the ROM's line number, saved PC), espressif/arduino-esp32 #7011 (SHA-256). ESP32 revision 3:
esp-idf #13208 (invalid header, eight lines), lmarzen/esp32-weather-epd #142 (good boot), and `csum err:` with
`ets_main.c 384` in several. The image format is `esp_image_format.h` of ESP-IDF.

What is refused, and with which words, was measured on the real ROMs of ESP32 and ESP32-C3 under an emulator, one
damaged image after the other; an ESP32-S3 is taken to do as the C3 does, with the line numbers of its own logs
(esp-idf #7821, lumapu/ahoy #1143). The order of the refusals is that of logs: a wrong chip id comes before `SPIWP`, a
wrong block behind its `load:` line. None of these ROMs reads the header's revisions: second stages do, and esptool.
Not modelled: direct boot, secure boot, flash encryption, and the BASIC in which an ESP32 ends after a refusal where
CONSOLE_DEBUG_DISABLE is not burnt, which no module leaves its factory without.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from virtualboard.named_values import NamedValues

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

RESET_CAUSES: Mapping[int, str] = MappingProxyType(
    {
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
)
"""Code of the RTC reset state register -> name in the `rst:` field (ESP-IDF, `esp32c3/rom/rtc.h`, also ESP32-S3's)."""

ESP32_RESET_CAUSES: Mapping[int, str] = MappingProxyType(
    {
        POWERON: "POWERON_RESET",
        SW_SYS: "SW_RESET",
        0x04: "OWDT_RESET",
        0x05: "DEEPSLEEP_RESET",
        0x06: "SDIO_RESET",
        TG0WDT_SYS: "TG0WDT_SYS_RESET",
        TG1WDT_SYS: "TG1WDT_SYS_RESET",
        RTCWDT_SYS: "RTCWDT_SYS_RESET",
        0x0A: "INTRUSION_RESET",
        TG0WDT_CPU: "TGWDT_CPU_RESET",
        SW_CPU: "SW_CPU_RESET",
        RTCWDT_CPU: "RTCWDT_CPU_RESET",
        0x0E: "EXT_CPU_RESET",
        BROWN_OUT: "RTCWDT_BROWN_OUT_RESET",
        RTCWDT_RTC: "RTCWDT_RTC_RESET",
    }
)
"""The ESP32's names (ESP-IDF, `esp32/rom/rtc.h`)."""

CPU_RESETS = frozenset({TG0WDT_CPU, SW_CPU, RTCWDT_CPU, TG1WDT_CPU})
"""Resets of the CPU alone: peripherals keep running."""

INVALID_HEADER_LINES = 8
"""Lines that the ROM prints before its watchdog ends the attempt: an ESP32's logs show 8, a C3's 7 to 18 and more."""

_MAGIC = 0xE9
_MAX_SEGMENTS = 16
_CHECKSUM_SEED = 0xEF
_MAX_HEADER_SEGMENTS = 32
"""From 33 on the header is no header, on both kinds of ROM."""
_MAX_LENGTH = 1 << 24
_PAGE = 0x10000
_BLOCK = 16
_MODES = ("QIO", "QOUT", "DIO", "DOUT", "FAST_RD", "SLOW_RD", "OPI_STR", "OPI_DTR", "OOUT", "OIO_STR", "OIO_DTR")
_CLASSIC_MODES = 6
_CLOCK_DIVIDERS = {0xF: 1, 0: 2, 1: 3, 2: 4}
"""Low nibble of header byte 3 -> divider of 80 MHz."""


class RomIdentity(NamedValues):
    """One chip's ROM. `banner`: the lines before `rst:`; `flash_boot`, `download`: what follows `boot:`.

    `classic`: the ESP32's older loader, which prints pin settings and decimal lengths and knows no hash.
    `assertion`: what ends a boot after a refusal. `ram`: from, to of the memory that the ROM itself needs, empty where
    that is not known. `code`: where there is memory for an entry point, nothing where the CPU finds out itself.
    `pins`: whether pin settings are printed; `mode_prefix`: what comes before `mode:`; `cores`: how many saved PCs.
    `saved_pc` is where the ROM waits for the watchdog, which bites with `retry_cause` after `retry_s` seconds; a C3 has
    its own watchdogs (`rv32_peripherals`).
    """

    chip_id: int
    banner: tuple[str, ...]
    image_offset: int
    flash_boot: str
    download: str
    assertion: str
    retry_s: float
    retry_cause: int = TG0WDT_SYS
    saved_pc: int = 0
    causes: Mapping[int, str] = RESET_CAUSES
    classic: bool = False
    pins: bool = True
    mode_prefix: str = ""
    cores: int = 1
    ram: range = range(0)
    code: tuple[range, ...] = ()


ESP32C3_ROM = RomIdentity(
    chip_id=5,
    ram=range(0x3FCDE160, 0x3FCDF664),
    banner=("ESP-ROM:esp32c3-api1-20210207", "Build:Feb  7 2021"),
    image_offset=0x0,
    flash_boot="0xc (SPI_FAST_FLASH_BOOT)",
    download="0x4 (DOWNLOAD(USB/UART0/1))",
    assertion="ets_main.c 333 ",
    retry_s=0.65,  # 26,000,000 ticks of 40 MHz, the reset value of TIMG0's watchdog in flash boot mode
    saved_pc=0x40047ED2,
)

ESP32S3_ROM = RomIdentity(
    chip_id=9,
    banner=("ESP-ROM:esp32s3-20210327", "Build:Mar 27 2021"),
    image_offset=0x0,
    flash_boot="0x8 (SPI_FAST_FLASH_BOOT)",
    download="0x0 (DOWNLOAD(USB/UART0))",
    assertion="ets_main.c 329 ",
    retry_s=0.65,  # as the C3
    saved_pc=0x40043AC8,
)

ESP32_ROM = RomIdentity(
    chip_id=0,
    # All memory on either bus, and the window to flash: what code does there is not known here (TRM, address mapping).
    code=(range(0x3FF80000, 0x40C00000), range(0x50000000, 0x50002000)),
    banner=("ets Jul 29 2019 12:21:46", ""),
    image_offset=0x1000,
    flash_boot="0x13 (SPI_FAST_FLASH_BOOT)",
    download="0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))",
    assertion="ets_main.c 384 ",
    retry_s=0.4,  # by the time stamps of esphome/issues #632
    retry_cause=RTCWDT_RTC,
    causes=ESP32_RESET_CAUSES,
    classic=True,
)


class RomSegment(NamedValues):
    """Bytes that the ROM copies to `address`. Addresses that are not RAM swallow the write, as on the chip."""

    address: int
    data: bytes


class RomBoot(NamedValues):
    """What a reset led to. `entry` is None when the image cannot start: the ROM then waits for its watchdog, which
    resets the chip, and all begins again."""

    log: bytes
    segments: tuple[RomSegment, ...]
    entry: int | None


def _banner(rom: RomIdentity, cause: int, strap: str) -> list[str]:
    return [*rom.banner, f"rst:{cause:#x} ({rom.causes.get(cause, 'UNKNOWN')}),boot:{strap}"]


def _text(lines: list[str]) -> bytes:
    return "".join(line + "\r\n" for line in lines).encode("ascii")


def download_log(cause: int, rom: RomIdentity = ESP32C3_ROM) -> bytes:
    """The log of a reset with the boot button held: the ROM's loader listens."""
    return _text([*_banner(rom, cause, rom.download), "waiting for download"])


def boot(
    read: Callable[[int, int], bytes],
    flash_size: int,
    cause: int,
    saved_pc: int = 0,
    rom: RomIdentity = ESP32C3_ROM,
) -> RomBoot:
    """Boot from flash. `read(offset, size)` gives bytes of flash; `saved_pc` is where the CPU was at the reset."""
    lines = _banner(rom, cause, rom.flash_boot)
    if cause != POWERON and not rom.classic:
        names = [f"Core{core} " for core in range(rom.cores)] if rom.cores > 1 else [""]
        lines += [f"{name}Saved PC:0x{saved_pc:08x}" for name in names]
    header = b"\xff" * 24 if rom.image_offset + 24 > flash_size else read(rom.image_offset, 24)
    refusal = _header_refusal(rom, header)
    if refusal:
        return RomBoot(_text(lines + refusal), (), None)
    _, count, mode, speed, entry = struct.unpack_from("<BBBBI", header)
    lines += _pin_lines(rom, header)
    lines.append(f"{rom.mode_prefix}mode:{_MODES[mode]}, clock div:{_CLOCK_DIVIDERS.get(speed & 0xF, 1)}")
    if count > _MAX_SEGMENTS and not rom.classic:
        lines += [f"Invalid image block count: {count} (max {_MAX_SEGMENTS})", rom.assertion]
        return RomBoot(_text(lines), (), None)

    segments: list[RomSegment] = []
    at = rom.image_offset + 24
    checksum = _CHECKSUM_SEED
    for number in range(count):
        address, size = struct.unpack("<II", read(at, 8))
        lines += _page_lines(rom, at, at + 8)
        refusal = _segment_refusal(rom, address, size)
        if refusal:
            return RomBoot(_text(lines + refusal), (), None)
        lines.append(f"load:0x{address:08x},len:{_length(rom, size)}")
        if at + 8 + size > flash_size - 48:  # runs off the flash: the ROM never gets out of the copy
            lines += _page_lines(rom, at + 8, min(at + 8 + size, flash_size))
            return RomBoot(_text(lines), (), None)
        data = read(at + 8, size)
        segments.append(RomSegment(address, data))
        checksum ^= _xor_bytes(data)
        at += 8 + size
        lines += _page_lines(rom, at - size, at)
        if rom.classic and number < count - 1:
            lines += _block_line(at - size, size)

    checksum_at = rom.image_offset + ((at - rom.image_offset) | 15)
    stored = read(checksum_at, 1)[0]
    if stored != checksum:
        lines += [_checksum_line(rom, checksum, stored), rom.assertion]
        return RomBoot(_text(lines), (), None)
    if not rom.classic:
        lines += _hash_warning(read, rom.image_offset, checksum_at + 1)
    lines.append(f"entry 0x{entry:08x}")
    if rom.code and not any(entry in memory for memory in rom.code):
        return RomBoot(_text([*lines, *_exception_lines(entry)]), (), None)
    return RomBoot(_text(lines), tuple(segments), entry)


def _header_refusal(rom: RomIdentity, header: bytes) -> list[str]:
    """The lines with which a header is refused, tried again and again until the watchdog bites; none for a good one."""
    magic, count, mode, speed = header[:4]
    (word,), (chip_id,) = struct.unpack_from("<I", header), struct.unpack_from("<H", header, 12)
    modes = _CLASSIC_MODES if rom.classic else len(_MODES)
    good_clock = rom.classic or speed & 0xF in _CLOCK_DIVIDERS
    if magic != _MAGIC or count > _MAX_HEADER_SEGMENTS or mode >= modes or not good_clock:
        return [f"invalid header: 0x{word:08x}"] * INVALID_HEADER_LINES
    if chip_id == rom.chip_id:
        return []
    if rom.classic:
        return [f"wrong chip id 0x{chip_id:04x}"] * INVALID_HEADER_LINES
    return [f"Invalid chip id. Expected {rom.chip_id} read {chip_id}. Bootloader for wrong chip?", rom.assertion]


def _segment_refusal(rom: RomIdentity, address: int, size: int) -> list[str]:
    """The lines that end a boot at a segment's header, its own line among them; none for a good one."""
    if rom.classic:
        return []
    if address == size == 0xFFFFFFFF:
        return ["ets_loader.c 78 "]
    load = f"load:0x{address:08x},len:{_length(rom, size)}"
    if address % 4 or size % 4 or size >= _MAX_LENGTH:
        return [load, "Invalid image block, can't boot.", rom.assertion]
    if rom.ram and size and address < rom.ram.stop and address + size > rom.ram.start:
        ours = f"0x{rom.ram.start:08x}-0x{rom.ram.stop:08x}"
        return [load, f"region 0x{address:08x}-0x{address + size:08x} overlaps {ours}, can't load", rom.assertion]
    if address >= 0x80000000:
        return [load, "cmd len 64", "ets_loader.c 212 "]
    return []


def _block_line(start: int, size: int) -> list[str]:
    """The older loader reads blocks of 16 bytes, and says so where the next segment's header lies in two of them."""
    end = (start + size) % _BLOCK
    room = _BLOCK - end
    if room >= 8:
        return []
    head = start % _BLOCK if start // _BLOCK == (start + size) // _BLOCK else 0
    return [f"ho {head} tail {end - head} room {room}"]


def _page_lines(rom: RomIdentity, start: int, end: int) -> list[str]:
    """The older loader maps flash page by page, and says so from the second on."""
    if not rom.classic:
        return []
    first = max(-(-start // _PAGE), 1)
    return [f"1150 mmu set {page * _PAGE:08x}, pos {page * _PAGE:08x}" for page in range(first, -(-end // _PAGE))]


def _exception_lines(entry: int) -> list[str]:
    """What the older ROM prints when it jumps to where no memory is: an illegal instruction there."""
    registers = f"epc1=0x{entry:08x}, epc2=0x00000000, epc3=0x00000000, excvaddr=0x00000000, depc=0x00000000"
    return ["Fatal exception (0): ", registers]


def _pin_lines(rom: RomIdentity, header: bytes) -> list[str]:
    if not rom.pins:
        return []
    write_protect = f"SPIWP:0x{header[8]:02x}"
    # Drive strengths of the flash pins: six nibbles, the low one first.
    drives = [nibble for byte in header[9:12] for nibble in (byte & 0xF, byte >> 4)]
    names = ("clk", "q", "d", "cs0", "hd", "wp")
    pins = ",".join(f"{name}_drv:0x{drive:02x}" for name, drive in zip(names, drives, strict=True))
    if rom.classic:
        return [f"configsip: 0, {write_protect}", pins]
    return [write_protect, pins] if any(drives) else [write_protect]


def _length(rom: RomIdentity, size: int) -> str:
    """A segment's length as the ROM prints it: the older one as a signed decimal number."""
    if not rom.classic:
        return f"{size:#x}"
    return str(size - (1 << 32) if size >> 31 else size)


def _checksum_line(rom: RomIdentity, calculated: int, stored: int) -> str:
    if rom.classic:
        return f"csum err:{calculated:#x}!={stored:#x}"
    return f"Checksum failure. Calculated 0x{calculated:02x} stored 0x{stored:02x}"


def _hash_warning(read: Callable[[int, int], bytes], start: int, end: int) -> list[str]:
    """These ROMs compare always, even when the header says that no hash follows, and boot anyway."""
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
