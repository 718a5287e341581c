"""Where outputs may lie: below the project's real build/ and nowhere else, and as regular files.

Knows paths and links. Does not know actions. Invariant: what `checked` returns names a file whose directory, with every
link followed, is the project's build/ (which may be a link itself) or lies below it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from cache.durable import NOT_REGULAR

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


class OutsideBuild(OSError):
    """A symbolic link in build/ leads out of it."""


class BuildPlace:
    """The build directory of one project. Safe to use from several threads."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._real = ""
        self._inside: set[str] = set()

    def forget(self) -> None:
        """Somebody's command ran, which may have made links."""
        self._real = ""
        self._inside = set()

    def checked(self, paths: Iterable[str]) -> None:
        """Raise OutsideBuild for the first of these (absolute) paths that a link takes out of the build directory. A
        path that is not below the project's build/ by name is not concerned: it was refused when it was declared."""
        for path in paths:
            directory = path.rpartition("/")[0]  # this is asked for every action
            if directory not in self._inside:
                if not self._real:
                    self._real = os.path.realpath(f"{self._root}/build")
                real = os.path.realpath(directory)
                if directory.startswith(f"{self._root}/build") and not f"{real}/".startswith(f"{self._real}/"):
                    message = f"a symbolic link leads out of build/, to {real}; remove it"
                    raise OutsideBuild(errno.EXDEV, message, path.removeprefix(f"{self._root}/"))
                self._inside.add(directory)


def kind_of_output(path: str) -> str:
    """What lies there instead of a regular file: `"a FIFO"`; `""` for one, and `"nothing"` for nothing."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return "nothing"
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), NOT_REGULAR.lower())
