"""Which actions can a few moved files concern? So that one edit among ten thousand files costs what one file costs.

A *usage index* is written after a run that ended well, when every action was up to date. As long as everything else is
as it was then (the fast path's state tells), an action none of whose files moved is up to date still, and an engine
needs to know only the others. Knows actions and records. Does not decide, and asks the file system only in a project
with users' actions: the few that are left are decided as ever. Invariant: every action that is skipped uses no moved
file, nor any file that one which is left in may make again, whatever links lead to it. What cannot be told cheaply is
None: then the whole graph is looked at.

    index = (inputs, actions by stage, tools, run environment, rows, users, ways)
    rows  = per action, as bytes, since few are looked into: (name of its record, stage, cacheable, counter, places of
            its outputs among the paths of the fast path, places of the actions that come after it, its statement as
            bytes)
    users = per file, in the order of the fast path's paths, the places of the rows that use it; None when too many do,
            or when it may decide which rows there are
    ways  = (path -> the output of a user's action that it leads to under another name, name of each such output without
            links -> the declared one)
"""

from __future__ import annotations

import marshal
import os
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cache.ahead import values
from cache.named_tuple import NamedTuple
from pipeline.engine.build_log import BuildRecords, Record, record_name
from pipeline.engine.workspace import SkippedActions, Workspace
from pipeline.model import Action, Stage, Statement, Tool

MANY = 64
"""Where more actions use one file, that does not narrow them down: when it moves, or when more files than this did, the
whole graph is looked at."""


class PartialGraph(NamedTuple):
    """What an engine of a few actions is made of. `makes`: their outputs by their places among the fast path's paths;
    `known`: what their last runs were."""

    actions: tuple[Action, ...]
    tools: Mapping[str, Tool]
    run_env: Mapping[str, str]
    skipped: SkippedActions
    makes: Mapping[int, str]
    known: Mapping[str, Record]


def usage_index(workspace: Workspace, paths: Sequence[str]) -> bytes:
    """The index of a project whose actions are all up to date; `paths` (of keys): the files that actions use. Encoded
    piece by piece, since all of it as values would be the most that a large run ever holds."""
    order, records = workspace.graph.order, workspace.records
    places = {path: n for n, path in enumerate(paths)}
    users, after = _Users(), _Users()
    sets: dict[int, tuple[tuple[tuple[str, str], ...], list[int]]] = {}
    for place, action in enumerate(order):
        for path in (*action.inputs, *action.outputs):
            users.add(places.setdefault(path, len(places)), place)
        observed = records.discovered(record_name(action))
        sets.setdefault(id(observed), (observed, []))[1].append(place)
        for need in workspace.graph.needs[place]:
            after.add(need, place)
    for observed, found in sets.values():
        for path, _ in observed:
            n = places.setdefault(path, len(places))
            for place in found[: MANY + 1]:
                users.add(n, place)
    ways, made_by_users = _ways(workspace, places)
    for path, product in ways.items():
        for place in users.of(places[path]):
            users.add(places[product], place)
    tools = [tuple(tool) for tool in workspace.steps.tools.values()]
    # Statements get all of the environment of their time, which may hold what belongs into no file.
    env = {} if workspace.steps.has_statements else dict(workspace.steps.run_env)
    totals = dict.fromkeys(map(str, Stage), 0)
    for action in order:
        totals[action.stage] += 1
    index = bytearray(b"(" + _int32(7))
    for value in (workspace.input_count, totals, tools, env):
        index += marshal.dumps(value, _NO_REFERENCES)
    index += b"[" + _int32(len(order))
    for place, action in enumerate(order):
        made = [places[path] for path in action.outputs]
        followers = set(after.of(place)).union(*map(users.of, made)) - {place}
        makes = tuple([n if n < len(paths) else -1 for n in made])
        what = (record_name(action), str(action.stage), action.cacheable, action.count_as)
        statement = b"" if action.statement is None else marshal.dumps(tuple(action.statement))
        index += marshal.dumps(marshal.dumps((*what, makes, _few(followers), statement)), _NO_REFERENCES)
    # What stage link reads and nobody makes (the partition table) may decide which actions there are.
    late = {path for action in order if action.stage is Stage.LINK for path in _read_by(records, action)}
    deciding = {places[path] for path in late if path not in workspace.graph.producer}
    del places, after, sets, late
    index += b"[" + _int32(len(paths))
    for n in range(len(paths)):
        index += _encoded(None if n in deciding else _few(users.of(n)) or None)
    index += marshal.dumps((ways, made_by_users), _NO_REFERENCES)
    return bytes(index)


