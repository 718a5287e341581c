"""Remember what files contained, so that an unchanged file is not read again.

Knows paths and stamps, not what the files are for. Invariant: `current` returns the fingerprint and digest of the bytes
that were in the file when it was asked; a file that changed after its stamp was taken is always read again.

A stamp is (size, mtime_ns, ctime_ns, inode). ctime is set by the kernel and cannot be put back, so an edit that keeps
size and mtime still moves the stamp. What remains is the *racily clean* file: changed twice within one tick of the file
system's clock, with the read in between. An entry is therefore `settled` only when the file's ctime was already in the
past, on that clock, before the read began; an entry that is not settled is read again however equal its stamp looks.
"""

from __future__ import annotations

import errno
import marshal
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cache.digest import Digest, Fingerprint, fingerprint_bytes
from cache.named_tuple import NamedTuple

CHUNK = 8 << 20
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_MISSING = (errno.ENOENT, errno.ENOTDIR)


class Stamp(NamedTuple):
    """What the file system says about a file; equal stamps of a settled entry mean equal bytes."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    executable: bool


class Entry(NamedTuple):
    """One remembered file."""

    stamp: Stamp
    fingerprint: Fingerprint
    sha256: str
    settled: bool
    marked: bool = False
    """Does it hold one of the table's marks?"""

    @property
    def digest(self) -> Digest:
        return Digest(self.sha256, self.stamp.size)


_LINUX_COARSE = 5
"""CLOCK_REALTIME_COARSE of linux/time.h; Python has no name for it."""


def filesystem_now_ns() -> int:
    """The clock that local file systems stamp files with. On Linux it ticks every 1 to 10 ms, and some kernels stamp
    finer than it ticks, but none stamps with an earlier instant than it shows."""
    return time.clock_gettime_ns(_LINUX_COARSE) if sys.platform == "linux" else time.time_ns()


