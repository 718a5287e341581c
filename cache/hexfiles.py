"""Files named by 64 hex digits, two levels deep, in a directory that others may write to as well: the store's ground.

    top/ab/abcd...      one file; whatever else lies there is damage

Knows names and files, not what they mean. Invariant: nothing outside `top` is written, touched or removed, whatever
lies there: what is changed is named within a directory that was opened without following links (on Windows, which
cannot do that, within one that was asked about just before), and a name is 64 hex digits before it is part of a path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from _thread import allocate_lock  # `threading` is not needed for it
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from cache.digest import is_hex_name
from cache.durable import NEW_FILE, read_file, write_all
from cache.named_tuple import NamedTuple
from cache.sharing import Sharing

_AT = {os.open, os.mkdir, os.unlink, os.stat, os.rename} <= os.supports_dir_fd and os.scandir in os.supports_fd
"""Can files be named within an open directory?"""
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NEW_TO_READ = NEW_FILE & ~os.O_WRONLY | os.O_RDWR
_IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP)
"""What is no directory, and on some systems a link to one."""

_is_group = re.compile("[0-9a-f]{2}").fullmatch


class HexFile(NamedTuple):
    """Something that lies where files belong. `group` is its directory, `""` for `top` itself; `status` is of the file
    or link, never of what a link leads to."""

    group: str
    name: str
    status: os.stat_result

    @property
    def is_temporary(self) -> bool:
        """Is it a file that somebody is writing, or left over from that?"""
        return self.name.startswith(".") and self.name.endswith(".tmp") and stat.S_ISREG(self.status.st_mode)

    @property
    def size(self) -> int:
        """Bytes that removing it would free."""
        return self.status.st_size if stat.S_ISREG(self.status.st_mode) else 0


class Inside(NamedTuple):
    """An open directory: `at` is its handle, or None where paths must do, and `prefix` what then goes before names."""

    at: int | None
    prefix: str

    def close(self) -> None:
        if self.at is not None:
            os.close(self.at)

    def scan(self) -> contextlib.AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """What lies in it. Raises OSError."""
        return os.scandir(self.prefix if self.at is None else self.at)

    def own_status(self) -> os.stat_result:
        """Of the directory. Raises OSError."""
        return os.stat(self.prefix if self.at is None else self.at)  # noqa: PTH116

    def status(self, name: str) -> os.stat_result:
        """Of a file or link in it. Raises OSError."""
        return os.stat(self.prefix + name, dir_fd=self.at, follow_symlinks=False)

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a regular file in it. Raises OSError."""
        return read_file(self.prefix + name, most=most, follow=False, at=self.at)


