"""UF2: firmware as a sequence of 512-byte blocks, each with the address that it goes to.

Format: microsoft/uf2, as esptool's `merge-bin --format uf2` and the TinyUF2 bootloaders use it; addresses are offsets
in flash. Does not know what the bytes mean. Invariant: what blocks do not cover reads FF, and later blocks win.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from cache.named_tuple import NamedTuple

MAGIC = b"UF2\n" + struct.pack("<I", 0x9E5D5157)
_FINAL = struct.pack("<I", 0x0AB16F30)
_BLOCK = 512
_DATA = 32
_MAX_PAYLOAD = 476
_NOT_MAIN_FLASH = 0x00000001
_MAX_SPAN = 128 << 20


class Flat(NamedTuple):
    """`data` lies at `base` in flash."""

    base: int
    data: bytes


def unpack(data: bytes) -> Flat:
    """The bytes of a UF2. Raises ValueError, with a fact for people, when it is damaged or empty."""
    if not data or len(data) % _BLOCK:
        raise ValueError(f"its {len(data)} bytes are no whole number of {_BLOCK}-byte UF2 blocks")
    pieces: list[tuple[int, bytes]] = []
    for at in range(0, len(data), _BLOCK):
        block = data[at : at + _BLOCK]
        flags, address, size = struct.unpack_from("<III", block, 8)
        if block[:8] != MAGIC or block[-4:] != _FINAL or size > _MAX_PAYLOAD:
            raise ValueError(f"the UF2 block at {at:#x} is damaged")
        if not flags & _NOT_MAIN_FLASH:
            pieces.append((address, block[_DATA : _DATA + size]))
    return flattened(pieces)


def flattened(pieces: Sequence[tuple[int, bytes]]) -> Flat:
    """One span of flash from pieces with addresses. Raises ValueError for none, and for what no flash holds."""
    if not pieces:
        raise ValueError("none of its blocks goes to flash")
    base, end = min(at for at, _ in pieces), max(at + len(piece) for at, piece in pieces)
    if end - base > _MAX_SPAN:
        raise ValueError(f"its blocks lie from {base:#x} to {end:#x}, farther apart than any flash is large")
    flat = bytearray(b"\xff" * (end - base))
    for at, piece in pieces:
        flat[at - base : at - base + len(piece)] = piece
    return Flat(base, bytes(flat))
