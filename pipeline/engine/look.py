"""Which actions are up to date by stamps alone: each path is looked at once per look.

The `MovedView` of everything that a run asks before it does anything. Knows stamps and records. Does not read a file
but one whose stamp was taken in the tick of the clock in which it was written, and writes nothing. A look begins with
`reset` and serves everything until the next one; what is edited after it is seen by the next run, since a record holds
the content that was looked at and never what lies there later. What the run itself makes is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from cache.stamps import Entry
from pipeline.engine.absent_places import AbsentPlaces
from pipeline.engine.build_log import Record, record_name
from pipeline.engine.decision import Cause, first_move
from pipeline.engine.keys import KeyDifference
from pipeline.engine.record_rows import Inputs
from pipeline.engine.workspace import Workspace
from pipeline.model import Action


class Look:
    """What the files of a project are, and why actions must run."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.tools = workspace.steps.tools
        self._table = workspace.table
        self.entries: dict[str, Entry | None] = {}
        """What was seen so far; None for a file that moved or is missing."""
        self._present: dict[str, bool] = {}
        self._places = AbsentPlaces(workspace.resolve, self.is_present)
        self._shared: dict[int, tuple[object, KeyDifference | None]] = {}
        self._newest: dict[int, tuple[object, int]] = {}
        self._causes: dict[str, Cause] = {}
        self._up_to_date: set[str] = set()
        """Answers of this look, by the name of the record. What must run does so whatever another action makes
        meanwhile, and then looks again itself."""

    # --- questions ------------------------------------------------------------------------------

    def cause(self, action: Action) -> Cause | None:
        """Why `action` must run, None if it is up to date. Asked again before anything was written, it answers from
        memory."""
        name = record_name(action)
        cause = self._causes.get(name)
        if cause is None and name not in self._up_to_date:
            cause = first_move(action, self)
            if cause is None:
                self._up_to_date.add(name)
            else:
                self._causes[name] = cause
        return cause

    def record(self, action: Action) -> Record | None:
        return self._workspace.record(action)

    def entry(self, path: str) -> Entry | None:
        """The entry of a file that certainly is what it was, by at most one stat per look."""
        try:
            return self.entries[path]
        except KeyError:
            try:
                if path in self._workspace.believed:
                    entry = self._table.remembered(path)
                else:
                    entry = None if path in self._hidden else self._table.stat(path)
            except OSError:
                entry = None
            self.entries[path] = entry
            return entry

    @property
    def believed(self) -> Collection[str]:
        return self._workspace.believed

    def is_present(self, path: str) -> bool:
        """By at most one stat per look."""
        if path not in self._present:
            try:
                self._present[path] = path not in self._hidden and self._table.stamp(path) is not None
            except OSError:
                self._present[path] = False
        return self._present[path]

    def first_present(self, paths: Sequence[str]) -> str:
        return self._places.first_taken(paths)

    def is_made(self, path: str) -> bool:
        return path in self._workspace.graph.producer

    def is_made_alone(self, path: str) -> bool:
        return self._workspace.is_made_alone(path)

    def ran_ns(self, action: Action) -> int:
        return 0 if action.statement is None else self._workspace.ledger.ran_ns(action.statement)

    def newest_ns(self, observed: Inputs) -> int:
        known = self._newest.get(id(observed))
        if known is None:
            entries = [self.entry(path) for path, _ in observed]
            newest = max([entry.stamp.mtime_ns for entry in entries if entry is not None], default=0)
            known = self._newest[id(observed)] = (observed, newest)
        return known[1]

    def is_told(self, action: Action, newest_ns: int) -> bool:
        return action.statement is None or self._workspace.ledger.is_told(action, newest_ns)

    def once(self, shared: object, ask: Callable[[], KeyDifference | None]) -> KeyDifference | None:
        # By identity: equal ones are one object (see `build_log`), and comparing them costs as much as asking.
        known = self._shared.get(id(shared))
        if known is None:
            known = self._shared[id(shared)] = (shared, ask())
        return known[1]

    @property
    def _hidden(self) -> frozenset[str]:
        return self._workspace.leftovers

    # --- time passes ----------------------------------------------------------------------------

    def reset(self) -> None:
        """Begin a look: forget what the last one saw."""
        self.entries, self._present = {}, {}
        self._places = AbsentPlaces(self._workspace.resolve, self.is_present)
        self.forget_answers()
        self._workspace.forget_sources()
        self._workspace.forget_links()

    def forget_answers(self) -> None:
        """Files are known better now: what that means for actions is asked again."""
        self._causes, self._up_to_date, self._shared, self._newest = {}, set(), {}, {}

    def invalidate(self, action: Action) -> None:
        """It was performed: the next question about its outputs stats them, and what was up to date may not be."""
        self._causes.pop(record_name(action), None)
        self._up_to_date.clear()
        self._shared.clear()
        self._newest.clear()
        self._workspace.forget_sources()
        made = (*action.outputs, *self._workspace.linked_names(action.outputs))
        self._places.forget(made)
        if action.statement is not None and not action.statement.evidence:
            self._places.forget_all(action.statement.may_write)
            made = (*made, *filter(action.statement.may_write, (*self.entries, *self._present)))
        for path in made:
            self.entries.pop(path, None)
            self._present.pop(path, None)
