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
import hashlib
import os
import stat
import struct
import time
from _thread import allocate_lock  # `threading` is not needed for it, nor loaded by a warm answer
from collections.abc import Callable, Container, Sequence
from typing import Any, Protocol

from cache.digest import MAX_BLOB_BYTES, Digest, Fingerprint, fingerprint_bytes
from cache.durable import not_regular, open_regular
from cache.fileclock import FileClock, filesystem_now_ns, is_settled
from cache.named_tuple import NamedTuple
from cache.rowfile import LazyRows

__all__ = [
    "CHUNK",
    "DIRECTORY",
    "Entry",
    "Stamp",
    "StampTable",
    "filesystem_now_ns",
    "is_settled",
    "next_tick",
    "stamp_of",
]

CHUNK = 8 << 20
_ELF = b"\x7fELF"
_MISSING = (errno.ENOENT, errno.ENOTDIR)


class Stamp(NamedTuple):
    """What the file system says about a file; equal stamps of a settled entry mean equal bytes."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    executable: bool


class Entry(bytes):
    """One remembered file: its row in the table, which is taken apart when somebody asks, since there may be a hundred
    thousand at once."""

    __slots__ = ()

    def __new__(cls, stamp: Stamp, fingerprint: Fingerprint, sha256: str, settled: bool, marked: bool = False) -> Entry:
        """`marked`: does it hold one of the table's marks?"""
        digests = bytes.fromhex(fingerprint), bytes.fromhex(sha256)
        packed, wide = _packed(stamp)
        return bytes.__new__(cls, packed + _REST.pack(*digests, settled, marked) + wide)

    @staticmethod
    def of_row(row: Any) -> Entry | None:
        """None for what no table made."""
        if row.__class__ is Entry:
            return row
        return bytes.__new__(Entry, row) if row.__class__ is bytes and len(row) == _ROW_BYTES else None

    @property
    def stamp(self) -> Stamp:
        size, mtime_ns, mtime_high, ctime_ns, ctime_high, inode, executable = _STAMP.unpack_from(self)
        if mtime_high != mtime_ns >> 63:
            mtime_ns = (mtime_high << 64) | (mtime_ns & _LOW)
        if ctime_high != ctime_ns >> 63:
            ctime_ns = (ctime_high << 64) | (ctime_ns & _LOW)
        if len(self) > _ROW_BYTES:
            inode |= int.from_bytes(self[_ROW_BYTES:], "little") << 64
        return Stamp(size, mtime_ns, ctime_ns, inode, executable)

    def is_of(self, stamp: Stamp) -> bool:
        """Is it that which `stamp` gives?"""
        packed, wide = _packed(stamp)
        return self.startswith(packed) and (self[_ROW_BYTES:] == wide if wide else len(self) == _ROW_BYTES)

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self[_FINGERPRINT].hex())

    @property
    def fingerprint_bytes(self) -> bytes:
        return self[_FINGERPRINT]

    @property
    def sha256(self) -> str:
        return self[_SHA256].hex()

    @property
    def settled(self) -> bool:
        return self[_SETTLED] != 0

    @property
    def marked(self) -> bool:
        return self[_MARKED] != 0

    @property
    def digest(self) -> Digest:
        return Digest(self[_SHA256].hex(), int.from_bytes(self[:8], "little"))

    def as_settled(self) -> Entry:
        """The same, as it is known once the clock has moved on."""
        return bytes.__new__(Entry, self[:_SETTLED] + b"\1" + self[_MARKED:])

    def __repr__(self) -> str:
        return f"Entry({self.stamp}, {self.fingerprint}, {self.sha256}, settled={self.settled}, marked={self.marked})"


_STAMP = struct.Struct("<QqiqiQ?")
_REST = struct.Struct("<16s32s??")
"""A row is the stamp, then the fingerprint, the SHA-256, settled, marked; instants have 96 bits, in two numbers, since
63 end in the year 2262. What an inode has beyond 64 bits, on ReFS, follows; no file holds such a row. Not marshal as in
the file around: a few bytes of that, written by somebody else, can ask for gigabytes."""
_ROW_BYTES = _STAMP.size + _REST.size
_FINGERPRINT, _SHA256 = slice(_STAMP.size, _STAMP.size + 16), slice(_STAMP.size + 16, _STAMP.size + 48)
_SETTLED, _MARKED = _ROW_BYTES - 2, _ROW_BYTES - 1


