"""Files that users' commands write below build/ and that no action declares: they would be missing after a restore.

Lists build/ before and after each such command. Does not know what commands do. A file that appeared while several ran
is charged to the one that makes it again when it runs alone, and only once nobody is writing any more: what is gone by
then was a temporary file. Toolchains' own commands are not watched: what they write is known, and there may be ten
thousand of them. Invariant: an action is charged only with a file that it wrote; nothing is removed that is not made
again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from cache.durable import temp_beside
from cache.named_tuple import NamedTuple
from pipeline.engine.execution import Executed
from pipeline.engine.workspace import Workspace

_Content = tuple[int, int, int]
_Listing = dict[str, _Content]


class _Command:
    """One command of a user; `after` is None while it runs."""

    def __init__(self, before: _Listing) -> None:
        self.before = before
        self.after: _Listing | None = None
        self.beside: set[_Command] = set()
        """Those that ran at some instant at which this one did."""

    def may_have_made(self, path: str) -> bool:
        return self.after is not None and path in self.after and self.before.get(path) != self.after[path]


class WatchedRun(NamedTuple):
    """What a command did, and the file that it wrote and that no action declares, `""` if there is none."""

    ran: Executed
    stray: str


class UndeclaredOutputs:
    """The users' commands of one run. Used by several threads at once."""

    def __init__(self, workspace: Workspace) -> None:
        self._root = str(workspace.root)
        order, real = workspace.graph.order, workspace.links.real
        made = {path for action in order for path in (*action.outputs, action.depfile)}
        users = [path for action in order if action.is_users for path in (*action.outputs, action.depfile)]
        self._declared = made.union(map(real, users))
        self._changed = threading.Condition()
        self._running: set[_Command] = set()
        self._waiting_to_be_alone = 0

    def run(self, execute: Callable[[], Executed]) -> WatchedRun:
        """Execute a command; twice if it cannot be told otherwise what it wrote. Raises what `execute` does."""
        command = self._begin()
        try:
            ran = execute()
        finally:
            self._end(command)
        if ran.failure is not None:
            return WatchedRun(ran, "")
        strays = sorted(filter(command.may_have_made, command.after or ()))
        if not strays:
            return WatchedRun(ran, "")
        with self._changed:
            self._changed.wait_for(lambda: self._running.isdisjoint(command.beside))
            now = self._list()  # not while another is alone: what it is suspected of is aside then
        shared = []
        for path in strays:
            if path not in now:
                continue
            if not any(other.may_have_made(path) for other in command.beside):
                return WatchedRun(ran, path)
            shared.append(path)
        return self._run_alone(execute, shared) if shared else WatchedRun(ran, "")

    def _begin(self) -> _Command:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_to_be_alone == 0)
            command = _Command(self._list())
            for other in self._running:
                other.beside.add(command)
                command.beside.add(other)
            self._running.add(command)
        return command

    def _end(self, command: _Command) -> None:
        listing = self._list()
        with self._changed:
            command.after = listing
            self._running.discard(command)
            self._changed.notify_all()

    def _run_alone(self, execute: Callable[[], Executed], suspects: list[str]) -> WatchedRun:
        """Which of these does it make when no other command of a user runs, and they are not there?"""
        with self._changed:
            self._waiting_to_be_alone += 1
            try:
                self._changed.wait_for(lambda: not self._running)
                with self._set_aside(suspects) as missing:
                    ran = execute()
                    now = self._list()
                    return WatchedRun(ran, next((path for path in missing if path in now), ""))
            finally:
                self._waiting_to_be_alone -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def _set_aside(self, paths: list[str]) -> Iterator[list[str]]:
        """Those that could be moved away; afterwards each that was not made again is put back."""
        moved: dict[str, str] = {}
        for path in paths:
            place = f"{self._root}/{path}"
            with contextlib.suppress(OSError):
                os.rename(place, aside := temp_beside(place))  # noqa: PTH104
                moved[path] = aside
        try:
            yield list(moved)
        finally:
            for path, aside in moved.items():
                place = f"{self._root}/{path}"
                with contextlib.suppress(OSError):
                    if os.path.lexists(place):
                        os.unlink(aside)  # noqa: PTH108
                    else:
                        os.rename(aside, place)  # noqa: PTH104

    def _list(self) -> _Listing:
        """path -> mtime, size and inode of every file below build/ that nobody declared and that is no temporary one of
        ours. Not ctime: it moves when another name of the file, which may be an old output, is removed."""
        found = {}
        waiting = ["build"]
        while waiting:
            directory = waiting.pop()
            with contextlib.suppress(FileNotFoundError), os.scandir(f"{self._root}/{directory}") as scan:
                for entry in scan:
                    path = f"{directory}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif path not in self._declared and not entry.name.endswith(".tmp"):
                        with contextlib.suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return found
