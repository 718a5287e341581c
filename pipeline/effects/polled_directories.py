"""What happens to the entries of directories, found by looking at them again and again.

For file systems that send no notifications, which are mostly those of other machines. Knows directories; not which
files matter. Each change is reported twice, with a look in between: one that comes in the same tick of the file
system's clock as the one before may leave the stamp as it is. Invariant: what happens in a directory after `watch`
returned is reported, whatever directories are added or dropped later.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection

POLL_S = 0.2
"""Between two looks, at least."""
_SHARE = 10
"""And this many times as long as a look took, so that ten thousand files do not keep a core busy."""

_Entries = dict[str, tuple[int, ...]]
"""Path -> what moves when it is written, replaced or removed. Of a directory: that it is this one."""


class PolledDirectories:
    """`report` is called with the paths of what changed between two looks, from a thread. `watch` and `close` as those
    of `directory_events.DirectoryEvents`."""

    def __init__(self, report: Callable[[frozenset[str]], None], poll_s: float = POLL_S) -> None:
        """`poll_s`: between two looks, at least."""
        self._report = report
        self._poll_s = poll_s
        self._seen: dict[str, _Entries] = {}
        self._due: set[str] = set()
        """Found and not reported yet."""
        self._again: set[str] = set()
        """Reported once."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._pass_on, name="saves", daemon=True)
        self._thread.start()

    def watch(self, directories: Collection[str]) -> None:
        """From now on these, and no others; one that is not there, or may not be listed, has no entries."""
        with self._lock:
            self._look()
            self._seen = {path: self._seen[path] if path in self._seen else _entries(path) for path in directories}

    def close(self) -> None:
        """End soon; what happened before this call is still reported. Idempotent."""
        self._stop.set()

    def _pass_on(self) -> None:
        wait_s, stopped = self._poll_s, False
        while not stopped:
            stopped = self._stop.wait(wait_s)
            began_s = time.monotonic()
            with self._lock:
                self._look()
                news = self._due | self._again
                self._again, self._due = self._due, set()
            wait_s = max(self._poll_s, _SHARE * (time.monotonic() - began_s))
            if news:
                self._report(frozenset(news))

    def _look(self) -> None:
        """Note what is not as it was. Precondition: the lock is held."""
        for directory, before in self._seen.items():
            now = _entries(directory)
            if now != before:
                self._due.update(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
                self._seen[directory] = now


def _entries(directory: str) -> _Entries:
    """The directory itself and what is in it."""
    found: _Entries = {}
    with contextlib.suppress(OSError):
        found[directory] = (os.stat(directory).st_ino,)  # noqa: PTH116 - of each directory, all the time
        with os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # it is gone by now
                    status = entry.stat(follow_symlinks=False)
                    is_directory = entry.is_dir(follow_symlinks=False)
                    written = () if is_directory else (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
                    found[f"{directory.rstrip('/')}/{entry.name}"] = (status.st_ino, status.st_mode, *written)
    return found
