"""Put actions in an order in which each comes after those that make its inputs.

Pure. Does not know why an action runs. Invariant: the order is stable (declared order wherever the graph allows), and
a graph that cannot be ordered gives a sentence that names the files or actions at fault.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.engine.searches import CommandSearches
from pipeline.model import Action, Stage


class Dag(NamedTuple):
    """`order`: all actions. `producer`: output path -> index in `order`. `needs[i]`: indices that `order[i]` waits
    for, all smaller than i."""

    order: tuple[Action, ...]
    producer: Mapping[str, int]
    needs: tuple[tuple[int, ...], ...]


class Trouble(NamedTuple):
    """Why there is no such graph: one fact, and the names of the actions at fault."""

    message: str
    hint: str
    actions: tuple[str, ...]


class FileSystem(NamedTuple):
    """What must be asked of the file system, and what is remembered. `read_by`: the outputs that the last run of an
    action read, None when nobody knows what it read; `found_by`: the same without what it declares; `real`: a path
    without the symbolic links in it; `product`: the output that a path leads to (see `symlinks.py`), or `""`."""

    read_by: Callable[[Action], Collection[str] | None] = lambda action: None
    found_by: Callable[[Action], Collection[str] | None] = lambda action: None
    real: Callable[[str], str] = lambda path: path
    product: Callable[[str], str] = lambda path: ""


def build(actions: Sequence[Action], files: Callable[[], FileSystem] = FileSystem) -> Dag | Trouble:
    """The graph, or what is wrong with the declarations. `files` is called only for projects with users' actions.

    An action waits for those that make its inputs; a compile also for those that make a file below a directory where
    it may look for headers, since nobody knows yet whether it includes them. It may include any file by `../x.h`: the
    first time it waits for all, then for those that made what it included. Any other one waits for those that made what
    it was found to read the last time, unless these wait for it."""
    producer: dict[str, int] = {}
    names: set[tuple[str, str]] = set()
    for index, action in enumerate(actions):
        trouble = _check(action)
        if trouble:
            return Trouble(f"action {action.name!r} {trouble}", "correct the action", (action.name,))
        named = (action.profile, action.name)
        if named in names:
            message = f"two actions are called {action.name!r} in profile {action.profile!r}"
            return Trouble(message, "rename one of them", (action.name,))
        names.add(named)
        for path in action.outputs:
            if path in producer:
                both = (actions[producer[path]].name, action.name)
                message = f"{path} is an output of both {both[0]!r} and {both[1]!r}"
                return Trouble(message, "let one of them write another file", both)
            producer[path] = index
    del names  # there may be fifty thousand
    needs = _needs(actions, producer, files)
    position = _sort(needs)
    if position is None:
        cycle = tuple(actions[index].name for index in _cycle(needs))
        message = "actions wait for each other: " + " -> ".join(map(repr, cycle))
        return Trouble(message, "remove one of these inputs", cycle)
    if any(action.is_users for action in actions):
        actions = _in_stages(actions, needs, position)
    if position == list(range(len(actions))):  # as declared: most projects are
        return Dag(tuple(actions), producer, tuple([tuple(mine) for mine in needs]))
    order = sorted(range(len(actions)), key=position.__getitem__)
    return Dag(
        tuple(actions[index] for index in order),
        {path: position[index] for path, index in producer.items()},
        tuple(tuple(sorted(position[need] for need in needs[index])) for index in order),
    )


def _needs(actions: Sequence[Action], producer: Mapping[str, int], files: Callable[[], FileSystem]) -> list[list[int]]:
    nothing: list[int] = []
    waited = ({producer[path] for path in _waited_for(action) if path in producer} for action in actions)
    needs = [sorted(found) if found else nothing for found in waited]
    generators = [n for n, action in enumerate(actions) if action.is_users]
    if not generators:
        return needs
    read_by, found_by, real, product = files()
    for n, action in enumerate(actions):
        if action.count_as != "compiled":
            asked = action.inputs if action.is_users else [path for path in action.inputs if path not in producer]
            linked = {producer[made_there] for path in asked if (made_there := product(path))}
            if not linked.issubset(needs[n]):
                needs[n] = sorted(linked.union(needs[n]))
    compiles = [n for n, action in enumerate(actions) if action.count_as == "compiled"]
    users = set(generators)
    reads = {index: read_by(actions[index]) for index in compiles}
    for index in compiles:
        read = {producer[path] for path in reads[index] or ()} & users
        # What was included once is no order where that one is declared to need this one by now.
        if kept := [need for need in read if not (needs[need] and comes_after(need, index, needs))]:
            needs[index] = sorted({*needs[index], *kept})
    for index, action in enumerate(actions):
        if action.count_as != "compiled":
            for need in sorted({producer[path] for path in found_by(action) or ()}.difference(needs[index])):
                if not comes_after(need, index, needs):
                    needs[index] = sorted((*needs[index], need))
    _add_guessed(actions, needs, {index for index in compiles if reads[index] is None}, real)
    return needs


def _add_guessed(
    actions: Sequence[Action], needs: list[list[int]], unknown: set[int], real: Callable[[str], str]
) -> None:
    """Let compiles wait for what they may include: what lies below a directory where they search, and the `unknown`
    ones for whatever may be a header. That is what uses neither them nor anything of stage link: who reads the program
    would be one run late each time that a compile waited for it on a guess."""
    searches = CommandSearches()
    near: dict[tuple[str, ...], list[int]] = {}
    for index, action in enumerate(actions):
        if action.count_as == "compiled":
            found = searches.of(action)
            places = dict.fromkeys((*found.every, *found.others, *map(posixpath.dirname, action.inputs[:1])))
            near.setdefault(tuple(places), []).append(index)
    made = {n: list(map(real, action.outputs)) for n, action in enumerate(actions) if action.is_users}
    before = {n: all_before(n, needs) for n in made}
    early = [n for n in made if not any(actions[index].stage is Stage.LINK for index in before[n])]
    use_none = [n for n in early if not any(actions[index].count_as == "compiled" for index in before[n])]
    last = {n: set(unknown) for n in early if n not in use_none}
    """Those that use objects -> who may include what they make."""
    for directories, searching in near.items():
        # From the root itself every file can be named.
        below = tuple("" if place in ("", ".") else f"{place}/" for place in map(real, directories))
        here = [n for n in early if any(path.startswith(below) for path in made[n])]
        first = [n for n in here if n not in last]
        for index in searching:
            if more := use_none if index in unknown else first:
                needs[index] = sorted({*needs[index], *more})
        for n in here:
            if n in last:
                last[n].update(searching)
    for n, including in last.items():
        # One after the other, since by now more may wait for what this one uses.
        for index in including - all_before(n, needs):
            needs[index] = sorted({*needs[index], n})


def all_before(last: int, needs: Sequence[Sequence[int]]) -> set[int]:
    """What `last` waits for, directly or not, and itself."""
    waiting, seen = [last], set[int]()
    while waiting:
        index = waiting.pop()
        if index not in seen:
            seen.add(index)
            waiting += needs[index]
    return seen


def comes_after(later: int, first: int, needs: Sequence[Sequence[int]]) -> bool:
    """Does `later` wait for `first`, directly or not, or is it the same?"""
    return later == first or (bool(needs[later]) and first in all_before(later, needs))


def _in_stages(actions: Sequence[Action], needs: Sequence[Sequence[int]], position: Sequence[int]) -> Sequence[Action]:
    """With users' actions that wait for one of stage link, through whatever link or depfile, in that stage too."""
    placed = list(actions)
    for index in sorted(range(len(actions)), key=position.__getitem__):
        action = actions[index]
        if action.is_users and any(placed[need].stage is Stage.LINK for need in needs[index]):
            placed[index] = action._replace(stage=Stage.LINK)
    return placed


