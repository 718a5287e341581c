"""Which of many paths may lead to something else, or to something that changed, since they were looked at.

Follows each path as the kernel does, name by name and link by link, and watches every inode on the way. Knows inotify;
not what the paths are for, or what they led to. Invariants: a path is watched before whoever added it looks at it; an
event that could concern a path either names it (`take`) or ends the trust in all of them (`Doubt`): a directory on the
way that was moved, replaced or locked, a full queue, an unmounted file system. That times or modes of a directory on
the way were set (copies do that, and installers) is no doubt where it can be passed as before.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable
from errno import ENOENT, ENOTDIR
from stat import S_ISDIR, S_ISLNK

from pipeline.effects.inotify import (
    ATTRIB,
    DELETE_SELF,
    ENTRIES,
    IGNORED,
    MOVE_SELF,
    OF_DIRECTORY,
    OF_FILE,
    OVERFLOW,
    UNMOUNT,
    Inotify,
    InotifyEvent,
    is_local,
)

MOST_LINKS = 40
"""As the kernel has it."""


class Doubt(Exception):
    """Nothing can be said about these paths any more, or never could; the text says why."""


class PathWatch:
    """Paths by number. One thread at a time."""

    def __init__(self, inotify: Inotify, local: Callable[[bytes], bool] = is_local) -> None:
        self._inotify = inotify
        self._local = local
        self._paths: dict[int, bytes] = {}
        self._directories: dict[bytes, int] = {}
        """Real directory -> its watch."""
        self._places: dict[int, bytes] = {}
        """Watch -> its real directory."""
        self._ends: dict[int, dict[bytes, list[int]]] = {}
        """Watch of a directory -> name in it -> the paths that end there."""
        self._ways: dict[int, set[bytes]] = {}
        """Watch of a directory -> names in it that paths lead through."""
        self._inodes: dict[int, list[int]] = {}
        """Watch -> the paths that lead to this inode."""
        self._devices: dict[int, bool] = {}
        self._parents: dict[bytes, bytes | None] = {}
        """Directory as written -> the real one; None where there is none."""
        self._found: set[int] = set()
        self._replaced: set[int] = set()

    def add(self, number: int, path: bytes) -> None:
        """Watch an absolute path, whether there is something or not. Raises Doubt."""
        self._paths[number] = path
        directory, _, name = path.rpartition(b"/")
        if directory not in self._parents:
            self._parents[directory] = self._real_directory(directory)
        real = self._parents[directory]
        if real is None or name in (b"", b".", b".."):
            self._follow(b"/", path.split(b"/"), number)
        else:
            self._follow(real, [name], number)

    def again(self, number: int) -> None:
        """The same path, after something happened to it: it may lead elsewhere now. Raises Doubt."""
        self.add(number, self._paths[number])

    def note(self) -> None:
        """Take what the kernel has, so that its queue does not fill up. Raises Doubt."""
        for event in self._inotify.drain():
            self._note(event)

    def take(self) -> set[int]:
        """The numbers of the paths to which something happened since the last call; each is watched as it is now.
        Raises Doubt."""
        self.note()
        found, self._found = self._found, set()
        replaced, self._replaced = self._replaced, set()
        for number in replaced:
            self.again(number)
        return found

    @property
    def noted(self) -> set[int]:
        """What the next `take` returns at least."""
        return self._found

    def leads_through(self, places: Iterable[bytes]) -> bool:
        """Does one of the paths go through one of these real paths, or end there? Each directory on a way is known."""
        for place in places:
            directory, _, name = place.rpartition(b"/")
            watch = self._directories.get(directory or b"/")
            if place in self._directories or (watch is not None and name in self._ends[watch]):
                return True
        return False

    def fileno(self) -> int:
        """Readable when something happened."""
        return self._inotify.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._inotify.close()

    def _note(self, event: InotifyEvent) -> None:
        watch, mask, name = event
        found, replaced = self._found, self._replaced
        if mask & (OVERFLOW | UNMOUNT):
            raise Doubt("the kernel's queue was full" if mask & OVERFLOW else "a file system was unmounted")
        ways = self._ways.get(watch)
        if ways is None:  # a file
            concerned = self._inodes.get(watch, [])
            found.update(concerned)
            if mask & IGNORED:
                self._inodes.pop(watch, None)
            if mask & (IGNORED | DELETE_SELF | MOVE_SELF):
                replaced.update(concerned)
            return
        if not name:
            if mask & (IGNORED | DELETE_SELF | MOVE_SELF) or not _may_pass(self._places[watch]):
                raise Doubt("a directory was moved, removed or locked")
            if mask & ATTRIB:
                found.update(self._inodes.get(watch, ()))
            return
        if name in ways and (mask & ENTRIES or not _may_pass(posixpath.join(self._places[watch], name))):
            raise Doubt("a directory or link on the way was replaced or locked")
        if mask & ENTRIES:
            found.update(self._inodes.get(watch, ()))
        ends = self._ends[watch].get(name, ())
        found.update(ends)
        if mask & ENTRIES:
            replaced.update(ends)

    # --- the way of a path ----------------------------------------------------------------------

    def _real_directory(self, path: bytes) -> bytes | None:
        """The directory that a path leads to, every inode on the way watched; None where there is none."""
        return self._follow(b"/", path.split(b"/"), None)

    def _follow(self, real: bytes, names: list[bytes], number: int | None) -> bytes | None:
        """Go from a real directory through `names`. What the last of them leads to belongs to `number`; without one,
        it has to be a directory, and is returned."""
        rest = _proper(names)
        links = 0
        watch = self._enter(real)
        while rest:
            name = rest.pop()
            if name == b"..":
                real = posixpath.dirname(real)
                watch = self._enter(real)
                continue
            path = posixpath.join(real, name)
            status = _lstat(path)
            target = _target(path, status)
            if target is not None:
                self._ways[watch].add(name)
                links += 1
                if links > MOST_LINKS:
                    raise Doubt(f"{os.fsdecode(path)}: too many links")
                real = b"/" if target[:1] == b"/" else real
                watch = self._enter(real)
                rest += _proper(target.split(b"/"))
            elif status is not None and S_ISDIR(status.st_mode) and (rest or number is None):
                self._ways[watch].add(name)
                real = path
                watch = self._enter(real)
            elif number is None:
                return None  # whoever asked follows the path again, with its number
            else:
                _add(self._ends[watch].setdefault(name, []), number)
                if status is not None and S_ISDIR(status.st_mode):
                    self._ways[watch].add(name)  # another one of its name would need other watches
                self._arrive(path, status, number)
                return None
        if number is not None:  # the path ended in a link to the root, or in ".."
            _add(self._inodes.setdefault(watch, []), number)
        return real

    def _arrive(self, path: bytes, status: os.stat_result | None, number: int) -> None:
        """Watch what a path leads to."""
        if status is None:
            return
        if S_ISDIR(status.st_mode):
            entered = self._entered(path)
            if entered is None:
                return  # it is gone, and the event of that is under way
            watch = entered
        else:
            self._trust(path, status)
            found = self._watch(path, OF_FILE)
            if found is None:
                return  # it is gone, and the event of that is under way
            watch = found
        _add(self._inodes.setdefault(watch, []), number)

    def _enter(self, real: bytes) -> int:
        """The watch of a real directory."""
        watch = self._entered(real)
        if watch is None:
            raise Doubt(f"{os.fsdecode(real)}: vanished meanwhile")
        return watch

    def _entered(self, real: bytes) -> int | None:
        """The same; None where there is none (any more)."""
        watch = self._directories.get(real)
        if watch is None:
            watch = self._watch(real, OF_DIRECTORY)
            status = _lstat(real)
            if watch is None or status is None:
                return None
            self._trust(real, status)
            self._directories[real], self._places[watch] = watch, real
            self._ends.setdefault(watch, {})
            self._ways.setdefault(watch, set())
        return watch

    def _watch(self, path: bytes, mask: int) -> int | None:
        """None where there is nothing. Raises Doubt."""
        try:
            return self._inotify.add(path, mask)
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                return None
            raise Doubt(f"{error.filename}: {error.strerror}") from None

    def _trust(self, path: bytes, status: os.stat_result) -> None:
        """Raises Doubt where others than this kernel may write."""
        if status.st_dev not in self._devices:
            try:
                self._devices[status.st_dev] = self._local(path)
            except OSError as error:
                raise Doubt(f"{os.fsdecode(path)}: {error.strerror}") from None
        if not self._devices[status.st_dev]:
            raise Doubt(f"{os.fsdecode(path)}: not on a file system of this machine alone")


def _may_pass(path: bytes) -> bool:
    """May this process go through what lies there, be it a directory or a link to one, and list it?"""
    return os.access(path, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _proper(names: list[bytes]) -> list[bytes]:
    """In the order of a stack."""
    return [name for name in reversed(names) if name not in (b"", b".")]


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _target(path: bytes, status: os.stat_result | None) -> bytes | None:
    """Where a link leads; None for what is none."""
    if status is None or not S_ISLNK(status.st_mode):
        return None
    try:
        return os.readlink(path)  # noqa: PTH115 - bytes
    except OSError:
        raise Doubt(f"{os.fsdecode(path)}: vanished meanwhile") from None


def _add(numbers: list[int], number: int) -> None:
    if number not in numbers:
        numbers.append(number)
