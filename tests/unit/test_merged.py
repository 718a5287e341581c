"""Merged images and UF2: whatever bytes come, the parts are theirs."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats import packed
from pipeline.formats.flash_file import WHOLE, FilePart
from pipeline.formats.merged import ImageSpan, split
from pipeline.formats.uf2 import MAGIC, Flat, unpack
from tests import given_firmware as given_by


def flat(pieces: dict[int, bytes], base: int = 0) -> bytes:
    data = bytearray(b"\xff" * (max(at + len(piece) for at, piece in pieces.items()) - base))
    for at, piece in pieces.items():
        data[at - base : at - base + len(piece)] = piece
    return bytes(data)


APP, TABLE = given_by.app("esp32c3"), given_by.table(given_by.TWO_SLOTS)


def test_a_table_merged_with_an_application_alone_is_split_too() -> None:
    assert split(0x8000, flat({0x8000: TABLE, 0x10000: APP}, 0x8000)) == (
        ImageSpan(0x8000, 0xC00),
        ImageSpan(0x10000, len(APP)),
    )


def test_single_images_are_not_merged() -> None:
    for base, data in ((0, given_by.bootloader("esp32c3")), (0x1000, given_by.bootloader("esp32")), (0x8000, TABLE)):
        assert split(base, data) is None or base == 0x8000
    assert split(0x10000, APP) is None and split(0, b"") is None
    signed = given_by.bootloader("esp32c3").ljust(0x1000, b"\xff") + b"\xe7\x02a signature"
    assert split(0, signed) is None
    assert isinstance(split(0, signed.ljust(0x2000, b"\xff") + APP), str)


def test_what_follows_an_application_in_its_partition_belongs_to_it() -> None:
    signed = APP.ljust(0x2000, b"\xff") + b"signature"
    assert split(0x8000, flat({0x8000: TABLE, 0x10000: signed}, 0x8000)) == (
        ImageSpan(0x8000, 0xC00),
        ImageSpan(0x10000, len(signed)),
    )


@given(st.binary(max_size=0x800), st.integers(0, 0x11000), st.sampled_from([0, 0x1000, 0x8000]))
def test_no_bytes_raise_and_parts_lie_in_order(noise: bytes, at: int, base: int) -> None:
    pieces = {0: given_by.bootloader("esp32c3"), 0x8000: TABLE, 0x10000: APP}
    data = flat(pieces)
    data = (data[:at] + noise + data[at + len(noise) :])[base:]
    found = split(base, data)
    if isinstance(found, tuple):
        assert all(one.offset + one.size <= two.offset for one, two in itertools.pairwise(found))
        assert all(base <= span.offset and span.size > 0 for span in found)
        outside = bytearray(data)
        for span in found:
            outside[span.offset - base : span.offset - base + span.size] = b"\xff" * span.size
        assert not outside.strip(b"\xff\0")


@given(st.binary(max_size=1600), st.booleans())
def test_a_uf2_is_read_or_named(data: bytes, as_uf2: bool) -> None:
    data = (MAGIC + data).ljust(1024, b"\0") if as_uf2 else data
    try:
        unpack(data)
    except ValueError as error:
        assert str(error)


@given(st.binary(max_size=200).map(lambda data: b":" + data.hex().encode() + b"\n:00000001FF\n"))
def test_a_hex_file_is_read_or_named(data: bytes) -> None:
    try:
        packed.unpack(data)
    except ValueError as error:
        assert str(error)


def test_a_hex_file_with_both_kinds_of_base() -> None:
    lines = (":020000040001F9", ":0400100001020304E2", ":020000021000EC", ":02000000AABB99", ":00000001FF")
    assert packed.unpack("\r\n".join(lines).encode()) == Flat(
        0x10000, bytes.fromhex("aabb") + b"\xff" * 14 + bytes(range(1, 5))
    )


@given(st.binary(max_size=20), st.integers(0, 20), st.integers(-1, 20))
def test_a_part_is_a_slice(data: bytes, start: int, size: int) -> None:
    assert WHOLE.take(data) == data
    assert FilePart(start, size).take(data) == (data[start:] if size < 0 else data[start : start + size])
