"""Bytes in chunks, cut into lines, each with the instant of its first byte.

Pure; does not know what a line says. Invariant: the lines depend on the bytes alone, not on how they were cut into
chunks, and at most `MAX_LINE` bytes of an unfinished line are kept.
"""

from __future__ import annotations

from cache.named_tuple import NamedTuple

MAX_LINE = 64 * 1024
"""Bytes of one line that are kept. A longer line is cut, and cannot be a message."""


class Line(NamedTuple):
    """One line without its `\\n`. `at_s`: when its first byte came. `lost`: bytes that it had after `raw`."""

    at_s: float
    raw: bytes
    lost: int = 0

    @property
    def cut(self) -> bool:
        """Was it longer than `raw`?"""
        return self.lost > 0


class LineCutter:
    """Feed it chunks with `take`; `pending` is the line that has not ended yet."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._at_s = 0.0
        self._lost = 0

    def take(self, at_s: float, data: bytes, start: int = 0) -> tuple[Line | None, int]:
        """The first line that ends in `data[start:]`, and where to go on; `None` when no line ends there."""
        end = data.find(b"\n", start)
        stop = len(data) if end < 0 else end
        self._collect(at_s, data, start, stop)
        if end < 0:
            return None, stop
        line = self.pending or Line(at_s, b"")
        self.clear()
        return line, end + 1

    @property
    def pending(self) -> Line | None:
        """The unfinished line, if it has a byte."""
        return Line(self._at_s, bytes(self._pending), self._lost) if self._pending else None

    @property
    def pending_bytes(self) -> int:
        """How many bytes of it are kept."""
        return len(self._pending)

    def clear(self) -> None:
        """Forget the unfinished line: what follows belongs to another one."""
        self._pending.clear()
        self._lost = 0

    def _collect(self, at_s: float, data: bytes, start: int, end: int) -> None:
        if start == end:
            return
        if not self._pending:
            self._at_s = at_s
        room = MAX_LINE - len(self._pending)
        self._lost += max(0, end - start - room)
        self._pending += data[start : min(end, start + room)]
