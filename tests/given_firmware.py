"""Firmware that was built elsewhere, made by code: valid little images for each chip, in the layouts of ESP-IDF,
PlatformIO and a list of files.

Independent of the code under test: the formats are written here by their own words (`esp_image_format.h`, ESP-IDF's
partition table guide, `flasher_args.json` as two versions of ESP-IDF write it).
"""

from __future__ import annotations

import functools
import hashlib
import operator
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

CHIP_IDS = {"esp32": 0, "esp32s2": 2, "esp32s3": 9, "esp32c2": 12, "esp32c3": 5, "esp32c5": 23, "esp32c6": 13}
CHIP_IDS |= {"esp32c61": 20, "esp32h2": 16, "esp32p4": 18}
BOOT_OFFSETS = {
    **dict.fromkeys(CHIP_IDS, 0x0),
    "esp32": 0x1000,
    "esp32s2": 0x1000,
    "esp32c5": 0x2000,
    "esp32p4": 0x2000,
}
RAM = {"esp32": 0x3FFF0030, "esp32s2": 0x3FFD0000, "esp32s3": 0x3FCE3808, "esp32c2": 0x3FCB0000, "esp32c3": 0x3FCD5820}
RAM |= {**dict.fromkeys(("esp32c5", "esp32c6", "esp32c61", "esp32h2"), 0x40820000), "esp32p4": 0x4FF50000}
LOOP = bytes.fromhex("6f000000")
"""RISC-V `j .`; the other two chips do not execute."""

Row = tuple[str, int, int, int, int]
"""name, type, subtype, offset, size."""

TWO_SLOTS: tuple[Row, ...] = (
    ("nvs", 1, 2, 0x9000, 0x5000),
    ("otadata", 1, 0, 0xE000, 0x2000),
    ("app0", 0, 0x10, 0x10000, 0x40000),
    ("app1", 0, 0x11, 0x50000, 0x40000),
    ("storage", 1, 0x82, 0x90000, 0x20000),
)
FACTORY: tuple[Row, ...] = (
    ("nvs", 1, 2, 0x9000, 0x6000),
    ("phy_init", 1, 1, 0xF000, 0x1000),
    ("factory", 0, 0, 0x10000, 0x40000),
    ("storage", 1, 0x82, 0x90000, 0x20000),
)


def image(chip: str, first_segment: bytes, *, mode: int = 2, size_freq: int = 0x2F, code: bytes = LOOP) -> bytes:
    """An image with a checksum and a hash: mode dio, 4 MB, 80 MHz unless told otherwise."""
    segments = ((RAM[chip], first_segment), (RAM[chip] + 0x1000, code))
    return segments_image(chip, segments, mode=mode, size_freq=size_freq)


def segments_image(chip: str, segments: Sequence[tuple[int, bytes]], *, mode: int = 2, size_freq: int = 0x2F) -> bytes:
    """An image of these segments (address, content), entered where the last one begins."""
    data = bytes([0xE9, len(segments), mode, size_freq]) + struct.pack("<I", segments[-1][0]) + b"\xee\0\0\0"
    data += struct.pack("<HBHH4xB", CHIP_IDS[chip], 0, 0, 399, 1)
    for address, content in segments:
        data += struct.pack("<II", address, len(content)) + content
    data += bytes(15 - len(data) % 16)
    data += bytes([functools.reduce(operator.xor, b"".join(content for _, content in segments), 0xEF)])
    return data + hashlib.sha256(data).digest()


def bootloader(chip: str, *, mode: int = 2, size_freq: int = 0x2F) -> bytes:
    return image(chip, b"second stage of a test".ljust(64, b"\0"), mode=mode, size_freq=size_freq)


def app(chip: str, text: str = "one", elf: bytes = b"") -> bytes:
    """An application with an app descriptor. `text` makes it another one; `elf` is the file that it names."""
    elf_sha256 = hashlib.sha256(elf).digest() if elf else bytes(32)
    descriptor = struct.pack("<II8x", 0xABCD5432, 0) + b"1.0".ljust(32, b"\0") + b"given".ljust(32, b"\0")
    descriptor += bytes(32) + b"v5.4".ljust(32, b"\0") + elf_sha256 + bytes(80)
    return image(chip, descriptor + text.encode().ljust(3000, b"."))