def is_settled(ctime_ns: int, read_began_ns: int) -> bool:
    """Would a change after `read_began_ns` be certain to move ctime? Whole seconds suggest a file system that ticks
    in seconds (up to 2 s on FAT), so those must be older."""
    tick_ns = 2_000_000_000 if ctime_ns % 1_000_000_000 == 0 else 0
    return ctime_ns < read_began_ns - tick_ns


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file, None when there is none. Raises IsADirectoryError for a directory, OSError otherwise."""
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib costs three times as much, and this runs once per file
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise
    return _stamp(status, path)


def _stamp(status: os.stat_result, path: str) -> Stamp:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, bool(mode & stat.S_IXUSR))


class StampTable:
    """path -> Entry. `resolve` turns a table path (relative to the project, or with a tool's placeholder) into one
    that can be opened. Safe to use from several threads: at worst two of them read the same file.

    Rows stay encoded until somebody asks for them: a run that concerns ten files of ten thousand decodes ten."""

    def __init__(self, resolve: Callable[[str], str], saved: Any = None, marks: Sequence[bytes] = ()) -> None:
        """`saved`: what `plain` of an earlier table with the same `marks` gave. A file that holds one of these is
        marked, so that somebody who is interested need not read the others; one larger than CHUNK always is."""
        self.resolve = resolve
        self._marks = marks
        rows, unsettled = saved or ({}, ())
        self._rows: dict[str, bytes] = dict(rows)
        self._entries: dict[str, Entry] = {}
        """Rows that were decoded or made; each equals its row, or that is `b""` until somebody asks for all of them."""
        self._unsettled: set[str] = set(unsettled)
        self.changed = False
        """Is there anything that the saved table does not hold?"""
        self.files_read = 0

    def stamp(self, path: str) -> Stamp | None:
        """Stat only; see `stamp_of`."""
        return stamp_of(self.resolve(path))

    def remembered(self, path: str) -> Entry | None:
        """What the table holds, whatever the file is now."""
        entry = self._entries.get(path)
        if entry is None and (row := self._rows.get(path)) is not None:
            entry = self._entries[path] = _decode(row)
        return entry

    def glance(self, path: str) -> Entry | None:
        """The entry if the file certainly still is what it was; None if it moved, is missing or was never seen.

        Changes nothing. Reads the file only when its entry is not settled.
        """
        old = self.remembered(path)
        if old is None or stamp_of(self.resolve(path)) != old.stamp:
            return None
        if not old.settled and self._read(path, old)[0].sha256 != old.sha256:
            return None
        return old

    def is_still(self, path: str, entry: Entry) -> bool:
        """Is the file certainly what `entry` says? By a stat alone."""
        try:
            return entry.settled and stamp_of(self.resolve(path)) == entry.stamp
        except OSError:
            return False

    def current(self, path: str) -> Entry | None:
        """What the file is now, reading it unless that is known; None when there is no file. Raises OSError."""
        stamp = stamp_of(self.resolve(path))
        if stamp is None:
            self._drop(path)
            return None
        old = self.remembered(path)
        if old is not None and old.settled and old.stamp == stamp:
            return old
        return self.read(path)

    def read(self, path: str) -> Entry | None:
        """As `current`, but reads the file whatever its stamp is: for one that is known to have moved."""
        old = self.remembered(path)
        entry, present = self._read(path, old)
        if not present:
            self._drop(path)
            return None
        if entry != old:
            self._put(path, entry)
        return entry

    def written(self, path: str, data: bytes, status: os.stat_result, digest: Digest) -> Entry | None:
        """The entry of a file that the caller has written just now, without reading it back; None when it is of another
        size. It is not settled: `settle` reads it, and sees what somebody else wrote there meanwhile."""
        stamp = _stamp(status, path)
        if stamp.size != digest.size:
            return None
        entry = Entry(stamp, fingerprint_bytes(data), digest.hex, False, self._is_marked(data))
        self._put(path, entry)
        return entry

    def _is_marked(self, data: bytes) -> bool:
        return any(mark in data for mark in self._marks)

    def _put(self, path: str, entry: Entry) -> None:
        self._entries[path] = entry
        self._rows[path] = b""
        (self._unsettled.discard if entry.settled else self._unsettled.add)(path)
        self.changed = True

    def settle(self) -> None:
        """Read again what was read too soon after it was written, once the file system's clock has moved on."""
        waiting = sorted(self._unsettled)
        if waiting:
            next_tick()
            now_ns = filesystem_now_ns()
            for path in waiting:
                try:
                    if not self._is_settled_now(path, now_ns):
                        self.read(path)
                except OSError:
                    self._drop(path)

    def _is_settled_now(self, path: str, now_ns: int) -> bool:
        """Does the file hold what its entry says? Then the entry is settled from here on. The stamp is taken after the
        file was read: what is written between the two, and so after `now_ns`, moves it."""
        entry = self._entries.get(path)
        if entry is None or entry.stamp.size > CHUNK or not is_settled(entry.stamp.ctime_ns, now_ns):
            return False
        handle = os.open(self.resolve(path), _READ)
        try:
            data = os.read(handle, entry.stamp.size + 1)
            status = os.fstat(handle)
        finally:
            os.close(handle)
        self.files_read += 1
        if fingerprint_bytes(data) != entry.fingerprint or _stamp(status, path) != entry.stamp:
            return False
        self._put(path, entry._replace(settled=True))
        return True

    def keep_only(self, paths: Iterable[str]) -> None:
        """Forget every other path."""
        for path in self._rows.keys() - paths:
            self._drop(path)

    def _drop(self, path: str) -> None:
        self._entries.pop(path, None)
        self._unsettled.discard(path)
        if self._rows.pop(path, None) is not None:
            self.changed = True

    def plain(self) -> tuple[dict[str, bytes], tuple[str, ...]]:
        """The table as plain values, for a state file: path -> encoded entry, and the paths that are not settled."""
        rows = {path: row or _encode(self._entries[path]) for path, row in self._rows.items()}
        self._rows = dict(rows)
        return rows, tuple(sorted(self._unsettled))

    def _read(self, path: str, old: Entry | None) -> tuple[Entry, bool]:
        """Hash the file. The digest is only computed when the fingerprint says that the bytes are new ones."""
        import hashlib

        import xxhash

        began_ns = filesystem_now_ns()
        fingerprint, sha256, size = xxhash.xxh3_128(), None, 0
        try:
            handle = os.open(self.resolve(path), _READ)
        except OSError as error:
            if error.errno in _MISSING:
                return Entry(Stamp(0, 0, 0, 0, False), Fingerprint(""), "", False), False
            raise
        try:
            before = _stamp(os.fstat(handle), path)
            unhashed = []
            if before.size > CHUNK:
                sha256 = hashlib.sha256()
            # Room for what is there: a buffer of CHUNK would be asked of the system and given back for every file.
            while block := os.read(handle, min(before.size, CHUNK) + 1):
                size += len(block)
                fingerprint.update(block)
                if sha256 is not None:
                    sha256.update(block)
                else:
                    unhashed.append(block)
                if size == before.size:
                    break  # what was added since then moves the stamp
            after = _stamp(os.fstat(handle), path)
        finally:
            os.close(handle)
        self.files_read += 1
        name = Fingerprint(fingerprint.hexdigest())
        if old is not None and old.fingerprint == name and old.stamp.size == size:
            digest, marked = old.sha256, old.marked
        else:
            data = b"".join(unhashed)
            digest = (sha256 or hashlib.sha256(data)).hexdigest()
            marked = bool(self._marks) and (sha256 is not None or self._is_marked(data))
        steady = before == after and size == before.size
        stamp = before._replace(size=size)
        return Entry(stamp, name, digest, steady and is_settled(before.ctime_ns, began_ns), marked), True


def _encode(entry: Entry) -> bytes:
    digests = bytes.fromhex(entry.fingerprint), bytes.fromhex(entry.sha256)
    return marshal.dumps((tuple(entry.stamp), *digests, entry.settled, entry.marked))


def _decode(row: bytes) -> Entry:
    # Only bytes that `_encode` made come here: the state file around them has a checksum.
    stamp, fingerprint, sha256, settled, marked = marshal.loads(row)
    return Entry(Stamp._make(stamp), Fingerprint(fingerprint.hex()), sha256.hex(), settled, marked)


def next_tick(deadline_s: float = 0.05) -> None:
    """Return once the file system's clock has passed the instant of the call: some 10 ms on Linux, `deadline_s` at
    worst. Afterwards, whatever was written before the call is certainly in the past."""
    # One tick does not suffice: the clock may be late, and kernels that stamp finer stamp ahead of it.
    began_ns, give_up_s = time.time_ns(), time.monotonic() + deadline_s
    while filesystem_now_ns() <= began_ns and time.monotonic() < give_up_s:
        time.sleep(0.0005)
