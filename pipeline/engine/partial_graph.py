"""Which compiles can a few moved files concern? So that one edit among ten thousand files costs what one file costs.

A *usage index* is written after a run that ended well, when every action was up to date. As long as everything else is
as it was then (the fast path's state tells), an action none of whose files moved is up to date still, and an engine
needs to know only the others. Knows actions and records. Does not stat and does not decide: the few that are left are
decided as ever. Invariant: every action of stage compile that is skipped uses no moved file, nor any file that one
which is left in may make again. What cannot be told cheaply is None: then the whole graph is looked at.

    index = (inputs, actions of stage compile, tools, run environment, rows, users)
    rows  = per action of stage compile (name of its record, cacheable, counter, places of those that come after it)
    users = per file, in the order of the fast path's paths, the places of the rows that use it; None when too many do
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.engine.build_log import BuildRecords, record_name
from pipeline.engine.workspace import SkippedActions, Workspace
from pipeline.model import Action, Stage, Tool

MANY = 64
"""Where more actions use one file, that does not narrow them down: when it moves, or when more files than this did, the
whole graph is looked at."""


class PartialGraph(NamedTuple):
    """What an engine of a few actions is made of."""

    actions: tuple[Action, ...]
    tools: Mapping[str, Tool]
    run_env: Mapping[str, str]
    skipped: SkippedActions


def usage_index(workspace: Workspace, paths: Sequence[str]) -> bytes:
    """The index of a project whose actions are all up to date; `paths` (of keys): the files that actions use."""
    order, records = workspace.graph.order, workspace.records
    places = {index: place for place, index in enumerate(n for n, a in enumerate(order) if a.stage is Stage.COMPILE)}
    users: dict[str, list[int]] = {}
    sets: dict[int, tuple[tuple[tuple[str, str], ...], list[int]]] = {}
    after: list[set[int]] = [set() for _ in places]
    for index, place in places.items():
        action = order[index]
        for path in (*action.inputs, *action.outputs):
            users.setdefault(path, []).append(place)
        observed = records.discovered(record_name(action))
        sets.setdefault(id(observed), (observed, []))[1].append(place)
        for need in workspace.graph.needs[index]:
            if need in places:  # else it comes before everything
                after[places[need]].add(place)
    for observed, found in sets.values():
        for path, _ in observed:
            known = users.setdefault(path, [])
            if len(known) <= MANY:
                known += found[: MANY + 1]
    rows = []
    for index, place in places.items():
        action = order[index]
        followers = after[place].union(*(users[path] for path in action.outputs)) - {place}
        rows.append((record_name(action), action.cacheable, action.count_as, _few(followers)))
    made = workspace.graph.producer
    # A file that only later stages read: the fingerprint must still see that it moved.
    by_path = [_few(users[path]) if path in users else (() if path in made else None) for path in paths]
    tools = [tuple(tool) for tool in workspace.steps.tools.values()]
    env = dict(workspace.steps.run_env)
    return marshal.dumps((workspace.input_count, len(places), tools, env, rows, by_path))


def _few(places: Iterable[int]) -> tuple[int, ...] | None:
    found = tuple(sorted(set(places)))
    return found if len(found) <= MANY else None


def partial_graph(index: bytes, moved: Sequence[int], records: BuildRecords) -> PartialGraph | None:
    """The actions that the moved files (places in `paths`) may concern, None when it must be asked of all of them."""
    inputs, total, tools, env, rows, users = marshal.loads(index)
    left: set[int] = set()
    waiting: list[int] = []
    for file in moved:
        if users[file] is None:
            return None
        waiting += users[file]
    while waiting:
        place = waiting.pop()
        if place in left:
            continue
        left.add(place)
        followers = rows[place][3]
        if followers is None or len(left) > MANY:
            return None
        waiting += followers
    actions = []
    for place in sorted(left):
        action = _action(records, *rows[place][:3])
        if action is None:
            return None
        actions.append(action)
    by_name = {row[0]: Tool(*row) for row in tools}
    return PartialGraph(tuple(actions), by_name, env, SkippedActions(inputs, total - len(actions)))


def _action(records: BuildRecords, name: str, cacheable: bool, count_as: Any) -> Action | None:
    """As its last run was; None when that is not remembered, or needs this program's own functions."""
    record = records.get(name)
    if record is None or record.command.builtin:
        return None
    command = record.command
    profile, _, own_name = name.partition(":")
    return Action(
        name=own_name,
        stage=Stage.COMPILE,
        inputs=command.inputs,
        outputs=command.outputs,
        argv=command.argv,
        params=command.params,
        env=command.env,
        depfile=command.depfile,
        profile=profile,
        salt=command.salt,
        absent=command.absent,
        cacheable=cacheable,
        count_as=count_as,
    )