def _ways(workspace: Workspace, used: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The last piece of the index. Nothing is asked where no action is a user's."""
    made = [path for action in workspace.graph.order if action.is_users for path in action.outputs]
    if not made:
        return {}, {}
    workspace.forget_links()  # what ran since they were looked at may have made others
    links, producer = workspace.links, workspace.graph.producer
    ways = {path: product for path in used if path not in producer and (product := links.product(path))}
    return ways, {links.real(path): path for path in made}


_NO_REFERENCES = 2
"""The format of marshal whose pieces can stand anywhere."""


def _int32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _encoded(places: tuple[int, ...] | None) -> bytes:
    data = marshal.dumps(places, _NO_REFERENCES)
    return data if places is None else b")" + data[1:2] + data[5:]  # as format 4 has it: one byte says how many


class _Users:
    """number -> the places of the rows that use it: one or two, of nearly all of a hundred thousand numbers."""

    def __init__(self) -> None:
        self._first, self._second = array("i"), array("i")
        self._more: dict[int, set[int]] = {}

    def add(self, number: int, place: int) -> None:
        first, second = self._first, self._second
        if number >= len(first):
            new = array("i", [-1]) * (number + 1 - len(first))
            first.extend(new)
            second.extend(new)
        if first[number] < 0:
            first[number] = place
        elif second[number] < 0:
            second[number] = place
        else:
            more = self._more.setdefault(number, set())
            if len(more) <= MANY:
                more.add(place)

    def of(self, number: int) -> Collection[int]:
        """More than `MANY` where there are more: not all of these."""
        if number >= len(self._first):
            return ()
        found = {self._first[number], self._second[number]} - {-1}
        return found.union(self._more[number]) if number in self._more else found


def _read_by(records: BuildRecords, action: Action) -> Iterator[str]:
    yield from action.inputs
    yield from (path for path, _ in records.discovered(record_name(action)))


def _few(places: Collection[int]) -> tuple[int, ...] | None:
    return tuple(sorted(places)) if len(places) <= MANY else None


def partial_graph(index: bytes, moved: Mapping[int, str], records: BuildRecords, root: str) -> PartialGraph | None:
    """The actions that the moved files (place in `paths` -> path below the project `root`, or absolute) may concern,
    None when it must be asked of all of them."""
    inputs, totals, tools, env, rows, users, (ways, made_by_users) = values().made(marshal.loads, index)
    if made_by_users and _leads_elsewhere(moved.values(), ways, made_by_users, root):
        return None
    left: dict[int, Any] = {}
    waiting: list[int] = []
    for file in moved:
        if users[file] is None:
            return None
        waiting += users[file]
    while waiting:
        place = waiting.pop()
        if place in left:
            continue
        left[place] = marshal.loads(rows[place])
        followers = left[place][5]
        if followers is None or len(left) > MANY:
            return None
        waiting += followers
    actions, known, read, found = [], {}, set[str](), set[str]()
    skipped = {Stage(name): total for name, total in totals.items()}
    for place in sorted(left):
        name, stage, cacheable, count_as, _, _, statement = left[place]
        record = records.get(name)
        if record is None or stage == Stage.FINGERPRINT:
            return None  # what such a one makes says which actions there are
        known[name] = record
        skipped[Stage(stage)] -= 1
        read.update(record.command.inputs)
        found.update(path for path, _ in record.discovered)
        action = _action(record, name, Stage(stage), cacheable, count_as)
        actions.append(action._replace(statement=Statement._make(marshal.loads(statement))) if statement else action)
    made = {path for action in actions for path in action.outputs}
    if any(path not in read and path not in found and path not in made for path in moved.values() if path[0] != "/"):
        return None  # it goes by another name there
    read -= {*made, *moved.values()}
    # One that is spelled in another way may be a moved one.
    read.difference_update([path for path in read if path[0] in "/{"])
    read.difference_update(ways)
    makes: dict[int, str] = {}
    for place, action in zip(sorted(left), actions, strict=True):
        makes.update(zip(left[place][4], action.outputs, strict=True))
    by_name = {row[0]: Tool(*row) for row in tools}
    return PartialGraph(tuple(actions), by_name, env, SkippedActions(inputs, skipped, frozenset(read)), makes, known)


def _leads_elsewhere(
    moved: Collection[str], ways: Mapping[str, str], made_by_users: Mapping[str, str], root: str
) -> bool:
    """Does one of these lead by now to what a user's action makes, and did not when the index was written?"""
    below = f"{os.path.realpath(root)}/"
    for path in moved:
        product = made_by_users.get(os.path.realpath(f"{root}/{path}" if path[0] != "/" else path).removeprefix(below))
        if product is not None and product not in (path, ways.get(path)):
            return True
    return False


def same_files(part: PartialGraph, records: BuildRecords) -> bool:
    """Did the last runs of these actions read, look for and make the same files as the ones before?"""
    for name, before in part.known.items():
        now = records.get(name)
        if now is None or now.command != before.command or now.absent != before.absent:
            return False
        if [path for path, _ in now.discovered] != [path for path, _ in before.discovered]:
            return False
    return True


def _action(record: Record, name: str, stage: Stage, cacheable: bool, count_as: Any) -> Action:
    """As its last run was."""
    command = record.command
    profile, _, own_name = name.partition(":")
    return Action(
        name=own_name,
        stage=stage,
        inputs=command.inputs,
        outputs=command.outputs,
        argv=command.argv,
        builtin=command.builtin,
        params=command.params,
        env=command.env,
        depfile=command.depfile,
        profile=profile,
        salt=command.salt,
        absent=command.absent,
        cacheable=cacheable,
        count_as=count_as,
    )