class HexFiles:
    """The files below one directory. Many processes and threads may use it at once. Methods may raise OSError."""

    def __init__(self, top: Path) -> None:
        self.top = str(top)
        self._holds, self._held = False, -1
        """Does `top` stay open? Its handle since the first file that was written meanwhile."""
        self._holding = allocate_lock()
        self._mark, self._numbers = os.urandom(8).hex(), count()
        """What makes the names of temporary files unlike those of others."""
        self._sharing: Sharing | None = None
        self._knows_sharing = False

    def place(self, name: str) -> str:
        """Where the file of that name lies if it is there. Raises OSError for what is no name."""
        if not is_hex_name(name):
            raise OSError(errno.EINVAL, "not a name of 64 hex digits", repr(name)[:80])
        return f"{self.top}/{name[:2]}/{name}"

    def status(self, name: str) -> os.stat_result:
        """Of the file; never of what a link leads to."""
        return os.lstat(self.place(name))

    def read(self, name: str, size: int = -1, *, most: int) -> bytes:
        """The bytes of a regular file; at most `most`, or OSError. What lies there and is none is removed."""
        try:
            return read_file(self.place(name), size, most=most, follow=False)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EINVAL, errno.EFBIG):
                self.remove(name)
            raise

    def write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Put `data` there in one step, making the directories. The disk is not waited for: after a power cut the name
        may lead to other bytes, which whoever reads it must notice."""
        if not is_hex_name(name):
            self.place(name)
        try:
            at, prefix = self._opened_to_write(name[:2])  # not `with`: each action of a build writes three of these
            temp, place = prefix + self._temp(), prefix + name
            try:
                handle = os.open(temp, NEW_FILE, mode, dir_fd=at)
                try:
                    try:
                        if os.write(handle, data) != len(data):
                            os.lseek(handle, 0, os.SEEK_SET)
                            write_all(handle, data)
                        if self._sharing is not None or not self._knows_sharing:
                            self.share(handle)
                    finally:
                        os.close(handle)
                    try:
                        os.replace(temp, place, src_dir_fd=at, dst_dir_fd=at)
                    except OSError:
                        _move(temp, at, Inside(at, prefix), name)
                except BaseException:
                    _unlink(temp, Inside(at, prefix))
                    raise
            finally:
                if at is not None:
                    os.close(at)
        except OSError as error:
            error.filename = self.place(name)
            raise

    @contextlib.contextmanager
    def held_open(self) -> Iterator[None]:
        """Leave `top` open meanwhile for what is written; whoever moves it away has what is written there then, which
        costs work. Not the directories in it: each command that starts would pay for hundreds of handles."""
        self._holds = _AT
        try:
            yield
        finally:
            with self._holding:
                held, self._holds, self._held = self._held, False, -1
                if held >= 0:
                    os.close(held)

    def _opened_to_write(self, group: str) -> tuple[int | None, str]:
        """The fields of an `Inside`."""
        if self._holds:
            with self._holding:
                if self._holds:  # a thread that comes late opens `top` for itself
                    if self._held < 0:
                        self._held = self._open_top(make=True)
                    try:
                        return os.open(group, _DIRECTORY, dir_fd=self._held), ""
                    except OSError:  # not made yet, or something else lies there
                        with contextlib.suppress(FileNotFoundError):  # somebody has removed `top`
                            return _open_group(self._held, group, self), ""
        return self._opened(group, True)

    @contextlib.contextmanager
    def incoming(self, mode: int) -> Iterator[Incoming]:
        """A new file in `top` whose name is not known yet. It is gone afterwards unless it was `kept`."""
        with self.inside("", make=True) as inside:
            temp = inside.prefix + self._temp()
            new = Incoming(self, temp, inside, os.open(temp, _NEW_TO_READ, mode, dir_fd=inside.at))
            self.share(new.handle)
            try:
                yield new
            finally:
                new.close()
                if not new.is_kept:
                    _unlink(temp, inside)

    def remove(self, name: str) -> bool:
        """Remove the file or link of that name; False when that cannot be done here."""
        try:
            self.place(name)
            with self.inside(name[:2]) as inside:
                os.unlink(inside.prefix + name, dir_fd=inside.at)
        except OSError:
            return False
        return True

    def touch(self, name: str) -> None:
        """Set the file's mtime to now."""
        self.place(name)
        with self.inside(name[:2]) as inside:
            if os.utime in os.supports_follow_symlinks:
                os.utime(inside.prefix + name, dir_fd=inside.at, follow_symlinks=False)
            else:
                os.utime(inside.prefix + name, dir_fd=inside.at)

    def _temp(self) -> str:
        """A name that no other thread, process or machine uses. Short, since every file of the store has one first."""
        return f".{os.getpid()}.{self._mark}.{next(self._numbers)}.tmp"

    def share(self, handle: int) -> None:
        """Give what was made just now to those who share the directory that `top` lies in."""
        if not self._knows_sharing:
            self._sharing = Sharing.of(os.path.dirname(self.top))  # noqa: PTH120
            self._knows_sharing = True
        if self._sharing is not None:
            self._sharing.share(handle)

    def groups(self) -> tuple[list[str], list[HexFile]]:
        """The names of the directories that hold files, and what else lies in `top`. Directories of other names are
        somebody's."""
        names, others = [], []
        with contextlib.suppress(OSError), self.inside("") as inside, inside.scan() as scan:
            for entry in scan:
                if not entry.is_dir(follow_symlinks=False):
                    with contextlib.suppress(OSError):
                        others.append(HexFile("", entry.name, entry.stat(follow_symlinks=False)))
                elif _is_group(entry.name):
                    names.append(entry.name)
        return names, others

    def discard(self, group: str, names: list[str], spare_s: float | None = None) -> list[str]:
        """Remove these from a directory, directories with all that is in them; the names of what is gone now because
        of that. `spare_s`: leave alone what was written since then."""
        gone = []
        with contextlib.suppress(OSError), self.inside(group) as inside:
            for name in names:
                with contextlib.suppress(OSError):
                    if spare_s is None or inside.status(name).st_mtime < spare_s:
                        _remove_any(name, inside)
                        gone.append(name)
        return gone

    @contextlib.contextmanager
    def inside(self, group: str, *, make: bool = False) -> Iterator[Inside]:
        """The directory of a group, or `top` for `""`. `make`: it and what leads to it, in the place of a link or file
        that lies there."""
        inside = self._opened(group, make)
        try:
            yield inside
        finally:
            inside.close()

    def _opened(self, group: str, make: bool) -> Inside:
        """As `inside`, to be closed by the caller."""
        if not _AT:
            return self._by_path(group, make)
        top = self._open_top(make)
        if not group:
            return Inside(top, "")
        try:
            return Inside(_open_group(top, group, self if make else None), "")
        finally:
            os.close(top)

    def _open_top(self, make: bool) -> int:
        try:
            return os.open(self.top, _DIRECTORY)
        except FileNotFoundError:
            if not make:
                raise
            Path(self.top).mkdir(parents=True, exist_ok=True)
            handle = os.open(self.top, _DIRECTORY)
            self.share(handle)
            return handle

    def _by_path(self, group: str, make: bool) -> Inside:
        for path in dict.fromkeys((self.top, f"{self.top}/{group}" if group else self.top)):
            if make and not os.path.lexists(path):
                Path(path).mkdir(parents=True, exist_ok=True)
            if os.path.islink(path) or not os.path.isdir(path):  # noqa: PTH112, PTH114
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return Inside(None, f"{self.top}/{group}/" if group else f"{self.top}/")


