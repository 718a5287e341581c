"""Firmware that says itself where it goes: UF2 and Intel HEX, as esptool's `merge-bin` writes them.

Does not know what the bytes mean. Invariant: what no block covers reads FF, and later blocks win.
"""

from __future__ import annotations

import re

from pipeline.formats import uf2
from pipeline.formats.uf2 import Flat, flattened

_RECORD = re.compile(rb":[0-9A-Fa-f]{10}")
_DATA, _END, _SEGMENT, _LINEAR = 0, 1, 2, 4


def is_packed(head: bytes) -> bool:
    """Do these first bytes begin such a file?"""
    return head.startswith(uf2.MAGIC) or _RECORD.match(head) is not None


def unpack(data: bytes) -> Flat:
    """The bytes of a file that `is_packed`. Raises ValueError, with a fact for people, when it is damaged or empty."""
    return uf2.unpack(data) if data.startswith(uf2.MAGIC) else _hex(data)


def _hex(data: bytes) -> Flat:
    pieces: list[tuple[int, bytes]] = []
    base = 0
    for number, line in enumerate(data.split(), 1):
        try:
            record = bytes.fromhex(line[1:].decode("ascii")) if line[:1] == b":" else b""
        except ValueError:
            record = b""
        if len(record) < 5 or len(record) != record[0] + 5 or sum(record) & 0xFF:
            raise ValueError(f"line {number} of the HEX file is damaged")
        kind, content = record[3], record[4:-1]
        if kind == _END:
            return flattened(pieces)
        if kind == _DATA:
            pieces.append((base + int.from_bytes(record[1:3], "big"), content))
        elif kind in (_SEGMENT, _LINEAR):
            base = int.from_bytes(content, "big") << (4 if kind == _SEGMENT else 16)
    raise ValueError("the HEX file has no record that ends it")
