"""Where a monitor's output goes: the board's on stdout, raw or as a person reads it, and what we say on stderr.

Knows streams and terminals. What a view shows, `boot/console_view.py` knows. Invariants: raw, stdout holds exactly the
board's bytes; else nothing that a board sends steers the terminal, or passes for a line of ours on stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime

from pipeline.boot.console_view import ConsoleView, ViewOptions

QUIET_AFTER_S = 0.05
"""A board that paused for so long has begun a prompt, or a line that we should not wait for."""


class StdoutLost(Exception):
    """What the board says cannot be shown any more; the cause is the OSError."""


class MonitorScreen:
    """`view` None: raw. `now_s` is the clock of the link, `utc` gives the instant of the bytes that are shown."""

    def __init__(self, view: ViewOptions | None, now_s: Callable[[], float], utc: Callable[[], str]) -> None:
        self._view = None if view is None else ConsoleView(view)
        self._now_s = now_s
        self._utc = utc
        self._last_s = 0.0

    def show(self, data: bytes) -> None:
        """Bytes of the board."""
        if self._view is None:
            try:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            except OSError as error:
                raise StdoutLost from error
            return
        self._last_s = self._now_s()
        self._write(self._view.feed(self._utc(), self._last_s, data))

    def quiet(self) -> None:
        """Nothing came."""
        if self._view is not None and (now_s := self._now_s()) >= self._last_s + QUIET_AFTER_S:
            self._write(self._view.quiet(now_s))

    def tell(self, text: str) -> None:
        """A line of ours; further lines of `text` are marked as its own."""
        if self._view is not None:
            self._write(self._view.interrupt())
        print("-- " + text.replace("\n", "\n-- "), file=sys.stderr, flush=True)

    def tell_block(self, text: str) -> None:
        """Lines that are marked already."""
        if self._view is not None:
            self._write(self._view.interrupt())
        print(text, file=sys.stderr, flush=True)

    def typed(self) -> None:
        """Something was sent to the board."""
        if self._view is not None:
            self._view.typed()

    def lost(self) -> None:
        """Bytes are missing here."""
        if self._view is not None:
            self._write(self._view.lost())

    def end(self) -> None:
        """The last words."""
        if self._view is None:
            return
        self._write(self._view.quiet(self._now_s()) + self._view.interrupt())
        if self._view.hidden:
            self.tell(f"{self._view.hidden} lines were not shown (--filter, --mute, --levels)")

    @staticmethod
    def _write(text: str) -> None:
        if text:
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except OSError as error:
                raise StdoutLost from error


def is_view(*, raw: bool, chosen: bool) -> bool:
    """Is there a person, or an option that only a view can obey?"""
    return not raw and (chosen or (sys.stdout is not None and sys.stdout.isatty()))


def has_colours() -> bool:
    """May stdout have colours (no-color.org)?"""
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def local_time(at: str) -> str:
    """`10:15:00.250` in this machine's zone."""
    return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S.%f")[:-3]
