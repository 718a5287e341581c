"""`doit monitor`: what a device says on stdout, what is typed to the device, what we say about it on stderr.

Knows the options of the command, and copies both ways; what the bytes mean, `device/console.py` knows, and how they are
shown, `monitor_screen.py`. Invariant: stdout holds what the device said and nothing else (with `--call`: the result).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cache.named_tuple import NamedTuple
from pipeline.boot.console_events import ConsoleEventKind
from pipeline.boot.console_view import ViewOptions
from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.log_levels import parse_rules
from pipeline.boot.log_patterns import visible
from pipeline.cli.monitor_loop import POLL_S, MonitorLoop
from pipeline.cli.monitor_screen import MonitorScreen, has_colours, is_view, local_time
from pipeline.client.watched_console import WatchedConsole
from pipeline.config.schema import DeviceConfig
from pipeline.config.until import expression_problem
from pipeline.device.console import CallRefusal, DeviceMonitor
from pipeline.device.serial_link import PortLink, reader_for
from pipeline.effects.api import Reader, SerialLink
from pipeline.effects.clock import SystemClock
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.records import json_text
from pipeline.run.device_service import DeviceService
from pipeline.run.lent_ports import device_ref

if TYPE_CHECKING:
    from pipeline.run.build import Build

PATIENCE_S = 30.0
"""A person watches, and may be about to plug the board in again."""

LIVE = ("boot", "deploy", "all", "now")
"""From where a console that the service keeps can be shown."""

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
    since: str = ""
    history: bool = False
    grep: LinePattern | None = None


def parse(options: Mapping[str, Any]) -> Wanted | Failure:
    """The options, or what is wrong with them."""
    params = None
    patterns: dict[str, LinePattern | None] = {}
    for name in ("until", "filter", "mute", "grep"):
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
    since, history = options["since"], options["history"]
    if options["grep"] and not history:
        return _usage("--grep searches the history", "add --history, or use --filter")
    if since and not history and since not in LIVE:
        return _usage(f"--since '{visible(since[:80])}' is no place of a live console", f"use one of {', '.join(LIVE)}")
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
        since,
        history,
        patterns["grep"],
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
    watched = None if device.is_virtual else _watched(boards, device, wanted)
    link: PortLink | WatchedConsole
    reader: Reader
    if watched is None:
        link = boards.open_link(device, reset=wanted.reset is not False)
        link.patience_s = max(link.patience_s, PATIENCE_S if link.real_time else 0.0)
        reader = reader_for(link)
    else:
        link = reader = watched
    try:
        if watched is not None and wanted.reset:
            link.release_reset()
        if wanted.call:
            return _call(link, reader, device, wanted)
        clock = SystemClock()
        screen = MonitorScreen(wanted.view, link.now_s, clock.utc if watched is None else lambda: watched.at)
        with DeviceMonitor(link, reader, where=device.where, sink=screen.show) as monitor:
            loop = MonitorLoop(monitor, screen, link, watched, lambda seen, elf: boards.decoded(seen.lines, elf))
            return loop.copy(wanted.until, wanted.seconds, decode=wanted.decode, commands=wanted.commands)
    finally:
        link.close()
        boards.let_go(device)


def history_text(build: Build, wanted: Wanted) -> str | Failure:
    """What the file of the device's console holds, as it was asked for."""
    from pipeline.cli import history_view
    from pipeline.service.history import LIMIT, history_path, read_history

    device = build.project.devices[0]
    path = history_path(str(build.project.root), device.name)
    lines = history_view.since(read_history(path, 2 * LIMIT), wanted.since, datetime.now(UTC))
    if isinstance(lines, Failure):
        return lines
    view = wanted.view or ViewOptions()
    text = "".join(f"{line}\n" for line in history_view.shown(lines, wanted.grep or view.show, view.mute, view.levels))
    if not text:
        print(f"-- nothing of that is kept in {path.name} ({len(lines)} lines were looked at)", file=sys.stderr)
    return text


def _watched(boards: DeviceService, device: DeviceConfig, wanted: Wanted) -> WatchedConsole | None:
    """The device's console through the service; None where there is no service, or none that can be used."""
    from pipeline.client.connection import NoService

    ref = device_ref(device, boards.project.root, boards.last_mac(device))
    try:
        return WatchedConsole(ref, "now" if wanted.call or wanted.reset else wanted.since or "boot")
    except NoService as error:
        if not error.silent:
            print(f"-- {error}; this monitor opens the port itself", file=sys.stderr, flush=True)
        return None


def _call(link: PortLink | WatchedConsole, reader: Reader, device: DeviceConfig, wanted: Wanted) -> int:
    with DeviceMonitor(link, reader, where=device.where) as monitor:
        # A firmware that boots does not listen yet, and the in-process board gets power when it is opened.
        resets = wanted.reset if isinstance(link, WatchedConsole) else wanted.reset is not False
        if resets or not link.real_time:
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


def _until_it_speaks(monitor: DeviceMonitor, link: SerialLink, seconds: float) -> None:
    end_s = link.now_s() + seconds
    while link.now_s() < end_s and not any(seen.kind is ConsoleEventKind.MESSAGE for seen in monitor.poll(POLL_S)):
        pass


def _usage(fact: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="monitor", message=fact, hint=hint)