def table(rows: Sequence[Row]) -> bytes:
    data = b"".join(
        struct.pack("<2sBBII16sI", b"\xaa\x50", type_, subtype, offset, size, name.encode(), 0)
        for name, type_, subtype, offset, size in rows
    )
    data += b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(data).digest()
    return data.ljust(0xC00, b"\xff")


def otadata(sequence: int) -> bytes:
    """Arduino's boot_app0.bin for sequence 1; erased for 0, as ESP-IDF's ota_data_initial.bin."""
    if not sequence:
        return b"\xff" * 0x2000
    entry = struct.pack("<I", sequence) + b"\xff" * 24
    entry += struct.pack("<I", zlib.crc32(struct.pack("<I", sequence), 0xFFFFFFFF))
    return entry.ljust(0x2000, b"\xff")


NEW_SPELLING = """\
{
    "write_flash_args" : [ "--flash-mode", "dio",
                           "--flash-size", "4MB",
                           "--flash-freq", "80m" ],
    "flash_settings" : {
        "flash_mode": "dio",
        "flash_size": "4MB",
        "flash_freq": "80m"
    },
    "flash_files" : {
        "%(boot)s" : "bootloader/bootloader.bin",
        "0x10000" : "blink.bin",
        "0x8000" : "partition_table/partition-table.bin",
        "0xe000" : "ota_data_initial.bin"
    },
    "bootloader" : { "offset" : "%(boot)s", "file" : "bootloader/bootloader.bin", "encrypted" : "false" },
    "app" : { "offset" : "0x10000", "file" : "blink.bin", "encrypted" : "false" },
    "partition-table" : { "offset" : "0x8000", "file" : "partition_table/partition-table.bin", "encrypted" : "false" },
    "otadata" : { "offset" : "0xe000", "file" : "ota_data_initial.bin", "encrypted" : "false" },
    "extra_esptool_args" : {
        "after"  : "hard-reset",
        "before" : "default-reset",
        "stub"   : true,
        "chip"   : "%(chip)s"
    }
}
"""
OLD_SPELLING = NEW_SPELLING.replace("--flash-", "--flash_").replace("t-reset", "t_reset").replace("d-reset", "d_reset")
HYPHENS = (
    NEW_SPELLING.replace("write_flash_args", "write-flash-args")
    .replace("flash_settings", "flash-settings")
    .replace("flash_files", "flash-files")
    .replace("extra_esptool_args", "extra-esptool-args")
    .replace('"flash_mode"', '"flash-mode"')
    .replace('"flash_size"', '"flash-size"')
    .replace('"flash_freq"', '"flash-freq"')
)


def write(root: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def esp_idf(directory: Path, chip: str, manifest: str = NEW_SPELLING, rows: Sequence[Row] = TWO_SLOTS) -> None:
    """What `idf.py build` leaves of a project called blink."""
    elf = f"the ELF of blink for {chip}".encode()
    files = {
        "bootloader/bootloader.bin": bootloader(chip),
        "partition_table/partition-table.bin": table(rows),
        "ota_data_initial.bin": otadata(0),
        "blink.bin": app(chip, elf=elf),
        "blink.elf": elf,
        "flasher_args.json": (manifest % {"chip": chip, "boot": hex(BOOT_OFFSETS[chip])}).encode(),
    }
    write(directory, files)


def platformio(directory: Path, chip: str, rows: Sequence[Row] = TWO_SLOTS) -> None:
    """What `pio run` leaves in `.pio/build/<env>`."""
    files = {
        "bootloader.bin": bootloader(chip),
        "partitions.bin": table(rows),
        "boot_app0.bin": otadata(1),
        "firmware.bin": app(chip),
        "firmware.elf": b"the ELF of firmware",
    }
    write(directory, files)


def config(section: str, *, readiness: str) -> str:
    """A deploy.toml for given firmware; `section` is the body of [prebuilt]."""
    return f"""\
[project]
name = "given"

[toolchain]
kind = "prebuilt"

[prebuilt]
{section}

[device.bench]
port = "virtual:"

[readiness]
until = "{readiness}"
timeout_ms = 2000
"""
