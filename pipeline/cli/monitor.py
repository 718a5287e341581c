"""`doit monitor`: what a device says on stdout, what is typed to the device, what we say about it on stderr.

Knows the options of the command, and copies both ways; what the bytes mean, `device/console.py` knows, and how they are
shown, `monitor_screen.py`. Invariant: stdout holds what the device said and nothing else (with `--call`: the result).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.console_events import ConsoleEventKind
from pipeline.boot.console_view import ViewOptions
from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.log_levels import parse_rules
from pipeline.boot.log_patterns import visible
from pipeline.cli.monitor_loop import POLL_S, MonitorLoop
from pipeline.cli.monitor_screen import MonitorScreen, has_colours, is_view, local_time
from pipeline.client.protocol import DeviceRef
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


def _watched(boards: DeviceService, device: DeviceConfig, wanted: Wanted) -> WatchedConsole | None:
    """The device's console through the service; None where there is no service, or none that can be used."""
    from pipeline.client.connection import NoService

    ref = DeviceRef(
        str(boards.project.root),
        device.name,
        device.chip,
        device.port,
        boards.last_mac(device),
        device.monitor_baud,
        device.reset,
    )
    try:
        return WatchedConsole(ref, "now" if wanted.call or wanted.reset else "boot")
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
