"""One wrong byte in each field of what an ESP32-C3 boots from: the ROM stops, the second stage falls back, or what
nobody checks changes nothing. The reference firmware lies in both slots; otadata selects ota_1.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from tests import firmware_build as fb

fb.need_tools()

from tests.firmware_device import FirmwareBench  # noqa: E402
from virtualboard import rom  # noqa: E402

pytestmark = pytest.mark.needs_zig

TABLE, OTADATA = 0x8000, 0xE000
COPY = 0x1000

# Offset and size in the image header (`esp_image_header_t`).
HEADER = {
    "magic": (0, 1),
    "segment count": (1, 1),
    "mode": (2, 1),
    "speed and size": (3, 1),
    "entry": (4, 4),
    "wp pin": (8, 1),
    "drives": (9, 3),
    "chip id": (12, 2),
    "old revision": (14, 1),
    "lowest revision": (15, 2),
    "highest revision": (17, 2),
    "reserved": (19, 4),
    "hash appended": (23, 1),
}
UNCHECKED_BY_THE_ROM = set(HEADER) - {"magic", "segment count", "speed and size", "entry", "chip id"}


class DamagedImage(NamedTuple):
    """Where things lie in an image: segments as (header offset, address, size), the checksum byte."""

    segments: list[tuple[int, int, int]]
    checksum: int


def parse(image: bytes) -> DamagedImage:
    at, segments = 24, []
    for _ in range(image[1]):
        address, size = struct.unpack_from("<II", image, at)
        segments.append((at, address, size))
        at += 8 + size
    return DamagedImage(segments, at | 15)


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> fb.BuiltFirmware:
    return fb.shared(tmp_path_factory)


@pytest.fixture(scope="module")
def sound(firmware: fb.BuiltFirmware) -> bytes:
    return bytes(
        fb.deployed(firmware, at_e000=fb.otadata_entry(1), at_f000=fb.otadata_entry(2), at_150000=firmware.app_bin)
    )


def start(flash: bytes, flips: Mapping[int, int]) -> tuple[FirmwareBench, str]:
    """Power on with `flips` (offset -> bits) in flash; the chip at rest and everything that it sent."""
    content = bytearray(flash)
    for offset, bits in flips.items():
        content[offset] ^= bits
    bench = FirmwareBench(content)
    return bench, bench.start()


def runs(log: str) -> str:
    """The partition of the application that got ready; nothing when none did."""
    match = re.search(r'"method":"ready".*"partition":"(\w+)"', log)
    return match[1] if match else ""


def boots(flash: bytes, flips: Mapping[int, int]) -> str:
    return runs(start(flash, flips)[1])


def stops_and_is_tried_again(flash: bytes, flips: Mapping[int, int]) -> str:
    """Nothing runs, and a watchdog begins the same again; what was sent until then."""
    bench, log = start(flash, flips)
    assert runs(log) == "" and bench.machine.pending_reset is None
    wake = bench.machine.wake_at
    assert wake is not None
    bench.now = wake
    bench.machine.run(1)
    assert bench.machine.pending_reset == rom.TG0WDT_SYS
    assert "rst:0x7 (TG0WDT_SYS_RST)" in bench.start(rom.TG0WDT_SYS)
    return log


def test_the_sound_flash_runs_ota_1(sound: bytes) -> None:
    log = start(sound, {})[1]
    assert runs(log) == "ota_1" and "SHA-256 comparison failed" not in log


# --- the bootloader, which the ROM reads ----------------------------------------------------------------


@pytest.mark.parametrize("field", sorted(UNCHECKED_BY_THE_ROM))
def test_fields_that_the_rom_does_not_check_only_spoil_the_hash(field: str, sound: bytes) -> None:
    offset, size = HEADER[field]
    for at in range(offset, offset + size):
        log = start(sound, {at: 0x01})[1]
        assert "SHA-256 comparison failed:" in log and "Attempting to boot anyway..." in log
        assert runs(log) == "ota_1"


@pytest.mark.parametrize(
    ("offset", "bits", "word"),
    [(0, 0x01, "e8"), (0, 0x80, "69"), (1, 0x80, "e9"), (2, 0x80, "e9"), (3, 0x01, "e9"), (3, 0x08, "e9")],
)
def test_a_wrong_magic_segment_count_mode_or_frequency_is_an_invalid_header(
    offset: int, bits: int, word: str, sound: bytes
) -> None:
    log = stops_and_is_tried_again(sound, {offset: bits})
    assert re.search(rf"invalid header: 0x\w{{6}}{word}\r\n", log)
    assert "load:" not in log


@pytest.mark.parametrize("offset", [6, 7])
def test_an_entry_outside_ram_crashes(offset: int, sound: bytes) -> None:
    log = stops_and_is_tried_again(sound, {offset: 0x80})
    assert "\r\nentry 0x" in log and "boot: " not in log
    assert "Guru Meditation Error: Core 0 panic'ed (Instruction access fault). Exception was unhandled.\r\n" in log


@pytest.mark.parametrize("offset", [12, 13])
def test_another_chips_bootloader_is_refused(offset: int, sound: bytes) -> None:
    log = stops_and_is_tried_again(sound, {offset: 0x01})
    assert re.search(
        r"\)\r\nInvalid chip id. Expected 5 read \d+. Bootloader for wrong chip\?\r\nets_main.c 333 \r\n$", log
    )


def test_code_that_is_loaded_elsewhere_crashes(firmware: fb.BuiltFirmware, sound: bytes) -> None:
    (entry,) = struct.unpack_from("<I", firmware.boot_bin, 4)
    (code,) = [at for at, address, size in parse(firmware.boot_bin).segments if address <= entry < address + size]
    log = stops_and_is_tried_again(sound, {code + 2: 0x80})
    assert "\r\nentry 0x" in log and "boot: " not in log
    log = stops_and_is_tried_again(sound, {code + 3: 0x80})
    assert log.endswith("\r\ncmd len 64\r\nets_loader.c 212 \r\n")


def test_a_segment_length_beyond_all_flash_is_refused_and_one_beyond_this_flash_never_ends(
    firmware: fb.BuiltFirmware, sound: bytes
) -> None:
    for at, address, _ in parse(firmware.boot_bin).segments:
        log = stops_and_is_tried_again(sound, {at + 7: 0x80})
        assert re.search(r"load:0x\w+,len:0x8\w{7}\r\nInvalid image block, can't boot.\r\nets_main.c 333 \r\n$", log)
        log = stops_and_is_tried_again(sound, {at + 6: 0x80})
        overlap = r"region 0x\w+-0x\w+ overlaps 0x3fcde160-0x3fcdf664, can't load\r\nets_main.c 333 \r\n"
        assert re.search(r"load:0x\w+,len:0x8\w{5}\r\n" + (overlap if address < 0x40000000 else "") + "$", log)


def test_a_wrong_byte_of_a_segment_or_the_checksum_is_found(firmware: fb.BuiltFirmware, sound: bytes) -> None:
    image = parse(firmware.boot_bin)
    spots = [at + 8 + within for at, _, size in image.segments for within in (0, size // 2, size - 1)]
    for spot in (*spots, image.checksum):
        log = stops_and_is_tried_again(sound, {spot: 0x10})
        assert re.search(r"Checksum failure\. Calculated 0x\w\w stored 0x\w\w\r\nets_main\.c 333 \r\n$", log)


def test_a_wrong_hash_is_a_warning(firmware: fb.BuiltFirmware, sound: bytes) -> None:
    digest = parse(firmware.boot_bin).checksum + 1
    for at in (digest, digest + 31):
        log = start(sound, {at: 0x01})[1]
        assert "SHA-256 comparison failed:" in log and runs(log) == "ota_1"


# --- the application, which the second stage reads --------------------------------------------------------


def headers(image: bytes) -> Iterator[tuple[str, int]]:
    """Every byte of the image header and of the segment headers, by name."""
    for field, (offset, size) in HEADER.items():
        for at in range(offset, offset + size):
            yield field, at
    for index, (at, _, _) in enumerate(parse(image).segments):
        for byte in range(8):
            yield f"{'address' if byte < 4 else 'length'} of segment {index}", at + byte


@pytest.mark.parametrize("part", range(4))
def test_any_wrong_byte_in_the_headers_of_the_application_falls_back(
    part: int, firmware: fb.BuiltFirmware, sound: bytes
) -> None:
    for field, at in list(headers(firmware.app_bin))[part::4]:
        flip = {fb.OTA_1 + at: 0x80}
        log = start(sound, flip)[1]
        assert "boot: ota_1 rejected: " in log, field
        assert runs(log) == "ota_0", field


def test_damage_in_the_slot_that_is_not_selected_changes_nothing(sound: bytes) -> None:
    for at in (0, 4, 12, 24):
        assert boots(sound, {fb.OTA_0 + at: 0x80}) == "ota_1"


def test_without_the_mark_of_a_hash_there_is_none_to_compare(sound: bytes) -> None:
    assert boots(sound, {fb.OTA_1 + 23: 0x01}) == "ota_1"
    assert boots(sound, {fb.OTA_1 + 23: 0x01, fb.OTA_1 + 2: 0x01}) == "ota_1"


def test_any_wrong_byte_of_data_checksum_or_hash_of_the_application_falls_back(
    firmware: fb.BuiltFirmware, sound: bytes
) -> None:
    image = parse(firmware.app_bin)
    spots = [at + 8 + within for at, _, size in image.segments for within in (0, size // 2, size - 1)]
    for spot in (*spots, image.checksum - 1, image.checksum, image.checksum + 1, image.checksum + 32):
        log = start(sound, {fb.OTA_1 + spot: 0x01})[1]
        assert re.search(r"boot: ota_1 rejected: bad (checksum|SHA-256)", log), hex(spot)
        assert runs(log) == "ota_0"


def test_when_both_are_damaged_the_chip_restarts(firmware: fb.BuiltFirmware, sound: bytes) -> None:
    spot = parse(firmware.app_bin).checksum
    bench, log = start(sound, {fb.OTA_0 + spot: 1, fb.OTA_1 + spot: 1})
    assert log.count("rejected: bad checksum") == 2 and runs(log) == ""
    assert bench.machine.pending_reset == rom.SW_SYS


# --- partition table and otadata ----------------------------------------------------------------------------

ROW = {"type": (2, 1), "subtype": (3, 1), "offset": (4, 4), "size": (8, 4), "label": (12, 16), "flags": (28, 4)}


@pytest.mark.parametrize("field", ROW)
def test_a_wrong_byte_in_a_row_of_the_table_spoils_its_md5(field: str, sound: bytes) -> None:
    offset, size = ROW[field]
    rows = 5
    for row in range(rows):
        bench, log = start(sound, {TABLE + 32 * row + offset + row % size: 0x04})
        assert "partition table: bad MD5" in log and runs(log) == ""
        assert bench.machine.pending_reset == rom.SW_SYS
    for at in (16, 31):
        assert "partition table: bad MD5" in start(sound, {TABLE + 32 * rows + at: 0x01})[1]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_table_that_ends_before_its_applications_starts_nothing(row: int, sound: bytes) -> None:
    bench, log = start(sound, {TABLE + 32 * row: 0x01})
    assert "boot: error: partition table" in log and runs(log) == ""
    assert bench.machine.pending_reset == rom.SW_SYS


OTADATA_FLIPS = {
    "sequence": ([0, 1, 2, 3], 0x01, "ota_0"),
    "label": ([4, 12, 23], 0x01, "ota_1"),
    "state valid to invalid": ([24], 0x01, "ota_0"),
    "state valid to aborted": ([24], 0x06, "ota_0"),
    "state valid to new": ([24], 0x02, "ota_1"),
    "crc": ([28, 29, 30, 31], 0x80, "ota_0"),
}


@pytest.mark.parametrize("field", OTADATA_FLIPS)
def test_a_damaged_copy_of_otadata_counts_as_none(field: str, sound: bytes) -> None:
    offsets, bits, expected = OTADATA_FLIPS[field]
    for offset in offsets:
        assert boots(sound, {OTADATA + COPY + offset: bits}) == expected
        assert boots(sound, {OTADATA + offset: bits}) == "ota_1"
        assert boots(sound, {OTADATA + offset: bits, OTADATA + COPY + offset: bits}) == expected
