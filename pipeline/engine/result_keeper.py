"""Keep what an action made: whether it may be recorded, the store, the record of this project.

Knows stamps, clocks and the cache. Does not know how an action is executed or what was decided about it. Called from
several threads at once. Invariants: a result is recorded only if no input moved between the moment before the action
and the moment after; blobs are stored before the entry that names them.
"""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cache.actions import ActionResult, OutputFile
from cache.digest import ActionKey, Digest
from cache.fileclock import Moment
from cache.named_tuple import NamedTuple
from cache.stamps import Entry
from pipeline.engine.build_log import Record, record_name
from pipeline.engine.candidates import CandidateSet, IdentifiedSet
from pipeline.engine.decision import stored_paths
from pipeline.engine.discovery import Reported
from pipeline.engine.execution import Executed, refused
from pipeline.engine.keys import Keyed, bound_key
from pipeline.engine.observation import Observer
from pipeline.engine.record_rows import Outputs
from pipeline.engine.results import CHANGED, TOO_EARLY, ActionFailure, FailureKind
from pipeline.engine.symlinks import link_made_since
from pipeline.engine.workspace import Workspace
from pipeline.model import NOT_STORED, Action, Reason

if TYPE_CHECKING:
    from pipeline.engine.statements import StatementRuns

_MOMENT_NS = 5_000_000
"""So long one instant serves for all actions that start."""


class ActionStart(NamedTuple):
    """When an action started, on the clocks of file stamps and on one that nobody sets, and after how many others."""

    moment: Moment
    finished: int


