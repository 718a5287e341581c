"""What would a run do? The engine's decisions asked of contents, in the order of the graph, with what each action would
leave behind: nothing runs, nothing is written.

Knows files and the cache; reads each file at most once, whatever its stamp says: a view has time, and this way it needs
nothing of the engine's state but the records. Does not know how anything is shown. Invariant: what depends on an output
that does not exist yet is called uncertain, never guessed (its maker may give the bytes that are there already).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from cache.actions import ActionCache, ActionResult
from cache.blobs import BlobStore
from cache.digest import ActionKey, Fingerprint
from cache.named_tuple import NamedTuple
from cache.stamps import Entry, Stamp, StampTable
from pipeline.engine.build_log import Record
from pipeline.engine.candidates import CandidateSet, IdentifiedSet
from pipeline.engine.decision import NEVER_RUN, ActionDecision, Fate, decide, explained, first_move
from pipeline.engine.discovery import Discovery
from pipeline.engine.inputs import InputKind, command_of
from pipeline.engine.keys import KeyDifference, Keyed, set_key
from pipeline.engine.observation import made_elsewhere, newest_ns
from pipeline.engine.record_rows import Inputs
from pipeline.engine.workspace import Workspace
from pipeline.model import Action, Stage, Tool


class Forecast(NamedTuple):
    """`why`: the first thing that moved since the last recorded run, None when nothing did or there was none (`first`).
    `waits_for`: the input and the action that would make it again, of an uncertain one. `compared`: how many things of
    each kind were found equal, of one that is up to date. `outputs`: what is known of them after the run."""

    action: Action
    fate: Fate
    why: KeyDifference | None = None
    first: bool = False
    waits_for: tuple[str, str] | None = None
    compared: Mapping[str, int] | None = None
    outputs: Mapping[str, Entry] | None = None


def forecast(workspace: Workspace) -> tuple[Forecast, ...]:
    """One forecast per action, in the order of the graph."""
    view = _Future(workspace)
    found = []
    for action in workspace.graph.order:
        one = _forecast(action, view)
        view.will_leave(action, one.outputs)
        found.append(one)
    return tuple(found)


def by_stage(forecasts: Iterable[Forecast], stage: Stage) -> tuple[Forecast, ...]:
    """Those of one stage."""
    return tuple(one for one in forecasts if one.action.stage is stage)


def _forecast(action: Action, view: _Future) -> Forecast:
    record = view.record(action)
    waits = view.waits_for(action.inputs) != ""
    # Of inputs that are not known yet nothing can be said; of the command it can.
    cause = NEVER_RUN if waits or record is None else first_move(action, view)
    decision = decide(action, view, cause)
    first, why = record is None, None if cause is None else cause.moved
    match decision.fate:
        case Fate.UNCERTAIN:
            moved = record is not None and record.command != command_of(action, view.tools)
            why = _why(action, view) if moved else None
            waits_for = (decision.subject, view.maker(decision.subject))
            return Forecast(action, Fate.UNCERTAIN, why, first, waits_for)
        case Fate.BLOCKED:
            before = dict(record.inputs).get(decision.subject, "") if record is not None else ""
            return Forecast(action, Fate.BLOCKED, KeyDifference(InputKind.INPUT, decision.subject, before, ""))
        case Fate.RUN:
            why = None if cause is None else explained(action, view, cause).moved
            return Forecast(action, Fate.RUN, why, first)
    compared = _compared(record) if record is not None and decision.result is None else None
    if compared is not None:
        why = None
    return Forecast(action, decision.fate, why, first, compared=compared, outputs=view.outputs(decision))


def _why(action: Action, view: _Future) -> KeyDifference | None:
    cause = first_move(action, view)
    return None if cause is None else cause.moved


def _compared(record: Record) -> dict[str, int]:
    return {
        "command word": len(record.command.argv) or 1 + len(record.command.params),
        "declared input": len(record.inputs),
        "discovered input": len(record.discovered),
        "absent file": len(record.absent),
        "output": len(record.outputs),
    }


class _Future:
    """The `ActionView` of files as they will be after the actions that were asked about so far."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.tools: Mapping[str, Tool] = workspace.steps.tools
        self.symbols: Mapping[str, str] = workspace.symbols
        # Not the store of the workspace: that one is for those who write.
        blobs = BlobStore(workspace.directories.cache)
        self._results = ActionCache(workspace.directories.cache, blobs)
        self._table = StampTable(workspace.resolve, directories=lambda: workspace.has_statements)
        self._seen: dict[str, Entry | None] = {}
        self._discovery = Discovery(workspace, self)
        self._after: dict[str, Entry | None] = {}
        """What outputs will be; None: not known before their action ran."""

    def will_leave(self, action: Action, outputs: Mapping[str, Entry] | None) -> None:
        """What is known of its outputs after the run."""
        for path in action.outputs:
            self._after[path] = None if outputs is None else outputs.get(path)

    def maker(self, path: str) -> str:
        """The name of the action that makes what is read by this path."""
        graph = self._workspace.graph
        return graph.order[graph.producer[self._made(path)]].name

    def outputs(self, decision: ActionDecision) -> dict[str, Entry]:
        """What a result that is or will be in place holds."""
        if decision.result is None:
            return {path: entry for path, _, _ in decision.outputs if (entry := self._now(path)) is not None}
        return {
            path: Entry(Stamp(digest.size, 0, 0, 0, executable), Fingerprint(""), digest.hex, False)
            for path, digest, executable in decision.result.outputs
        }

    def _made(self, path: str) -> str:
        """The name under which `path` is known as an output of an action asked about before, `""` if it is none."""
        if path in self._after:
            return path
        product = self._workspace.links.product(path)
        return product if product in self._after else ""

    def _now(self, path: str) -> Entry | None:
        if path not in self._seen:
            if path in self._workspace.leftovers:
                return None
            try:
                self._seen[path] = self._table.current(path)
            except OSError:
                self._seen[path] = None
        return self._seen[path]

    # --- ActionView -----------------------------------------------------------------------------------

    def record(self, action: Action) -> Record | None:
        return self._workspace.record(action)

    def entry(self, path: str) -> Entry | None:
        made = self._made(path)
        return self._after[made] if made else self._now(path)

    @property
    def believed(self) -> Collection[str]:
        return ()

    def is_present(self, path: str) -> bool:
        return self._made(path) != "" or self._now(path) is not None

    def exists(self, path: str) -> bool:
        return self.is_present(path)

    def first_present(self, paths: Sequence[str]) -> str:
        return next(filter(self.is_present, paths), "")

    def is_made(self, path: str) -> bool:
        return path in self._workspace.graph.producer

    def is_made_alone(self, path: str) -> bool:
        return self._workspace.is_made_alone(path)

    def ran_ns(self, action: Action) -> int:
        return 0 if action.statement is None else self._workspace.ledger.ran_ns(action.statement)

    def newest_ns(self, observed: Inputs) -> int:
        return newest_ns(self, observed)

    def is_told(self, action: Action, newest_ns: int) -> bool:
        """What ninja knows concerns nobody who only asks what would be done."""
        return True

    def made_elsewhere(self, action: Action) -> CandidateSet | None:
        """Not while an input is still to be made."""
        return made_elsewhere(self._workspace, action, self._discovery)

    def once(self, shared: object, ask: Callable[[], KeyDifference | None]) -> KeyDifference | None:
        return ask()

    def with_options(self, action: Action, record: Record) -> IdentifiedSet | None:
        """By the key: what is only asked need not be fast."""
        return None

    def explain_option(self, action: Action, record: Record, moved: KeyDifference) -> KeyDifference | None:
        return self._workspace.options.explained(action, record, moved)

    def is_there(self, path: str, sha256: str, executable: bool) -> bool:
        now = self._now(path)
        return now is not None and now.sha256 == sha256 and now.stamp.executable == executable

    def is_key_kept(self, action: Action) -> bool:
        """What moved was asked of contents as they will be."""
        return True

    def candidates(self, base: ActionKey) -> Iterator[CandidateSet]:
        decoded = map(CandidateSet.decode, self._results.candidates(base))
        return (found for found in decoded if found is not None)

    def identify(self, candidate: CandidateSet) -> IdentifiedSet | None:
        files = [(path, self.entry(path)) for path in candidate.discovered]
        there = [(path, entry) for path, entry in files if entry is not None]
        if len(there) < len(files) or any(map(self.is_present, candidate.absent)):
            return None
        options = tuple((path, entry) for path, entry in there if self._workspace.is_option(path))
        key = set_key([(path, entry.digest) for path, entry in there if (path, entry) not in options], candidate.absent)
        observed = tuple((path, entry.sha256) for path, entry in there)
        entries = tuple(entry for _, entry in there)
        return IdentifiedSet(key, observed, candidate.absent, entries, options=options)

    def result_key(self, keyed: Keyed, found: IdentifiedSet) -> ActionKey:
        return self._workspace.options.result_key(keyed.action, keyed.inputs, keyed.base, found)

    def stored(self, key: ActionKey) -> ActionResult | None:
        """Only with all of its blobs."""
        return self._results.lookup(key)

    def products(self, paths: tuple[str, ...]) -> Collection[str]:
        return self._workspace.links.products(paths)

    def waits_for(self, paths: Iterable[str]) -> str:
        for path in paths:
            made = self._made(path)
            if made and self._after[made] is None:
                return path
        return ""
