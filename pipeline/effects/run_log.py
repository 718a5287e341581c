"""Append-only log files, and the directory of run logs.

The file side of `records.py` and `events.py`: opens, repairs, locks, appends, deletes. Does not know what a
record means, what a report looks like, or doit.
Invariant: a line that `append` returned from survives `kill -9` of this process, and a writer holds an exclusive lock
on its file for as long as it lives: an unlocked log without an end is that of a dead run.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from cache import statefile
from cache.durable import open_regular, read_file
from cache.lock import OPEN, try_lock
from pipeline.events import RUN_LOG_HEADER, decode_log, decode_log_prefix, encode, finished, is_tx, killed
from pipeline.model import Event, EventKind

SUFFIX = ".log"


class AppendLog:
    """One locked, append-only file.

    `header` begins a new file. `good(data)` says how many leading bytes of an existing one to keep: the rest (a torn
    tail, damage) is cut off before the first append, or the next line would be glued to it. `sync` makes each append
    reach the disk and not only the kernel: for what must survive a power cut (the device journal).
    Raises OSError; BlockingIOError when another process holds the file."""

    def __init__(self, path: Path, header: bytes, good: Callable[[bytes], int], *, sync: bool = False) -> None:
        self._sync = sync
        self._fd = os.open(path, OPEN | os.O_APPEND, 0o644)
        try:
            if not try_lock(self._fd):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
            self.data = _read_all(self._fd)
            """The content that was kept, as found when opening."""
            keep = good(self.data)
            if keep < len(self.data):
                os.ftruncate(self._fd, keep)
                self.data = self.data[:keep]
            if not self.data:
                self.append(header)
        except BaseException:
            self.close()
            raise

    def append(self, line: bytes) -> None:
        """Add `line`; it is in the kernel's hands (`sync`: on the disk) on return."""
        view = memoryview(line)
        while view:
            view = view[os.write(self._fd, view) :]
        if self._sync:
            os.fsync(self._fd)

    def close(self) -> None:
        """Release the file and its lock. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read_all(fd: int) -> bytes:
    parts = []
    offset = 0
    while part := os.pread(fd, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


_PACKED_TOGETHER = 256
"""Events of a run log: a run without so many packs none."""


class RunLog:
    """The log of the run under way. Losing it must not stop the run: what cannot be written is kept in `events` (the
    report is still rendered from them), and `note` says in one line why."""

    def __init__(self, path: Path, file: AppendLog | None, note: str | None = None) -> None:
        self.path = path
        self._said: list[bytes] = []
        self._packed: list[bytes] = []
        self.note = note
        self._file = file

    @classmethod
    def create(cls, directory: Path, tx: str) -> RunLog:
        """A new log `<directory>/<tx>.log`. Raises FileExistsError when `tx` is taken, ValueError when it is no
        transaction id."""
        if not is_tx(tx):
            raise ValueError(f"{tx!r} is not a transaction id")
        path = directory / (tx + SUFFIX)
        # Under a private name until it is locked: a log that can be seen unlocked would look like that of a dead run.
        # Linking, unlike renaming, refuses a name that exists.
        fresh = directory / f".{tx}.{os.getpid()}.new"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = AppendLog(fresh, RUN_LOG_HEADER, lambda _: 0)
        except OSError as error:
            return cls(path, None, f"{path}: the run log cannot be written ({error.strerror}); going on without")
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            file.close()
            raise
        except OSError:
            # A file system without hard links; ids are random, so that a clash here is only theory.
            fresh.rename(path)
        finally:
            fresh.unlink(missing_ok=True)
        return cls(path, file)

    def append(self, event: Event) -> None:
        """Record `event`, at once."""
        self.append_all((event,))

    def append_all(self, events: Iterable[Event]) -> None:
        """Record them, at once and in one write."""
        lines = [encode(event) for event in events]
        for line in lines:
            self._keep(line)
        if self._file is None:
            return
        try:
            self._file.append(b"".join(lines))
        except OSError as error:
            self.note = f"{self.path}: the run log cannot be written ({error.strerror}); going on without"
            self.close()

    def _keep(self, line: bytes) -> None:
        """In memory, as it is written and packed: as values, an event for each of fifty thousand actions takes ten
        times as much."""
        self._said.append(line)
        if len(self._said) >= _PACKED_TOGETHER:
            import zlib

            self._packed.append(zlib.compress(b"".join(self._said), 1))
            self._said = []

    @property
    def events(self) -> list[Event]:
        """All so far."""
        data = [RUN_LOG_HEADER]
        if self._packed:
            import zlib

            data += map(zlib.decompress, self._packed)
        return decode_log(b"".join([*data, *self._said]))[0]

    def close(self) -> None:
        """Release the file and its lock. Idempotent; later events are only kept in memory."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read(path: Path) -> tuple[list[Event], str | None]:
    """The events of a log, finished or not, and one line about what could not be read."""
    try:
        return decode_log(read_file(str(path)))
    except OSError as error:
        return [], f"{path}: {error.strerror}"


def unfinished(directory: Path) -> list[Path]:
    """Logs of runs that died without an end, oldest first. Logs in which nothing can be read are none of them.

    Which logs have their end is remembered with their stamps: nobody writes behind an end, and whatever is put in a
    log's place has another stamp. So a run opens the few logs that came since, and not two hundred."""
    state = directory / _ENDED_NAME
    stamps = _log_stamps(directory)
    kept, _ = statefile.load(state, _ENDED_KIND)
    ended = kept if isinstance(kept, dict) else {}
    names = sorted(name for name, stamp in stamps.items() if ended.get(name) != stamp)
    paths = [directory / name for name in names if is_tx(name.removesuffix(SUFFIX))]
    ends = {path.name for path in paths if _has_end(path)}
    # One that was written just now could be written again within the same tick of the file system's clock.
    new = {name for name in ends if stamps[name][2] < time.time_ns() - _SETTLED_NS}
    if len(new) >= _ENDED_NEW:
        with suppress(OSError):
            known = {name: stamp for name, stamp in stamps.items() if name in new or ended.get(name) == stamp}
            statefile.save(state, _ENDED_KIND, known)
    return [path for path in paths if path.name not in ends and is_dead(path)]