def _packed(stamp: Stamp) -> tuple[bytes, bytes]:
    """The beginning of its row, and what follows the row."""
    size, mtime_ns, ctime_ns, inode, executable = stamp
    try:
        return _STAMP.pack(size, mtime_ns, mtime_ns >> 63, ctime_ns, ctime_ns >> 63, inode, executable), b""
    except struct.error:
        instants = _in_two(mtime_ns), _in_two(ctime_ns)
        wide = (inode >> 64).to_bytes(8, "little") if inode >> 64 else b""
        return _STAMP.pack(size, *instants[0], *instants[1], inode & _LOW, executable), wide


def _in_two(instant_ns: int) -> tuple[int, int]:
    """A number of 96 bits as the lower 64, which are said with a sign, and the upper ones."""
    return int.from_bytes((instant_ns & _LOW).to_bytes(8, "little"), "little", signed=True), instant_ns >> 64


_LOW = (1 << 64) - 1


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file, None when there is none. Raises IsADirectoryError for a directory, OSError otherwise, also
    for FIFOs and devices."""
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib costs three times as much, and this runs once per file
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise
    except ValueError:
        return None  # no file has such a name
    return _stamp(status, path)


def _stamp(status: os.stat_result, path: str) -> Stamp:
    mode = status.st_mode
    if not stat.S_ISREG(mode):
        raise not_regular(path, mode)
    return _fields(status)


DIRECTORY = hashlib.sha256(b"a directory").hexdigest()
"""What an entry says of a directory, whatever lies in it: only its times tell more."""


def _fields(status: os.stat_result) -> Stamp:
    executable = bool(status.st_mode & stat.S_IXUSR)
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, executable)


class StampTable:
    """path -> Entry. `resolve` turns a table path (relative to the project, or with a tool's placeholder) into one
    that can be opened. Safe to use from several threads: at worst two of them read the same file.

    Rows stay as they are until somebody asks for them: a run that concerns ten files of ten thousand looks at ten."""

    def __init__(
        self,
        resolve: Callable[[str], str],
        saved: Any = None,
        marks: Sequence[bytes] = (),
        clock: FileClock | None = None,
        directories: Callable[[], bool] = lambda: False,
    ) -> None:
        """`saved`: what `plain` of an earlier table with the same `marks` gave; anything else is as nothing. A file
        that holds one of `marks` is marked, so that somebody who is interested need not read the others; one larger
        than CHUNK always is. `clock` tells the times of the files' own file systems. `directories`: has a directory an
        entry, too? Else it is no file."""
        self.resolve = resolve
        self._marks = marks
        self._clock = clock or FileClock()
        self._directories = directories
        rows, unsettled = _saved(saved)
        self._rows: dict[str, bytes] = rows if isinstance(rows, LazyRows) else dict(rows)
        self._lock = allocate_lock()
        self._unsettled: set[str] = set(unsettled)
        self.changed = False
        """Is there anything that the saved table does not hold?"""
        self.files_read = 0

    def stamp(self, path: str) -> Stamp | None:
        """Stat only; see `stamp_of`. Of files alone."""
        return stamp_of(self.resolve(path))

    def _stamp_of(self, path: str) -> Stamp | None:
        place = self.resolve(path)
        try:
            return stamp_of(place)
        except IsADirectoryError:
            if not self._directories():
                raise
            return _fields(os.stat(place))  # noqa: PTH116

    def remembered(self, path: str) -> Entry | None:
        """What the table holds, whatever the file is now."""
        row = self._rows.get(path)
        entry = None if row is None else Entry.of_row(row)
        if entry is None and row is not None:
            self._drop(path)
        return entry

    def stat(self, path: str) -> Entry | None:
        """The entry if the file certainly still is what it was; None if it moved, is missing or was never seen.

        Changes nothing. Reads the file only when its entry is not settled.
        """
        old = self.remembered(path)
        if old is None or (stamp := self._stamp_of(path)) is None or not old.is_of(stamp):
            return None
        if not old.settled and ((now := self._read(path, old)[0]) is None or now.sha256 != old.sha256):
            return None
        return old

    def are_still(self, places: Sequence[str], entries: Sequence[Entry]) -> bool:
        """Are the files certainly what `entries` say? By stats alone. `places`: their paths, resolved."""
        try:
            for place, entry in zip(places, entries, strict=True):
                now = os.stat(place)  # noqa: PTH116
                if not stat.S_ISREG(now.st_mode):
                    if not stat.S_ISDIR(now.st_mode) or entry.sha256 != DIRECTORY:
                        return False
                elif not entry[_SETTLED] or not entry.is_of(_stamp(now, place)):
                    return False
        except (OSError, ValueError):
            return False
        return True

    def current(self, path: str) -> Entry | None:
        """What the file is now, reading it unless that is known; None when there is no file. Raises OSError."""
        stamp = self._stamp_of(path)
        if stamp is None:
            self._drop(path)
            return None
        old = self.remembered(path)
        if old is not None and old.settled and old.is_of(stamp):
            return old
        return self.read(path)

    def read(self, path: str) -> Entry | None:
        """As `current`, but reads the file whatever its stamp is: for one that is known to have moved."""
        old = self.remembered(path)
        return self._taken(path, old, self._read(path, old)[0])

    def current_bytes(self, path: str) -> tuple[Entry | None, bytes | None]:
        """As `current`, and the bytes if they were read and hashed for that just now: for a file that was made a moment
        ago, so that it need not be read once more to be stored. Raises OSError."""
        old = self.remembered(path)
        if old is not None and old.settled:
            stamp = self._stamp_of(path)
            if stamp is not None and old.is_of(stamp):
                return old, None
        entry, data = self._read(path, old)
        return self._taken(path, old, entry), data

    def _taken(self, path: str, old: Entry | None, entry: Entry | None) -> Entry | None:
        """Remember what was read; None for no file."""
        if entry is None:
            self._drop(path)
        elif entry != old:
            self._put(path, entry)
        return entry

    def written(self, path: str, data: bytes, status: os.stat_result, digest: Digest) -> Entry | None:
        """The entry of a file that the caller has written just now, without reading it back; None when it is of another
        size. It is not settled: `settle` reads it, and sees what somebody else wrote there meanwhile."""
        stamp = _stamp(status, path)
        if stamp.size != digest.size:
            return None
        self._clock.meet(status.st_dev, self.resolve(path))
        old = self.remembered(path)
        if old is not None and old.sha256 == digest.hex:  # the same bytes: what was found out about them holds
            entry = Entry(stamp, old.fingerprint, digest.hex, False, old.marked)
        else:
            entry = Entry(stamp, fingerprint_bytes(data), digest.hex, False, self._is_marked(data))
        self._put(path, entry)
        return entry

    def _is_marked(self, data: bytes) -> bool:
        if data[:4] == _ELF:
            return False  # no compiler takes that for a text; most of what is built is one
        for mark in self._marks:  # noqa: SIM110 - for each file that is made
            if mark in data:
                return True
        return False

    def _put(self, path: str, entry: Entry) -> None:
        with self._lock:
            self._rows[path] = entry
            (self._unsettled.discard if entry.settled else self._unsettled.add)(path)
            self.changed = True

    def settle(self) -> None:
        """Read again what was read too soon after it was written, once the file system's clock has moved on."""
        waiting = sorted(self._unsettled)
        if waiting:
            self._clock.next_tick()
            for path in waiting:
                try:
                    if not self._is_settled_now(path):
                        self.read(path)
                except OSError:
                    self._drop(path)

    def _is_settled_now(self, path: str) -> bool:
        """Does the file hold what its entry says? Then the entry is settled from here on. The stamp is taken after the
        file was read: what is written between the two, and so after its file system was asked, moves it."""
        entry = self.remembered(path)
        if entry is None or entry.stamp.size > CHUNK:
            return False
        place = self.resolve(path)
        handle, status = open_regular(place)
        try:
            if not entry.is_of(_stamp(status, path)) or not self._clock.is_past(status, place):
                return False
            data = os.read(handle, entry.stamp.size + 1)
            status = os.fstat(handle)
        finally:
            os.close(handle)
        self.files_read += 1
        if fingerprint_bytes(data) != entry.fingerprint or not entry.is_of(_stamp(status, path)):
            return False
        self._put(path, entry.as_settled())
        return True

    def keep_only(self, *kept: Container[str]) -> None:
        """Forget every path that is in none of these."""
        gone = list(self._rows)
        for some in kept:
            gone = [path for path in gone if path not in some]
        for path in gone:
            self._drop(path)

    def _drop(self, path: str) -> None:
        with self._lock:
            self._unsettled.discard(path)
            if self._rows.pop(path, None) is not None:
                self.changed = True

    def plain(self) -> tuple[dict[str, bytes], tuple[str, ...]]:
        """The table as plain values, for a state file: path -> encoded entry, and the paths that are not settled. Of
        rows that are loaded as they are asked for, those that were."""
        rows, unsettled = self.live()
        return dict(rows), unsettled

    def live(self) -> tuple[dict[str, bytes], tuple[str, ...]]:
        """As `plain`, for whoever writes it at once: it may be the table's own, of which a copy takes megabytes."""
        rows = self._rows
        if not {_ROW_BYTES}.issuperset(map(len, list(rows.values()))):
            rows = {path: row if len(row) == _ROW_BYTES else b"" for path, row in rows.items()}  # it is read again
        return rows, tuple(sorted(self._unsettled))

    def _read(self, path: str, old: Entry | None) -> tuple[Entry | None, bytes | None]:
        """Hash the file. The digest is only computed when the fingerprint says that the bytes are new ones; of a small
        file the bytes that it was computed of are given, too."""
        place = self.resolve(path)
        try:
            handle, status = open_regular(place)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or error.errno in _MISSING:
                return None, None
            if isinstance(error, IsADirectoryError) and self._directories():
                stamp = _fields(os.stat(place))  # noqa: PTH116
                return Entry(stamp, fingerprint_bytes(DIRECTORY.encode()), DIRECTORY, settled=True), None
            raise
        try:
            before, past = _stamp(status, path), self._clock.is_past(status, place)
            if before.size > MAX_BLOB_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            data, digest = b"", ""
            if before.size > CHUNK:
                import xxhash

                fingerprint = xxhash.xxh3_128()
                known = self._of_size(before.size, old)
                sha256 = None if known else hashlib.sha256()
                size = _feed(handle, before.size, fingerprint, *([sha256] if sha256 is not None else []))
                digest = known.get(fingerprint.hexdigest(), "") if known else ""
                if known and not digest:
                    sha256 = hashlib.sha256()
                    os.lseek(handle, 0, os.SEEK_SET)
                    size = _feed(handle, before.size, sha256)
                digest = digest or (sha256.hexdigest() if sha256 is not None else "")
                name = Fingerprint(fingerprint.hexdigest())
            else:
                data = _whole(handle, before.size)
                size = len(data)
                name = fingerprint_bytes(data)
            after = os.fstat(handle)
        finally:
            os.close(handle)
        self.files_read += 1
        if old is not None and old.fingerprint == name and old.stamp.size == size:
            digest, marked, hashed = old.sha256, old.marked, None
        else:
            marked = bool(self._marks) and (bool(digest) or self._is_marked(data))
            hashed = None if digest else data
            digest = digest or hashlib.sha256(data).hexdigest()
        now = (after.st_size, after.st_mtime_ns, after.st_ctime_ns, after.st_ino, bool(after.st_mode & stat.S_IXUSR))
        steady = before == now and size == before.size
        stamp = before if size == before.size else before._replace(size=size)
        return Entry(stamp, name, digest, steady and past, marked), hashed

    def _of_size(self, size: int, old: Entry | None) -> dict[str, str]:
        """fingerprint -> SHA-256 of what is known about large files of this size, under whatever path: another link to
        one, or one whose inode alone moved, need not be hashed again."""
        found = [old] if old is not None else []
        if len(self._rows) <= _FEW:
            found += [entry for path in self._rows if (entry := self.remembered(path)) is not None]
        return {entry.fingerprint: entry.sha256 for entry in found if entry.stamp.size == size}


class _Hash(Protocol):
    def update(self, data: bytes, /) -> object: ...


def _feed(handle: int, size: int, *hashes: _Hash) -> int:
    """Pass a file of `size` bytes to the hashes; how many there were. What was added since then moves the stamp."""
    read = 0
    while read < size and (block := os.read(handle, CHUNK)):
        read += len(block)
        for one in hashes:
            one.update(block)
    return read


def _whole(handle: int, size: int) -> bytes:
    """A small file. Room for what is there: a buffer of CHUNK would be asked of the system and given back for each."""
    data = os.read(handle, size + 1)
    if len(data) == size:
        return data
    blocks = [data]
    read = len(data)
    while block := os.read(handle, size + 1):
        blocks.append(block)
        read += len(block)
        if read == size:
            break
    return b"".join(blocks)


_FEW = 1000
"""In a table of more files than this nobody looks for another name of a large one."""


def _saved(value: Any) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The parts of what `plain` gave; empty ones for anything else."""
    match value:
        case dict() as rows, tuple() as unsettled if all(path.__class__ is str for path in unsettled):
            return rows, unsettled
    return {}, ()


def next_tick(deadline_s: float = 0.05) -> None:
    """Return once the file system's clock has passed the instant of the call: some 10 ms on Linux, `deadline_s` at
    worst. Afterwards, whatever was written before the call is certainly in the past."""
    # One tick does not suffice: the clock may be late, and kernels that stamp finer stamp ahead of it.
    began_ns, give_up_s = time.time_ns(), time.monotonic() + deadline_s
    while filesystem_now_ns() <= began_ns and time.monotonic() < give_up_s:
        time.sleep(0.0005)