def _waited_for(action: Action) -> Sequence[str]:
    return action.inputs if action.statement is None else (*action.inputs, *action.statement.after)


def _check(action: Action) -> str:
    if bool(action.argv) == bool(action.builtin):
        return "must have either a command or a builtin"
    if action.statement is not None:
        return ""  # ninja's files may lie anywhere, and some are never made
    if not action.outputs:
        return "declares no output"
    paths = (*action.inputs, *action.outputs, *((action.depfile,) if action.depfile else ()))
    text = "\0".join(("", *paths, ""))
    if "\0/" not in text and ".." not in text and "\0\0" not in text:
        return ""  # all of them at once: a link has one for each unit of a project
    for path in paths:
        if not path or path.startswith("/") or ".." in path.split("/"):
            return f"names {path!r}, which is outside the project"
    return ""


def _cycle(needs: Sequence[Sequence[int]]) -> list[int]:
    """The indices of one cycle, first one repeated at the end; there is one."""
    import networkx

    graph: networkx.DiGraph[int] = networkx.DiGraph((index, need) for index, mine in enumerate(needs) for need in mine)
    edges = networkx.find_cycle(graph)
    return [edges[0][0], *(need for _, need in edges)]


def _sort(needs: Sequence[Sequence[int]]) -> list[int] | None:
    """index -> position, None when there is a cycle."""
    position, count = [-1] * len(needs), 0
    for start, mine in enumerate(needs):
        if not mine and position[start] < 0:
            position[start] = count
            count += 1
            continue
        stack: list[tuple[int, int]] = [] if position[start] >= 0 else [(start, 0)]
        on_path = {start} if stack else set()
        while stack:
            index, following = stack[-1]
            if following == len(needs[index]):
                stack.pop()
                on_path.discard(index)
                position[index] = count
                count += 1
                continue
            stack[-1] = (index, following + 1)
            need = needs[index][following]
            if need in on_path:
                return None
            if position[need] < 0:
                on_path.add(need)
                stack.append((need, 0))
    return position
