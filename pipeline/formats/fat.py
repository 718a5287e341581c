"""FAT images as ESP-IDF mounts them: the wear-levelling layer around one, and instants taken out of one.

Pure. Facts: Microsoft's FAT specification (1.03); ESP-IDF's `WL_Config.h`, `WL_State.h`, `WL_Flash.cpp` (version 2) and
`wl_fatfsgen`. Does not know how a FAT is made. Invariant: `without_times` changes nothing but times and the volume's
serial number, so that the same files give the same bytes at any time.

    partition := dummy sector, FAT, state, state, config          state := 64 bytes, then room for 16 bytes per sector
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from cache.named_tuple import NamedTuple

SECTOR = 4096
LEAST_SECTORS = 128
"""FatFs makes no smaller volume."""
_NO_TIME = struct.pack("<BHHH", 0, 0, 0x21, 0x21)
"""Of creation and of the last access: 1 January 1980, the first day that FAT has."""
_SERIAL = struct.pack("<I", 0x484F5450)
_UPDATE_RATE, _WRITE_SIZE, _VERSION, _BUFFER = 16, 16, 2, 32


def fat_sectors(size: int) -> int:
    """Sectors that wear levelling leaves to the FAT in a partition of `size` bytes."""
    total = size // SECTOR
    return total - 2 - 2 * _state_sectors(total)


def _state_sectors(total: int) -> int:
    return -(-(64 + 16 * total) // SECTOR)


def levelled(fat: bytes, size: int) -> bytes:
    """The partition of `size` bytes that holds `fat`, which has `fat_sectors(size)` sectors."""
    total = size // SECTOR
    state = struct.pack("<8I", 0, fat_sectors(size) + 1, 0, 0, _UPDATE_RATE, SECTOR, _VERSION, 0x484F5450) + bytes(28)
    state = (state + _crc(state)).ljust(_state_sectors(total) * SECTOR, b"\xff")
    config = struct.pack("<8I", 0, size, SECTOR, SECTOR, _UPDATE_RATE, _WRITE_SIZE, _VERSION, _BUFFER)
    config = (config + _crc(config) + bytes(12)).ljust(SECTOR, b"\xff")
    return b"\xff" * SECTOR + fat + state + state + config


def _crc(data: bytes) -> bytes:
    """`crc32_le(UINT32_MAX, ...)` of the ROM."""
    return struct.pack("<I", zlib.crc32(data, 0xFFFFFFFF))


class _Volume(NamedTuple):
    """Where things lie, in bytes."""

    root: int
    root_size: int
    data: int
    cluster: int
    fat: int
    wide: bool
    """FAT16, else FAT12."""


def _volume(image: bytes) -> _Volume:
    sector, per_cluster, reserved, fats, roots, small, _, fat_size = struct.unpack_from("<HBHBHHBH", image, 11)
    total = small or struct.unpack_from("<I", image, 32)[0]
    root = (reserved + fats * fat_size) * sector
    data = root + roots * 32
    clusters = (total * sector - data) // (sector * per_cluster)
    return _Volume(root, roots * 32, data, sector * per_cluster, reserved * sector, clusters >= 4085)


def without_times(image: bytes) -> bytes:
    """A FAT12 or FAT16 volume with every time and the serial number set to fixed values."""
    made, volume = bytearray(image), _volume(image)
    made[39:43] = _SERIAL
    waiting = [(volume.root, volume.root_size)]
    while waiting:
        start, size = waiting.pop()
        for at in range(start, start + size, 32):
            first, attributes = made[at], made[at + 11]
            if first == 0:
                break
            if first == 0xE5 or attributes == 0x0F:  # removed, or a part of a long name
                continue
            made[at + 13 : at + 20] = _NO_TIME
            made[at + 22 : at + 26] = struct.pack("<HH", 0, 0x21)
            if attributes & 0x10 and first != 0x2E:
                waiting += [(place, volume.cluster) for place in _chain(image, volume, made[at + 26 : at + 28])]
    return bytes(made)


def _chain(image: bytes, volume: _Volume, first: bytes | bytearray) -> Iterator[int]:
    """Where the clusters of a directory lie."""
    cluster = int.from_bytes(first, "little")
    last = 0xFFF8 if volume.wide else 0xFF8
    while 2 <= cluster < last:
        yield volume.data + (cluster - 2) * volume.cluster
        if volume.wide:
            (cluster,) = struct.unpack_from("<H", image, volume.fat + 2 * cluster)
        else:
            (pair,) = struct.unpack_from("<H", image, volume.fat + cluster * 3 // 2)
            cluster = pair >> 4 if cluster % 2 else pair & 0xFFF
