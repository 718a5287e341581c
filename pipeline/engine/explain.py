"""Say why an action would run, or what was compared when it would not: forecasts to lines of text.

Pure. Does not know files, the engine or doit. Invariant: one action is one paragraph, whose first line names it and its
fate; what moved is the first part, in key order, that differs from the last recorded run.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.engine.dag import Dag
from pipeline.engine.decision import NOT_DEFINED, Fate
from pipeline.engine.forecast import Forecast, by_stage
from pipeline.engine.inputs import InputKind
from pipeline.engine.keys import KeyDifference
from pipeline.model import DEVICE_STAGES, HOST_STAGES, Action, Stage

DIGEST_SHOWN = 12
"""Hex digits of a digest that a person is shown."""
VALUE_SHOWN = 60
_HEX = frozenset("0123456789abcdef")

_NOUN: Mapping[InputKind, str] = {
    InputKind.ARGUMENT: "argument",
    InputKind.DISCOVERED: "file that it read",
    InputKind.ABSENT: "file that was not there",
    InputKind.OUTPUT_PATH: "output",
}


def select(
    graph: Dag, reads: Mapping[str, Sequence[Action]], word: str
) -> Stage | tuple[Action, ...] | tuple[str, ...]:
    """What `word` names: a stage, or actions (by name, by an output, by a file that they read; a file also by the end
    of its path). Otherwise up to three near names, as strings, perhaps none.

    `reads`: file -> actions that read it, declared or discovered."""
    stages = {stage.value: stage for stage in Stage}
    base = word.partition(":")[0]
    if base in stages:
        return stages[base]
    by_name = tuple(action for action in graph.order if action.name == word)
    if by_name:
        return by_name
    files: dict[str, list[Action]] = {path: list(actions) for path, actions in reads.items()}
    for path, index in graph.producer.items():
        files[path] = [graph.order[index]]
    if word in files:
        return tuple(files[word])
    ending = sorted(path for path in files if path.endswith(f"/{word}"))
    if len(ending) == 1:
        return tuple(files[ending[0]])
    if ending:
        return tuple(ending[:3])
    names = [*stages, *(action.name for action in graph.order), *files]
    return tuple(difflib.get_close_matches(word, names, 3))


def explain_stage(stage: Stage, forecasts: Sequence[Forecast]) -> Iterator[str]:
    """The lines about one stage: a summary, then each action that is not up to date."""
    if stage in DEVICE_STAGES:
        yield f"{stage}: only the board can tell; `doit verify-flash` asks it"
        return
    mine = by_stage(forecasts, stage)
    if stage is Stage.FINGERPRINT and not mine:
        return
    dirty = [one for one in mine if one.fate is not Fate.UP_TO_DATE]
    if not dirty:
        total: dict[str, int] = {}
        for one in mine:
            for name, count in (one.compared or {}).items():
                total[name] = total.get(name, 0) + count
        yield f"{stage}: up to date ({plural(len(mine), 'action')})"
        yield f"  compared: {_counts(total)}"
        return
    yield f"{stage}: {summary(mine)}"
    for one in dirty:
        yield from (f"  {line}" for line in explain_action(one))


def explain_action(one: Forecast) -> Iterator[str]:
    """The lines about one action."""
    name = one.action.name
    if one.fate is Fate.UP_TO_DATE:
        yield f"{name}: up to date"
        if one.compared is not None:
            yield f"  compared: {_counts(one.compared)}"
        else:
            yield "  compared: its outputs with the result that the cache holds for these inputs"
        return
    yield f"{name}: {one.fate}"
    if one.waits_for is not None:
        path, maker = one.waits_for
        yield f"  because {path} is made by '{maker}', which comes first; if that gives the same bytes, nothing runs"
    if one.fate is Fate.BLOCKED and one.why is not None:
        yield f"  because {one.why.name} is missing and no action makes it"
    elif one.why is not None:
        yield f"  because {moved(one.why)}"
    elif one.first:
        yield "  because it has no record in this project" + (
            "; the cache has a result for these inputs" if one.fate is Fate.RESTORE else ""
        )
    elif one.waits_for is None:
        yield "  because its recorded result cannot be used"


def moved(difference: KeyDifference) -> str:
    """One line: what moved, from what, to what."""
    what = _NOUN.get(difference.kind, difference.kind.value)
    before, after = _shown(difference.before), _shown(difference.after)
    subject = f"{what} {difference.name}".rstrip()
    if difference.kind is InputKind.OPTION:
        return f"{subject} was {before or NOT_DEFINED}, is {after or NOT_DEFINED}"
    if difference.before == "order":
        return f"{subject}: the order moved"
    if difference.kind in (InputKind.INPUT, InputKind.DISCOVERED) and not after:
        return f"{subject}: {before} -> gone"
    if not before:
        return f"{subject}: {after} is new" if after else f"{subject} is new"
    if not after:
        return f"{subject}: {before} was dropped"
    return f"{subject}: {before} -> {after}"


def summary(forecasts: Iterable[Forecast]) -> str:
    """`2 would run, 1 may run, 13 up to date`."""
    counts: dict[Fate, int] = {}
    for one in forecasts:
        counts[one.fate] = counts.get(one.fate, 0) + 1
    order = (Fate.RUN, Fate.RESTORE, Fate.UNCERTAIN, Fate.BLOCKED, Fate.UP_TO_DATE)
    return ", ".join(f"{counts[fate]} {fate}" for fate in order if fate in counts)


def host_stages(forecasts: Sequence[Forecast] = ()) -> tuple[Stage, ...]:
    """The stages that have actions; the first has some where statements of ninja say which actions there are."""
    early = bool(by_stage(forecasts, Stage.FINGERPRINT))
    return tuple(stage for stage in HOST_STAGES if early or stage is not Stage.FINGERPRINT)


def plural(count: int, noun: str) -> str:
    """`1 action`, `2 actions`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(plural(count, name) for name, count in counts.items() if count)


def _shown(value: str) -> str:
    """A digest shortened, a long value cut."""
    if len(value) == 64 and set(value) <= _HEX:
        return value[:DIGEST_SHOWN]
    return value if len(value) <= VALUE_SHOWN else f"{value[: VALUE_SHOWN - 3]}..."
