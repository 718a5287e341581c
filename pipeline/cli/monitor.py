"""`doit monitor`: what a device says on stdout, what is typed to the device, what we say about it on stderr.

Knows streams and the options of the command; what the bytes mean, `monitor.py` knows. Invariant: stdout holds exactly
the device's bytes (with `--call`: the result and nothing else).
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.console_events import ConsoleEvent, ConsoleEventKind
from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.log_patterns import visible
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
    """The checked options. `seconds` 0: no limit; `call` "": none."""

    reset: bool
    decode: bool
    until: LinePattern | None
    seconds: float
    call: str
    params: Any


def parse(options: Mapping[str, Any]) -> Wanted | Failure:
    """The options, or what is wrong with them."""
    until = params = None
    if options["until"]:
        if (wrong := expression_problem(options["until"])) is not None:
            shown = visible(options["until"][:80])
            return _usage(f"--until '{shown}' is {wrong[0]}", f"quote it for the shell, or {wrong[1]}")
        until = LinePattern(options["until"])
    try:
        params = json.loads(options["params"]) if options["params"] else None
    except ValueError as error:
        return _usage(f"--params {options['params']!r} is not JSON: {error}", "quote it for the shell")
    if params is not None and not (options["call"] and isinstance(params, dict | list)):
        return _usage("--params needs --call, and must be an array or an object", "write --call ping --params '[1]'")
    if options["call"] and until is not None:
        return _usage("--call and --until exclude each other", "leave one of them out")
    return Wanted(options["reset"], options["decode"], until, options["seconds"], options["call"], params)


def run(boards: DeviceService, wanted: Wanted) -> int:
    """The whole command; its exit code. Raises DeviceError."""
    device = boards.project.devices[0]
    link = boards.open_link(device, reset=wanted.reset)
    link.patience_s = max(link.patience_s, PATIENCE_S if link.real_time else 0.0)
    try:
        return _call(link, device, wanted) if wanted.call else _copy(boards, link, device, wanted)
    finally:
        boards.let_go(device)


def _call(link: PortLink, device: DeviceConfig, wanted: Wanted) -> int:
    with DeviceMonitor(link, reader_for(link), where=device.where) as monitor:
        # A firmware that boots does not listen yet, and the in-process board gets power when it is opened.
        if wanted.reset or not link.real_time:
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


def _copy(boards: DeviceService, link: PortLink, device: DeviceConfig, wanted: Wanted) -> int:
    """Copy both ways until the pattern, the time or Ctrl-C. The in-process board's time only passes while it is read;
    what it models is shown at once, and then we wait for the person in real time."""
    deadline = Deadline.after(SystemClock(), wanted.seconds) if wanted.seconds else None
    typed = Typed()
    quiet = 0
    with DeviceMonitor(link, reader_for(link), where=device.where, sink=_show) as monitor:
        while deadline is None or not deadline.expired:
            heard = monitor.poll(POLL_S)
            quiet = 0 if heard else quiet + 1
            for seen in heard:
                _tell(boards, monitor, seen, wanted)
            if wanted.until is not None and _reached(wanted.until, heard, monitor):
                return 0
            if (text := typed.take(0.0 if heard or link.real_time else POLL_S)) is not None:
                monitor.send(text)
                quiet = 0
            elif typed.ended and quiet * POLL_S >= QUIET_S and wanted.until is None and deadline is None:
                # the end of a pipe: what was asked is answered, then there is nothing to wait for
                return 0
    return 0 if wanted.until is None else 1


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _reached(until: LinePattern, heard: Sequence[ConsoleEvent], monitor: DeviceMonitor) -> bool:
    """Does a line match, or a prompt, which has no line end?"""
    spoken = (ConsoleEventKind.LINE, ConsoleEventKind.MESSAGE)
    if any(seen.kind in spoken and until.search(seen.text) for seen in heard):
        return True
    return not heard and bool(monitor.prompt) and until.search(monitor.prompt)


def _tell(boards: DeviceService, monitor: DeviceMonitor, seen: ConsoleEvent, wanted: Wanted) -> None:
    """What is worth saying about an event, on stderr."""
    if seen.kind in (ConsoleEventKind.GAP, ConsoleEventKind.DROPPED):
        print(f"-- {seen.text}", file=sys.stderr, flush=True)
    elif seen.kind in (ConsoleEventKind.PANIC, ConsoleEventKind.BACKTRACE) and wanted.decode:
        trace = boards.decoded(seen.lines, monitor.running)
        print("\n".join(quoted("\n".join(trace))), file=sys.stderr, flush=True)


def _usage(fact: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="monitor", message=fact, hint=hint)


class Typed:
    """Stdin, read in a thread because no system waits for a terminal and a serial port at once on every platform."""

    def __init__(self) -> None:
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.ended = sys.stdin is None or sys.stdin.closed
        if not self.ended:
            # A daemon: nobody can end a read of a terminal. It reads the descriptor, because a thread that holds the
            # lock of a buffered stdin makes the interpreter's end fail.
            threading.Thread(target=self._read, args=(sys.stdin.fileno(),), name="stdin", daemon=True).start()

    def _read(self, stdin: int) -> None:
        data = b"?"
        while data:
            try:
                data = os.read(stdin, 4096)
            except OSError:
                data = b""
            self._chunks.put(data)

    def take(self, timeout_s: float) -> bytes | None:
        """What was typed; `None` when nothing was within `timeout_s`."""
        if self.ended:
            return None
        try:
            data = self._chunks.get(timeout=timeout_s) if timeout_s else self._chunks.get_nowait()
        except queue.Empty:
            return None
        self.ended = not data
        return data or None
