"""What lay where a user's action writes, before it ran: put back when the action fails.

A command that fails must not cost its user a file that it did not make: the image of yesterday, or one that was copied
there by hand. Knows files only. Invariant: a former file is either aside or back; one that a killed run left aside
counts as what lies there now.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


class FormerOutputs:
    """`directory` holds the files meanwhile. Used by several threads at once, each with paths of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._aside: set[str] = set()

    def set_aside(self, path: str) -> None:
        """Take away what is at `path`; the second time in a row what was made since is only removed. Raises OSError."""
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if path in self._aside or not os.path.lexists(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
        else:
            self._directory.mkdir(parents=True, exist_ok=True)
            _move(path, self._place(path))
        self._aside.add(path)

    def put_back(self, paths: Iterable[str]) -> None:
        """The action failed, and what it made is removed. What cannot be put back stays aside."""
        for path in paths:
            self._aside.discard(path)
            with contextlib.suppress(OSError):
                _move(self._place(path), path)

    def drop(self, paths: Iterable[str]) -> None:
        """The action has made new ones."""
        for path in paths:
            self._aside.discard(path)
            with contextlib.suppress(OSError):
                os.unlink(self._place(path))  # noqa: PTH108

    def _place(self, path: str) -> Path:
        return self._directory / hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:32]


def _move(path: Path | str, place: Path | str) -> None:
    import shutil  # which most runs need for nothing, and which loads three compressors

    shutil.move(path, place)
