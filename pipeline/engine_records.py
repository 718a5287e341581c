"""The last successful run of each action, as one project remembers them: the engine's half of its state file.

Knows commands and digests. Does not know files or when an action is up to date. Invariant: `get` returns what was put
under that name, or nothing.

    saved = name -> (row, discovered, absent);  row = marshal of (command, inputs, outputs, key)

Rows stay encoded until somebody asks: a run that concerns ten actions of ten thousand decodes ten, and saving copies
the others' bytes. The two sets stand outside, since most actions share theirs with others: equal ones are one object,
which the state file then holds once and a verdict checks once.
"""

from __future__ import annotations

import marshal
from collections.abc import KeysView
from typing import Any, NamedTuple, TypeVar

from pipeline.core.inputs import Command
from pipeline.core.model import Action

Observed = tuple[tuple[str, str], ...]
"""(path, SHA-256) of files."""

_T = TypeVar("_T", bound=tuple[Any, ...])


class Record(NamedTuple):
    """The last successful run of an action."""

    command: Command
    inputs: Observed
    discovered: Observed
    absent: tuple[str, ...]
    outputs: tuple[tuple[str, str, bool], ...]
    """(path, SHA-256, executable)."""
    key: str


def record_name(action: Action) -> str:
    """Under which name its last run is remembered."""
    return f"{action.profile}:{action.name}"


class Records:
    """name -> Record. Several threads may use it at once, for different names."""

    def __init__(self, saved: Any = None) -> None:
        """`saved`: what `plain` of earlier records gave."""
        self._rows: dict[str, tuple[bytes, Observed, tuple[str, ...]]] = dict(saved or {})
        self._shared: dict[Any, Any] = {}
        self.changed = False
        """Is there anything that the saved ones do not hold?"""

    def get(self, name: str) -> Record | None:
        """The record of this action."""
        row = self._rows.get(name)
        if row is None:
            return None
        command, inputs, outputs, key = marshal.loads(row[0])
        return Record(Command._make(command), inputs, row[1], row[2], outputs, key)

    def discovered(self, name: str) -> Observed:
        """What that action read beside its declared inputs, as far as is known."""
        row = self._rows.get(name)
        return () if row is None else row[1]

    def put(self, name: str, record: Record) -> None:
        """Remember; an equal record changes nothing."""
        row = marshal.dumps((tuple(record.command), record.inputs, record.outputs, record.key))
        new = (row, self.shared(record.discovered), self.shared(record.absent))
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
