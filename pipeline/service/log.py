"""What the service has to say of itself, in a file of bounded size.

Knows files. Does not know what is said. Invariant: two files of at most `LIMIT` bytes, readable by this user alone; a
disk that is full or a file that cannot be written stops nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.text import visible

LIMIT = 1 << 20


class ServiceLog:
    """`say` adds a line; the file that is full becomes `NAME.1`."""

    def __init__(self, path: Path, utc: Callable[[], str]) -> None:
        self._path = path
        self._utc = utc
        self.lost = 0
        """Lines that could not be written."""

    def say(self, text: str) -> None:
        lines = "".join(f"{self._utc()} {visible(line)}\n" for line in text.splitlines())
        try:
            append(self._path, lines.encode("utf-8", "replace"), LIMIT)
        except OSError:
            self.lost += 1


def append(path: Path, data: bytes, limit: int) -> None:
    """Add to a private file, or begin a new one when it would become larger than `limit`; one older is kept as
    `NAME.1`. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    handle = os.open(path, flags, 0o600)
    try:
        size = os.fstat(handle).st_size
        if size and size + len(data) > limit:
            os.close(handle)
            handle = -1
            os.replace(path, path.with_name(f"{path.name}.1"))  # noqa: PTH105
            handle = os.open(path, flags, 0o600)
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    finally:
        if handle >= 0:
            os.close(handle)
