"""A console's entries as lines for the page, in a backlog of bounded size.

Pure: entries in, JSON-ready lines out. Does not know WebSockets. Invariant: lines come in order, none twice; a viewer
that is too slow loses the oldest ones, and `dropped` says how many; no line is longer than MAX_TEXT, whatever the board
sends, and a cut line says how much of it is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pipeline.boot.lines import Line, LineCutter
from pipeline.client.protocol import Channel, ConsoleChunk, ConsoleEntry, ConsoleNote, NoteKind

MAX_TEXT = 8192
"""Characters of one line that the page gets."""
MOST_LINES = 20_000
MOST_CHARACTERS = 4 << 20
MOST_AT_ONCE = 500
MOST_CHARACTERS_AT_ONCE = 128 << 10

_INSIDE_A_LINE = frozenset({NoteKind.BOOT, NoteKind.BUSY, NoteKind.TAKEN})
"""Notes that do not end the line that is under way."""

PageLine = dict[str, Any]
"""`t`: ms since 1970; `x`: the text of a line; or `note`, `kind` and `tx` of a note; `cut`: bytes that are missing."""


class LineBacklog:
    """A Sink for one viewer of one console. `stir` is called when there is something to take."""

    def __init__(self, stir: Callable[[], None]) -> None:
        self._stir = stir
        self._cutter = LineCutter()
        self._lines: deque[tuple[PageLine, int]] = deque()
        self._held = 0
        self._begun = ""
        self.dropped = 0
        """Lines that this viewer lost because it was too slow."""

    def __call__(self, entry: ConsoleEntry) -> None:
        if isinstance(entry, ConsoleNote):
            self._note(entry)
        elif entry.channel == Channel.CONSOLE:
            self._chunk(entry)
        self._stir()

    def take(self) -> list[PageLine]:
        """The next lines, oldest first, as many as fit one message."""
        taken: list[PageLine] = []
        size = 0
        while self._lines and len(taken) < MOST_AT_ONCE and size < MOST_CHARACTERS_AT_ONCE:
            line, cost = self._lines.popleft()
            self._held -= cost
            size += cost
            taken.append(line)
        return taken

    def begun(self) -> str | None:
        """The line that has not ended, if it is another one than when this was asked last: it may be a prompt."""
        if self._lines:
            return None
        pending = self._cutter.pending
        text = "" if pending is None else _text(pending)[0]
        if text == self._begun:
            return None
        self._begun = text
        return text

    def _chunk(self, chunk: ConsoleChunk) -> None:
        at_ms = instant_ms(chunk.at)
        place = 0
        while place < len(chunk.data):
            line, place = self._cutter.take(at_ms, chunk.data, place)
            if line is not None:
                self._line(line)

    def _note(self, note: ConsoleNote) -> None:
        pending = self._cutter.pending
        if pending is not None and note.kind not in _INSIDE_A_LINE:
            self._line(pending)
            self._cutter.clear()
        line = {"t": instant_ms(note.at), "note": note.text[:MAX_TEXT], "kind": str(note.kind), "tx": note.tx}
        self._push(line, len(note.text) + 64)

    def _line(self, line: Line) -> None:
        text, missing = _text(line)
        shown: PageLine = {"t": line.at_s, "x": text}
        if missing:
            shown["cut"] = missing
        self._push(shown, len(text) + 64)

    def _push(self, line: PageLine, cost: int) -> None:
        self._lines.append((line, cost))
        self._held += cost
        while len(self._lines) > MOST_LINES or (self._held > MOST_CHARACTERS and len(self._lines) > 1):
            self._held -= self._lines.popleft()[1]
            self.dropped += 1


def _text(line: Line) -> tuple[str, int]:
    """As characters, and how much is not shown: at least one byte where the cutter had to cut."""
    text = line.raw.removesuffix(b"\r").decode("utf-8", "replace")
    missing = max(0, len(text) - MAX_TEXT) or int(line.cut)
    return text[:MAX_TEXT], missing


def instant_ms(at: str) -> int:
    """`2026-11-21T00:00:00.000Z` as ms since 1970; 0 for what is no instant."""
    try:
        return round(datetime.fromisoformat(at).timestamp() * 1000)
    except ValueError:
        return 0
