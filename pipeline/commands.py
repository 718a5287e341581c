"""`doit` commands that are views, not work: `monitor`. One of the three modules that know doit.

Knows how to print; what a port is, effects know. Invariant: stdout holds the device's bytes and nothing else.
"""

from __future__ import annotations

import re
import select
import sys
from typing import Any

from doit.cmd_base import Command

from pipeline.core.model import Failure
from pipeline.errors import DeployError
from pipeline.options import Options

POLL_S = 0.1
QUIET_S = 0.5
"""After the end of stdin: how long the device must be silent before the monitor ends by itself."""


class Monitor(Command):  # type: ignore[misc]
    """Show what a device says, and send it what is typed."""

    doc_purpose = "show what a device says; lines typed on stdin are sent to it"
    doc_usage = "[--device NAME] [--no-reset] [--until REGEX] [--seconds N]"
    doc_description = (
        "Opens the device's port at its monitor baud, resets the board into its application (unless --no-reset) and "
        "copies its output to stdout until Ctrl-C. With --until the exit code says whether a line matched: 0 yes, 1 no."
    )
    cmd_options = (
        {"name": "device", "short": "", "long": "device", "type": str, "default": "", "help": "device of deploy.toml"},
        {
            "name": "reset",
            "short": "",
            "long": "reset",
            "inverse": "no-reset",
            "type": bool,
            "default": True,
            "help": "reset the board into its application first",
        },
        {"name": "until", "short": "", "long": "until", "type": str, "default": "", "help": "end at a matching line"},
        {
            "name": "seconds",
            "short": "",
            "long": "seconds",
            "type": float,
            "default": 0.0,
            "help": "end after N seconds",
        },
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        from pipeline.context import load_context

        if pos_args:
            return _usage(f"monitor takes no arguments, got {' '.join(pos_args)}", "name the device with --device")
        try:
            until = re.compile(opt_values["until"].encode()) if opt_values["until"] else None
        except re.error as error:
            return _usage(
                f"--until {opt_values['until']!r} is not a regular expression: {error}", "quote it for the shell"
            )
        context = load_context(Options(devices=(opt_values["device"],) if opt_values["device"] else ()))
        if isinstance(context, Failure):
            return _usage(context.line().removeprefix("error: "), context.hint)
        try:
            link = context.open_link(context.devices[0], reset=opt_values["reset"])
            try:
                return _copy(link, until, opt_values["seconds"])
            finally:
                link.close()
        except KeyboardInterrupt:
            return 0
        except DeployError as error:
            print(f"{error.failure.line()}\nhint: {error.failure.hint}", file=sys.stderr)
            return 1


def _usage(fact: str, hint: str) -> int:
    print(f"{fact}\nhint: {hint}", file=sys.stderr)
    return 3


def _copy(link: Any, until: re.Pattern[bytes] | None, seconds: float) -> int:
    """Copy both ways until the pattern, the time or Ctrl-C. The in-process board's time only passes while it is read;
    what it models is shown at once, and then we wait for the person in real time."""
    from pipeline.effects.clock import Deadline, SystemClock

    deadline = Deadline.after(SystemClock(), seconds) if seconds else None
    typed = None if sys.stdin.closed else sys.stdin
    line = b""
    quiet = 0
    while deadline is None or not deadline.expired:
        data = link.read(POLL_S)
        quiet = 0 if data else quiet + 1
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        *whole, line = (line + data).split(b"\n")
        if until is not None and any(until.search(text) for text in whole):
            return 0
        if typed is None:
            # the end of a pipe: what was asked is answered, then there is nothing to wait for
            if quiet * POLL_S >= QUIET_S and until is None and deadline is None:
                return 0
        elif select.select([typed], [], [], 0 if data or link.real_time else POLL_S)[0]:
            text = typed.readline()
            link.write(text.encode())
            typed = typed if text else None
    return 0 if until is None else 1
