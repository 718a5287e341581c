"""The loop of `doit monitor`: what the board says to the screen, what is typed to the board.

Knows events, typed lines and the notes of a console that the service keeps; not options, ports or sockets. Invariants:
what happened to the port is told between the bytes that came before and after it; what cannot be sent is said once, and
again only when something was sent in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.boot.console_events import ConsoleEvent, ConsoleEventKind
from pipeline.boot.line_pattern import LinePattern
from pipeline.cli.keyboard import Typed, TypedCall, TypedCalls, TypedItem, TypedLines, TypedMistake, TypedReset
from pipeline.cli.monitor_screen import MonitorScreen
from pipeline.client.protocol import NoteKind
from pipeline.device.console import DeviceMonitor
from pipeline.effects.api import SerialLink
from pipeline.effects.clock import Deadline, SystemClock
from pipeline.errors import DeviceError
from pipeline.text import quoted, visible

if TYPE_CHECKING:
    from pipeline.client.watched_console import WatchedConsole

POLL_S = 0.1
QUIET_S = 0.5
"""After the end of stdin: how long the device must be silent before the monitor ends by itself."""

_BREAKS = frozenset({NoteKind.PREEMPTED, NoteKind.GONE, NoteKind.CLOSED, NoteKind.OPENED, NoteKind.DROPPED, None})
"""What was begun before such a note will not end after it."""


class MonitorLoop:
    """`decoded` gives the calls behind a panic, for the firmware with this `app_elf_sha256`. `watched`: the link, when
    it is the service's."""

    def __init__(
        self,
        monitor: DeviceMonitor,
        screen: MonitorScreen,
        link: SerialLink,
        watched: WatchedConsole | None,
        decoded: Callable[[ConsoleEvent, str], Sequence[str]],
    ) -> None:
        self._monitor = monitor
        self._screen = screen
        self._link = link
        self._watched = watched
        self._decoded = decoded
        self._calls = TypedCalls(f"hotplate-monitor-{os.getpid()}")
        self._lines = TypedLines()
        self._refused = ""
        self.record: Callable[[ConsoleEvent, str], None] = lambda seen, running: None
        """Told of each event, with the identity of the firmware that runs."""

    def copy(self, until: LinePattern | None, seconds: float, *, decode: bool, commands: bool) -> int:
        """Both ways until the pattern, the time or Ctrl-C; the exit code. `commands`: are lines with a slash for us? An
        in-process board's time only passes while it is read: what it models is shown at once, and then we wait for the
        person in real time."""
        typed = Typed()
        deadline = Deadline.after(SystemClock(), seconds) if seconds else None
        heard_s = self._link.now_s()
        try:
            while deadline is None or not deadline.expired:
                heard = self._monitor.poll(POLL_S)
                self._tell_notes()
                for seen in heard:
                    self._heard(seen, decode=decode)
                if heard:
                    heard_s = self._link.now_s()
                else:
                    self._screen.quiet()
                for told in self._calls.late(self._link.now_s()):
                    self._screen.tell(told)
                if until is not None and _reached(until, heard, self._monitor):
                    return 0
                data = typed.take(0.0 if heard or self._link.real_time else POLL_S)
                if self._typed(self._items(data, ended=typed.ended, commands=commands)):
                    heard_s = self._link.now_s()
                quiet_s = self._link.now_s() - heard_s
                if typed.ended and quiet_s >= QUIET_S and until is None and deadline is None:
                    # the end of a pipe: what was asked is answered, then there is nothing to wait for
                    return 0
            return 0 if until is None else 1
        finally:
            self._screen.end()

    # --- typed ------------------------------------------------------------------------------------

    def _items(self, data: bytes | None, *, ended: bool, commands: bool) -> Sequence[TypedItem]:
        if data is None:
            return self._lines.rest() if ended else ()
        return self._lines.feed(data) if commands else [data]

    def _typed(self, items: Sequence[TypedItem]) -> bool:
        """Do what was typed; was there something?"""
        for item in items:
            self._screen.typed()
            try:
                self._do(item)
                self._refused = ""
            except DeviceError as error:
                if self._watched is None:
                    raise
                if self._refused != error.failure.message:
                    self._screen.tell(f"not sent: {visible(error.failure.message)}; {error.failure.hint}")
                self._refused = error.failure.message
        return bool(items)

    def _do(self, item: TypedItem) -> None:
        if isinstance(item, TypedMistake):
            self._screen.tell(item.text)
        elif isinstance(item, TypedReset):
            self._monitor.reset()
        elif isinstance(item, TypedCall):
            self._monitor.send(self._calls.ask(item, self._link.now_s()))
        else:
            self._monitor.send(item)

    # --- heard ------------------------------------------------------------------------------------

    def _tell_notes(self) -> None:
        """What happened to a console that the service keeps."""
        while self._watched is not None and self._watched.notes:
            note = self._watched.notes.popleft()
            if note.kind in _BREAKS:
                self._monitor.interrupted()
                self._screen.lost()
            if note.kind is NoteKind.REATTACHED:
                self._refused = ""
            self._screen.tell(visible(note.text))

    def _heard(self, seen: ConsoleEvent, *, decode: bool) -> None:
        """Keep it, and say what is worth saying about it."""
        self.record(seen, self._monitor.running)
        if seen.kind in (ConsoleEventKind.GAP, ConsoleEventKind.DROPPED):
            self._screen.lost()
            self._screen.tell(seen.text)
        elif seen.kind is ConsoleEventKind.RESET:
            for told in self._calls.reset(f"the board was reset ({seen.text}) before it answered"):
                self._screen.tell(told)
        elif seen.message is not None and (answer := self._calls.answered(seen.message, seen.at_s)) is not None:
            self._screen.tell(answer)
        elif seen.kind in (ConsoleEventKind.PANIC, ConsoleEventKind.BACKTRACE) and decode:
            running = self._monitor.running or ("" if self._watched is None else self._watched.elf)
            self._screen.tell_block("\n".join(quoted("\n".join(self._decoded(seen, running)))))


def _reached(until: LinePattern, heard: Sequence[ConsoleEvent], monitor: DeviceMonitor) -> bool:
    """Does a line match, or a prompt, which has no line end?"""
    spoken = (ConsoleEventKind.LINE, ConsoleEventKind.MESSAGE)
    if any(seen.kind in spoken and until.search(seen.text) for seen in heard):
        return True
    return not heard and bool(monitor.prompt) and until.search(monitor.prompt)
