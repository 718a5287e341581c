"""Where a graph of ninja lies, by which names its files stand in keys, and in which stages its actions run.

Pure. Does not know what statements do. Invariant: a path and a word that hold a directory of this machine for which
there is a symbol hold the symbol instead, and putting the directory back gives exactly what was there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from cache.named_tuple import NamedTuple
from pipeline.formats.ninja.graph import canonical
from pipeline.model import Action, Stage


class NinjaPlaces(NamedTuple):
    """Where a graph lies. `directory`: in which ninja runs, from the root; `symbols`: placeholder -> directory outside
    the project whose files are known by it."""

    root: str
    directory: str
    symbols: Mapping[str, str]

    def from_root(self, path: str) -> str:
        """A path of ninja's graph as it stands in keys."""
        full = path if path.startswith("/") else canonical(f"{self.root}/{self.directory}/{path}")
        if full.startswith(f"{self.root}/"):
            # CMake names the object of a source that lies outside of its own directory by the source's whole path.
            return full[len(self.root) + 1 :].replace(f"{self.root}/", "{root}/")
        for symbol, place in self.symbols.items():
            if full.startswith(f"{place}/"):
                return symbol + full[len(place) :]
        return full

    def symbolic(self, word: str) -> str:
        """A word of a command with symbols in place of the directories."""
        for symbol, place in (("{root}", self.root), *self.symbols.items()):
            if place in word:
                word = _whole(place).sub(symbol, word)
        return word


@lru_cache(maxsize=64)
def _whole(place: str) -> re.Pattern[str]:
    """The place, and not the beginning of another name."""
    return re.compile(rf"{re.escape(place)}(?![\w.+-])")


class NestedBuild(NamedTuple):
    """Everything that a nested build makes, and what of it none of its own statements reads."""

    outputs: frozenset[str]
    results: tuple[str, ...]


def with_stages(actions: Sequence[Action]) -> list[Action]:
    """Stage compile has the compiles and everything that they wait for; what comes before everything stays so."""
    producer = {path: n for n, action in enumerate(actions) for path in action.outputs}
    early = {n for n, action in enumerate(actions) if action.count_as == "compiled"}
    waiting = list(early)
    while waiting:
        action = actions[waiting.pop()]
        after = action.statement.after if action.statement is not None else ()
        for path in (*action.inputs, *after):
            n = producer.get(path)
            if n is not None and n not in early:
                early.add(n)
                waiting.append(n)
    return [
        action
        if action.stage is Stage.FINGERPRINT
        else action._replace(stage=Stage.COMPILE if n in early else Stage.LINK)
        for n, action in enumerate(actions)
    ]
