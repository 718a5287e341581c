"""One plain Python value in one file, checked by length and checksum: the form of every compact state file.

Knows files; `statebytes` knows the format. Does not know what the value means. Invariant: `load` returns what `save`
was given, or nothing with a sentence that says why; it never raises for a damaged file and never returns part of one.
"""

from __future__ import annotations

import os
from binascii import crc32
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cache.durable import open_regular, read_file, write_atomic
from cache.statebytes import beginning, decode, encode, encoded_parts, told_beginning

__all__ = ["decode", "encode", "load", "load_named", "name_of", "save", "save_parts"]

_LONGEST_NAME = 256


def load(path: Path, kind: str) -> tuple[Any, str]:
    """The value of `path` and `""`; None and `""` when there is no file; None and one line for the user otherwise."""
    return load_named(path, kind)[:2]


def load_named(path: Path, kind: str) -> tuple[Any, str, bytes]:
    """As `load`, and what tells this content of the file from another: the line in front of it."""
    try:
        data = read_file(str(path))
    except FileNotFoundError:
        return None, "", b""
    except OSError as error:
        return None, f"{path.name} cannot be read ({error.strerror}); starting over", b""
    value, trouble = decode(kind, data)
    return value, f"{path.name} {trouble}; starting over" if trouble else "", data[: data.find(b"\n")]


def name_of(path: Path, kind: str) -> bytes:
    """What `load_named` would tell as the last, without reading more; empty for no file of this kind."""
    try:
        handle, _ = open_regular(str(path))
    except OSError:
        return b""
    try:
        head = os.read(handle, _LONGEST_NAME)
    except OSError:
        head = b""
    finally:
        os.close(handle)
    end = head.find(b"\n")
    return head[:end] if end > 0 and head.startswith(beginning(kind)) else b""


def save(path: Path, kind: str, value: Any) -> bytes:
    """Replace `path`, even a directory there; what `load_named` will tell as the last. Raises OSError; then the old
    file is still there. Not synced: losing it costs work only."""
    head, body = encoded_parts(kind, value)
    write_atomic(path, body, durable=False, own=True, head=head)
    return head[:-1]


def save_parts(path: Path, kind: str, parts: Iterable[bytes | bytearray]) -> bytes:
    """As `save` of what the parts are the encoding of, no more than one of them at a time."""
    checksum = length = 0

    def counted() -> Iterator[bytes | bytearray]:
        nonlocal checksum, length
        for part in parts:
            checksum, length = crc32(part, checksum), length + len(part)
            yield part

    def first() -> bytes:
        return told_beginning(kind, checksum, length)

    write_atomic(path, b"", durable=False, own=True, head=first(), tail=counted(), first=first)
    return first()[:-1]
