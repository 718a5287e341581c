"""Put actions in an order in which each comes after those that make its inputs.

Pure. Does not know why an action runs. Invariant: the order is stable (declared order wherever the graph allows), and
a graph that cannot be ordered gives a sentence that names the files or actions at fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.model import Action


@dataclass(frozen=True, slots=True)
class Dag:
    """`order`: all actions. `producer`: output path -> index in `order`. `needs[i]`: indices that `order[i]` waits
    for, all smaller than i."""

    order: tuple[Action, ...]
    producer: Mapping[str, int]
    needs: tuple[tuple[int, ...], ...]


def build(actions: Sequence[Action]) -> Dag | str:
    """The graph, or one sentence about what is wrong with the declarations."""
    producer: dict[str, int] = {}
    names: set[tuple[str, str]] = set()
    for index, action in enumerate(actions):
        trouble = _check(action)
        if trouble:
            return f"action {action.name!r} {trouble}"
        if (action.profile, action.name) in names:
            return f"two actions are called {action.name!r} in profile {action.profile!r}"
        names.add((action.profile, action.name))
        for path in action.outputs:
            if path in producer:
                return f"{path} is an output of both {actions[producer[path]].name!r} and {action.name!r}"
            producer[path] = index
    needs = [sorted({producer[path] for path in action.inputs if path in producer}) for action in actions]
    position = _sort(needs)
    if isinstance(position, list):
        return "actions wait for each other: " + " -> ".join(repr(actions[index].name) for index in position)
    order = sorted(range(len(actions)), key=position.__getitem__)
    return Dag(
        tuple(actions[index] for index in order),
        {path: position[index] for path, index in producer.items()},
        tuple(tuple(sorted(position[need] for need in needs[index])) for index in order),
    )


def _check(action: Action) -> str:
    if bool(action.argv) == bool(action.builtin):
        return "must have either a command or a builtin"
    if not action.outputs:
        return "declares no output"
    for path in (*action.inputs, *action.outputs, *((action.depfile,) if action.depfile else ())):
        if not path or path.startswith("/") or ".." in path.split("/"):
            return f"names {path!r}, which is outside the project"
    return ""


def _sort(needs: Sequence[Sequence[int]]) -> dict[int, int] | list[int]:
    """index -> position, or the indices of one cycle, first one repeated at the end."""
    position: dict[int, int] = {}
    for start in range(len(needs)):
        stack: list[tuple[int, int]] = [] if start in position else [(start, 0)]
        on_path = {start: 0} if stack else {}
        while stack:
            index, following = stack[-1]
            if following == len(needs[index]):
                stack.pop()
                del on_path[index]
                position[index] = len(position)
                continue
            stack[-1] = (index, following + 1)
            need = needs[index][following]
            if need in on_path:
                return [entry[0] for entry in stack[on_path[need] :]] + [need]
            if need not in position:
                on_path[need] = len(stack)
                stack.append((need, 0))
    return position
