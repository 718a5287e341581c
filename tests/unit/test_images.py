"""Images: a literal one, esptool's opinion of it, damage at every place, and whether images fit."""

from __future__ import annotations

import functools
import hashlib
import operator
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.digest import digest_bytes
from pipeline.chips import CHIPS, chip_name, flash_size_bytes
from pipeline.flash_model import Image, MatchRule
from pipeline.formats.esp_image import (
    ELF_SHA256_OFFSET,
    AppDescriptor,
    ImageInfo,
    Segment,
    check_chip,
    check_fits,
    describe_image,
    descriptor_of,
    room_warnings,
)
from pipeline.model import FailureCategory, Reason

ELF_SHA256 = bytes(range(32))
DESCRIPTOR = (
    struct.pack("<II8x", 0xABCD5432, 0)
    + b"1.2.3".ljust(32, b"\0")
    + b"reference".ljust(32, b"\0")
    + bytes(32)
    + b"v5.4".ljust(32, b"\0")
    + ELF_SHA256
    + bytes(80)
)
CODE = bytes.fromhex("13000000" "6f000000" "deadbeef")  # fmt: skip


def build(*segments: tuple[int, bytes], chip_id: int = 5, hashed: int = 1) -> bytes:
    """An image by the words of the format, independent of the code under test."""
    header = bytes.fromhex("e9") + bytes([len(segments)]) + bytes.fromhex("02" "2f" "00003840" "ee000000")  # fmt: skip
    data = header + struct.pack("<HBHH4xB", chip_id, 0, 3, 199, hashed)
    for address, content in segments:
        data += struct.pack("<II", address, len(content)) + content
    data += bytes(15 - len(data) % 16)
    data += bytes([functools.reduce(operator.xor, b"".join(content for _at, content in segments), 0xEF)])
    return data + hashlib.sha256(data).digest() if hashed else data


APP = build((0x3C000020, DESCRIPTOR), (0x40380000, CODE))


def info_of(data: bytes) -> ImageInfo:
    info = describe_image(data)
    assert isinstance(info, ImageInfo), info
    return info


def test_what_an_app_image_says() -> None:
    assert info_of(APP) == ImageInfo(
        chip_id=5,
        entry=0x40380000,
        flash_mode=2,
        flash_freq=0xF,
        flash_size=2,
        min_revision=3,
        max_revision=199,
        segments=(Segment(0x3C000020, 32, 256), Segment(0x40380000, 296, 12)),
        size=352,
        checksum_ok=True,
        hash_ok=True,
        app=AppDescriptor("reference", "1.2.3", ELF_SHA256.hex()),
    )
    assert info_of(APP).ok and info_of(APP).chip == "esp32c3"
    assert APP[ELF_SHA256_OFFSET:][:32] == ELF_SHA256


def test_esptool_agrees(tmp_path: Path) -> None:
    from esptool.bin_image import LoadFirmwareImage

    path = tmp_path / "app.bin"
    path.write_bytes(APP)
    theirs = LoadFirmwareImage("esp32c3", str(path))
    ours = info_of(APP)
    assert [(s.addr, s.file_offs + 8, len(s.data)) for s in theirs.segments] == [tuple(s) for s in ours.segments]
    assert (theirs.checksum, theirs.stored_digest) == (theirs.calculate_checksum(), theirs.calc_digest)
    assert (theirs.chip_id, theirs.entrypoint) == (ours.chip_id, ours.entry)


def test_padding_behind_an_image_is_not_part_of_it() -> None:
    assert info_of(APP + b"\xff" * 100) == info_of(APP)


def test_an_image_without_hash_and_without_descriptor() -> None:
    info = info_of(build((0x403CC710, CODE), hashed=0))
    assert (info.hash_ok, info.app, info.ok) == (None, None, True)


def test_a_first_segment_too_short_for_a_descriptor_has_none() -> None:
    assert info_of(build((0x3C000020, DESCRIPTOR[:252]))).app is None
    assert info_of(build((0x3C000020, DESCRIPTOR))).app is not None


@pytest.mark.parametrize("size", range(len(APP)))
def test_a_cut_image_names_what_is_missing(size: int) -> None:
    reason = describe_image(APP[:size])
    assert isinstance(reason, Reason)
    assert (reason.kind, reason.after) == ("bad-image", f"{size} bytes there")


