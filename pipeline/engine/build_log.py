"""The last successful run of each action, as one project remembers them.

Knows commands and digests. Does not know when an action is up to date, nor how its memory lies on disk
(`saved_state.py`). Invariant: `get` returns what was put under that name, or nothing.

    saved = (records, unrecorded); unrecorded = path -> SHA-256 of an output that no record holds
    records = name -> (row, how, discovered, absent), the first two as in `record_rows.py`

Rows stay encoded until somebody asks: a run that concerns ten actions of ten thousand decodes ten, and saving copies
the others' bytes. What stands outside the row is the same for many actions: equal ones are one object, which the state
file then holds once and a verdict checks once.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView
from typing import Any, TypeVar

from cache.named_tuple import NamedTuple
from cache.rowfile import LazyRows
from pipeline.engine.inputs import Command
from pipeline.engine.packed_inputs import PackedInputs
from pipeline.engine.record_rows import (
    Decoded,
    How,
    Inputs,
    Observed,
    Outputs,
    argv_of,
    decoded_row,
    encoded_row,
    is_strings,
    named_files,
    said_words,
    sound_rows,
    without_own,
)
from pipeline.model import STATEMENT_PROFILE, Action

_T = TypeVar("_T", bound=tuple[Any, ...])


class Record(NamedTuple):
    """The last successful run of an action."""

    command: Command
    inputs: Inputs
    discovered: Observed
    absent: tuple[str, ...]
    outputs: Outputs
    key: str
    command_key: str = ""
    """Of an action with many inputs, what its command is in keys."""


def record_name(action: Action) -> str:
    """Under which name its last run is remembered."""
    return action.known_as


class BuildRecords:
    """name -> Record. Several threads may use it at once, for different names."""

    def __init__(self, saved: Any = None) -> None:
        """`saved`: what `plain` of earlier records gave."""
        rows, made = saved if saved.__class__ is tuple and len(saved) == 2 else ({}, {})
        lazy = isinstance(rows, LazyRows)
        self.saved: dict[str, tuple[bytes, How, Observed, tuple[str, ...]]] = rows if lazy else sound_rows(rows)
        """What was saved of that, as it is."""
        self._rows = self.saved if lazy else dict(self.saved)
        self.unrecorded: dict[str, str] = dict(made) if _is_unrecorded(made) else {}
        """Outputs that were made and that no record holds (any more): path -> SHA-256, `""` if it is not known since
        the action may have been killed."""
        self._shared: dict[Any, Any] = {}
        self._last: tuple[str, Any, Record | None] = ("", None, None)
        """Name, row and record that were asked for last: an action that must run is asked about several times in a
        row."""
        self.changed = False
        """Is there anything that the saved ones do not hold?"""

    def get(self, name: str) -> Record | None:
        """The record of this action."""
        row, (last, of_row, record) = self._rows.get(name), self._last
        if last != name or of_row is not row:
            record = self._get(name)
            self._last = (name, row, record)
        return record

    def _get(self, name: str) -> Record | None:
        row, decoded = self._rows.get(name), self._decoded(name)
        if row is None or decoded is None:
            return None
        inputs, outputs, depfile, key = decoded
        builtin, words, params, env, tool, salt, absent, *_, command_key = row[1]
        read = inputs.paths if isinstance(inputs, PackedInputs) else tuple([path for path, _ in inputs])
        made = tuple([path for path, _, _ in outputs])
        argv = argv_of(words, (*read, *made, depfile))
        if argv is None:
            return None
        command = Command(builtin, argv, params, env, tool, read, made, depfile, salt, absent)
        return Record(command, inputs, row[2], row[3], outputs, key, command_key)

    def result(self, name: str) -> tuple[Outputs, str] | None:
        """The outputs and the key of `get`, for a quarter of its price."""
        decoded = self._decoded(name)
        return None if decoded is None else (decoded[1], decoded[3])

    def files(self, name: str) -> tuple[Inputs, Outputs] | None:
        """The declared inputs and the outputs of `get`, likewise."""
        decoded = self._decoded(name)
        return None if decoded is None else decoded[:2]

    def paths(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """The paths of the declared inputs and of the outputs, for less than that."""
        row = self._rows.get(name)
        named = None if row is None else named_files(row[0], row[1])
        return None if named is None else named[:2]

    def _decoded(self, name: str) -> Decoded | None:
        row = self._rows.get(name)
        return None if row is None else decoded_row(row[0], row[1])

    def discovered(self, name: str) -> Observed:
        """What that action read beside its declared inputs, as far as is known."""
        row = self._rows.get(name)
        return () if row is None else row[2]

    def absent(self, name: str) -> tuple[str, ...]:
        """What would have been read instead, had it existed."""
        row = self._rows.get(name)
        return () if row is None else row[3]

    def put(self, name: str, record: Record) -> None:
        """Remember; an equal record changes nothing. Precondition: inputs and outputs have the command's paths."""
        command = record.command
        last, row_before, before = self._last
        own, named = without_own(command)
        if last == name and before is not None and before.command == command:
            how = row_before[1]  # of a link it takes as long as to encode the rest
        else:
            words = said_words(command.argv, (*command.inputs, *command.outputs, command.depfile))
            more = (command.params, command.env, command.tool, command.salt, command.absent)
            how = (command.builtin, words, *more, *named, record.command_key)
        row = encoded_row(record.inputs, record.outputs, record.key, own)
        new = (row, self.shared(how), self.shared(record.discovered), self.shared(record.absent))
        # Equal values can have several encodings.
        if self._rows.get(name) != new and self.get(name) != record:
            self._dissolve(name)
            self._rows[name] = new
            self.changed = True
        for path, _, _ in record.outputs:
            if self.unrecorded:
                self.unrecorded.pop(path, None)

    def drop(self, name: str) -> None:
        """Forget it; without one, nothing happens."""
        self._dissolve(name)
        if self._rows.pop(name, None) is not None:
            self.changed = True

    def _dissolve(self, name: str) -> None:
        """Its outputs are still what it made, and ours to remove when nobody makes them any more; those of another
        build system never are."""
        if name.startswith(STATEMENT_PROFILE):
            return
        for path, sha256, _ in (self.result(name) or ((), ""))[0]:
            self.unrecorded[path] = sha256

    def begin(self, paths: Iterable[str]) -> None:
        """These may be made from here on, by an action that has no record."""
        for path in paths:
            self.unrecorded[path] = ""
            self.changed = True

    def settle(self, paths: Iterable[str]) -> None:
        """Nothing of ours is there."""
        for path in paths:
            if self.unrecorded.pop(path, None) is not None:
                self.changed = True

    def has(self, name: str) -> bool:
        """Is there a record of this action?"""
        return name in self._rows

    def names(self) -> KeysView[str]:
        return self._rows.keys()

    def shared(self, value: _T) -> _T:
        """An equal tuple that is in use already, if any."""
        if not self._shared:
            for parts in list(zip(*self._rows.values(), strict=True))[1:]:
                by_identity = dict(zip(map(id, parts), parts, strict=True))
                for part in by_identity.values():
                    self._shared.setdefault(part, part)
        return self._shared.setdefault(value, value)  # type: ignore[no-any-return]

    def plain(self) -> tuple[dict[str, Any], dict[str, str]]:
        """All of them as plain values, for a state file."""
        return dict(self._rows), dict(self.unrecorded)

    def live(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The same, not copied: for whoever writes it at once."""
        return self._rows, self.unrecorded


def _is_unrecorded(value: Any) -> bool:
    """Does it name files below build/ alone? They may be removed."""
    if value.__class__ is not dict or not is_strings((*value.keys(), *value.values())):
        return False
    return all(path.startswith("build/") and ".." not in path.split("/") for path in value)
