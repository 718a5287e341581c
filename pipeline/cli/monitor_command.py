"""`monitor` as a command: its options, read as doit reads them, and what it ends with. Used by doit and without it.

Knows the options' names and exit codes; not ports, nor doit. Invariant: `values_of` gives what doit would give, or None
where that is not certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.cli.command_words import flag, given, lost, option, printed, refused, surplus
from pipeline.errors import DeployError
from pipeline.model import Failure
from pipeline.run.options import Options

MONITOR_OPTIONS: tuple[dict[str, Any], ...] = (
    option("device", "device of deploy.toml"),
    {**flag("reset", "reset the board into its application first", default=True), "default": None},
    option("filter", "show only lines that match"),
    option("mute", "do not show lines that match"),
    option("levels", "which levels of a log: TAG:LEVEL ..., as in 'wifi:W *:I'"),
    flag("timestamps", "begin each line with its local time", default=False),
    flag("raw", "copy every byte as it is, also to a terminal; typed lines are never ours", default=False),
    flag("fold", "show repeated lines once, with their number", default=True),
    flag("history", "show what the console's file holds, and end", default=False),
    option("grep", "with --history: only lines that match"),
    option("since", "from where: boot, deploy, now, all; with --history also 10m, 2h, TX"),
    flag("decode", "decode the addresses of panics", default=True),
    option("until", "end at a matching line"),
    option("call", "ask this JSON-RPC method and end with its result"),
    option("params", "parameters of --call, as JSON"),
    {
        "name": "seconds",
        "short": "",
        "long": "seconds",
        "type": float,
        "default": 0.0,
        "help": "end after N seconds",
    },
)

FLAGS = frozenset(
    f"--{name}" for one in MONITOR_OPTIONS if one["type"] is bool for name in (one["long"], one.get("inverse")) if name
)


def values_of(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]] | None:
    """Values of the options, and the other words. None where something is doit's to read or to refuse: abbreviations,
    short or unknown options, words of the form NAME=VALUE."""
    known = {one["long"]: one for one in MONITOR_OPTIONS}
    values: dict[str, Any] = {one["name"]: one["default"] for one in MONITOR_OPTIONS}
    names = []
    words = iter(argv)
    for word in words:
        name, equals, value = word[2:].partition("=")
        if word in FLAGS:
            on = name in known
            values[name if on else name.removeprefix("no-")] = on
        elif word.startswith("--") and name in known and known[name]["type"] is not bool:
            if not equals:
                value = next(words, "")
                if not value or ("=" in value and value[0] != "-"):
                    return None
            try:
                values[name] = known[name]["type"](value)
            except ValueError:
                return None
        elif not word or word[0] == "-" or "=" in word:
            return None
        else:
            names.append(word)
    return values, names


def execute(opt_values: Mapping[str, Any], pos_args: Sequence[str]) -> int:
    """The whole command; its exit code."""
    from pipeline.cli import monitor, monitor_options
    from pipeline.cli.monitor_screen import StdoutLost
    from pipeline.run.project import load_project

    if len([*pos_args, *given(opt_values["device"])]) > 1:
        return refused(surplus("monitor", [*pos_args], "name one device", takes="one device"), 3)
    wanted = monitor_options.parse(opt_values)
    if isinstance(wanted, Failure):
        return refused(wanted, 3)
    project = load_project(Options(devices=(*pos_args, *given(opt_values["device"]))))
    if isinstance(project, Failure):
        return refused(project, 2)
    if wanted.history:
        found = monitor.history_text(project, wanted)
        return refused(found, 3) if isinstance(found, Failure) else printed(found) or int(not found)
    try:
        return monitor.run(project, wanted)
    except KeyboardInterrupt:
        return 0
    except StdoutLost as error:
        assert isinstance(error.__cause__, OSError)
        return lost(error.__cause__)
    except DeployError as error:
        return refused(error.failure, 1)
