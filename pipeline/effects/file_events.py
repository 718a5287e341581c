"""Notices that files in directories were written, by the operating system's notifications or by polling.

Linux's notifications are read by `directory_events`, all others are the matter of `watchfiles`, which takes 20 ms to
find that a burst is over. It could poll, too, but takes two saves of one second for one, so `polled_directories` does
that. Knows directories. Does not know which of the files matter. Invariant: what happens in a directory after `watch`
returned is reported, whatever directories are added or dropped later: a new set is watched before the old one is let
go. What is reported is a hint to look, never a fact about content.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection
from errno import ENOSPC
from typing import Any

from pipeline.effects.directory_events import DirectoryEvents, events_of
from pipeline.effects.polled_directories import PolledDirectories

DEBOUNCE_MS = 100
"""A burst is reported after this time at the latest."""
STEP_MS = 10
"""A burst ends when nothing happened for this time: an editor's write, rename and chmod are one save."""
UNUSED_MS = 200
"""What `watchfiles` would wait between two looks."""
DRAIN_MS = 100
"""How long a set of directories that is let go is still listened to: its last events may be under way."""


class WatchUnavailable(Exception):
    """There is no way to notice saves here; the text says why."""


class DirectoryWatcher:
    """Watches the entries of directories, not what lies below their sub-directories."""

    def __init__(self, report: Callable[[frozenset[str]], None], *, poll: bool) -> None:
        """`report` is called with the paths of a burst, from a thread. `poll`: do without notifications.
        Raises WatchUnavailable when `watchfiles` is needed and not installed."""
        self._events: DirectoryEvents | PolledDirectories | None
        self._events = PolledDirectories(self._pass_on) if poll else events_of(self._pass_on)
        if self._events is None:
            try:
                from watchfiles._rust_notify import RustNotify
            except ImportError:
                raise WatchUnavailable("the package watchfiles is not installed for this Python") from None
            self._make: Any = RustNotify
        self._report = report
        self._current: _Source | None = None
        self._watched: dict[str, int] = {}
        self._has_begun = False
        self._lost = False
        """Did something happen to a watched directory itself? One of the same name may have its inode number."""

    def watch(self, directories: Collection[str]) -> bool:
        """From now on watch these (absolute paths; those that do not exist are left out). False when that is what was
        watched already. A directory that was replaced by another of its name counts as new."""
        wanted = _inodes(directories)
        lost, self._lost = self._lost, False
        if self._has_begun and wanted == self._watched and not lost:
            return False
        self._has_begun = True
        if self._events is not None:
            self._watched = {**self._watched, **wanted}
            try:
                self._events.watch(wanted)
            except OSError as error:
                raise WatchUnavailable(_limit(error)) from None
            self._watched = wanted
            return True
        fresh = self._start(wanted)
        if self._current is not None:
            self._current.close()
        self._current, self._watched = fresh, wanted
        return True

    def close(self) -> None:
        """Stop reporting. Idempotent."""
        if self._events is not None:
            self._events.close()
        if self._current is not None:
            self._current.close()
            self._current = None

    def _pass_on(self, paths: frozenset[str]) -> None:
        if not paths.isdisjoint(self._watched):
            self._lost = True
        self._report(paths)

    def _start(self, wanted: dict[str, int]) -> _Source:
        while True:
            try:
                return _Source(self._make(list(wanted), False, False, UNUSED_MS, False, True), self._pass_on)
            except FileNotFoundError:
                # one of them vanished since it was looked at
                still = _inodes(wanted)
                if still == wanted:
                    raise
                wanted = still
            except OSError as error:
                # the limit of inotify watches is the usual one; the message of watchfiles names it
                raise WatchUnavailable(str(error)) from None


class _Source:
    """One set of directories under watch, and the thread that passes on what happens there."""

    def __init__(self, notify: Any, report: Callable[[frozenset[str]], None]) -> None:
        self._notify = notify
        self._report = report
        self._stop = threading.Event()
        threading.Thread(target=self._pass_on, name="saves", daemon=True).start()

    def _pass_on(self) -> None:
        while True:
            stop = self._stop.is_set()
            # Not with a stop event: watchfiles then drops what it has noticed and not yet returned.
            found = self._notify.watch(DEBOUNCE_MS, STEP_MS, DRAIN_MS, None)
            if not isinstance(found, str):
                self._report(frozenset(path for _, path in found))
            elif stop and found == "timeout":
                self._notify.close()
                return

    def close(self) -> None:
        """End soon; what happened before this call is still reported."""
        self._stop.set()


def _limit(error: OSError) -> str:
    """Which limit it is that no more directory can be watched for."""
    if error.errno == ENOSPC:
        return f"{error.filename}: the limit of inotify watches is reached (fs.inotify.max_user_watches)"
    return f"{error.filename}: {error.strerror}"


def _inodes(directories: Collection[str]) -> dict[str, int]:
    found = {}
    for path in directories:
        with contextlib.suppress(OSError):
            found[path] = os.stat(path).st_ino  # noqa: PTH116 - once per directory of the project
    return found
