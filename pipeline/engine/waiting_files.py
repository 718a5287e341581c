"""What a command would read for ever: FIFOs and devices where sources, headers and scripts should be.

Knows directories and kinds of files. Does not know actions. Invariant: a path is named only if no file lies there; each
directory is listed once per run.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from pipeline.formats.include_search import IncludeSearch

SUFFIXES = (
    *(".h", ".hh", ".hpp", ".hxx", ".h++", ".inc", ".inl", ".ipp", ".def", ".tcc"),
    *(".c", ".cc", ".cpp", ".cxx", ".s", ".sx", ".asm", ".ld", ".lds", ".x"),
)
"""Names that compilers and linkers open by themselves. Somebody's FIFO of another name is none of their business."""


def has_no_end(path: str) -> bool:
    """Would who reads it wait for somebody to write, or read for ever? Not of the null device."""
    try:
        status = os.stat(path)  # noqa: PTH116
        if stat.S_ISCHR(status.st_mode):
            return status.st_rdev != os.stat(os.devnull).st_rdev  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode) or stat.S_ISBLK(status.st_mode)


class WaitingFiles:
    """What lies in the directories that compilers search. Safe to use from several threads."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._found: dict[str, str] = {}
        self._none: set[tuple[tuple[str, ...], IncludeSearch]] = set()

    def of(self, beside: tuple[str, ...], search: IncludeSearch) -> str:
        """`first`, of what lies beside a compile's inputs and of where it searches: the same for most."""
        if (beside, search) in self._none:
            return ""
        found = self.first((*beside, *search.every))
        if not found:
            self._none.add((beside, search))
        return found

    def first(self, directories: Iterable[str]) -> str:
        """The first FIFO that a compiler could open below these directories (relative to the project; others are not
        looked into), `""` if there is none."""
        for directory in directories:
            if directory.startswith(("/", "..", "{")):
                continue
            if directory not in self._found:
                self._found[directory] = self._below(directory)
            if self._found[directory]:
                return self._found[directory]
        return ""

    def beside(self, directory: str) -> str:
        """The same of what lies in this directory itself; it is listed each time."""
        with contextlib.suppress(OSError), os.scandir(f"{self._root}/{directory}") as scan:
            for entry in scan:
                if entry.name.lower().endswith(SUFFIXES) and not entry.is_file() and has_no_end(entry.path):
                    return f"{directory}/{entry.name}" if directory not in ("", ".") else entry.name
        return ""

    def _below(self, directory: str) -> str:
        waiting, seen = [directory], {directory}
        while waiting:
            place = waiting.pop()
            with contextlib.suppress(OSError), os.scandir(f"{self._root}/{place}") as scan:
                for entry in scan:
                    path = f"{place}/{entry.name}" if place not in ("", ".") else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith(".") and path != "build" and path not in seen:
                            seen.add(path)
                            waiting.append(path)
                    elif entry.name.lower().endswith(SUFFIXES) and not entry.is_file() and has_no_end(entry.path):
                        return path
        return ""
