"""The ROM's part of a boot, on literal images."""

from __future__ import annotations

import hashlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from virtualboard import rom

RAM = 0x3FCD5710


def make_image(
    segments: list[tuple[int, bytes]],
    *,
    entry: int = 0x403CC710,
    mode: int = 2,
    speed: int = 0x2F,
    digest: bytes | None = None,
    checksum: int | None = None,
    chip_id: int = 5,
    max_revision: int = 99,
) -> bytes:
    header = struct.pack(
        "<BBBBIB3sHBHH4sB", 0xE9, len(segments), mode, speed, entry, 0xEE, b"", chip_id, 0, 0, max_revision, b"", 1
    )
    body = header + b"".join(struct.pack("<II", address, len(data)) + data for address, data in segments)
    total = 0xEF
    for _, data in segments:
        for byte in data:
            total ^= byte
    body += bytes(15 - len(body) % 16) + bytes([total if checksum is None else checksum])
    return body + (hashlib.sha256(body).digest() if digest is None else digest)


def boot(image: bytes, cause: int = rom.POWERON, size: int = 0x10000, saved_pc: int = 0) -> rom.RomBoot:
    flash = image.ljust(size, b"\xff")

    def read(offset: int, n: int) -> bytes:
        assert offset >= 0 and offset + n <= size, "read outside flash"
        return flash[offset : offset + n]

    return rom.boot(read, size, cause, saved_pc)


def test_a_good_image_gives_the_log_of_a_real_board() -> None:
    data = bytes(range(1, 33))
    result = boot(make_image([(RAM, data), (0x403CC710, b"\x13\0\0\0")]))
    assert result.log == (
        b"ESP-ROM:esp32c3-api1-20210207\r\n"
        b"Build:Feb  7 2021\r\n"
        b"rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n"
        b"SPIWP:0xee\r\n"
        b"mode:DIO, clock div:1\r\n"
        b"load:0x3fcd5710,len:0x20\r\n"
        b"load:0x403cc710,len:0x4\r\n"
        b"entry 0x403cc710\r\n"
    )
    assert result.entry == 0x403CC710
    assert result.segments == (rom.RomSegment(RAM, data), rom.RomSegment(0x403CC710, b"\x13\0\0\0"))


def test_other_causes_name_themselves_and_the_program_counter() -> None:
    log = boot(make_image([]), rom.SW_SYS, saved_pc=0x4200242C).log
    assert b"rst:0x3 (RTC_SW_SYS_RST),boot:0xc (SPI_FAST_FLASH_BOOT)\r\nSaved PC:0x4200242c\r\nSPIWP" in log
    assert b"rst:0xc (RTC_SW_CPU_RST)" in boot(make_image([]), rom.SW_CPU).log
    assert b"rst:0x7 (TG0WDT_SYS_RST)" in boot(make_image([]), rom.TG0WDT_SYS).log
    assert b"rst:0x10 (RTCWDT_RTC_RST)" in boot(make_image([]), rom.RTCWDT_RTC).log
    assert b"rst:0x3f (UNKNOWN)" in boot(make_image([]), 0x3F).log


def test_flash_mode_and_clock_come_from_the_header() -> None:
    assert b"mode:QIO, clock div:2\r\n" in boot(make_image([], mode=0, speed=0x20)).log
    assert b"mode:DOUT, clock div:4\r\n" in boot(make_image([], mode=3, speed=0x22)).log


def test_blank_flash_and_foreign_bytes_are_invalid_headers() -> None:
    blank = boot(b"")
    assert blank.entry is None
    assert blank.log.count(b"invalid header: 0xffffffff\r\n") == rom.INVALID_HEADER_LINES
    assert b"invalid header: 0x2f0202ff\r\n" in boot(b"\xff\x02\x02\x2f").log


def test_a_wrong_checksum_ends_the_boot() -> None:
    result = boot(make_image([(RAM, b"\x10\0\0\0")], checksum=0x42))
    assert result.entry is None and result.segments == ()
    assert result.log.endswith(b"Checksum failure. Calculated 0xff stored 0x42\r\nets_main.c 333 \r\n")


def test_a_wrong_hash_is_only_a_warning() -> None:
    image = make_image([(RAM, b"\x10\0\0\0")], digest=bytes(32))
    result = boot(image)
    assert result.entry == 0x403CC710
    calculated = hashlib.sha256(image[:-32]).hexdigest().encode()
    assert (
        b"SHA-256 comparison failed:\r\nCalculated: "
        + calculated
        + b"\r\nExpected: "
        + b"00" * 32
        + b"\r\nAttempting to boot anyway...\r\nentry 0x403cc710\r\n"
    ) in result.log


def test_a_segment_that_runs_off_the_flash_never_ends() -> None:
    image = bytearray(make_image([(0x403CC710, b"\x10\0\0\0")]))
    image[28:32] = b"\xfc\xff\xff\x00"
    result = boot(bytes(image))
    assert result.entry is None
    assert result.log.endswith(b"load:0x403cc710,len:0xfffffc\r\n")


def test_download_log() -> None:
    assert rom.download_log(rom.POWERON) == (
        b"ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\n"
        b"rst:0x1 (POWERON),boot:0x4 (DOWNLOAD(USB/UART0/1))\r\nwaiting for download\r\n"
    )


@given(data=st.binary(max_size=300), flips=st.lists(st.tuples(st.integers(0, 511), st.integers(1, 255)), max_size=4))
def test_no_flash_content_breaks_the_rom(data: bytes, flips: list[tuple[int, int]]) -> None:
    image = bytearray(make_image([(RAM, data), (0x50000000, data[:7])]))
    for at, value in flips:
        if at < len(image):
            image[at] ^= value
    result = boot(bytes(image), size=0x1000)
    assert result.log.startswith(b"ESP-ROM:esp32c3-api1-20210207\r\n")
    assert (result.entry is not None) == (b"\r\nentry 0x" in result.log)
    assert result.entry is not None or result.segments == ()


@given(data=st.binary(min_size=1, max_size=50), at=st.integers(0, 199), value=st.integers(1, 255))
def test_one_wrong_byte_of_a_segment_is_always_found(data: bytes, at: int, value: int) -> None:
    data *= 4  # whole words
    image = bytearray(make_image([(RAM, data)]))
    image[32 + at % len(data)] ^= value
    assert b"Checksum failure." in boot(bytes(image)).log
