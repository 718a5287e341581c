"""What files were when a run looked at them, each stat once per run, and which sets of discovered inputs apply.

The `ActionView` of what a run must do something about. Knows stamps, records and the cache. Does not know how actions
are executed. Invariant: what is answered about a file was true at some instant of this run; what an action of
the run makes is asked for again each time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from cache.actions import ActionResult
from cache.digest import ActionKey, Digest
from cache.stamps import Entry
from pipeline.engine.build_log import Record, record_name
from pipeline.engine.candidates import CandidateSet, IdentifiedSet
from pipeline.engine.discovery import Discovery
from pipeline.engine.inputs import Command, command_of
from pipeline.engine.keys import KeyDifference, Keyed, full_key, set_key
from pipeline.engine.record_rows import Inputs
from pipeline.engine.workspace import Workspace
from pipeline.model import Action, Statement

if TYPE_CHECKING:
    from pipeline.engine.views import MovedView


def made_elsewhere(workspace: Workspace, action: Action, discovery: Discovery) -> CandidateSet | None:
    """What the statement read, as it stands in keys, if ninja ran it after we did. Of what ninja knows nothing, such as
    places where a file would be found first, nothing has come since."""
    statement = action.statement
    if statement is None:
        return None

    def is_made(path: str) -> bool:
        return workspace.key_path(path) in workspace.graph.producer

    ran = workspace.ledger.made_elsewhere(action, is_made, _said_anew(workspace, action))
    if ran is None:
        return None
    read, when_ns = ran
    reported = discovery.of_ninja(action, read)
    return reported.candidate if workspace.ledger.holds(reported.unread, when_ns, is_made) else None


_MAP = "-fdebug-prefix-map="


def _said_anew(workspace: Workspace, action: Action) -> tuple[str, ...] | None:
    """The inputs that its last run had not, of a statement that ninja would not run although it is another one to us:
    its command is the same but for how keys write directories (another kind of project, other `places`) and the maps
    that follow from that, and for the list of its inputs; what it read and made holds what it held. None for any
    other. Raises OSError."""
    record, now = workspace.record(action), command_of(action, workspace.steps.tools)
    if record is None or (record.command.argv, record.command.inputs) == (now.argv, now.inputs):
        return None

    def placed(path: str) -> str:
        return workspace.resolve(workspace.placed(path))

    own = f"{_MAP}{workspace.root}="  # there or not by `prefix_map` alone

    def spelt(command: Command) -> Command:
        words = map(workspace.placed, command.argv)
        kept = [word for word in words if not word.startswith(_MAP) or word.startswith(own)]
        return command._replace(argv=tuple(kept), inputs=())

    if spelt(record.command) != spelt(now):
        return None
    had = set(map(placed, record.command.inputs))
    added = {path: where for path in action.inputs if (where := placed(path)) not in had}
    gone = had.difference(map(placed, action.inputs))
    seen = {placed(path): sha256 for path, sha256 in (*record.inputs, *record.discovered)}
    seen |= {placed(path): sha256 for path, sha256, _ in record.outputs}
    for path, sha256 in seen.items():
        entry = None if path in gone else workspace.table.current(workspace.key_path(path))
        if path not in gone and (entry is None or entry.sha256 != sha256):
            return None
    return tuple(path for path, where in added.items() if where not in seen)


def newest_ns(view: MovedView, observed: Inputs) -> int:
    """The latest mtime of files, as a view sees them."""
    found = 0
    for path, _ in observed:
        with contextlib.suppress(OSError):
            if (entry := view.entry(path)) is not None:
                found = max(found, entry.stamp.mtime_ns)
    return found


class Observer:
    """The files of one `run`. Safe to use from several threads: at worst two of them look at one file."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.tools = workspace.steps.tools
        self.symbols: Mapping[str, str] = workspace.symbols
        self._table, self._results = workspace.table, workspace.store.results
        self._products_read_by = workspace.links.readings(workspace.records)
        self._seen: dict[str, Entry | None] = {}
        self._present: dict[str, bool] = {}
        self._absent: set[str] = set()
        """Those of them that are not there."""
        self._sets: dict[CandidateSet, IdentifiedSet | None] = {}
        self._candidates: dict[Digest, CandidateSet | None] = {}
        self._places: dict[CandidateSet, tuple[str, ...]] = {}
        self._looked_at_ns: dict[CandidateSet, int] = {}
        """When those of `_sets` were last found to be what they were; not asked of others."""
        self._set_keys: dict[object, ActionKey] = {}
        self._fixed: dict[object, bool] = {}
        self._came: dict[int, tuple[object, bool]] = {}

    @cached_property
    def discovery(self) -> Discovery:
        return Discovery(self._workspace, self)

    def forget(self, paths: Iterable[str], candidate: CandidateSet | None) -> None:
        """Look at these, and at this set, again."""
        for path in paths:
            self._seen.pop(path, None)
        if candidate is not None:
            self._sets.pop(candidate, None)
            self._looked_at_ns.pop(candidate, None)

    def forget_written(self, statement: Statement) -> None:
        """Look again at whatever a statement may have written that nobody declares."""
        self.forget([*filter(statement.may_write, self._seen)], None)
        for path in [*filter(statement.may_write, self._present)]:
            del self._present[path]
            self._absent.discard(path)
        self._sets, self._looked_at_ns, self._came = {}, {}, {}

    # --- files ----------------------------------------------------------------------------------

    def entry(self, path: str) -> Entry | None:
        """What a file is, by one stat per run if no action makes it. Raises OSError."""
        if path not in self._seen:
            if path in self._workspace.believed and (known := self._table.remembered(path)) is not None:
                return known
            if self.is_made(path):
                return self._table.current(path)
            self._seen[path] = self._table.current(path)
        return self._seen[path]

    @property
    def believed(self) -> Collection[str]:
        return self._workspace.believed

    def is_present(self, path: str) -> bool:
        """Is there a file? By one stat per run if no action makes it."""
        if path not in self._present:
            if self.is_made(path):
                return self.exists(path)
            self._present[path] = self.exists(path)
        return self._present[path]

    def first_present(self, paths: Sequence[str]) -> str:
        if self._absent.issuperset(paths):
            return ""
        for path in paths:
            if path not in self._absent:
                if self.is_present(path):
                    return path
                if path in self._present:  # and stays what it is
                    self._absent.add(path)
        return ""

    def exists(self, path: str) -> bool:
        """Is there a file now?"""
        try:
            return self._table.stamp(path) is not None
        except OSError:
            return False

    def is_there(self, path: str, sha256: str, executable: bool) -> bool:
        """Is this output in place? Reads it if its stamp moved."""
        try:
            entry = self._table.current(path)
        except OSError:
            return False
        return entry is not None and entry.sha256 == sha256 and entry.stamp.executable == executable

    def is_made(self, path: str) -> bool:
        return path in self._workspace.graph.producer or self._workspace.links.product(path) != ""

    def is_made_alone(self, path: str) -> bool:
        return self._workspace.is_made_alone(path)

    def ran_ns(self, action: Action) -> int:
        return 0 if action.statement is None else self._workspace.ledger.ran_ns(action.statement)

    def newest_ns(self, observed: Inputs) -> int:
        return newest_ns(self, observed)

    def is_told(self, action: Action, newest_ns: int) -> bool:
        return action.statement is None or self._workspace.ledger.is_told(action, newest_ns)

    def made_elsewhere(self, action: Action) -> CandidateSet | None:
        return made_elsewhere(self._workspace, action, self.discovery)

    # --- records and results --------------------------------------------------------------------

    def record(self, action: Action) -> Record | None:
        return self._workspace.record(action)

    def once(self, shared: object, ask: Callable[[], KeyDifference | None]) -> KeyDifference | None:
        return ask()

    def candidates(self, base: ActionKey) -> Iterator[CandidateSet]:
        for digest in self._results.sets(base):
            # Read once for all that share it. What is not here now may come from another machine.
            if digest not in self._candidates and (data := self._results.candidate(digest)) is not None:
                self._candidates[digest] = CandidateSet.decode(data)
            candidate = self._candidates.get(digest)
            if candidate is not None:
                yield candidate

    def stored(self, key: ActionKey) -> ActionResult | None:
        """Whether its blobs are there is seen when it is put in place."""
        return self._results.entry(key)

    def result_key(self, keyed: Keyed, found: IdentifiedSet) -> ActionKey:
        if not found.options:
            return full_key(keyed.base, found.key)
        return self._workspace.options.result_key(keyed.action, keyed.inputs, keyed.base, found)

    def with_options(self, action: Action, record: Record) -> IdentifiedSet | None:
        moved = ("", "", "")
        entries = []
        is_option = self._workspace.is_option
        for path, sha256 in record.discovered:
            entry = self.entry(path)
            if entry is None:
                return None
            if entry.sha256 != sha256:
                if moved[0] or not is_option(path):
                    return None
                moved = (path, sha256, entry.sha256)
            entries.append(entry)
        if not moved[0] or self._has_come(record.absent):
            return None
        if not self._workspace.options.is_alike(action, (*record.inputs, *record.discovered), *moved):
            return None
        now = [(path, entry.sha256) for (path, _), entry in zip(record.discovered, entries, strict=True)]
        observed = self._workspace.records.shared(tuple(now))
        return IdentifiedSet(ActionKey(""), observed, record.absent, tuple(entries))

    def _has_come(self, absent: tuple[str, ...]) -> bool:
        """Is there anything by one of these names? Asked once where no action makes it, as many actions ask."""
        known = self._came.get(id(absent))
        if known is None or known[0] is not absent:
            came = self.first_present(absent) != ""
            known = (absent, came)
            if self._workspace.graph.producer.keys().isdisjoint(absent):
                self._came[id(absent)] = known
        return known[1]

    def explain_option(self, action: Action, record: Record, moved: KeyDifference) -> KeyDifference | None:
        if not self._workspace.is_option(moved.name):
            return moved
        return self._workspace.options.explained(action, record, moved)

    def products(self, paths: tuple[str, ...]) -> Collection[str]:
        return self._workspace.links.products_of(paths)

    def waits_for(self, paths: Iterable[str]) -> str:
        """An action starts after those that make its inputs."""
        return ""

    def is_key_kept(self, action: Action) -> bool:
        """Does no action make an input of this one, or what would be read instead, under whatever name? That nothing
        had moved may have been said before that one ran."""
        made, records, name = self._workspace.graph.producer.keys(), self._workspace.records, record_name(action)
        shared = (records.discovered(name), records.absent(name))
        fixed = self._fixed.get(shared)
        if fixed is None:
            discovered, absent = shared
            fixed = self._fixed[shared] = made.isdisjoint([*(path for path, _ in discovered), *absent])
        if not fixed or not made.isdisjoint(action.inputs):
            return False
        return not (self._products_read_by(action) or self._workspace.links.products(action.inputs))

    # --- sets -----------------------------------------------------------------------------------

    def identify(self, candidate: CandidateSet) -> IdentifiedSet | None:
        """The candidate set with the content of its files, None when it cannot apply: one is missing, or there is
        something in the place of an absent one. Remembered, since many actions share a set."""
        if candidate in self._sets:
            return self._sets[candidate]
        fixed = self._workspace.graph.producer.keys().isdisjoint((*candidate.discovered, *candidate.absent))
        identified, seen_ns = None, time.monotonic_ns()
        try:
            entries = [(path, self.entry(path)) for path in candidate.discovered]
        except OSError:
            entries = [("", None)]
        found = [(path, entry) for path, entry in entries if entry is not None]
        is_option = self._workspace.is_option
        if len(found) == len(entries) and not self.first_present(candidate.absent):
            observed = self._workspace.records.shared(tuple([(path, entry.sha256) for path, entry in found]))
            what = (observed, candidate.absent)
            if what not in self._set_keys:
                counted = [(path, entry.digest) for path, entry in found if not is_option(path)]
                self._set_keys[what] = set_key(counted, candidate.absent)
            seen = tuple([entry for _, entry in found])
            newest_ns = max([entry.stamp.ctime_ns for entry in seen], default=0)
            options = tuple([(path, entry) for path, entry in found if is_option(path)])
            identified = IdentifiedSet(
                self._set_keys[what], observed, candidate.absent, seen, newest_ns, seen_ns, options
            )
        if fixed:
            self._sets[candidate] = identified
        return identified

    def identify_again(self, candidate: CandidateSet, since_ns: int) -> IdentifiedSet | None:
        """As `identify`, from a stat of every file after the instant `since_ns` of the monotonic clock: of actions that
        had all ended by then, one that looks does it for all that read the same."""
        known, now_ns = self._sets.get(candidate), time.monotonic_ns()
        if known is not None:
            if self._looked_at_ns.get(candidate, 0) > since_ns:
                return known
            places = self._places.get(candidate)
            if places is None:
                places = self._places[candidate] = tuple(map(self._table.resolve, candidate.discovered))
            if self._table.are_still(places, known.entries):
                self._looked_at_ns[candidate] = now_ns
                return known
        self.forget(candidate.discovered, candidate)
        return self.identify(candidate)