class Incoming:
    """A file that is being written; its bytes decide its name."""

    def __init__(self, files: HexFiles, temp: str, inside: Inside, handle: int) -> None:
        self._files, self._temp, self.inside = files, temp, inside
        self.handle = handle
        self.is_kept = False

    def keep(self, name: str) -> None:
        """Let it appear under its name; it is closed then, since Windows does not rename an open file."""
        self._files.place(name)
        self.close()
        with self._files.inside(name[:2], make=True) as inside:
            _move(self._temp, self.inside.at, inside, name)
        self.is_kept = True

    def close(self) -> None:
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)


def _open_group(top: int, group: str, files: HexFiles | None) -> int:
    """The handle of a directory in the open one `top`; made for `files` if it is missing."""
    try:
        return os.open(group, _DIRECTORY, dir_fd=top)
    except OSError as error:
        if files is None or error.errno not in (errno.ENOENT, *_IN_THE_WAY):
            raise
        if error.errno in _IN_THE_WAY:
            os.unlink(group, dir_fd=top)
        with contextlib.suppress(FileExistsError):
            os.mkdir(group, dir_fd=top)
        handle = os.open(group, _DIRECTORY, dir_fd=top)
        files.share(handle)
        return handle


def _move(temp: str, at: int | None, inside: Inside, name: str) -> None:
    """Rename; a directory that lies there is damage."""
    place = inside.prefix + name
    try:
        os.replace(temp, place, src_dir_fd=at, dst_dir_fd=inside.at)
    except OSError:
        if not stat.S_ISDIR(os.stat(place, dir_fd=inside.at, follow_symlinks=False).st_mode):
            raise
        _remove_tree(place, inside.at)
        os.replace(temp, place, src_dir_fd=at, dst_dir_fd=inside.at)


def _remove_any(name: str, inside: Inside) -> None:
    place = inside.prefix + name
    try:
        os.unlink(place, dir_fd=inside.at)
    except OSError:  # IsADirectoryError, or what another system says of one
        if not stat.S_ISDIR(inside.status(name).st_mode):
            raise
        _remove_tree(place, inside.at)


def _unlink(temp: str, inside: Inside) -> None:
    with contextlib.suppress(OSError):
        os.unlink(temp, dir_fd=inside.at)


def _remove_tree(place: str, at: int | None) -> None:
    import shutil  # which loads three compressors, for what is hardly ever there

    shutil.rmtree(place, dir_fd=at)
