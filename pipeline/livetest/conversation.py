"""What a live test does with a running device: wait for text, ask, send, reset; on any link.

Knows lines, messages and time. Does not know scenarios, pytest, or who opened the link. Invariant: each line is looked
at once, in order, so that what an earlier step has met is not met again; every wait ends at its deadline on the clock
of the link; what was heard is kept for the report of a failure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.console_events import ConsoleEvent, ConsoleEventKind
from pipeline.boot.line_pattern import LinePattern
from pipeline.device.console import CallAnswer, CallRefusal, DeviceMonitor
from pipeline.device.serial_link import DirectReader, ThreadReader
from pipeline.effects.api import Reader, SerialLink
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory

POLL_S = 0.05
KEPT_LINES = 200
"""Of the device's last words, for the report of a failure."""
SPOKEN = (ConsoleEventKind.LINE, ConsoleEventKind.MESSAGE)


class Met(NamedTuple):
    """What ended a wait: the line, the named groups of the expression, and the message that the line is."""

    text: str
    groups: Mapping[str, str]
    message: Mapping[str, Any] | None = None


def _reader(link: SerialLink) -> Reader:
    return ThreadReader(link) if link.real_time else DirectReader(link)


class Conversation:
    """On an open `link`, which stays open after `close`. `decode` makes the calls behind a panic of its lines."""

    def __init__(
        self,
        link: SerialLink,
        where: str,
        decode: Callable[[Sequence[str], str], Sequence[str]] = lambda lines, running: lines,
    ) -> None:
        self._link, self._where, self._decode = link, where, decode
        self._monitor = DeviceMonitor(link, _reader(link), where=where)
        self._waiting: deque[ConsoleEvent] = deque()
        self.transcript: deque[str] = deque(maxlen=KEPT_LINES)
        self.ends_at_panic = True
        """Is a panic the end of every wait?"""
        self.panic: tuple[str, ...] = ()
        """The last panic, with the calls behind it."""
        self.forbidden: tuple[LinePattern, ...] = ()
        self.offence = ""
        """The first line that one of `forbidden` met."""

    @property
    def running(self) -> str:
        """`app_elf_sha256` of what runs, as far as it said."""
        return self._monitor.running

    def reset(self) -> None:
        """Reset the device into its application; what was not looked at is forgotten. Raises DeviceError."""
        self._monitor.close()
        self._waiting.clear()
        self.panic = ()
        self._link.release_reset()
        self._monitor = DeviceMonitor(self._link, _reader(self._link), where=self._where)

    def until_it_speaks(self, timeout_s: float) -> None:
        """Wait until a JSON-RPC message comes: a firmware that boots does not listen yet. What comes is still to be
        met. Raises DeviceError."""
        end_s = self._link.now_s() + timeout_s
        while not any(seen.message is not None for seen in self._waiting) and self._link.now_s() < end_s:
            if self.panic and self.ends_at_panic:
                return
            self._listen(min(POLL_S, max(0.0, end_s - self._link.now_s())))

    def send(self, text: str) -> None:
        """A line."""
        self._monitor.send(text.encode() + b"\n")

    def call(self, method: str, params: Any = None, timeout_s: float = 2.0) -> CallAnswer | CallRefusal | Failure:
        """Ask a JSON-RPC method. What arrives meanwhile is still to be met. Raises DeviceError."""
        answer = self._monitor.call(method, params, timeout_s)
        self._take(self._monitor.poll(0.0))
        return answer

    def expect(self, matches: Callable[[str], Mapping[str, str] | None], what: str, timeout_s: float) -> Met | Failure:
        """The next line that `matches`, a prompt without line end included. `what`: as in messages. Raises
        DeviceError."""
        end_s = self._link.now_s() + timeout_s
        passed = 0
        while True:
            while self._waiting:
                seen = self._waiting.popleft()
                if seen.kind in SPOKEN:
                    groups = matches(seen.text)
                    if groups is not None:
                        return Met(seen.text, groups, seen.message)
                    passed += 1
            left_s = end_s - self._link.now_s()
            if left_s <= 0 or (self.panic and self.ends_at_panic):
                break
            if not self._listen(min(POLL_S, left_s)) and self._monitor.prompt:
                groups = matches(self._monitor.prompt)
                if groups is not None:
                    return Met(self._monitor.prompt, groups)
        came = f"{passed} other lines came" if passed != 1 else "1 other line came"
        within = f"within {round(timeout_s * 1000)} ms"
        if self.panic and self.ends_at_panic:
            within = "before the firmware panicked"
        return fail(
            FailureCategory.TEST_FAILED,
            stage=None,
            where=self._where,
            message=f"{what} did not come {within} ({came})",
            hint="read the device's last words below, or raise `timeout_ms`",
        )

    def settle(self) -> None:
        """Take in what has arrived by now. Raises DeviceError."""
        self._listen(0.0)

    def _listen(self, timeout_s: float) -> bool:
        heard = self._monitor.poll(timeout_s)
        self._take(heard)
        return bool(heard)

    def _take(self, heard: Sequence[ConsoleEvent]) -> None:
        for seen in heard:
            self._waiting.append(seen)
            if seen.kind in SPOKEN:
                self.transcript.append(seen.text)
                if not self.offence and any(pattern.search(seen.text) for pattern in self.forbidden):
                    self.offence = seen.text
            elif seen.kind is ConsoleEventKind.PANIC:
                self.panic = tuple(self._decode(seen.lines, self.running))
            elif seen.kind in (ConsoleEventKind.GAP, ConsoleEventKind.DROPPED):
                self.transcript.append(f"-- {seen.text}")

    def close(self) -> None:
        """Stop listening."""
        self._monitor.close()


def containing(text: str) -> Callable[[str], Mapping[str, str] | None]:
    """Lines that hold `text`."""
    return lambda line: {} if text in line else None
