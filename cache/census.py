"""What lies in a store, and which blobs each entry needs: counted quickly, as what was found last time is remembered.

    index.v1   the SHA-256 of the rest in hex digits and "\\n", then JSON:
        {"blobs": {GROUP: [STAMP, {NAME: size}]}, "entries": {GROUP: [STAMP, {NAME: [size, mtime_ns, inode, needs]}]}}
        STAMP: mtime_ns, ctime_ns and inode of the directory, or null while a change could leave them as they are;
        needs: the names of blobs, one after the other, or null where the entry was not read

Knows files of blobs and entries; does not know which of them should go. Invariants: the index only says again what the
directories said. A directory whose stamp moved is listed again, and an entry that is not what it was (size, mtime,
inode) is read again; so losing the index costs time. Others may write it, too: one whose names are none, or whose
numbers are negative, is not believed at all.
History: v1, the first.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cache.actions import MAX_ENTRY_BYTES, needs_of
from cache.digest import ActionKey, is_hex_name
from cache.durable import read_file
from cache.fileclock import FileClock
from cache.hexfiles import HexFile, HexFiles, Inside
from cache.named_tuple import NamedTuple

INDEX = "index.v1"
_MOST_INDEX = 1 << 30
_DIGITS = 64
_are_hex = re.compile("[0-9a-f]*").fullmatch
Stamp = list[int]


class BlobGroup(NamedTuple):
    """One directory of blobs; `sizes` by name."""

    stamp: Stamp | None
    sizes: dict[str, int]


class EntryGroup(NamedTuple):
    """One directory of entries; `facts` by name: size, mtime_ns, inode and what it needs (None: not read)."""

    stamp: Stamp | None
    facts: dict[str, list[Any]]


class Census(NamedTuple):
    """By directory. `waste`: what is no blob, and what is no entry, where these belong. `moved`: it says more than what
    was remembered did."""

    blobs: dict[str, BlobGroup]
    entries: dict[str, EntryGroup]
    blob_waste: list[HexFile]
    entry_waste: list[HexFile]
    moved: bool

    def counts(self) -> tuple[int, int]:
        """How many entries and blobs, damaged ones included."""
        entries = sum(len(group.facts) for group in self.entries.values()) + len(self.entry_waste)
        return entries, sum(len(group.sizes) for group in self.blobs.values()) + len(self.blob_waste)

    def total(self) -> int:
        """Bytes of all."""
        blobs = sum(sum(group.sizes.values()) for group in self.blobs.values())
        entries: int = sum(fact[0] for group in self.entries.values() for fact in group.facts.values())
        return blobs + entries + sum(one.size for one in (*self.blob_waste, *self.entry_waste))


class Teller:
    """Counts the store below `root`. Methods may raise OSError."""

    def __init__(self, root: Path, blobs: HexFiles, entries: HexFiles) -> None:
        self._index = root / INDEX
        self._blobs, self._entries = blobs, entries
        self._clock = FileClock((str(root),))
        self._moved = False

    def take(self, *, times: bool = False, needs: bool = False) -> Census:
        """Count. `times`: when was each entry used, now? `needs`: read the entries of which that is not known."""
        with _uncollected():
            return self._take(times, needs)

    def _take(self, times: bool, needs: bool) -> Census:
        known_blobs, known_entries = self._remembered()
        self._moved = False
        blobs, entries = dict[str, BlobGroup](), dict[str, EntryGroup]()
        # Entries first: a build writes blobs before the entry that needs them.
        names, entry_waste = self._entries.groups()
        for name in names:
            with contextlib.suppress(OSError), self._entries.inside(name) as inside:
                entries[name] = self._entry_group(name, inside, known_entries.get(name), entry_waste, times, needs)
        names, blob_waste = self._blobs.groups()
        for name in names:
            with contextlib.suppress(OSError), self._blobs.inside(name) as inside:
                blobs[name] = self._blob_group(name, inside, known_blobs.get(name), blob_waste)
        moved = self._moved or len(blobs) < len(known_blobs) or len(entries) < len(known_entries)
        return Census(blobs, entries, blob_waste, entry_waste, moved)

    def with_times(self, census: Census) -> None:
        """Ask again when each entry was used."""
        for name, group in census.entries.items():
            with contextlib.suppress(OSError), self._entries.inside(name) as inside:
                _refresh(inside, group.facts)

    def encode(self, census: Census) -> bytes:
        """The bytes of the index."""
        body = json.dumps({"blobs": census.blobs, "entries": census.entries}, separators=(",", ":")).encode()
        return hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    # --- directories ----------------------------------------------------------------------------

    def _stamp(self, inside: Inside) -> tuple[Stamp, bool]:
        """The directory's, and is it certain that whatever happens from now on moves it?"""
        status = inside.own_status()
        return [status.st_mtime_ns, status.st_ctime_ns, status.st_ino], self._is_settled(status)

    def _is_settled(self, status: os.stat_result) -> bool:
        return os.name == "posix" and self._clock.is_past(status, self._index.as_posix())

    def _blob_group(self, name: str, inside: Inside, known: BlobGroup | None, waste: list[HexFile]) -> BlobGroup:
        stamp, settled = self._stamp(inside)
        if known is not None and known.stamp == stamp:
            return known
        self._moved = True
        # A blob's name is the digest of its bytes: what had a size has it still, unless it was damaged.
        old = {} if known is None else known.sizes
        sizes: dict[str, int] = {}
        for entry in _files(name, inside, waste):
            size = old.get(entry.name)
            with contextlib.suppress(FileNotFoundError):
                sizes[entry.name] = entry.stat(follow_symlinks=False).st_size if size is None else size
        return BlobGroup(stamp if settled and not _has_waste(name, waste) else None, sizes)

    def _entry_group(
        self, name: str, inside: Inside, known: EntryGroup | None, waste: list[HexFile], times: bool, needs: bool
    ) -> EntryGroup:
        stamp, settled = self._stamp(inside)
        if known is not None and known.stamp == stamp:
            group = known
            if times:
                _refresh(inside, group.facts)
        else:
            self._moved = True
            group = EntryGroup(stamp if settled else None, self._facts(name, inside, known, waste))
            if _has_waste(name, waste):
                group = group._replace(stamp=None)
        if needs and _read_needs(inside, group.facts):
            self._moved = True
        return group

    def _facts(self, name: str, inside: Inside, known: EntryGroup | None, waste: list[HexFile]) -> dict[str, list[Any]]:
        old = {} if known is None else known.facts
        facts: dict[str, list[Any]] = {}
        for entry in _files(name, inside, waste):
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                # No file has inode 0: what might be replaced within this tick of the clock is read again next time.
                inode = status.st_ino if self._is_settled(status) else 0
                fact = [status.st_size, status.st_mtime_ns, inode, None]
                before = old.get(entry.name)
                facts[entry.name] = fact if before is None or not inode or before[:3] != fact[:3] else before
        return facts

    # --- what was remembered --------------------------------------------------------------------

    def _remembered(self) -> tuple[dict[str, BlobGroup], dict[str, EntryGroup]]:
        try:
            data = read_file(str(self._index), most=_MOST_INDEX, follow=False)
        except OSError:
            return {}, {}
        if data[: _DIGITS + 1] != hashlib.sha256(data[_DIGITS + 1 :]).hexdigest().encode() + b"\n":
            return {}, {}
        try:
            return _decoded(json.loads(data[_DIGITS + 1 :]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}, {}


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Hundreds of thousands of small things are made and none freed: the collector would walk them again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _decoded(body: Any) -> tuple[dict[str, BlobGroup], dict[str, EntryGroup]]:
    """Raises ValueError, TypeError, KeyError or AttributeError for what `Teller.encode` does not write."""
    blobs = {name: BlobGroup(*group) for name, group in body["blobs"].items()}
    entries = {name: EntryGroup(*group) for name, group in body["entries"].items()}
    for blob in blobs.values():
        _check(blob.sizes, [blob.sizes.values()])
    for entry in entries.values():
        # Column by column: half the time of going through the rows.
        sizes, mtimes_ns, inodes, needs = zip(*entry.facts.values(), strict=True) if entry.facts else ((), (), (), ())
        _check(entry.facts, [sizes, mtimes_ns, inodes])
        if not set(map(type, needs)) <= {str, type(None)}:
            raise ValueError("no needs")
    return blobs, entries


def _check(names: Iterable[str], columns: Sequence[Collection[int]]) -> None:
    """Are these names of files, and natural numbers? Raises ValueError and TypeError."""
    if not set(map(len, names)) <= {_DIGITS} or not _are_hex("".join(names)):
        raise ValueError("no names")
    for column in columns:
        if not set(map(type, column)) <= {int} or min(column, default=0) < 0:
            raise ValueError("no numbers")


def _files(group: str, inside: Inside, waste: list[HexFile]) -> Iterator[os.DirEntry[str]]:
    """The regular files of a directory whose names belong there; all else is waste."""
    with inside.scan() as scan:
        for entry in scan:
            if entry.name[:2] == group and is_hex_name(entry.name) and entry.is_file(follow_symlinks=False):
                yield entry
            else:
                with contextlib.suppress(FileNotFoundError):
                    waste.append(HexFile(group, entry.name, entry.stat(follow_symlinks=False)))


def _has_waste(group: str, waste: list[HexFile]) -> bool:
    """Was some found there? A directory that holds some is listed each time, as waste is not remembered."""
    return bool(waste) and waste[-1].group == group


def _refresh(inside: Inside, facts: dict[str, list[Any]]) -> None:
    """Only their times move, where the directory's stamp did not."""
    stat, prefix, at = os.stat, inside.prefix, inside.at
    for name, fact in facts.items():
        try:
            fact[1] = stat(prefix + name, dir_fd=at, follow_symlinks=False).st_mtime_ns
        except OSError:  # gone: the directory has moved by now
            continue


def _read_needs(inside: Inside, facts: dict[str, list[Any]]) -> bool:
    """An entry that is damaged, gone or cannot be read needs nothing. Was one read?"""
    read = False
    for name, fact in facts.items():
        if fact[3] is None:
            read = True
            try:
                fact[3] = needs_of(ActionKey(name), inside.read(name, MAX_ENTRY_BYTES)) or ""
            except OSError:
                fact[3] = ""
    return read
