"""A file system whose clock is not this machine's, as a file server's: the stamps of every file of a real one, moved.

What `os.stat`, `os.lstat` and `os.fstat` say of files on the served devices is behind or ahead by a fixed time and
ticks as coarsely as it is told to, so that two writes fall into one tick for certain. All else is the real file system.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

TICK_NS = 10_000_001
"""No multiple of it within reach is a whole second, which would suggest a file system that counts in seconds."""


class FileServer:
    """While the test runs. `behind_s` may be negative."""

    def __init__(
        self, patch: pytest.MonkeyPatch, behind_s: float, *, tick_ns: int = TICK_NS, device: int | None = None
    ) -> None:
        """`device`: of `os.stat`, the only one that is served; None serves all."""
        self.behind_ns, self._tick_ns, self._device = round(behind_s * 1e9), tick_ns, device
        for name in ("stat", "lstat", "fstat"):
            patch.setattr(os, name, self._served(getattr(os, name)))

    def _served(self, real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def asked(*arguments: Any, **more: Any) -> os.stat_result:
            status = real(*arguments, **more)
            if self._device not in (None, status.st_dev):
                return status
            values = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
            for name in ("st_mtime_ns", "st_ctime_ns"):
                values[name] = (values[name] - self.behind_ns) // self._tick_ns * self._tick_ns
                values[name[:-3]] = values[name] / 1e9
            return os.stat_result(tuple(status), values)

        return asked
