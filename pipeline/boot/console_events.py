"""What a running device says, as events: lines, JSON-RPC messages, resets and panics.

Sans-I/O: does not know ports, clocks or terminals; bytes and instants in, events out. Unlike `boot/watcher.py` it never
comes to a verdict. Invariant: each line is exactly one event, in order, whatever the chunks were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.backtrace import PanicCollector, is_backtrace
from pipeline.boot.lines import Line, LineCutter
from pipeline.boot.log_patterns import PATTERNS, LineKind, line_kinds, plain_line
from pipeline.formats.jsonrpc import parse_jsonrpc, reported_sha256

QUIET_S = 0.25
"""How long the link must be quiet until a panic that does not end counts as complete."""


class ConsoleEventKind(StrEnum):
    """What an event is about."""

    LINE = "line"
    MESSAGE = "message"
    RESET = "reset"
    PANIC = "panic"
    BACKTRACE = "backtrace"
    GAP = "gap"
    DROPPED = "dropped"


class ConsoleEvent(NamedTuple):
    """One event. `text`: the line without colours (RESET: the cause, GAP and DROPPED: a sentence); `lines`: of a whole
    panic, or of the backtrace of a watchdog that lets the firmware go on; `message`: the JSON-RPC message that the line
    is."""

    kind: ConsoleEventKind
    at_s: float
    text: str
    message: Mapping[str, Any] | None = None
    lines: tuple[str, ...] = ()


class ConsoleListener:
    """Feed it what arrives."""

    def __init__(self) -> None:
        self._cutter = LineCutter()
        self._panic = PanicCollector()
        self._last_at_s = 0.0
        self.running = ""
        """`app_elf_sha256` of the firmware that runs, as far as it said."""

    def feed(self, at_s: float, data: bytes) -> list[ConsoleEvent]:
        """What `data`, which arrived at `at_s`, completes; without data, what a quiet link completes."""
        seen: list[ConsoleEvent] = []
        if not data:
            return self._quiet(at_s)
        self._last_at_s = at_s
        place = 0
        while place < len(data):
            line, place = self._cutter.take(at_s, data, place)
            if line is not None:
                seen += self._line(line)
        return seen

    def prompt(self, now_s: float) -> str:
        """The line that has not ended, without colours, once the link is quiet: a prompt waits for us, not for its end.
        Empty where there is none."""
        pending = self._cutter.pending
        return plain_line(pending.raw)[0] if pending is not None and now_s >= self._last_at_s + QUIET_S else ""

    def interrupted(self) -> None:
        """Bytes were lost here: the begun line is not one, and whoever speaks next may be another firmware."""
        self._cutter.clear()
        self._panic.flush()
        self.running = ""

    def _quiet(self, now_s: float) -> list[ConsoleEvent]:
        if not self._panic.collecting or now_s < self._last_at_s + QUIET_S:
            return []
        return _panic(now_s, self._panic.flush())

    def _line(self, line: Line) -> list[ConsoleEvent]:
        text, _ = plain_line(line.raw)
        message = None if line.cut else parse_jsonrpc(line.raw)
        if message is not None:
            self.running = reported_sha256(message) or self.running
            return [ConsoleEvent(ConsoleEventKind.MESSAGE, line.at_s, text, message)]
        seen = [ConsoleEvent(ConsoleEventKind.LINE, line.at_s, text), *_panic(line.at_s, self._panic.feed(text))]
        if is_backtrace(text) and not self._panic.collecting:
            seen.append(ConsoleEvent(ConsoleEventKind.BACKTRACE, line.at_s, text, lines=(text,)))
        found = line_kinds(text)
        reset = re.search(PATTERNS[LineKind.RESET], text) if LineKind.RESET in found else None
        if reset is not None:
            self.running = ""
            seen.append(ConsoleEvent(ConsoleEventKind.RESET, line.at_s, reset.group(0)))
        return seen


def _panic(at_s: float, lines: list[str]) -> list[ConsoleEvent]:
    return [ConsoleEvent(ConsoleEventKind.PANIC, at_s, lines[0], lines=tuple(lines))] if lines else []
