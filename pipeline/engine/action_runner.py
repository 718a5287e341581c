"""Make one action up to date: find its result in the cache and restore it, or execute it and store what it made.

Knows keys, the cache and the runner. Does not know the order of actions or what is counted. Called from several
threads at once. Invariants: a result is recorded only if no input moved between the moment before the action and the
moment after; blobs are stored before the entry that names them; an action that failed leaves neither outputs nor entry.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from cache.actions import ActionResult, OutputFile
from cache.digest import ActionKey
from cache.fileclock import Moment
from cache.named_tuple import NamedTuple
from cache.stamps import Entry
from pipeline.engine.build_log import Observed, Record, record_name
from pipeline.engine.build_place import kind_of_output
from pipeline.engine.discovery import Discovery
from pipeline.engine.execution import Executed, UndeclaredOutputs, execute, made_files, remove_files
from pipeline.engine.inputs import Command, command_of
from pipeline.engine.keys import base_key, full_key
from pipeline.engine.observation import CandidateSet, IdentifiedSet, Observer
from pipeline.engine.restore import Placed, Restorer
from pipeline.engine.results import OUTPUT_MOVED, ActionFailure, FailureKind
from pipeline.engine.symlinks import link_made_since
from pipeline.model import NOT_STORED, Action, Reason

if TYPE_CHECKING:
    from pipeline.engine.engine import Engine

_T = TypeVar("_T")


class How(StrEnum):
    """How an action ended; `SKIPPED`: another one failed before this could start."""

    UP_TO_DATE = "up_to_date"
    RESTORED = "restored"
    EXECUTED = "executed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Done(NamedTuple):
    """Outcome of one action. `warning` is what a successful tool said on stderr."""

    how: How
    warning: str = ""
    failure: ActionFailure | None = None
    notes: tuple[Reason, ...] = ()


class Keyed(NamedTuple):
    """An action with the content of its declared inputs."""

    action: Action
    command: Command
    inputs: tuple[tuple[str, Entry], ...]
    base: ActionKey

    @property
    def observed(self) -> Observed:
        return tuple((path, entry.sha256) for path, entry in self.inputs)


class _Start(NamedTuple):
    """When an action started, on the clocks of file stamps and on one that nobody sets, and after how many others."""

    moment: Moment
    finished: int


class _Missing(Exception):
    """A declared input is not there or cannot be read."""


class ActionRunner:
    """Performs actions for one `run` of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._table, self._file_clock = engine.table, engine.file_clock
        self._blobs, self._results = engine.store.blobs, engine.store.results
        self._finished: dict[str, int] = {}
        """output path -> how many were finished before it; tells an input made earlier in this run from one made while
        an action ran."""
        self._stopping = False
        self._observer = Observer(engine)
        self._discovery = Discovery(engine, self._observer)
        self._restorer = Restorer(engine)

    def stop(self) -> None:
        """Start nothing any more; what runs may end."""
        self._stopping = True

    def mark_finished(self, action: Action) -> None:
        """The outputs of `action` will not change any more in this run."""
        for path in action.outputs:
            self._finished[path] = len(self._finished)

    def find(self, action: Action, cause: Reason) -> Done | Keyed:
        """Make `action` up to date without executing it, if that can be done; else what `perform` needs to know.
        `cause` is why it is not up to date.

        For the thread that decides what starts: a restore is so short that handing it to another thread and waiting
        for the interpreter's lock there costs more than the restore."""
        return self._guarded(action, lambda: self._look_up(action, cause))

    def perform(self, keyed: Keyed) -> Done:
        """Execute what `find` did not find. Raises KeyboardInterrupt when the runner was cancelled."""
        if self._stopping:
            return Done(How.SKIPPED)
        return self._guarded(keyed.action, lambda: self._perform(keyed))

    def _guarded(self, action: Action, work: Callable[[], _T]) -> _T | Done:
        """What `work` gives, or the failure that it raises."""
        try:
            done = work()
        except _Missing as missing:
            return Done(How.FAILED, failure=ActionFailure(action.name, FailureKind.INPUT_MISSING, str(missing)))
        except OSError as error:
            message = f"{error.filename or 'a file'}: {error.strerror or error}"
            return Done(How.FAILED, failure=ActionFailure(action.name, FailureKind.FILE_SYSTEM, message))
        if isinstance(done, Done) and done.failure is None:
            self.mark_finished(action)
        return done

    def _look_up(self, action: Action, cause: Reason) -> Done | Keyed:
        # A whole build directory may have been removed: no key is made anew that is known.
        if cause.kind == OUTPUT_MOVED and (placed := self._restorer.last(action)) is not None:
            if placed.unused_lately and action.depfile:
                self._results.used(self._key(action, self._inputs(action)).base)
            return _done(placed)
        keyed = self._key(action, self._inputs(action))
        return self._find(keyed) or keyed

    def _perform(self, keyed: Keyed) -> Done:
        # What the run saw first may be minutes old: an edit since then gets its own key.
        action = keyed.action
        self._observer.forget(action.inputs, None)
        inputs = self._inputs(action)
        if inputs != keyed.inputs:
            fresh = self._key(action, inputs)
            if fresh.base != keyed.base and (found := self._find(fresh)) is not None:
                return found
            keyed = fresh
        return self._execute(keyed)

    # --- keys -----------------------------------------------------------------------------------

    def _inputs(self, action: Action) -> tuple[tuple[str, Entry], ...]:
        inputs = []
        for path in action.inputs:
            try:
                entry = self._observer.look(path)
            except OSError as error:
                raise _Missing(f"{path} cannot be read: {error.strerror or error}") from None
            if entry is None:
                raise _Missing(f"{path} is missing")
            inputs.append((path, entry))
        return tuple(inputs)

    def _key(self, action: Action, inputs: tuple[tuple[str, Entry], ...]) -> Keyed:
        command = command_of(action, self._engine.tools)
        return Keyed(action, command, inputs, base_key(command, [(path, entry.digest) for path, entry in inputs]))

    # --- the cache ------------------------------------------------------------------------------

    def _candidates(self, keyed: Keyed, record: Record | None) -> Iterator[CandidateSet]:
        """Sets to try: none is needed without a depfile; else the last one here, then those in the cache."""
        if not keyed.action.depfile:
            yield CandidateSet((), ())
            return
        last = None
        if record is not None:
            yield (last := CandidateSet(tuple([path for path, _ in record.discovered]), record.absent))
        if keyed.action.cacheable:
            decoded = map(CandidateSet.decode, self._results.candidates(keyed.base))
            yield from (candidate for candidate in decoded if candidate is not None and candidate != last)

    def _find(self, keyed: Keyed) -> Done | None:
        """The action made up to date without executing it, None when it must be."""
        record = self._engine.record(keyed.action)
        for candidate in self._candidates(keyed, record):
            found = self._observer.identify(candidate)
            if found is None or not self._names_makers(keyed.action, candidate):
                continue
            key = full_key(keyed.base, found.key)
            if record is not None and record.key == key and self._restorer.are_there(record.outputs):
                self._remember(keyed, key, found, record.outputs)
                return Done(How.UP_TO_DATE)
            if not keyed.action.cacheable:
                continue
            placed = self._restorer.place(keyed.action, key)
            if placed is None:
                continue
            self._remember(keyed, key, found, placed.outputs)
            if placed.unused_lately and keyed.action.depfile:
                self._results.used(keyed.base)
            return _done(placed)
        return None

    def _names_makers(self, action: Action, candidate: CandidateSet) -> bool:
        """Does it name every output that a file of it leads to? One from before a link was made does not."""
        products = self._engine.links.products(action.inputs) | self._engine.links.products_of(candidate.discovered)
        return not action.depfile or products <= {*action.inputs, *candidate.discovered}

    # --- executing ------------------------------------------------------------------------------

    def _execute(self, keyed: Keyed) -> Done:
        action = keyed.action
        moment = self._file_clock.moment()
        if not moment.is_after(self._engine.began):
            # A discovered file counts as edited during the action when its ctime is not before the start; what was
            # written just before the run must not.
            self._file_clock.next_tick()
            moment = self._file_clock.moment()
        start = _Start(moment, len(self._finished))
        self._forget(action)
        watch = UndeclaredOutputs(self._engine) if action.is_users else None
        ran = execute(self._engine, action)
        failure = ran.failure
        if failure is None:
            failure = self._missing_output(action, ran)
        if failure is None and watch is not None and (stray := watch.found()):
            message = f"the command wrote {stray}, which no action declares as an output"
            failure = ActionFailure(action.name, FailureKind.UNDECLARED_OUTPUT, message, ran.argv, 0, _text(ran.stderr))
        candidate = None if failure is not None else self._discovery.from_depfile(action)
        if failure is None and candidate is None:
            message = f"the command wrote no usable depfile {action.depfile}"
            failure = ActionFailure(action.name, FailureKind.DEPFILE, message, ran.argv, 0, _text(ran.stderr))
        if failure is not None or candidate is None:
            remove_files(made_files(self._engine, action))
            return Done(How.FAILED, failure=failure)
        return Done(How.EXECUTED, _text(ran.stderr), notes=self._keep(keyed, candidate, ran, start))

    def _forget(self, action: Action) -> None:
        self._engine.records.drop(record_name(action))

    def _missing_output(self, action: Action, ran: Executed) -> ActionFailure | None:
        for path in filter(None, (*action.outputs, action.depfile)):
            kind = kind_of_output(self._engine.resolve(path))
            if kind and (path != action.depfile or kind != "nothing"):
                message = f"the command succeeded but did not write its output {path}"
                if kind != "nothing":
                    message = f"the command made {path} {kind}; let it write a regular file"
                return ActionFailure(action.name, FailureKind.OUTPUT_MISSING, message, ran.argv, 0, _text(ran.stderr))
        return None

    def _keep(self, keyed: Keyed, candidate: CandidateSet, ran: Executed, start: _Start) -> tuple[Reason, ...]:
        """Record the result unless an input moved while the action ran."""
        found = self._observer.identify_anew(candidate)
        if found is not None:
            more = self._discovery.with_hidden(keyed.action, keyed.inputs, candidate, found)
            if more is not candidate:
                candidate, found = more, self._observer.identify_anew(more)
        moved = self._moved_meanwhile(keyed, found, start)
        if found is None:
            # Or never was: some compilers spell a name with a tab or a backslash so that it is another.
            gone = (path for path in candidate.discovered if not self._observer.exists(path))
            moved = next(gone, "a file that it would have read")
        if found is None or moved:
            subject = f"{keyed.action.name}: {moved}"
            return (Reason("changed while it was used", subject, "", "not recorded, so it will run again"),)
        return self._record(keyed, candidate, found, ran)

    def _moved_meanwhile(self, keyed: Keyed, found: IdentifiedSet | None, start: _Start) -> str:
        """The first input that may have moved while the action ran, `""` if none did.

        A declared input must have the stamp that it had before. A discovered one was not known before: its ctime must
        be older than the start, unless an action of this run made it before this one started; and so must be the links
        on the way to it.
        """
        for path, before in keyed.inputs:
            after = self._table.current(path)
            if after is None or after.stamp != before.stamp or after.sha256 != before.sha256:
                return path
        if found is None:
            return ""
        clock, moment = self._file_clock, start.moment
        if found.seen_ns >= moment.monotonic_ns:
            paths = [path for path, _ in found.discovered]
            if link := link_made_since(str(self._engine.root), paths, clock, moment):
                return link
        if found.newest_ns < moment.earliest_ns and not clock.has_met_more(moment):
            return ""
        for (path, _), entry in zip(found.discovered, found.entries, strict=True):
            if self._is_older(path, entry, moment):
                continue
            made = self._engine.links.product(path) or path
            if self._finished.get(made, start.finished) >= start.finished:
                return path
        return ""

    def _is_older(self, path: str, entry: Entry, moment: Moment) -> bool:
        """Is the file what `entry` says, and was that so before `moment`?"""
        place = self._engine.resolve(path)
        try:
            status = os.stat(place)  # noqa: PTH116 - once per header, where a clock must be asked
        except OSError:
            return False
        return status.st_ctime_ns == entry.stamp.ctime_ns and self._file_clock.is_before(status, place, moment)

    def _record(self, keyed: Keyed, candidate: CandidateSet, found: IdentifiedSet, ran: Executed) -> tuple[Reason, ...]:
        """Store the result: blobs, candidate set, entry, then the record of this project. A cache that cannot be
        written costs the next run its hit and nothing else."""
        entries = [(path, self._table.current(path)) for path in keyed.action.outputs]
        if any(entry is None for _, entry in entries):
            return (Reason("output vanished", keyed.action.name, "", "not recorded"),)
        key = full_key(keyed.base, found.key)
        outputs = tuple((path, e.sha256, e.stamp.executable) for path, e in entries if e is not None)
        self._remember(keyed, key, found, outputs)
        if not keyed.action.cacheable:
            return ()
        try:
            stored = []
            for path, sha256, executable in outputs:
                digest = self._blobs.put_file(self._engine.resolve(path))
                if digest.hex != sha256:
                    self._forget(keyed.action)
                    return (Reason("output changed", f"{keyed.action.name}: {path}", "", "not recorded"),)
                stored.append(OutputFile(path, digest, executable))
            stdout, stderr = (self._blobs.put_bytes(text) if text else None for text in (ran.stdout, ran.stderr))
            if keyed.action.depfile:
                self._results.add_candidate(keyed.base, candidate.encode())
            self._results.record(key, ActionResult(tuple(stored), stdout, stderr, round(ran.duration_s * 1000)))
        except OSError as error:
            return (Reason(NOT_STORED, keyed.action.name, "", f"{error.filename or 'cache'}: {error.strerror}"),)
        return ()

    def _remember(
        self, keyed: Keyed, key: ActionKey, found: IdentifiedSet, outputs: tuple[tuple[str, str, bool], ...]
    ) -> None:
        record = Record(keyed.command, keyed.observed, found.discovered, found.absent, outputs, str(key))
        self._engine.records.put(record_name(keyed.action), record)


def _done(placed: Placed) -> Done:
    """How an action ended that was not executed."""
    return Done(How.RESTORED, _text(placed.stderr)) if placed.restored else Done(How.UP_TO_DATE)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
