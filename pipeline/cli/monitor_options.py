"""What `doit monitor` was asked for: the options, checked.

Knows names of options and what excludes what; not ports, streams or the console. Invariant: what cannot be obeyed is
refused before anything was opened, with a hint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.console_view import ViewOptions
from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.log_levels import parse_rules
from pipeline.boot.log_patterns import visible
from pipeline.cli.monitor_screen import has_colours, is_view, local_time
from pipeline.config.until import expression_problem
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory

LIVE = ("boot", "deploy", "all", "now")
"""From where a console that the service keeps can be shown."""


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
    if not 0 <= options["seconds"] < float("inf"):
        return _usage(f"--seconds is {options['seconds']:g}, which is no time", "write --seconds 20, or leave it out")
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


def _usage(fact: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="monitor", message=fact, hint=hint)
