"""Which actions can a few moved files concern? So that one edit among ten thousand files costs what one file costs.

A usage index (`usage_index.py`) is written after a run that ended well, when every action was up to date. As long as
everything else is as it was then (the fast path's state tells), an action none of whose files moved is up to date
still, and an engine needs to know only the others. Knows actions and records. Does not decide, and asks the file system
only in a project with users' actions: the few that are left are decided as ever. Invariant: every action that is
skipped uses no moved file, nor any file that one which is left in may make again, whatever links lead to it. What
cannot be told cheaply is None: then the whole graph is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from cache.ahead import values
from cache.named_tuple import NamedTuple
from pipeline.engine.build_log import BuildRecords, Record
from pipeline.engine.usage_index import MANY, UsageIndex, UsageRow
from pipeline.engine.workspace import SkippedActions
from pipeline.model import Action, Stage, Tool


class PartialGraph(NamedTuple):
    """What an engine of a few actions is made of. `makes`: their outputs by their places among the fast path's paths;
    `known`: what their last runs were."""

    actions: tuple[Action, ...]
    tools: Mapping[str, Tool]
    run_env: Mapping[str, str]
    skipped: SkippedActions
    makes: Mapping[int, str]
    known: Mapping[str, Record]


def partial_graph(
    index: bytes | bytearray, moved: Mapping[int, str], records: BuildRecords, root: str
) -> PartialGraph | None:
    """The actions that the moved files (place in `paths` -> path below the project `root`, or absolute) may concern,
    None when it must be asked of all of them."""
    usage = values().made(UsageIndex, index)
    if usage.made_elsewhere and _leads_elsewhere(moved.values(), usage, root):
        return None
    left: dict[int, UsageRow] = {}
    waiting: list[int] = []
    for file in moved:
        users = usage.users(file)
        if users is None:
            return None
        waiting += users
    while waiting:
        place = waiting.pop()
        if place in left:
            continue
        row = left[place] = usage.row(place)
        if row.after is None or len(left) > MANY:
            return None
        waiting += row.after
    rows = [row for _, row in sorted(left.items())]
    actions, known = [], {}
    skipped = {Stage(name): total for name, total in usage.totals.items()}
    for row in rows:
        record = records.get(row.name)
        if record is None or row.stage == Stage.FINGERPRINT:
            return None  # what such a one makes says which actions there are
        known[row.name] = record
        skipped[Stage(row.stage)] -= 1
        actions.append(_action(record, row))
    believed = _believed(actions, known, moved, usage)
    if believed is None:
        return None
    makes: dict[int, str] = {}
    for row, action in zip(rows, actions, strict=True):
        makes.update(zip(row.makes, action.outputs, strict=True))
    tools = {name: Tool(name, *more) for name, *more in usage.tools}
    left_out = SkippedActions(usage.inputs, skipped, believed)
    return PartialGraph(tuple(actions), tools, usage.env, left_out, makes, known)


def _believed(
    actions: Sequence[Action], known: Mapping[str, Record], moved: Mapping[int, str], usage: UsageIndex
) -> frozenset[str] | None:
    """What these declare as inputs and is certainly what it was; None where what moved goes by another name there. A
    link declares ten thousand: no statement of Python for each of them."""
    read = frozenset[str]().union(*[action.inputs for action in actions])
    made = {path for action in actions for path in action.outputs}
    used = {path for record in known.values() for path, _ in record.discovered} | made
    if any(path not in read and path not in used for path in moved.values() if path[0] != "/"):
        return None
    # One that is spelled in another way may be a moved one.
    text = "\n".join(["", *read])
    others = [path for path in read if path[0] in "/{"] if "\n/" in text or "\n{" in text else ()
    return read.difference(made, moved.values(), others, usage.ways)


def _leads_elsewhere(moved: Collection[str], usage: UsageIndex, root: str) -> bool:
    """Does one of these lead by now to what an action makes, and did not when the index was written?"""
    below = f"{os.path.realpath(root)}/"
    for path in moved:
        real = os.path.realpath(f"{root}/{path}" if path[0] != "/" else path).removeprefix(below)
        product = usage.made_elsewhere.get(real)
        if product is None and real != path and real.endswith(usage.endings):
            product = real  # those are not in the index, which is left to the whole graph once too often at most
        if product is not None and product not in (path, usage.ways.get(path)):
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


def _action(record: Record, row: UsageRow) -> Action:
    """As its last run was."""
    command = record.command
    profile, _, name = row.name.partition(":")
    return Action(
        name=name,
        stage=Stage(row.stage),
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
        cacheable=row.cacheable,
        count_as=row.count_as,
        statement=row.statement,
    )
