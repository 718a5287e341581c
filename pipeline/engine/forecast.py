"""What would a run do? The engine's decisions replayed over values: nothing runs, nothing is written.

Pure. Does not know files, stores or how anything is shown; `World` answers. Invariant: an action is called up to date
or restorable only by the key that the engine itself would compute; what depends on an output that does not exist yet is
called uncertain, never guessed (its maker may give the bytes that are there already: early cut-off).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from cache.digest import ActionKey, Digest
from cache.named_tuple import NamedTuple
from pipeline.engine.dag import Dag
from pipeline.engine.inputs import Command, InputKind, command_of
from pipeline.engine.keys import (
    Difference,
    ExplainSink,
    FileDigest,
    Part,
    base_key,
    first_difference,
    full_key,
    set_key,
    walk_base,
    walk_discovered,
)
from pipeline.model import Action, Stage, Tool


class Seen(NamedTuple):
    """A file as it is now, or as it will be after a restore."""

    digest: Digest
    executable: bool


class Remembered(NamedTuple):
    """The last successful run of an action, as the engine's record of it says. Digests are SHA-256 alone."""

    command: Command
    inputs: tuple[tuple[str, str], ...]
    discovered: tuple[tuple[str, str], ...]
    absent: tuple[str, ...]
    outputs: tuple[tuple[str, str, bool], ...]
    key: str


class Stored(NamedTuple):
    """A result in the action cache."""

    outputs: Mapping[str, Seen]
    duration_ms: int


class World(Protocol):
    """Answers about this machine at this moment; each must be free of side effects."""

    tools: Mapping[str, Tool]

    def seen(self, path: str) -> Seen | None:
        """The file; None when there is none that can be read."""
        ...

    def present(self, path: str) -> bool: ...
    def record(self, action: Action) -> Remembered | None: ...
    def candidates(self, base: ActionKey) -> Sequence[tuple[tuple[str, ...], tuple[str, ...]]]:
        """(discovered, absent) sets that the cache knows for this base key."""
        ...

    def stored(self, key: str) -> Stored | None:
        """The result under a full key, if all of its blobs are there."""
        ...


class Fate(StrEnum):
    """What a run would do with an action. `UNCERTAIN`: an input is made by an action that would run first."""

    UP_TO_DATE = "up to date"
    RESTORE = "would be restored from the cache"
    RUN = "would run"
    UNCERTAIN = "may run"
    BLOCKED = "cannot run"


class Forecast(NamedTuple):
    """`why`: the first thing that moved since the last recorded run, None when nothing did or there was none (`first`).
    `waits_for`: the input and the action that would make it anew, of an uncertain one. `compared`: how many things of
    each kind were found equal, of one that is up to date. `outputs`: what is known of them after the run."""

    action: Action
    fate: Fate
    why: Difference | None = None
    first: bool = False
    waits_for: tuple[str, str] | None = None
    compared: Mapping[str, int] | None = None
    outputs: Mapping[str, Seen] | None = None


def forecast(graph: Dag, world: World) -> tuple[Forecast, ...]:
    """One forecast per action, in the order of the graph."""
    after: dict[str, Seen | None] = {}
    found = []
    for action in graph.order:
        one = _Judge(graph, world, after).judge(action)
        for path in action.outputs:
            after[path] = None if one.outputs is None else one.outputs.get(path)
        found.append(one)
    return tuple(found)


