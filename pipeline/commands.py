"""`doit` commands that are views, not work: `monitor, explain, graph, plan`. One of the three modules that know doit.

Knows options and how to print; what a port is, effects know, what is said about a project, `views` knows. Invariant:
stdout holds the device's bytes or the view and nothing else; exit codes are doit's (2 bad configuration, 3 bad usage).
"""

from __future__ import annotations

import os
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


def _option(name: str, text: str, long: str = "") -> dict[str, Any]:
    return {"name": name, "short": "", "long": long or name, "type": str, "default": "", "help": text}


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


class View(Command):  # type: ignore[misc]
    """A command that loads the project, prints one text about it and ends."""

    def text(self, context: Any, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        """What belongs on stdout, or bad usage."""
        raise NotImplementedError

    def parse_execute(self, in_args: list[str]) -> Any:
        """doit stops reading options at the first other word; people also write them last."""
        options, words, rest = [], [], iter(in_args)
        for word in rest:
            if word.startswith("--"):
                # Each of our options has a value.
                options += (
                    [word] if "=" in word else [word, *(value for value in [next(rest, None)] if value is not None)]
                )
            else:
                words.append(word)
        return super().parse_execute([*options, *words])

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        from pipeline.context import load_context

        options = Options(
            devices=_given(opt_values.get("device")),
            groups=_given(opt_values.get("group")),
            profile=opt_values["profile"],
        )
        context = load_context(options)
        if isinstance(context, Failure):
            return _refused(context, 2)
        try:
            text = self.text(context, opt_values, pos_args)
        except DeployError as error:
            return _refused(error.failure, 2)
        finally:
            context.close()
        if isinstance(text, Failure):
            return _refused(text, 3)
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            # `| head` has seen enough; what is left in the buffer must not fail at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class Explain(View):
    """Say why something would run."""

    doc_purpose = "say why something would run, or what was compared; runs nothing"
    doc_usage = "[TASK | ACTION | FILE ...] [--profile NAME]"
    doc_description = (
        "For each action that is not up to date: the first input that moved since its last run, old and new. "
        "A word is a task (compile, link, ...), the name of an action, or a file that actions make or read. "
        "Without words: all."
    )
    cmd_options = (_option("profile", "explain the build with this profile of deploy.toml"),)

    def text(self, context: Any, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        from pipeline.views import explain_text

        return explain_text(context, pos_args)


class Plan(View):
    """A dry run."""

    doc_purpose = "dry run: what would be compiled, restored, linked and written"
    doc_usage = "[--profile NAME] [--device NAME] [--group NAME]"
    doc_description = (
        "Nothing is run or written and no port is opened. What is said about a board is what its journal believes."
    )
    cmd_options = (
        _option("profile", "plan the build with this profile of deploy.toml"),
        _option("device", "plan for this device of deploy.toml"),
        _option("group", "plan for all devices of this group"),
    )

    def text(self, context: Any, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        from pipeline.views import plan_text

        if pos_args:
            return _surplus("plan", pos_args)
        return plan_text(context)


class Graph(View):
    """The DAG as a picture."""

    doc_purpose = "the actions as a graph: critical path, and what an edit would rebuild"
    doc_usage = "[--format dot|mermaid|svg|png|text] [--output FILE] [--what-if FILE] [--profile NAME]"
    doc_description = (
        "Durations are those measured when the actions last ran. --what-if marks what an edit of FILE would run, and "
        "prints a list unless a format or an output is named. The format defaults to the output's suffix, then to dot. "
        "PNG needs an SVG renderer (cairosvg, rsvg-convert or inkscape); everything else needs nothing."
    )
    cmd_options = (
        _option("format", "dot, mermaid, svg, png or text"),
        _option("output", "write to this file instead of stdout"),
        _option("what_if", "mark what an edit of this file would rebuild", long="what-if"),
        _option("profile", "draw the build with this profile of deploy.toml"),
    )

    def text(self, context: Any, opt_values: dict[str, Any], pos_args: list[str]) -> str | Failure:
        from pipeline.views import graph_text

        if pos_args:
            return _surplus("graph", pos_args)
        return graph_text(context, opt_values["format"], opt_values["output"], opt_values["what_if"])


def _given(value: str | None) -> tuple[str, ...]:
    return (value,) if value else ()


def _surplus(command: str, words: list[str]) -> Failure:
    from pipeline.core.failures import fail
    from pipeline.core.model import FailureCategory

    message = f"takes no arguments, got {' '.join(words)}"
    hint = f"see `doit help {command}`"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=command, message=message, hint=hint)


def _refused(failure: Failure, code: int) -> int:
    print(f"{failure.line()}\nhint: {failure.hint}", file=sys.stderr)
    if failure.detail:
        print(failure.detail, file=sys.stderr)
    return code
