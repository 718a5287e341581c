"""`doit monitor`: what a device says on stdout, what is typed to the device, what we say about it on stderr.

Knows the options of the command, and copies both ways; what the bytes mean, `device/console.py` knows, and how they are
shown, `monitor_screen.py`. Invariant: stdout holds what the device said and nothing else (with `--call`: the result).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.console_events import ConsoleEvent, ConsoleEventKind
from pipeline.boot.console_view import ViewOptions
from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.log_levels import parse_rules
from pipeline.boot.log_patterns import visible
from pipeline.cli.keyboard import Typed, TypedCall, TypedCalls, TypedItem, TypedLines, TypedMistake, TypedReset
from pipeline.cli.monitor_screen import MonitorScreen, has_colours, is_view, local_time
from pipeline.config.schema import DeviceConfig
from pipeline.config.until import expression_problem
from pipeline.device.console import CallRefusal, DeviceMonitor
from pipeline.device.serial_link import PortLink, reader_for
from pipeline.effects.clock import Deadline, SystemClock
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.records import json_text
from pipeline.run.device_service import DeviceService
from pipeline.text import quoted

POLL_S = 0.1
QUIET_S = 0.5
"""After the end of stdin: how long the device must be silent before the monitor ends by itself."""

PATIENCE_S = 30.0
"""A person watches, and may be about to plug the board in again."""

CALL_S = 5.0
"""How long `--call` waits when `--seconds` says nothing: a board that was just reset boots first."""


class Wanted(NamedTuple):
    """The checked options. `reset` None: not said; `seconds` 0: no limit; `call` "": none; `view` None: raw."""

    reset: bool | None
    decode: bool
    until: LinePattern | None
    seconds: float
    call: str
    params: Any
    view: ViewOptions | None
    commands: bool
    """Are lines that begin with a slash for us?"""


def parse(options: Mapping[str, Any]) -> Wanted | Failure:
    """The options, or what is wrong with them."""
    params = None
    patterns: dict[str, LinePattern | None] = {}
    for name in ("until", "filter", "mute"):
        found = _pattern(name, options[name])
        if isinstance(found, Failure):
            return found
        patterns[name] = found
    levels = parse_rules(options["levels"]) if options["levels"] else None
    if isinstance(levels, str):
        return _usage(f"--levels: {visible(levels)}", "write --levels 'wifi:W *:I', as for ESP-IDF's monitor")
    try:
        params = json.loads(options["params"]) if options["params"] else None
    except ValueError as error:
        return _usage(f"--params {options['params']!r} is not JSON: {error}", "quote it for the shell")
    if params is not None and not (options["call"] and isinstance(params, dict | list)):
        return _usage("--params needs --call, and must be an array or an object", "write --call ping --params '[1]'")
    until = patterns["until"]
    if options["call"] and until is not None:
        return _usage("--call and --until exclude each other", "leave one of them out")
    chosen = ViewOptions(
        patterns["filter"],
        patterns["mute"],
        levels,
        options["fold"],
        local_time if options["timestamps"] else None,
        has_colours(),
    )
    by_option = any((patterns["filter"], patterns["mute"], levels, options["timestamps"]))
    if options["raw"] and by_option:
        return _usage("--raw shows every byte as it is, and nothing chosen", "leave out --raw, or the other options")
    view = chosen if is_view(raw=options["raw"], chosen=by_option) else None
    return Wanted(
        options["reset"],
        options["decode"],
        until,
        options["seconds"],
        options["call"],
        params,
        view,
        not options["raw"],
    )


def _pattern(option: str, text: str) -> LinePattern | Failure | None:
    if not text:
        return None
    if (wrong := expression_problem(text)) is not None:
        fact = f"--{option} '{visible(text[:80])}' is {wrong[0]}"
        return _usage(fact, f"quote it for the shell, or {wrong[1]}")
    return LinePattern(text)


def run(boards: DeviceService, wanted: Wanted) -> int:
    """The whole command; its exit code. Raises DeviceError."""
    device = boards.project.devices[0]
    reset = wanted.reset is not False
    link = boards.open_link(device, reset=reset)
    link.patience_s = max(link.patience_s, PATIENCE_S if link.real_time else 0.0)
    try:
        if wanted.call:
            return _call(link, device, wanted)
        clock = SystemClock()
        screen = MonitorScreen(wanted.view, link.now_s, clock.utc)
        with DeviceMonitor(link, reader_for(link), where=device.where, sink=screen.show) as monitor:
            return MonitorLoop(boards, monitor, screen, wanted, link.now_s).copy(real_time=link.real_time)
    finally:
        boards.let_go(device)


def _call(link: PortLink, device: DeviceConfig, wanted: Wanted) -> int:
    with DeviceMonitor(link, reader_for(link), where=device.where) as monitor:
        # A firmware that boots does not listen yet, and the in-process board gets power when it is opened.
        if wanted.reset is not False or not link.real_time:
            _until_it_speaks(monitor, link, wanted.seconds or CALL_S)
        answer = monitor.call(wanted.call, wanted.params, wanted.seconds or CALL_S)
    if isinstance(answer, Failure):
        print(f"{answer.line()}\nhint: {answer.hint}", file=sys.stderr)
        return 1
    if isinstance(answer, CallRefusal):
        message = f"{device.where}: error: `{wanted.call}` was refused with {answer.code}: {visible(answer.message)}"
        print(f"{message}\nhint: ask `rpc.discover` for the methods of this firmware", file=sys.stderr)
        return 1
    print(json_text(answer.result, indent=2), flush=True)
    return 0


def _until_it_speaks(monitor: DeviceMonitor, link: PortLink, seconds: float) -> None:
    end_s = link.now_s() + seconds
    while link.now_s() < end_s and not any(seen.kind is ConsoleEventKind.MESSAGE for seen in monitor.poll(POLL_S)):
        pass


class MonitorLoop:
    """Copies both ways until the pattern, the time or Ctrl-C."""

    def __init__(
        self,
        boards: DeviceService,
        monitor: DeviceMonitor,
        screen: MonitorScreen,
        wanted: Wanted,
        now_s: Callable[[], float],
    ) -> None:
        self._boards = boards
        self._monitor = monitor
        self._screen = screen
        self._wanted = wanted
        self._now_s = now_s
        self._calls = TypedCalls(f"hotplate-monitor-{os.getpid()}")
        self._lines = TypedLines()

    def copy(self, *, real_time: bool) -> int:
        """The exit code. The in-process board's time only passes while it is read; what it models is shown at once, and
        then we wait for the person in real time (`real_time` false)."""
        wanted, typed = self._wanted, Typed()
        deadline = Deadline.after(SystemClock(), wanted.seconds) if wanted.seconds else None
        quiet = 0
        try:
            while deadline is None or not deadline.expired:
                heard = self._monitor.poll(POLL_S)
                quiet = 0 if heard else quiet + 1
                for seen in heard:
                    self._heard(seen)
                if not heard:
                    self._screen.quiet()
                for told in self._calls.late(self._now_s()):
                    self._screen.tell(told)
                if wanted.until is not None and _reached(wanted.until, heard, self._monitor):
                    return 0
                data = typed.take(0.0 if heard or real_time else POLL_S)
                if data is not None or typed.ended:
                    quiet = 0 if self._typed(self._items(data)) else quiet
                if typed.ended and quiet * POLL_S >= QUIET_S and wanted.until is None and deadline is None:
                    # the end of a pipe: what was asked is answered, then there is nothing to wait for
                    return 0
            return 0 if wanted.until is None else 1
        finally:
            self._screen.end()

    def _items(self, data: bytes | None) -> Sequence[TypedItem]:
        if not self._wanted.commands:
            return [data] if data else []
        return self._lines.rest() if data is None else self._lines.feed(data)

    def _typed(self, items: Sequence[TypedItem]) -> bool:
        """Do what was typed; was there something?"""
        for item in items:
            self._screen.typed()
            if isinstance(item, TypedMistake):
                self._screen.tell(item.text)
            elif isinstance(item, TypedReset):
                self._monitor.reset()
            else:
                self._monitor.send(self._calls.ask(item, self._now_s()) if isinstance(item, TypedCall) else item)
        return bool(items)

    def _heard(self, seen: ConsoleEvent) -> None:
        """What is worth saying about an event."""
        if seen.kind in (ConsoleEventKind.GAP, ConsoleEventKind.DROPPED):
            self._screen.lost()
            self._screen.tell(seen.text)
        elif seen.kind is ConsoleEventKind.RESET:
            for told in self._calls.reset(f"the board was reset ({seen.text}) before it answered"):
                self._screen.tell(told)
        elif seen.message is not None and (answer := self._calls.answered(seen.message, seen.at_s)) is not None:
            self._screen.tell(answer)
        elif seen.kind in (ConsoleEventKind.PANIC, ConsoleEventKind.BACKTRACE) and self._wanted.decode:
            trace = self._boards.decoded(seen.lines, self._monitor.running)
            self._screen.tell_block("\n".join(quoted("\n".join(trace))))


def _reached(until: LinePattern, heard: Sequence[ConsoleEvent], monitor: DeviceMonitor) -> bool:
    """Does a line match, or a prompt, which has no line end?"""
    spoken = (ConsoleEventKind.LINE, ConsoleEventKind.MESSAGE)
    if any(seen.kind in spoken and until.search(seen.text) for seen in heard):
        return True
    return not heard and bool(monitor.prompt) and until.search(monitor.prompt)


def _usage(fact: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="monitor", message=fact, hint=hint)
