"""A live test as TOML: text in, a checked scenario or one failure with its place out.

Pure. Does not know files, devices or how a step is done. Invariant: a `Scenario` that exists can be run on any device;
every error names line and column, and all errors of a text are reported at once. docs/live-tests.md has the format.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.config.until import expression_problem
from pipeline.config.values import Problem
from pipeline.failures import fail
from pipeline.formats.toml_positions import KeyPath, locate
from pipeline.livetest.values import Bounds, bounds_of, path_problem
from pipeline.model import Failure, FailureCategory
from pipeline.records import json_text
from pipeline.text import did_you_mean

ACTIONS = ("call", "expect", "expect_re", "send", "reset")
"""What a step does; each step has exactly one of them."""
_CHECKS = ("result", "values", "match", "range", "observe")
_STEP: Mapping[str, str] = MappingProxyType(
    {
        "name": "string",
        "call": "string",
        "params": "table or array",
        "expect": "string",
        "expect_re": "string",
        "send": "string",
        "reset": "boolean",
        "timeout_ms": "integer",
        "result": "value",
        "values": "table",
        "match": "table",
        "range": "table",
        "observe": "array of strings",
        "error": "integer",
    }
)
_OF_ACTION: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "call": frozenset({"params", "timeout_ms", "error", *_CHECKS}),
        "expect": frozenset({"timeout_ms"}),
        "expect_re": frozenset({"timeout_ms", "values", "match", "range", "observe"}),
        "send": frozenset(),
        "reset": frozenset(),
    }
)
_TOP: Mapping[str, str] = MappingProxyType(
    {
        "name": "string",
        "doc": "string",
        "tags": "array of strings",
        "chips": "array of strings",
        "reset": "boolean",
        "panic": "boolean",
        "forbid": "array of strings",
        "timeout_ms": "integer",
        "heap_floor": "integer or table",
        "step": "array of tables",
    }
)
_MOST_MS = 3_600_000


class LiveStep(NamedTuple):
    """One step; `action` is one of `ACTIONS` and `word` its value (of `reset`: nothing). `timeout_ms` None: that of the
    scenario. `result` is a list of the one value that the whole result must be, or empty. `ranges`: path -> bounds."""

    label: str
    action: str
    word: str = ""
    params: Any = None
    timeout_ms: int | None = None
    result: tuple[Any, ...] = ()
    values: Mapping[str, Any] = MappingProxyType({})
    match: Mapping[str, str] = MappingProxyType({})
    ranges: Mapping[str, Bounds] = MappingProxyType({})
    observe: tuple[str, ...] = ()
    error: int | None = None


class Scenario(NamedTuple):
    """`path` is what messages call the file, `text` what stands in it. `chips`: where it can be run, everywhere if
    empty; `host` stands for the firmware as a process of this machine. `heap_floor`: free heap in bytes that must be
    left after the last step, by chip (`""`: every other)."""

    name: str
    path: str
    text: str
    steps: tuple[LiveStep, ...]
    doc: str = ""
    tags: tuple[str, ...] = ()
    chips: tuple[str, ...] = ()
    reset: bool = True
    panic: bool = False
    forbid: tuple[str, ...] = ()
    timeout_ms: int | None = None
    heap_floor: Mapping[str, int] = MappingProxyType({})

    def where(self, step: int | None) -> str:
        """`tests/live/health.toml:12` of a step, of the file without one."""
        if step is None:
            return self.path
        return f"{self.path}:{locate(self.text).key(('step', step))[0]}"

    def floor(self, chip: str) -> int | None:
        """The heap floor on this chip, if there is one."""
        return self.heap_floor.get(chip, self.heap_floor.get(""))


def parse_scenario(text: str, path: str, name: str) -> Scenario | Failure:
    """The scenario of a file called `name` unless it says otherwise; or a config_error at `path:LINE:COL`, the further
    ones in `detail`."""
    text = text.removeprefix("\ufeff")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        fact, _, place = str(error).rpartition(" (at ")
        found = re.fullmatch(r"line (\d+), column (\d+)\)", place)
        where = f"{path}:{found[1]}:{found[2]}" if found else path
        return _failure(where, fact if found else str(error), "correct the TOML syntax here", "")
    problems: list[Problem] = []
    scenario = _scenario(document, text, path, name, problems)
    if scenario is not None and not problems:
        return scenario
    positions = locate(text)
    placed = sorted(
        ((positions.value(p.path) if p.at_value else positions.key(p.path), p) for p in problems),
        key=lambda entry: entry[0],
    )
    lines = [f"{path}:{line}:{column}: error: {p.message}" for (line, column), p in placed]
    (line, column), first = placed[0]
    return _failure(f"{path}:{line}:{column}", first.message, first.hint, "\n".join(lines[1:]))


def _failure(where: str, message: str, hint: str, detail: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint, detail=detail)


def _scenario(document: Mapping[str, Any], text: str, path: str, name: str, problems: list[Problem]) -> Scenario | None:
    _check_keys(document, _TOP, (), problems)
    steps = document.get("step", [])
    if not problems and not steps and "heap_floor" not in document:
        fact = "the scenario has no step, so that it can never fail"
        problems.append(Problem((), False, fact, 'add [[step]] with call = "..." or expect = "..."'))
    for n, pattern in enumerate(document.get("forbid", []) if not problems else []):
        _check_expression(pattern, ("forbid", n), problems)
    floors = document.get("heap_floor", {})
    floors = {"": floors} if isinstance(floors, int) else floors
    for chip, floor in floors.items() if isinstance(floors, dict) else ():
        if not _is_integer(floor):
            problems.append(Problem(("heap_floor", chip), True, f"'heap_floor.{chip}' is no integer", "write bytes"))
    if problems:
        return None
    labels: set[str] = set()
    made = [_step(step, n, labels, problems) for n, step in enumerate(steps)]
    if problems:
        return None
    return Scenario(
        name=document.get("name") or name,
        path=path,
        text=text,
        steps=tuple(step for step in made if step is not None),
        doc=document.get("doc", ""),
        tags=tuple(document.get("tags", ())),
        chips=tuple(document.get("chips", ())),
        reset=document.get("reset", True),
        panic=document.get("panic", False),
        forbid=tuple(document.get("forbid", ())),
        timeout_ms=document.get("timeout_ms"),
        heap_floor=MappingProxyType(floors),
    )


def _step(table: Mapping[str, Any], n: int, labels: set[str], problems: list[Problem]) -> LiveStep | None:
    at: KeyPath = ("step", n)
    before = len(problems)
    _check_keys(table, _STEP, at, problems)
    actions = [action for action in ACTIONS if action in table]
    if len(actions) != 1:
        fact = f"the step does {' and '.join(actions)}" if actions else "the step does nothing"
        problems.append(Problem(at, False, fact, f"give it exactly one of {', '.join(ACTIONS)}"))
    if len(problems) > before:
        return None
    (action,) = actions
    for key in table.keys() - _OF_ACTION[action] - {action, "name"}:
        able = ", ".join(kind for kind, keys in _OF_ACTION.items() if key in keys)
        problems.append(Problem((*at, key), False, f"'{key}' says nothing of '{action}'", f"use it with {able}"))
    if "error" in table and (checks := [key for key in _CHECKS if key in table]):
        fact = f"'error' says that there is no result, but '{checks[0]}' asks for one"
        problems.append(Problem((*at, checks[0]), False, fact, "keep one of them"))
    if action == "expect_re":
        _check_expression(table[action], (*at, action), problems)
    if not _is_json(table.get("params")):
        fact, hint = "'params' holds what JSON has not (a date, or a number that is none)", "write it as a string"
        problems.append(Problem((*at, "params"), True, fact, hint))
    if action in ("call", "expect") and not table[action].strip():
        problems.append(Problem((*at, action), True, f"'{action}' is empty", "fill it in"))
    ranges = _check_paths(table, at, problems)
    label = _label(table, action, n, labels)
    return LiveStep(
        label=label,
        action=action,
        word=table[action] if action != "reset" else "",
        params=table.get("params"),
        timeout_ms=table.get("timeout_ms"),
        result=(table["result"],) if "result" in table else (),
        values=MappingProxyType(table.get("values", {})),
        match=MappingProxyType(table.get("match", {})),
        ranges=MappingProxyType(ranges),
        observe=tuple(table.get("observe", ())),
        error=table.get("error"),
    )


def _label(table: Mapping[str, Any], action: str, n: int, labels: set[str]) -> str:
    """What a step is called where values are remembered: it must not depend on how many steps stand before it."""
    label = wanted = str(table.get("name") or (table["call"] if action == "call" else action))
    again = 2
    while label in labels:
        label, again = f"{wanted} {again}", again + 1
    labels.add(label)
    return label


def _check_paths(table: Mapping[str, Any], at: KeyPath, problems: list[Problem]) -> dict[str, Bounds]:
    paths: list[tuple[str, KeyPath]] = [(path, (*at, "observe", n)) for n, path in enumerate(table.get("observe", ()))]
    for key in ("values", "match", "range"):
        paths += [(path, (*at, key, path)) for path in table.get(key, {})]
    for path, place in paths:
        if (wrong := path_problem(path)) is not None:
            problems.append(Problem(place, False, f"'{path}' is no path into a result: {wrong[0]}", wrong[1]))
    for path, pattern in table.get("match", {}).items():
        if not isinstance(pattern, str):
            problems.append(Problem((*at, "match", path), True, f"'match' of '{path}' is no string", "write a regex"))
        else:
            _check_expression(pattern, (*at, "match", path), problems)
    ranges = {}
    for path, value in table.get("range", {}).items():
        found = bounds_of(value)
        if isinstance(found, str):
            hint = "write [low, high], { min = N }, { max = N }, or a table with one of these per chip"
            problems.append(Problem((*at, "range", path), True, f"the range of '{path}' {found}", hint))
        else:
            ranges[path] = found
    return ranges


def _check_expression(pattern: str, at: KeyPath, problems: list[Problem]) -> None:
    if (wrong := expression_problem(pattern)) is not None:
        problems.append(Problem(at, True, f"'{pattern[:80]}' is {wrong[0]}", wrong[1]))


def _is_json(value: Any) -> bool:
    try:
        json_text(value)
    except (TypeError, ValueError):
        return False
    return True


# --- shapes -----------------------------------------------------------------------------------


def _check_keys(table: Mapping[str, Any], known: Mapping[str, str], at: KeyPath, problems: list[Problem]) -> None:
    for key, value in table.items():
        if key not in known:
            where = "a step" if at else "a scenario"
            fact = f"unknown key '{key}' in {where}{did_you_mean(key, known)}"
            problems.append(Problem((*at, key), False, fact, f"remove it; {where} has {', '.join(known)}"))
        elif not _is(value, known[key]):
            fact = f"'{key}' must be of type {known[key]}"
            problems.append(Problem((*at, key), True, fact, "correct it; see docs/live-tests.md"))
        elif key == "timeout_ms" and not 1 <= value <= _MOST_MS:
            fact = f"'{key}' is {value}"
            problems.append(Problem((*at, key), True, fact, f"use a number from 1 to {_MOST_MS}"))
        elif key == "reset" and at and value is not True:
            problems.append(Problem((*at, key), True, "'reset' is false", "write reset = true, or remove the step"))


def _is(value: Any, wanted: str) -> bool:
    kinds: Mapping[str, bool] = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "integer": _is_integer(value),
        "integer or table": _is_integer(value) or isinstance(value, dict),
        "table": isinstance(value, dict),
        "table or array": isinstance(value, dict | list),
        "array of strings": _is_list(value, str),
        "array of tables": _is_list(value, dict),
        "value": True,
    }
    return kinds[wanted]


def _is_list(value: Any, kind: type[Any]) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def names_twice(scenarios: Sequence[Scenario]) -> Failure | None:
    """Two scenarios of one name could not be told apart in results."""
    seen: dict[str, Scenario] = {}
    for scenario in scenarios:
        other = seen.setdefault(scenario.name, scenario)
        if other is not scenario:
            fact = f"the scenario is called '{scenario.name}', as that of {other.path} is"
            return _failure(scenario.path, fact, "write another name = ... into one of the files", "")
    return None
