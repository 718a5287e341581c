"""Is the code on disk still what this process has loaded? Asked of a runner at each run that is handed to it.

Watches every file of ours, every module that is loaded, and the places that modules come from, so that a question
costs a read of the kernel's notifications and a look at what they name, in the place of a look at more than a thousand
files. Knows paths and inotify; not what the code does. Invariants: a path is watched before it is looked at; "as it was
loaded" is said only where a look at each of them would say so now; after anything that notifications do not tell
(mounts, suspend, a full queue), and where nothing can be watched, each is looked at.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.effects.inotify import Inotify, MountTable, slept_s
from pipeline.fastpath import FileStamp, stamp_of
from pipeline.service.path_watch import Doubt, PathWatch

PACKAGES = ("pipeline", "cache", "virtualboard")
MOST_TRIES = 8
"""So often watches are made anew; where that does not help, each path is looked at."""
SLEPT_S = 0.01
"""The clocks are read one after the other; no suspend is that short."""


class LoadedCode:
    """All calls from one thread. A process that is forked off has to `let_go` at once: it would take the runner's
    notifications."""

    def __init__(self, paths: Iterable[str] | None = None, make: Callable[[], PathWatch] | None = None) -> None:
        self._paths = list(code_paths() if paths is None else paths)
        self._make = make or (lambda: PathWatch(Inotify()))
        self._stamps = list(map(_stamp, self._paths))
        self._watch: PathWatch | None = None
        self._mounts: MountTable | None = None
        self._tries = MOST_TRIES
        self._slept_s = slept_s()
        self._moved: set[int] = set()
        """What was seen to be another one."""
        self.looked = 0
        """How often each path was looked at since."""
        self.watch()

    def is_as_loaded(self) -> bool:
        """Is everything what it was?"""
        if self._watch is not None and not self._is_doubtful():
            try:
                noted = self._watch.take()
            except (Doubt, OSError):
                self.let_go()
            else:
                found = self._moved | noted
                self._moved = {number for number in found if _stamp(self._paths[number]) != self._stamps[number]}
                return not self._moved
        self.let_go()
        return self._look()

    def watch(self) -> None:
        """Watch all, where that is not done; takes long. What changed before that, the next question sees."""
        if self._watch is not None or self._tries <= 0:
            return
        self._tries -= 1
        try:
            self._mounts = MountTable()
            self._slept_s = slept_s()
            self._watch = self._make()
            for number, path in enumerate(self._paths):
                self._watch.add(number, os.fsencode(os.path.abspath(path)))  # noqa: PTH100
        except (Doubt, OSError):
            self.let_go()
            return
        if not self._look():
            self.let_go()  # and each question sees that again

    def let_go(self) -> None:
        """Watch no more. Idempotent."""
        for one in (self._watch, self._mounts):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.close()
        self._watch, self._mounts = None, None

    def _look(self) -> bool:
        self.looked += 1
        return list(map(_stamp, self._paths)) == self._stamps

    def _is_doubtful(self) -> bool:
        """Did something happen that notifications do not tell?"""
        assert self._mounts is not None and self._watch is not None
        before, self._slept_s = self._slept_s, slept_s()
        return self._watch.leads_through(self._mounts.changed()) or abs(self._slept_s - before) > SLEPT_S


def code_paths() -> set[str]:
    """All of our code, every module that is loaded, and what says where modules come from."""
    found = {str(path) for name in PACKAGES for path in _sources(name)}
    found |= {path for module in list(sys.modules.values()) if (path := getattr(module, "__file__", None))}
    found |= set(filter(os.path.isdir, sys.path))  # what is installed there, doit was told at the start
    found |= {str(more) for path in sys.path for more in Path(path).glob("*.pth")}  # may name other such places
    found.add(f"{sys.prefix}/pyvenv.cfg")
    return found


def _sources(package: str) -> list[Path]:
    paths = importlib.import_module(package).__path__
    return [path for directory in paths for path in Path(directory).rglob("*.py")]


def _stamp(path: str) -> FileStamp | None:
    try:
        found: FileStamp = stamp_of(os.stat(path))  # noqa: PTH116 - some hundreds at once
    except OSError:
        return None
    return found
