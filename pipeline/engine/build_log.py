"""The last successful run of each action, as one project remembers them, and the state file that holds them.

Knows commands and digests. Does not know when an action is up to date. Invariant: `get` returns what was put
under that name, or nothing.

    saved = name -> (row, how, discovered, absent);  row = marshal of (inputs, outputs, depfile, key)
    how   = (builtin, words, params, env, tool, profile, salt); in `words` a number n stands for the n-th of the input
            paths, output paths and the depfile

Rows stay encoded until somebody asks: a run that concerns ten actions of ten thousand decodes ten, and saving copies
the others' bytes. What stands outside the row is the same for many actions: equal ones are one object, which the state
file then holds once and a verdict checks once.
"""

from __future__ import annotations

import marshal
from collections.abc import KeysView
from pathlib import Path
from typing import Any, TypeVar

from cache import statefile
from cache.named_tuple import NamedTuple
from pipeline.engine.inputs import Command
from pipeline.model import Action

Observed = tuple[tuple[str, str], ...]
"""(path, SHA-256) of files."""

Outputs = tuple[tuple[str, str, bool], ...]
"""(path, SHA-256, executable)."""

_How = tuple[Any, ...]
_T = TypeVar("_T", bound=tuple[Any, ...])


class Record(NamedTuple):
    """The last successful run of an action."""

    command: Command
    inputs: Observed
    discovered: Observed
    absent: tuple[str, ...]
    outputs: Outputs
    key: str


def record_name(action: Action) -> str:
    """Under which name its last run is remembered."""
    return f"{action.profile}:{action.name}"


class Records:
    """name -> Record. Several threads may use it at once, for different names."""

    def __init__(self, saved: Any = None) -> None:
        """`saved`: what `plain` of earlier records gave."""
        self._rows: dict[str, tuple[bytes, _How, Observed, tuple[str, ...]]] = dict(saved or {})
        self._shared: dict[Any, Any] = {}
        self.changed = False
        """Is there anything that the saved ones do not hold?"""

    def get(self, name: str) -> Record | None:
        """The record of this action."""
        row = self._rows.get(name)
        if row is None:
            return None
        inputs, outputs, depfile, key = marshal.loads(row[0])
        builtin, words, params, env, tool, profile, salt = row[1]
        read, made = tuple([path for path, _ in inputs]), tuple([path for path, _, _ in outputs])
        files = (*read, *made, depfile)
        argv = tuple([files[word] if word.__class__ is int else word for word in words])
        command = Command(builtin, argv, params, env, tool, read, made, depfile, profile, salt)
        return Record(command, inputs, row[2], row[3], outputs, key)

    def result(self, name: str) -> tuple[Outputs, str] | None:
        """The outputs and the key of `get`, for a quarter of its price."""
        row = self._rows.get(name)
        if row is None:
            return None
        _, outputs, _, key = marshal.loads(row[0])
        return outputs, key

    def files(self, name: str) -> tuple[Observed, Outputs] | None:
        """The declared inputs and the outputs of `get`, likewise."""
        row = self._rows.get(name)
        return None if row is None else marshal.loads(row[0])[:2]

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
        files = {path: n for n, path in enumerate((*command.inputs, *command.outputs, command.depfile)) if path}
        words = tuple([files.get(word, word) for word in command.argv])
        how = (command.builtin, words, command.params, command.env, command.tool, command.profile, command.salt)
        row = marshal.dumps((record.inputs, record.outputs, command.depfile, record.key))
        new = (row, self.shared(how), self.shared(record.discovered), self.shared(record.absent))
        # Equal values can have several encodings.
        if self._rows.get(name) != new and self.get(name) != record:
            self._rows[name] = new
            self.changed = True

    def drop(self, name: str) -> None:
        """Forget it; without one, nothing happens."""
        if self._rows.pop(name, None) is not None:
            self.changed = True

    def names(self) -> KeysView[str]:
        return self._rows.keys()

    def shared(self, value: _T) -> _T:
        """An equal tuple that is in use already, if any."""
        if not self._shared:
            by_identity = {id(part): part for row in self._rows.values() for part in row[1:]}
            for part in by_identity.values():
                self._shared.setdefault(part, part)
        return self._shared.setdefault(value, value)  # type: ignore[no-any-return]

    def plain(self) -> dict[str, Any]:
        """All of them as plain values, for a state file."""
        return dict(self._rows)


STATE_KIND = "stamps 3 actions 2"
STATE_NAME = "stamps.v1.state"


class Saved(NamedTuple):
    """The state file of a project: what `StampTable.plain` gave, records, and a line for the user if it was damaged."""

    stamps: Any
    records: Records
    note: str


def load_saved(state_dir: Path) -> Saved:
    """Read it; an empty one when there is none that can be used."""
    value, note = statefile.load(state_dir / STATE_NAME, STATE_KIND)
    stamps, records = value or (None, None)
    return Saved(stamps, Records(records), note)
