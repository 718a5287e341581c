"""The hashes of commands in `.ninja_log`.

Pure. Sources: MurmurHash64A by Austin Appleby (public domain), seed of ninja's `build_log.cc`, in logs of versions 5
and 6; rapidhash by Nicolas De Carli (as published 2024), in version 7. Tests compare with logs that ninja wrote.
"""

from __future__ import annotations

import struct

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_MURMUR_SEED, _MURMUR_M = 0xDECAFBADDECAFBAD, 0xC6A4A7935BD1E995
_RAPID_SEED = 0xBDD89AA982704029
_RAPID = (0x2D358DCCAA6C78A5, 0x8BB84B93962EACC9, 0x4B33A62ED433D4A3)


def murmur64(data: bytes) -> int:
    """MurmurHash64A."""
    m, mask = _MURMUR_M, _MASK
    h = _MURMUR_SEED ^ (len(data) * m & mask)
    whole = len(data) & ~7
    for (block,) in struct.iter_unpack("<Q", data[:whole]):
        k = block * m & mask
        k ^= k >> 47
        h = (h ^ (k * m & mask)) * m & mask
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h ^= h >> 47
    h = h * m & mask
    return h ^ (h >> 47)


def rapidhash(data: bytes) -> int:
    """rapidhash with its default seed."""
    size = len(data)
    seed = _RAPID_SEED ^ _mix(_RAPID_SEED ^ _RAPID[0], _RAPID[1]) ^ size
    if size <= 16:
        a, b = _short(data)
    else:
        seed, at, left = _blocks(data, seed)
        if left > 16:
            seed = _mix(_u64(data, at) ^ _RAPID[2], _u64(data, at + 8) ^ seed ^ _RAPID[1])
            if left > 32:
                seed = _mix(_u64(data, at + 16) ^ _RAPID[2], _u64(data, at + 24) ^ seed)
        a, b = _u64(data, size - 16), _u64(data, size - 8)
    product = (a ^ _RAPID[1]) * (b ^ seed)
    return _mix(product & _MASK ^ _RAPID[0] ^ size, product >> 64 ^ _RAPID[1])


def _mix(a: int, b: int) -> int:
    product = a * b
    return (product & _MASK) ^ (product >> 64)


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _short(data: bytes) -> tuple[int, int]:
    size = len(data)
    if size >= 4:
        delta = (size & 24) >> (size >> 3)
        last = size - 4
        return _u32(data, 0) << 32 | _u32(data, last), _u32(data, delta) << 32 | _u32(data, last - delta)
    if size:
        return data[0] << 56 | data[size >> 1] << 32 | data[-1], 0
    return 0, 0


def _blocks(data: bytes, seed: int) -> tuple[int, int, int]:
    """The seed after all blocks of 48 bytes, where they end, and how many bytes are left."""
    at, left = 0, len(data)
    if left > 48:
        first = second = seed
        at = left - left % 48
        left -= at
        # Written out, and decoded at once: a command has twenty blocks, and a build thousands of commands.
        zero, one, two, mask = *_RAPID, _MASK
        for a, b, c, d, e, f in struct.iter_unpack("<6Q", memoryview(data)[:at]):
            product = (a ^ zero) * (b ^ seed)
            seed = (product & mask) ^ (product >> 64)
            product = (c ^ one) * (d ^ first)
            first = (product & mask) ^ (product >> 64)
            product = (e ^ two) * (f ^ second)
            second = (product & mask) ^ (product >> 64)
        seed ^= first ^ second
    return seed, at, left