class ResultKeeper:
    """Keeps results for one `run` of the engine."""

    def __init__(
        self,
        workspace: Workspace,
        observer: Observer,
        statements: Callable[[], StatementRuns],
        offer: Callable[[ActionKey, ActionKey | None], None],
    ) -> None:
        """`statements` is asked for where a statement's result is stored. `offer` is told the key of each result that
        was stored here, and the one under which its set of discovered inputs is, where it has one."""
        self._workspace, self._observer = workspace, observer
        self._statements, self._offer = statements, offer
        self._table, self._file_clock = workspace.table, workspace.file_clock
        self._blobs, self._results = workspace.store.blobs, workspace.store.results
        self._discovery = observer.discovery
        self._finished: dict[str, int] = {}
        """output path -> how many were finished before it; tells an input made earlier in this run from one made while
        an action ran."""
        self._stored_sets: dict[CandidateSet, Digest] = {}
        """What this run has put into the store, whole."""
        self._last_moment: Moment | None = None

    def mark_finished(self, action: Action) -> None:
        """The outputs of `action` will not change any more in this run."""
        for path in action.outputs:
            self._finished[path] = len(self._finished)

    def start(self) -> ActionStart:
        """An action starts now."""
        return ActionStart(self._moment(), len(self._finished))

    def forget(self, action: Action) -> None:
        """It runs now: whatever comes of that, its record is of the past."""
        name = record_name(action)
        if self._workspace.records.has(name):
            self._workspace.records.drop(name)

    def remember(self, keyed: Keyed, key: ActionKey, found: IdentifiedSet, outputs: Outputs) -> None:
        """Record in this project what the action read and made."""
        read = (keyed.observed, found.discovered, found.absent)
        record = Record(keyed.command, *read, outputs, str(key), keyed.command_key)
        self._workspace.records.put(record_name(keyed.action), record)

    def keep(
        self, keyed: Keyed, reported: Reported, ran: Executed, start: ActionStart
    ) -> tuple[Reason, ...] | ActionFailure:
        """Record the result unless an input moved while the action ran."""
        candidate = reported.candidate
        since_ns = ran.ended_ns or time.monotonic_ns()
        found = self._observer.identify_again(candidate, since_ns)
        if found is not None:
            more = self._discovery.with_hidden(keyed.action, keyed.inputs, candidate, found)
            if more is not candidate:
                candidate, found = more, self._observer.identify_again(more, since_ns)
        moved = self._moved_meanwhile(keyed, found, start) or self._discovery.appeared(reported.unread, start.moment)
        if not moved and found is not None:
            # Nobody reports that one of these was read: it may have come and gone.
            silent = keyed.action.absent
            if keyed.action.depfile:
                more_absent = candidate is not reported.candidate
                silent = tuple({*candidate.absent} - {*reported.candidate.absent}) if more_absent else ()
            moved = self._came_or_went(sorted(silent), start.moment)
        no_directories = keyed.action.statement is None and self._workspace.has_statements
        if (found is None and not moved) or no_directories:
            for path in candidate.discovered:
                if os.path.isdir(self._workspace.resolve(path)):  # noqa: PTH112
                    message = f"its depfile {keyed.action.depfile} names {path}, which is a directory"
                    return refused(keyed.action, FailureKind.DEPFILE, message, ran)
        if found is None and not moved:
            # Or never was: some compilers spell a name with a tab or a backslash so that it is another.
            gone = (path for path in candidate.discovered if not self._observer.exists(path))
            moved = next(gone, "") or next(filter(self._observer.exists, candidate.absent), "a file that it read")
        if moved:
            kind = CHANGED
            if keyed.action.is_users:
                self._workspace.unrecorded_reads[record_name(keyed.action)] = candidate.discovered
                if moved in candidate.discovered and self._workspace.links.product(moved):
                    kind = TOO_EARLY
            return (Reason(kind, f"{keyed.action.name}: {moved}", "", "not recorded, so it will run again"),)
        assert found is not None  # else something moved
        return self._record(keyed, candidate, found, ran)

    def _moment(self) -> Moment:
        """A moment before which nothing of an action that starts now has run. One that is a few thousandths old will do
        for others: what was edited since then counts as edited while the action ran, which costs another run."""
        last = self._last_moment
        if (
            last is not None
            and time.monotonic_ns() - last.monotonic_ns < _MOMENT_NS
            and not (self._file_clock.has_met_more(last))
        ):
            return last
        moment = self._file_clock.moment()
        if not moment.is_after(self._workspace.began):
            # A discovered file counts as edited during the action when its ctime is not before the start; what was
            # written just before the run must not.
            self._file_clock.next_tick()
            moment = self._file_clock.moment()
        self._last_moment = moment
        return moment

    def _came_or_went(self, absent: Sequence[str], moment: Moment) -> str:
        """The first of these places in which a file may have lain since `moment`, `""` if there is none."""
        for path in absent:
            if self._observer.exists(path) or self._discovery.is_directory_moved(posixpath.dirname(path), moment):
                return path
        return ""

    def _moved_meanwhile(self, keyed: Keyed, found: IdentifiedSet | None, start: ActionStart) -> str:
        """The first input that may have moved while the action ran, `""` if none did.

        A declared input must have the stamp that it had before. A discovered one was not known before: its ctime must
        be older than the start, unless an action of this run made it before this one started; and so must be the links
        on the way to it.
        """
        places = [self._workspace.resolve(path) for path, _ in keyed.inputs]
        if not self._table.are_still(places, [entry for _, entry in keyed.inputs]):
            for path, before in keyed.inputs:
                after = self._table.current(path)
                if after is None or after.stamp != before.stamp or after.sha256 != before.sha256:
                    return path
        if keyed.taken and (path := self._workspace.moved_meanwhile(keyed.taken)):
            return path
        if found is None:
            return ""
        clock, moment = self._file_clock, start.moment
        if found.seen_ns >= moment.monotonic_ns:
            paths = [path for path, _ in found.discovered]
            if link := link_made_since(str(self._workspace.root), paths, clock, moment):
                return link
        if found.newest_ns < moment.earliest_ns and not clock.has_met_more(moment):
            return ""
        for (path, _), entry in zip(found.discovered, found.entries, strict=True):
            if self._is_older(path, entry, moment):
                continue
            made = self._workspace.links.product(path) or path
            if self._finished.get(made, start.finished) >= start.finished:
                return path
        return ""

    def _is_older(self, path: str, entry: Entry, moment: Moment) -> bool:
        """Is the file what `entry` says, and was that so before `moment`?"""
        place = self._workspace.resolve(path)
        try:
            status = os.stat(place)  # noqa: PTH116 - once per header, where a clock must be asked
        except OSError:
            return False
        return status.st_ctime_ns == entry.stamp.ctime_ns and self._file_clock.is_before(status, place, moment)

    def _record(self, keyed: Keyed, candidate: CandidateSet, found: IdentifiedSet, ran: Executed) -> tuple[Reason, ...]:
        """Store the result: blobs, candidate set, entry, then the record of this project. A cache that cannot be
        written costs the next run its hit and nothing else."""
        entries, held = [], []
        for path in keyed.action.outputs:
            entry, data = self._table.current_bytes(path)
            if entry is None:
                return (Reason("output vanished", keyed.action.name, "", "not recorded"),)
            entries.append((path, entry))
            held.append(data)
        key = self._observer.result_key(keyed, found)
        outputs = tuple([(path, entry.sha256, entry.stamp.executable) for path, entry in entries])
        self.remember(keyed, key, found, outputs)
        if not keyed.action.cacheable:
            return ()
        try:
            stored = []
            named = zip(outputs, held, stored_paths(keyed.action), strict=True)
            for (path, sha256, executable), data, name in named:
                digest = self._put(path, data, sha256)
                if digest.hex != sha256:
                    self.forget(keyed.action)
                    return (Reason("output changed", f"{keyed.action.name}: {path}", "", "not recorded"),)
                stored.append(OutputFile(name, digest, executable))
            stdout, stderr = (self._blobs.put_bytes(text) if text else None for text in (ran.stdout, ran.stderr))
            if keyed.action.depfile:
                self._results.put_first(keyed.base, self._stored_set(candidate))
            if keyed.action.statement is not None and self._statements().is_of_this_place(
                keyed, found, (ran.stdout, ran.stderr)
            ):
                key = bound_key(key, self._workspace.symbols)
            self._results.record(key, ActionResult(tuple(stored), stdout, stderr, round(ran.duration_s * 1000)))
            self._offer(key, keyed.base if keyed.action.depfile else None)
        except OSError as error:
            return (Reason(NOT_STORED, keyed.action.name, "", f"{error.filename or 'cache'}: {error.strerror}"),)
        return ()

    def _put(self, path: str, data: bytes | None, sha256: str) -> Digest:
        """Store an output: what was read of it, if that was hashed just now. Raises OSError."""
        if data is None:
            return self._blobs.put_file(self._workspace.resolve(path))
        digest = Digest(sha256, len(data))
        self._blobs.put_hashed(digest, data)
        return digest

    def _stored_set(self, candidate: CandidateSet) -> Digest:
        """The blob of the set, which many actions share. Raises OSError."""
        known = self._stored_sets.get(candidate)
        if known is None or not self._blobs.has(known):
            known = self._stored_sets[candidate] = self._blobs.put_bytes(candidate.encode())
        return known
