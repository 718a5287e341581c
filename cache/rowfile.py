"""A file of many small values by name, of which a process that needs ten reads ten.

Two files: `NAME.index`, a state file, and `NAME.rows`, its values one after the other. Values lie in buckets by the
checksum of their names; a bucket is read, and its checksum compared, when one of its values is asked for.

    index = (token, about, sections);  section = (offsets, checksums), 64 and 32 bits each in the machine's byte order
    rows  = token (16 bytes), then per section its buckets: marshal of name -> value

Knows files and names; not what the values mean. Invariant: `get` returns the value that was written under this name in
the same breath as the index, or None.
"""

from __future__ import annotations

import contextlib
import marshal
import os
from array import array
from binascii import crc32
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache import statefile
from cache.ahead import values
from cache.durable import open_regular, write_atomic

KIND = "rows 1"
_TOKEN_BYTES = 16
_IN_A_BUCKET = 16
_PIECE = 1 << 18
"""Bytes that are written at once."""


def write(path: Path, about: tuple[Any, ...], sections: Sequence[Mapping[str, Any]]) -> None:
    """Write `sections` (name -> plain value) to `path.index` and `path.rows`. `about`: plain values, for a reader who
    knows the first of them. Raises OSError. Not synced: losing it costs work only."""
    token, places = os.urandom(_TOKEN_BYTES), list[tuple[bytes, bytes]]()
    rows = _rows(_TOKEN_BYTES, sections, places)
    write_atomic(path.with_suffix(".rows"), token, durable=False, own=True, tail=rows)
    statefile.save(path.with_suffix(".index"), KIND, (token, about, tuple(places)))


def _rows(end: int, sections: Sequence[Mapping[str, Any]], places: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """What follows the first `end` bytes, a piece at a time: of a large project all of it would be many megabytes.
    Adds to `places` where that of each section lies."""
    piece = bytearray()
    for section in sections:
        count = len(section) // _IN_A_BUCKET + 1
        names: list[list[str]] = [[] for _ in range(count)]
        for name in section:
            names[crc32(os.fsencode(name)) % count].append(name)
        offsets, checksums = array("Q", [end]), array("I")
        for bucket in names:
            data = marshal.dumps({name: section[name] for name in bucket})
            end += len(data)
            offsets.append(end)
            checksums.append(crc32(data))
            piece += data
            if len(piece) > _PIECE:
                yield bytes(piece)
                piece.clear()
        places.append((offsets.tobytes(), checksums.tobytes()))
    yield bytes(piece)


class RowFile:
    """An open file; `section` numbers those of `write`."""

    def __init__(self, handle: int, about: Any, places: Sequence[tuple[bytes, bytes]]) -> None:
        self._handle, self.about = handle, about
        self._sections = [(array("Q", offsets), array("I", checksums)) for offsets, checksums in places]
        self._read: dict[tuple[int, int], dict[str, Any]] = {}

    @staticmethod
    def open(path: Path, first: Any) -> RowFile | None:
        """None when there is none of this kind, or one about something that does not begin with that."""
        value, _ = statefile.load(path.with_suffix(".index"), KIND)
        if value is None or value[1][0] != first:
            return None
        try:
            handle, _ = open_regular(str(path.with_suffix(".rows")))
        except OSError:
            return None
        found = RowFile(handle, *value[1:])
        with contextlib.suppress(OSError):
            return found if os.pread(handle, _TOKEN_BYTES, 0) == value[0] else None
        return None

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._handle)

    def get(self, section: int, name: str) -> Any:
        """None when there is no such name, or what was read is not what was written."""
        number = self._bucket_of(section, name)
        bucket = self._read.get((section, number))
        if bucket is None:
            data = self._bytes(section, number)
            bucket = values().decoded(data)
            if bucket is None:
                if not data or crc32(data) != self._sections[section][1][number]:
                    return None
                bucket = marshal.loads(data)
            self._read[section, number] = bucket
        return bucket.get(name)

    def ahead(self, section: int, name: str) -> Any:
        """As `get`, and decoded by that for whoever asks for it in the same file next: see `cache/ahead.py`."""
        found, number = self.get(section, name), self._bucket_of(section, name)
        if (section, number) in self._read:
            values().put(self._bytes(section, number), self._read[section, number])
        return found

    def _bucket_of(self, section: int, name: str) -> int:
        return crc32(os.fsencode(name)) % len(self._sections[section][1])

    def _bytes(self, section: int, number: int) -> bytes:
        """Of a bucket; empty when they are not there."""
        first, end = self._sections[section][0][number : number + 2]
        with contextlib.suppress(OSError):
            data = os.pread(self._handle, end - first, first)
            return data if len(data) == end - first else b""
        return b""


class LazyRows(dict[str, Any]):
    """A dictionary whose values are loaded when they are asked for by name. What iterates sees those that were."""

    def __init__(self, load: Callable[[str], Any]) -> None:
        super().__init__()
        self._load = load
        self.loaded: dict[str, Any] = {}
        """Name -> what was there at first, None for nothing."""

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self.loaded:
            value = self._load(name)
            if value is not None:
                self.setdefault(name, value)
            self.loaded[name] = value  # last: another thread that asks meanwhile loads the same, and finds no less
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        return name.__class__ is str and self.get(name) is not None

    def __missing__(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self.get(name)
        super().__setitem__(name, value)

    def pop(self, name: str, *default: Any) -> Any:
        self.get(name)
        return super().pop(name, *default)

    def differences(self) -> dict[str, Any]:
        """What is another than at first; None for what is gone."""
        return {name: dict.get(self, name) for name, old in self.loaded.items() if dict.get(self, name) != old}