def _log_stamps(directory: Path) -> dict[str, tuple[int, int, int, int]]:
    """Size, mtime, ctime and inode of each log, by name. One that another run deletes meanwhile is not among them."""
    stamps = {}
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    stamps[entry.name] = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    return stamps


_ENDED_NAME, _ENDED_KIND = "ended.v1.state", "ended logs 1"
_SETTLED_NS = 2_000_000_000
_ENDED_NEW = 8
"""So many that are not remembered yet are looked at in each run, so that not every run writes the file."""


def is_dead(path: Path) -> bool:
    """Is this the log of a run that ended without a word?"""
    return not _has_end(path) and not _is_held(path) and _lacks_end(path)


def _has_end(path: Path) -> bool:
    """Is the last line that of a finished run? Asked of many logs, so it reads no more."""
    try:
        fd = open_regular(str(path))[0]
    except OSError:
        return False
    try:
        tail = os.pread(fd, _LAST_LINE, max(0, os.fstat(fd).st_size - _LAST_LINE))
    finally:
        os.close(fd)
    lines = tail.split(b"\n")
    return len(lines) > 1 and lines[-1] == b"" and _RUN_FINISHED in lines[-2]


_LAST_LINE = 256
"""Bytes that hold the last line of a finished log: some 130."""

_RUN_FINISHED = b'"kind":"%s"' % EventKind.RUN_FINISHED.value.encode()


def _lacks_end(path: Path) -> bool:
    events, _ = read(path)
    return bool(events) and not finished(events)


def _is_held(path: Path) -> bool:
    try:
        fd = open_regular(str(path))[0]
    except OSError:
        return False
    try:
        return not try_lock(fd, shared=True)
    except OSError:
        return True
    finally:
        os.close(fd)


def close_killed(path: Path) -> list[Event]:
    """Write the end that a dead run could not write, and return all its events, for its report. Empty when there is
    nothing to do: another process did it first, or the log is in use."""
    try:
        file = AppendLog(path, RUN_LOG_HEADER, lambda data: decode_log_prefix(data)[2])
    except OSError:
        return []
    try:
        events, _ = decode_log(file.data)
        added = killed(events) if events else []
        for event in added:
            file.append(encode(event))
    except OSError:
        pass  # A full disk: the next run tries again, and this one still renders what it read.
    finally:
        file.close()
    return [*events, *added] if added else []


def append_line(path: Path, line: bytes, max_bytes: int) -> None:
    """Add `line` to a file of lines that every reader must be able to do without: no checksum, no lock. What a killed
    writer left is ended first, so that only its own line is lost. At `max_bytes` the file takes the place of
    `<stem>.1<suffix>` and a new one begins: a writer that has it open still writes to a file that is read.
    Raises OSError."""
    with suppress(FileNotFoundError):
        if path.stat().st_size + len(line) > max_bytes:
            path.replace(path.with_name(f"{path.stem}.1{path.suffix}"))
    fd = os.open(path, OPEN | os.O_APPEND, 0o644)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        view = memoryview(line)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


# --- housekeeping -----------------------------------------------------------------------------


def expired(names: Iterable[str], keep: int) -> list[str]:
    """Which of these file names to delete, so that the `keep` newest transactions stay with all their files.

    Pure. The age is in the name; a name that does not begin with a transaction id is not ours and stays."""
    ids = {name: name.partition(".")[0] for name in names}
    if len(set(ids.values())) <= keep:
        return []
    ours = {name: tx for name, tx in ids.items() if is_tx(tx)}
    newest = set(sorted(set(ours.values()), reverse=True)[: max(keep, 0)])
    return sorted(name for name, tx in ours.items() if tx not in newest)


def prune(directory: Path, keep: int) -> list[Path]:
    """Delete the files of all but the `keep` newest transactions; logs in use, and those of dead runs that nobody has
    reported yet, stay. Returns what was deleted."""
    try:
        names = [entry.name for entry in directory.iterdir()]
    except OSError:
        return []
    deleted = []
    for path in (directory / name for name in expired(names, keep)):
        if path.suffix == SUFFIX and (_is_held(path) or is_dead(path)):
            continue
        with suppress(OSError):
            path.unlink()
            deleted.append(path)
    return deleted


def prune_reports(directory: Path, keep: int, never: Collection[str] = ()) -> list[Path]:
    """Delete the rendered reports (`<tx>.md`, `<tx>.json`) of all but the `keep` newest transactions, and of none in
    `never`. Other files are not ours: baselines, and whatever a person put there. Returns what was deleted."""
    try:
        entries = [entry.name for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    reports = [name for name in entries if name.partition(".")[2] in ("md", "json")]
    deleted = []
    for name in expired(reports, keep):
        if name.partition(".")[0] not in never:
            with suppress(OSError):
                (directory / name).unlink()
                deleted.append(directory / name)
    return deleted


def is_deploy(events: Iterable[Event]) -> bool:
    """Does this log belong to a device, and so deserve a report? Host-only runs write the log alone."""
    return any(event.kind is EventKind.RUN_STARTED and event.data["device"] for event in events)
