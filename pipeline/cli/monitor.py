"""`doit monitor`: what a device says on stdout, what is typed to the device, what we say about it on stderr.

Knows whether the service or this process has the port; how both ways are copied, `monitor_loop.py` knows, what the
bytes mean, `device/console.py`, and how they are shown, `monitor_screen.py`. Invariant: stdout holds what the device
said and nothing else (with `--call`: the result).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.boot.console_events import ConsoleEvent, ConsoleEventKind
from pipeline.boot.console_view import ViewOptions
from pipeline.boot.log_patterns import visible
from pipeline.cli.command_words import printed
from pipeline.cli.monitor_loop import POLL_S, MonitorLoop
from pipeline.cli.monitor_options import Wanted
from pipeline.cli.monitor_screen import MonitorScreen
from pipeline.config.schema import DeviceConfig
from pipeline.device.console import CallRefusal, DeviceMonitor
from pipeline.effects.api import Reader, SerialLink
from pipeline.effects.clock import SystemClock
from pipeline.model import Failure
from pipeline.records import json_text
from pipeline.run.lent_ports import device_ref, service_is_there
from pipeline.run.project import Project

if TYPE_CHECKING:
    from pipeline.cli.own_history import OwnHistory
    from pipeline.client.watched_console import WatchedConsole
    from pipeline.run.device_service import DeviceService

PATIENCE_S = 30.0
"""A person watches, and may be about to plug the board in again."""

CALL_S = 5.0
"""How long `--call` waits when `--seconds` says nothing: a board that was just reset boots first."""


def run(project: Project, wanted: Wanted) -> int:
    """The whole command; its exit code. Raises DeviceError."""
    device = project.devices[0]
    watched = None if device.is_virtual or device.is_in_farm else _watched(project, device, wanted)
    if watched is None:
        return _alone(project, device, wanted)
    try:
        if wanted.reset:
            watched.release_reset()
        if wanted.call:
            return _call(watched, watched, device, wanted, resets=bool(wanted.reset))
        screen = MonitorScreen(wanted.view, watched.now_s, lambda: watched.at)
        with DeviceMonitor(watched, watched, where=device.where, sink=screen.show) as monitor:
            loop = MonitorLoop(monitor, screen, watched, watched, _decoder(project))
            return loop.copy(wanted.until, wanted.seconds, decode=wanted.decode, commands=wanted.commands)
    finally:
        watched.close()


def _alone(project: Project, device: DeviceConfig, wanted: Wanted) -> int:
    """This process has the port."""
    from pipeline.device.serial_link import reader_for

    boards = _boards(project)
    history: OwnHistory | None = None

    def record(seen: ConsoleEvent, running: str) -> None:
        nonlocal history
        if history is None:  # what was heard is on the screen already
            from pipeline.cli.own_history import OwnHistory

            history = OwnHistory(device_ref(device, project.root))
        history.heard(seen, running)

    try:
        reset = wanted.reset is not False
        link = boards.open_link(device, reset=reset)
        link.patience_s = max(link.patience_s, PATIENCE_S if link.real_time else 0.0)
        if wanted.call:
            return _call(link, reader_for(link), device, wanted, resets=reset)
        screen = MonitorScreen(wanted.view, link.now_s, SystemClock().utc)
        with DeviceMonitor(link, reader_for(link), where=device.where, sink=screen.show) as monitor:
            loop = MonitorLoop(monitor, screen, link, None, lambda seen, elf: boards.decoded(seen.lines, elf))
            loop.record = record
            return loop.copy(wanted.until, wanted.seconds, decode=wanted.decode, commands=wanted.commands)
    finally:
        boards.close()
        boards.build.close()
        if history is not None:
            history.close()


def _boards(project: Project) -> DeviceService:
    from pipeline.run.build import Build
    from pipeline.run.device_service import DeviceService

    return DeviceService(Build(project))


def _decoder(project: Project) -> Callable[[ConsoleEvent, str], Sequence[str]]:
    """The calls behind a panic. What that takes is loaded when there is one."""

    def decoded(seen: ConsoleEvent, elf: str) -> Sequence[str]:
        boards = _boards(project)
        try:
            return boards.decoded(seen.lines, elf)
        finally:
            boards.build.close()

    return decoded


def history_text(project: Project, wanted: Wanted) -> str | Failure:
    """What the file of the device's console holds, as it was asked for."""
    from pipeline.cli import history_view
    from pipeline.service.history import LIMIT, history_path, read_history

    path = history_path(str(project.root), project.devices[0].name)
    lines = history_view.since(read_history(path, 2 * LIMIT), wanted.since, datetime.now(UTC))
    if isinstance(lines, Failure):
        return lines
    view = wanted.view or ViewOptions()
    text = "".join(f"{line}\n" for line in history_view.shown(lines, wanted.grep or view.show, view.mute, view.levels))
    if not text:
        print(f"-- nothing of that is kept in {path.name} ({len(lines)} lines were looked at)", file=sys.stderr)
    return text


def _watched(project: Project, device: DeviceConfig, wanted: Wanted) -> WatchedConsole | None:
    """The device's console through the service; None where there is no service, or none that can be used."""
    if not service_is_there():
        return None
    from pipeline.client.connection import NoService
    from pipeline.client.watched_console import WatchedConsole

    ref = device_ref(device, project.root, project.last_mac(device))
    try:
        return WatchedConsole(ref, "now" if wanted.call or wanted.reset else wanted.since or "boot")
    except NoService as error:
        if not error.silent:
            print(f"-- {error}; this monitor opens the port itself", file=sys.stderr, flush=True)
        return None


def _call(link: SerialLink, reader: Reader, device: DeviceConfig, wanted: Wanted, *, resets: bool) -> int:
    with DeviceMonitor(link, reader, where=device.where) as monitor:
        # A firmware that boots does not listen yet, and the in-process board gets power when it is opened.
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
    return printed(json_text(answer.result, indent=2) + "\n")


def _until_it_speaks(monitor: DeviceMonitor, link: SerialLink, seconds: float) -> None:
    end_s = link.now_s() + seconds
    while link.now_s() < end_s and not any(seen.kind is ConsoleEventKind.MESSAGE for seen in monitor.poll(POLL_S)):
        pass