class _Judge(NamedTuple):
    graph: Dag
    world: World
    after: Mapping[str, Seen | None]
    """What outputs will be; None: not known before their action ran."""

    def judge(self, action: Action) -> Forecast:
        record = self.world.record(action)
        command = command_of(action, self.world.tools)
        inputs: list[FileDigest] = []
        for path in action.inputs:
            if path in self.after and self.after[path] is None:
                return self._uncertain(action, record, command, path)
            seen = self._will_be(path)
            if seen is None:
                gone = Difference(InputKind.INPUT, path, _old(record.inputs if record else (), path), "")
                return Forecast(action, Fate.BLOCKED, gone)
            inputs.append((path, seen.digest))
        base = base_key(command, inputs)
        for discovered, absent in self._sets(action, record, base):
            unknown = next((path for path in discovered if path in self.after and self.after[path] is None), None)
            if unknown is not None:
                return self._uncertain(action, record, command, unknown)
            found = self._by_set(action, record, command, inputs, full_key_of(base, self._files(discovered), absent))
            if found is not None and not any(map(self.world.present, absent)):
                return found
        return Forecast(action, Fate.RUN, self._difference(record, command, inputs), first=record is None)

    def _sets(
        self, action: Action, record: Remembered | None, base: ActionKey
    ) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
        """In the engine's order: the set of the last run here, then those that the cache holds."""
        if not action.depfile:
            yield (), ()
            return
        if record is not None:
            yield tuple(path for path, _ in record.discovered), record.absent
        if action.cacheable:
            yield from self.world.candidates(base)

    def _by_set(
        self,
        action: Action,
        record: Remembered | None,
        command: Command,
        inputs: Sequence[FileDigest],
        key: ActionKey | None,
    ) -> Forecast | None:
        if key is None:
            return None
        if record is not None and record.key == key:
            wrong = self._wrong_output(record)
            if wrong is None:
                outputs = {path: seen for path, _, _ in record.outputs if (seen := self.world.seen(path)) is not None}
                return Forecast(action, Fate.UP_TO_DATE, compared=_compared(command, record), outputs=outputs)
        else:
            wrong = None
        stored = self.world.stored(key) if action.cacheable else None
        if stored is None or tuple(stored.outputs) != action.outputs:
            return None
        why = wrong or self._difference(record, command, inputs)
        in_place = all(self.world.seen(path) == seen for path, seen in stored.outputs.items())
        fate = Fate.UP_TO_DATE if in_place else Fate.RESTORE
        return Forecast(action, fate, why, first=record is None, outputs=stored.outputs)

    def _uncertain(self, action: Action, record: Remembered | None, command: Command, path: str) -> Forecast:
        maker = self.graph.order[self.graph.producer[path]].name
        why = None
        if record is not None and record.command != command:
            why = self._difference(record, command, None)
        # A command that moved runs whatever its inputs turn out to be, unless the cache knows it.
        return Forecast(action, Fate.UNCERTAIN, why, first=record is None, waits_for=(path, maker))

    # --- files --------------------------------------------------------------------------------

    def _will_be(self, path: str) -> Seen | None:
        return self.after[path] if path in self.after else self.world.seen(path)

    def _files(self, paths: Iterable[str]) -> list[FileDigest] | None:
        found = []
        for path in paths:
            seen = self._will_be(path)
            if seen is None:
                return None
            found.append((path, seen.digest))
        return found

    def _wrong_output(self, record: Remembered) -> Difference | None:
        for path, sha256, executable in record.outputs:
            seen = self.world.seen(path)
            if seen is None or (seen.digest.hex, seen.executable) != (sha256, executable):
                now = "missing" if seen is None else seen.digest.hex
                return Difference(InputKind.OUTPUT_PATH, path, sha256, now if now != sha256 else "other permissions")
        return None

    # --- why ----------------------------------------------------------------------------------

    def _difference(
        self, record: Remembered | None, command: Command, inputs: Sequence[FileDigest] | None
    ) -> Difference | None:
        """The first part that moved, by the two walks that make the keys. `inputs` None: compare the commands only."""
        if record is None:
            return None
        old, new = ExplainSink(), ExplainSink()
        walk_base(old, record.command, () if inputs is None else _bare(record.inputs))
        walk_base(new, command, () if inputs is None else [(path, Digest(d.hex, 0)) for path, d in inputs])
        if inputs is not None:
            walk_discovered(old, _bare(record.discovered), record.absent)
            there = [(path, seen.digest.hex) for path, _ in record.discovered if (seen := self._will_be(path))]
            still = [path for path in record.absent if not self.world.present(path)]
            walk_discovered(new, _bare(there), still)
        return _first(old.parts, new.parts) or (self._wrong_output(record) if inputs is not None else None)


def full_key_of(base: ActionKey, discovered: Sequence[FileDigest] | None, absent: Sequence[str]) -> ActionKey | None:
    """The full key for one set; None when a file of it is missing."""
    return None if discovered is None else full_key(base, set_key(discovered, absent))


def _bare(files: Iterable[tuple[str, str]]) -> list[FileDigest]:
    # Records hold no sizes, and SHA-256 alone tells contents apart: both walks say 0.
    return [(path, Digest(sha256, 0)) for path, sha256 in files]


def _first(old: Sequence[Part], new: Sequence[Part]) -> Difference | None:
    moved = first_difference(old, new)
    if moved is None:
        return None
    if moved.kind is InputKind.ABSENT:
        # Its part has no value; what moved is that the file is there now.
        return moved._replace(before="absent", after="present, and found before the one that was used")
    return moved._replace(before=moved.before.removesuffix("/0"), after=moved.after.removesuffix("/0"))


def _old(files: Iterable[tuple[str, str]], path: str) -> str:
    return next((sha256 for name, sha256 in files if name == path), "")


def _compared(command: Command, record: Remembered) -> dict[str, int]:
    return {
        "command word": len(command.argv) or 1 + len(command.params),
        "declared input": len(record.inputs),
        "discovered input": len(record.discovered),
        "absent file": len(record.absent),
        "output": len(record.outputs),
    }


def by_stage(forecasts: Iterable[Forecast], stage: Stage) -> tuple[Forecast, ...]:
    """Those of one stage."""
    return tuple(one for one in forecasts if one.action.stage is stage)
