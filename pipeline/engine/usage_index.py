"""The usage index: which actions use which files, as of a run after which every action was up to date.

Written beside the fast path's state, for a run that comes to know that few files moved. Knows actions and records. Does
not decide: `partial_graph.py` and `put_back.py` ask it. Invariant: no row is decoded but the one that is asked for,
since ten thousand of which one is wanted would take longer than all else that such a run decodes.

    index = (inputs, actions by stage, tools, run environment, rows, row ends, users, user ends, ways, made elsewhere,
             endings)
    rows  = one after the other, in the order in which actions are made: (name of its record, stage, cacheable, counter,
            places of its outputs among the paths of the fast path, places of the actions that come after it, its
            statement as bytes)
    users = per file, in the order of the fast path's paths, the places of the rows that use it; none when too many do,
            or when it may decide which rows there are
    ends  = where each row ends in the bytes of all, and each file's users among all; 32 bits each in the machine's
            byte order, as users have
    ways  = path -> the output that it leads to under another name
    made elsewhere = name without links of each output of `symlinks.products_by_name` -> the declared one
    endings = how the names of the other outputs end, which are objects
"""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from cache.named_tuple import NamedTuple
from pipeline.engine.build_log import BuildRecords, record_name
from pipeline.model import Action, Stage, Statement

if TYPE_CHECKING:
    from pipeline.engine.workspace import Workspace  # whoever only reads has none

MANY = 64
"""Where more actions use one file, that does not narrow them down: when it moves, or when more files than this did, the
whole graph is looked at."""


class UsageRow(NamedTuple):
    """One action."""

    name: str
    """Of its record."""
    stage: str
    cacheable: bool
    count_as: Literal["compiled", "linked", "built"]
    makes: tuple[int, ...]
    """Its outputs, by their places among the paths of the fast path; -1 for one that is not among them."""
    after: tuple[int, ...] | None
    """The rows that come after it; None where these are too many."""
    packed: bytes
    """Its statement as bytes, empty where it has none."""

    @property
    def statement(self) -> Statement | None:
        return Statement._make(marshal.loads(self.packed)) if self.packed else None


class UsageIndex:
    """One that `usage_index` made. Raises what `marshal.loads` raises, and TypeError, where it was not."""

    def __init__(self, index: bytes | bytearray) -> None:
        self.inputs: int
        self.totals: Mapping[str, int]
        self.tools: Sequence[tuple[Any, ...]]
        self.env: Mapping[str, str]
        self.ways: Mapping[str, str]
        self.made_elsewhere: Mapping[str, str]
        self.endings: tuple[str, ...]
        self.inputs, self.totals, self.tools, self.env, *packed = marshal.loads(index)
        self._rows, row_ends, users, user_ends, self.ways, self.made_elsewhere, self.endings = packed
        self._row_ends, self._user_ends, self._users = (array(_PLACE, data) for data in (row_ends, user_ends, users))

    def __len__(self) -> int:
        return len(self._row_ends)

    def row(self, place: int) -> UsageRow:
        first = self._row_ends[place - 1] if place else 0
        return UsageRow._make(marshal.loads(self._rows[first : self._row_ends[place]]))

    def rows(self) -> Iterator[UsageRow]:
        return map(self.row, range(len(self)))

    def users(self, file: int) -> Sequence[int] | None:
        """The rows that use a file, by its place; None where that must be asked of all of them."""
        first = self._user_ends[file - 1] if file else 0
        return self._users[first : self._user_ends[file]] or None


def usage_index(workspace: Workspace, paths: Sequence[str]) -> bytearray:
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
    ways, made_elsewhere, endings = _ways(workspace, places)
    for path, product in ways.items():
        for place in users.of(places[path]):
            users.add(places[product], place)
    tools = [tuple(tool) for tool in workspace.steps.tools.values()]
    # Statements get all of the environment of their time, which may hold what belongs into no file.
    env = {} if workspace.steps.has_statements else dict(workspace.steps.run_env)
    totals = dict.fromkeys(map(str, Stage), 0)
    for action in order:
        totals[action.stage] += 1
    index = bytearray(b"(" + _size(11))
    value: object
    for value in (workspace.input_count, totals, tools, env):
        index += marshal.dumps(value, _NO_REFERENCES)
    made = array(_PLACE, [places[path] for action in order for path in action.outputs])
    # What stage link reads and nobody makes (the partition table) may decide which actions there are.
    late = {path for action in order if action.stage is Stage.LINK for path in _read_by(records, action)}
    deciding = {places[path] for path in late if path not in workspace.graph.producer}
    del places, sets, late
    ends, before, first = array(_PLACE), _begin_bytes(index), 0
    for place, action in enumerate(order):
        outputs = made[first : first + len(action.outputs)]
        first += len(outputs)
        followers = set(after.of(place)).union(*map(users.of, outputs)) - {place}
        makes = tuple([n if n < len(paths) else -1 for n in outputs])
        what = (record_name(action), str(action.stage), action.cacheable, action.count_as)
        statement = b"" if action.statement is None else marshal.dumps(tuple(action.statement))
        index += marshal.dumps((*what, makes, _few(followers), statement))
        ends.append(len(index) - before)
    _end_bytes(index, before)
    index += marshal.dumps(ends.tobytes(), _NO_REFERENCES)
    del after
    ends, used_by = array(_PLACE), array(_PLACE)
    for n in range(len(paths)):
        used_by.extend(() if n in deciding else _few(users.of(n)) or ())
        ends.append(len(used_by))
    for value in (used_by.tobytes(), ends.tobytes(), ways, made_elsewhere, endings):
        index += marshal.dumps(value, _NO_REFERENCES)
    return index


def _ways(workspace: Workspace, used: Collection[str]) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """The last pieces of the index. Nothing is asked where no action is a user's."""
    from pipeline.engine.symlinks import products_by_name  # whoever only reads has no use for it

    made = products_by_name(workspace.graph.order)
    if not made:
        return {}, {}, ()
    workspace.forget_links()  # what ran since they were looked at may have made others
    links, producer = workspace.links, workspace.graph.producer
    ways = {path: product for path in used if path not in producer and (product := links.product(path))}
    return ways, {links.real(path): path for path in made}, links.endings


_PLACE = "I"
"""The type code of a place: 32 bits without a sign."""
_NO_REFERENCES = 2
"""The format of marshal whose pieces can stand anywhere."""


def _size(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _begin_bytes(index: bytearray) -> int:
    """What is added from here on is one value; where that begins."""
    index += b"s" + _size(0)
    return len(index)


def _end_bytes(index: bytearray, first: int) -> None:
    index[first - 4 : first] = _size(len(index) - first)


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