@given(st.integers(0, len(APP) * 8 - 1))
def test_a_flipped_bit_is_found(bit: int) -> None:
    damaged = bytearray(APP)
    damaged[bit // 8] ^= 1 << bit % 8
    info = describe_image(bytes(damaged))
    hash_flag_cleared = bit == 23 * 8
    assert isinstance(info, Reason) or not info.ok or (hash_flag_cleared and info.hash_ok is None)


@pytest.mark.parametrize("at", [32, 32 + 255, 296, 307])
def test_changed_segment_data_breaks_checksum_and_hash(at: int) -> None:
    damaged = bytearray(APP)
    damaged[at] ^= 0x40
    info = info_of(bytes(damaged))
    assert (info.checksum_ok, info.hash_ok) == (False, False)


@pytest.mark.parametrize(
    ("at", "value", "subject"),
    [(0, 0xEA, "magic"), (1, 0, "segment count"), (1, 17, "segment count"), (23, 2, "hash flag")],
)
def test_headers_that_are_none(at: int, value: int, subject: str) -> None:
    damaged = bytearray(APP)
    damaged[at] = value
    reason = describe_image(bytes(damaged))
    assert isinstance(reason, Reason) and reason.subject == subject


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_raise(data: bytes, as_image: bool) -> None:
    assert isinstance(describe_image(b"\xe9\x01" + data if as_image else data), ImageInfo | Reason)


@given(st.lists(st.binary(max_size=70), min_size=1, max_size=4))
def test_the_checksum_is_the_xor_of_all_segment_bytes(contents: list[bytes]) -> None:
    assert info_of(build(*[(0, content) for content in contents])).checksum_ok


def test_the_chip_table_is_esptools() -> None:
    from esptool.targets import CHIP_DEFS

    for name, chip in CHIPS.items():
        theirs = CHIP_DEFS[name]
        assert chip.image_chip_id == theirs.IMAGE_CHIP_ID, name
        assert chip.bootloader_offset == theirs.BOOTLOADER_FLASH_OFFSET, name
        assert chip.flash_freqs == tuple(theirs.FLASH_FREQUENCY), name
        assert chip.efuse_base in (0, getattr(theirs, "EFUSE_BASE", 0), getattr(theirs, "EFUSE_RD_REG_BASE", 0)), name


def test_chip_and_size_names() -> None:
    assert (chip_name(9), chip_name(77)) == ("esp32s3", "chip id 77")
    assert flash_size_bytes("4MB") == 0x400000


def test_an_image_for_another_chip_is_refused_with_both_names() -> None:
    assert check_chip(APP, "esp32c3", where="build/app.bin") is None
    failure = check_chip(build((0, CODE), chip_id=9), "esp32c3", where="build/app.bin")
    assert failure is not None
    assert failure.category is FailureCategory.WRONG_DEVICE
    assert failure.line() == "build/app.bin: error: the image is for esp32s3, but the chip is esp32c3"


def test_data_that_is_no_image_is_for_every_chip() -> None:
    assert check_chip(b"\xaa\x50" + bytes(100), "esp32c3", where="build/table.bin") is None
    assert check_chip(b"\xe9", "esp32c3", where="build/one.bin") is None


# --- fitting ----------------------------------------------------------------------------------


def image(name: str, offset: int, size: int, limit: int, match: MatchRule = MatchRule.BYTES) -> Image:
    return Image(name, name if offset else "", offset, size, limit, f"build/{name}.bin", digest_bytes(b""), "", match)


def test_images_that_fit_have_no_failures() -> None:
    assert check_fits([image("app", 0x10000, 0x1000, 0x1000), image("boot", 0, 0x8000, 0x8000)]) == []


def test_too_large_names_both_sizes() -> None:
    failures = check_fits([image("app", 0x10000, 1100, 1000), image("boot", 0, 0x8001, 0x8000)])
    assert [failure.line() for failure in failures] == [
        "build/boot.bin: error: boot has 32769 bytes, but the room at 0x0 holds 32768: 1 too many",
        "build/app.bin: error: app has 1100 bytes, but partition 'app' holds 1000: 100 too many",
    ]
    assert {failure.category for failure in failures} == {FailureCategory.IMAGE_TOO_LARGE}


def test_overlaps_are_found_also_behind_a_smaller_image() -> None:
    images = [image("c", 0x3000, 16, 99), image("a", 0x1000, 0x4000, 0x9999), image("b", 0x2000, 16, 99)]
    assert [failure.message for failure in check_fits(images)] == [
        "b at 0x2000 overlaps a, which ends at 0x5000",
        "c at 0x3000 overlaps a, which ends at 0x5000",
    ]


def test_an_image_must_begin_on_a_sector() -> None:
    (failure,) = check_fits([image("app", 0x10010, 16, 99)])
    assert failure.message == "app begins at 0x10010, which is not a multiple of 0x1000"


@pytest.mark.parametrize(("size", "warned"), [(899, False), (900, True), (1000, True), (1001, False)])
def test_the_warning_begins_at_90_percent_and_ends_where_the_failure_begins(size: int, warned: bool) -> None:
    app = image("app", 0x10000, size, 1000)
    expected = [Reason("nearly-full", "app", f"{size} bytes", f"1000 bytes ({size // 10} %)")] if warned else []
    assert room_warnings([app]) == expected
    assert bool(check_fits([app])) == (size > 1000)


def test_otadata_is_meant_to_fill_its_partition() -> None:
    assert room_warnings([image("otadata", 0xE000, 0x2000, 0x2000, MatchRule.OTADATA)]) == []


@given(st.data())
def test_an_image_names_itself_whether_or_not_it_is_whole(data: st.DataObject) -> None:
    image = bytearray(APP)
    for _ in range(data.draw(st.integers(0, 3))):
        image[data.draw(st.integers(0, len(image) - 1))] ^= data.draw(st.integers(0, 255))
    cut = bytes(image[: data.draw(st.integers(0, len(image)))])
    info = describe_image(cut)
    assert descriptor_of(cut) == (None if isinstance(info, Reason) else info.app)
