"""SPIFFS and ESP-IDF's wear levelling: literal bytes of the formats, round trips, and volumes without times."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats import fat
from pipeline.formats.spiffs import BLOCK, SpiffsSettings, pack, unpack

PLAIN = SpiffsSettings()


def test_the_pages_of_a_file_are_those_of_the_format() -> None:
    """By `docs/TECH_SPEC` and ESP-IDF's settings: 256-byte pages, names of 32 bytes, 4 of meta data."""
    image = pack({"a.txt": b"hello"}, 2 * BLOCK, PLAIN)
    assert isinstance(image, bytes) and len(image) == 2 * BLOCK
    # the lookup: an index page of object 1, a data page of it, nothing; the magic of a file system with two blocks
    assert image[:6] == b"\x01\x80" + b"\x01\x00" + b"\xff\xff"
    assert image[252:256] == struct.pack("<H", (0x20140529 ^ 256 ^ 2) & 0xFFFF) + b"\xff\xff"
    assert image[BLOCK + 252 : BLOCK + 254] == struct.pack("<H", (0x20140529 ^ 256 ^ 1) & 0xFFFF)
    index = b"\x01\x80" + b"\x00\x00" + b"\xf8" + b"\xff\xff\xff" + b"\x05\x00\x00\x00" + b"\x01"
    index += b"/a.txt".ljust(36, b"\0") + b"\x02\x00"
    assert image[256:512] == index.ljust(256, b"\xff")
    assert image[512:768] == (b"\x01\x00" + b"\x00\x00" + b"\xfc" + b"hello").ljust(256, b"\xff")
    assert image[768:BLOCK] == b"\xff" * (BLOCK - 768)


SETTINGS = st.builds(
    SpiffsSettings, st.sampled_from([256, 512, 1024]), st.sampled_from([32, 64]), st.sampled_from([0, 4])
)
NAMES = st.text("abc/._-", min_size=1, max_size=20)
FILES = st.dictionaries(NAMES, st.binary(max_size=300) | st.integers(0, 60_000).map(lambda n: bytes([n % 251]) * n))


@given(FILES, SETTINGS)
def test_what_was_packed_is_there(files: dict[str, bytes], settings: SpiffsSettings) -> None:
    image = pack(files, 64 * BLOCK, settings)
    if isinstance(image, str):
        assert "need" in image and sum(map(len, files.values())) > 32 * BLOCK
        return
    assert unpack(image, settings) == files
    assert image == pack(dict(reversed(files.items())), 64 * BLOCK, settings), "the order of a directory is in no image"


@pytest.mark.parametrize("size", [PLAIN.first_entries, PLAIN.first_entries + 1, 13, 14, 15, 400])
def test_index_pages_hold_as_many_numbers_as_there_is_room(size: int) -> None:
    """The driver finds page N of a file by arithmetic: each index page is full before the next begins."""
    content = bytes(n % 256 for n in range(size * PLAIN.content))
    image = pack({"x": content}, 64 * BLOCK, PLAIN)
    assert isinstance(image, bytes) and unpack(image, PLAIN) == {"x": content}
    spans = [
        struct.unpack_from("<H", image, at + 2)[0]
        for at in range(0, len(image), 256)
        if at % BLOCK and image[at : at + 2] == b"\x01\x80"
    ]
    further = max(0, size - PLAIN.first_entries)
    assert spans == list(range(1 + -(-further // PLAIN.entries)))


def test_what_cannot_be_packed_says_why() -> None:
    assert pack({"n" * 31: b""}, 2 * BLOCK, PLAIN) == (
        f"'/{'n' * 31}' has 32 bytes, but a name in SPIFFS has 31 at most"
    )
    assert isinstance(pack({"n" * 30: b""}, 2 * BLOCK, PLAIN), bytes)
    assert (
        pack({"x": bytes(8000)}, 2 * BLOCK, PLAIN) == "the files need 12288 bytes in SPIFFS, but the partition has 8192"
    )
    assert "not two or more blocks" in str(pack({}, BLOCK, PLAIN))
    assert "not two or more blocks" in str(pack({}, 3 * BLOCK - 1, PLAIN))


def test_a_damaged_image_is_no_file_system() -> None:
    image = pack({"a": b"1"}, 2 * BLOCK, PLAIN)
    assert isinstance(image, bytes)
    for at in (252, BLOCK + 253, 0, 256):
        damaged = image[:at] + bytes([image[at] ^ 1]) + image[at + 1 :]
        assert isinstance(unpack(damaged, PLAIN), str), at


# --- wear levelling -----------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "states"), [(0x84000, 1), (0xFC000, 1), (0xFD000, 2), (0x170000, 2), (0x400000, 5)])
def test_the_room_of_the_states_grows_with_the_partition(size: int, states: int) -> None:
    """16 bytes per sector beside 64: up to 252 sectors one sector each, as `WL_Flash.cpp` computes it."""
    assert fat.fat_sectors(size) == size // 4096 - 2 - 2 * states


def test_the_layer_is_that_of_esp_idf() -> None:
    size = 0x90000
    sectors = fat.fat_sectors(size)
    image = fat.levelled(b"F" * (sectors * 4096), size)
    assert len(image) == size and image[:4096] == b"\xff" * 4096 and image[4096:4097] == b"F"
    config, state = image[-4096:], image[-3 * 4096 : -2 * 4096]
    assert image[-2 * 4096 : -4096] == state, "two copies"
    fields = struct.unpack_from("<8I28sI", state)
    assert fields[:7] == (0, sectors + 1, 0, 0, 16, 4096, 2) and fields[8] == bytes(28)
    assert fields[9] == zlib.crc32(state[:60], 0xFFFFFFFF), "crc32_le(UINT32_MAX, ...)"
    assert struct.unpack_from("<9I", config) == (
        0,
        size,
        4096,
        4096,
        16,
        16,
        2,
        32,
        zlib.crc32(config[:32], 0xFFFFFFFF),
    )
    assert set(state[64:]) == set(config[48:]) == {0xFF}
