"""What happens to the entries of directories, from the kernel's notifications, as soon as a save is over.

A thread reads inotify and passes on what it says in bursts. A burst ends at once when every file in it was closed by
whoever wrote it, or came by a rename, and nothing more happens for a moment (an editor that saves by a rename, or sets
the mode afterwards, does that in one go); else when nothing happened for a while, as where a file is cut off or linked
and nobody closes it. Linux only: elsewhere making one raises OSError. Knows directories; not which files matter.
What is written through a mapping is no event before the file is closed, and then one that whoever only opened it gives
as well: the file itself tells these apart. Invariants: what happens in a directory after `watch` returned is reported,
whatever directories are added or dropped later; where the kernel's queue was full, every directory is reported.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Collection

from pipeline.effects.inotify import (
    ATTRIB,
    CLOSE_WRITE,
    CREATE,
    DELETE,
    DELETE_SELF,
    IGNORED,
    ISDIR,
    MODIFY,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    ONLYDIR,
    OVERFLOW,
    UNMOUNT,
    Inotify,
    InotifyEvent,
)

LONGEST_S = 0.1
"""A burst is reported after this time at the latest."""
QUIET_S = 0.01
"""It ends when nothing happened for this time, where somebody may still write."""
SETTLED_S = 0.003
"""And for this time, where nobody does."""

_MASK = CREATE | MODIFY | ATTRIB | CLOSE_WRITE | DELETE | MOVED_FROM | MOVED_TO | DELETE_SELF | MOVE_SELF | ONLYDIR


class DirectoryEvents:
    """`report` is called with the paths of a burst, from a thread."""

    def __init__(self, report: Callable[[frozenset[str]], None]) -> None:
        self._report = report
        self._inotify = Inotify()
        self._names: dict[int, set[str]] = {}
        """Watch -> its directory, by every name by which it is asked for."""
        self._reported: dict[str, dict[str, tuple[int, int] | None]] = {}
        """Directory -> its files as they were when they were reported; None while somebody could still write."""
        self._lock = threading.Lock()
        """Of these two: an event of a watch may be read before who added it knows its number."""
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._pass_on, name="saves", daemon=True)
        self._thread.start()

    def watch(self, directories: Collection[str]) -> None:
        """From now on these, and no others; one that is not there, or may not be listed, is left out. Raises OSError
        where the limit of watches is reached."""
        with self._lock:
            wanted: dict[int, set[str]] = {}
            for path in directories:
                try:
                    wanted.setdefault(self._inotify.add(os.fsencode(path), _MASK), set()).add(path)
                except (FileNotFoundError, NotADirectoryError, PermissionError):
                    continue
            for number in self._names.keys() - wanted.keys():
                self._inotify.remove(number)
            self._reported = {
                path: self._reported.get(path, {}) if path in self._names.get(number, ()) else {}
                for number, paths in wanted.items()
                for path in paths
            }
            # What the kernel has said of the others already is still to be read.
            self._names = {**self._names, **wanted}

    def close(self) -> None:
        """End soon; what happened before this call is still reported. Idempotent."""
        if self._stopper >= 0:
            os.close(self._stopper)
            self._stopper = -1

    def _pass_on(self) -> None:
        try:
            stop = False
            while not stop:
                stop = self._is_stopped(None)
                burst = _Burst(time.monotonic())
                found = self._taken(burst)
                while found and not stop and (wait_s := burst.wait_s(time.monotonic())) > 0:
                    stop = self._is_stopped(wait_s)
                    self._taken(burst)
                if burst.paths:
                    self._remember(burst)
                    self._report(frozenset(burst.paths))
        finally:
            self._inotify.close()
            os.close(self._stop)

    def _is_stopped(self, timeout_s: float | None) -> bool:
        """Wait until something happened, or so long; has this been closed?"""
        poll = select.poll()
        poll.register(self._inotify.fileno(), select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        return any(handle == self._stop for handle, _ in poll.poll(timeout_s and 1000 * timeout_s))

    def _taken(self, burst: _Burst) -> bool:
        """Put what the kernel has to say into a burst. Does that concern anything?"""
        with self._lock:
            events = self._inotify.drain()
            before = burst.last_s
            for event in events:
                for path in self._paths(event):
                    if not event.mask & CLOSE_WRITE or path in burst.paths or not self._is_as_reported(path):
                        burst.take(path, event.mask)
                if event.mask & IGNORED:
                    for path in self._names.pop(event.watch, ()):
                        self._reported.get(path, {}).clear()
        return burst.last_s != before

    def _is_as_reported(self, path: str) -> bool:
        """Has whoever closed this file, and could have written, not done so? One that is gone was told to be."""
        directory, _, name = path.rpartition("/")
        now = _stamp(path)
        return now is None or now == self._reported.get(directory, {}).get(name)

    def _remember(self, burst: _Burst) -> None:
        """How the files are, before whoever is told of them looks."""
        with self._lock:
            for path in burst.paths:
                directory, _, name = path.rpartition("/")
                if (known := self._reported.get(directory)) is not None:
                    known[name] = None if path in burst.open else _stamp(path)

    def _paths(self, event: InotifyEvent) -> list[str]:
        if event.mask & OVERFLOW:
            return [path for paths in self._names.values() for path in paths]
        name = os.fsdecode(event.name)
        return [f"{path}/{name}" if name else path for path in self._names.get(event.watch, ())]


class _Burst:
    """What happened together."""

    def __init__(self, began_s: float) -> None:
        self.paths: set[str] = set()
        self.open: set[str] = set()
        """Files that somebody may still write to."""
        self._began_s, self.last_s = began_s, 0.0

    def take(self, path: str, mask: int) -> None:
        """Something happened there."""
        if mask & IGNORED and not mask & UNMOUNT:
            return  # whoever ended the watch knows, and what else ends it is told beside this
        self.last_s = time.monotonic()
        self.paths.add(path)
        if mask & ISDIR or mask & (CLOSE_WRITE | MOVED_TO | MOVED_FROM | DELETE | OVERFLOW | DELETE_SELF | MOVE_SELF):
            self.open.discard(path)
        elif mask & (CREATE | MODIFY):
            self.open.add(path)

    def wait_s(self, now_s: float) -> float:
        """How long to wait for more; none is 0 or less."""
        quiet_s = QUIET_S if self.open else SETTLED_S
        return min(self.last_s + quiet_s, self._began_s + LONGEST_S) - now_s


def _stamp(path: str) -> tuple[int, int] | None:
    """None where nothing is."""
    try:
        found = os.stat(path)  # noqa: PTH116 - one for each file of a burst
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def events_of(report: Callable[[frozenset[str]], None]) -> DirectoryEvents | None:
    """None where this kernel has none."""
    with contextlib.suppress(OSError):
        return DirectoryEvents(report)
    return None
