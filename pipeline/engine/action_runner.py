"""Make one action up to date: restore its result from the cache, or execute it and store what it made.

Knows the cache and the process runner; what is to be done is decided elsewhere (`decision`), and whether a result may
be kept, too (`result_keeper`). Does not know the order of actions or what is counted. Called from several threads at
once. Invariant: an action that failed leaves neither outputs nor entry.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

from cache.digest import ActionKey
from cache.named_tuple import NamedTuple
from pipeline.engine.build_place import kind_of_output
from pipeline.engine.decision import (
    ActionDecision,
    Blocked,
    Cause,
    Fate,
    decide,
    key_of,
    look_up,
)
from pipeline.engine.discovery import Reported
from pipeline.engine.execution import Executed, Steps, execute, in_turn, made_files, refused, remove_files
from pipeline.engine.keys import Keyed
from pipeline.engine.observation import Observer
from pipeline.engine.restore import Restorer
from pipeline.engine.result_keeper import ActionStart, ResultKeeper
from pipeline.engine.results import CHANGED, ActionFailure, FailureKind, SharedCounts
from pipeline.engine.states import ActionState
from pipeline.engine.workspace import Workspace
from pipeline.model import Action, Reason

if TYPE_CHECKING:  # what few runs need is loaded by those that do
    from pipeline.engine.far_compiles import FarCompiles
    from pipeline.engine.inquiry import Inquiry
    from pipeline.engine.shared_results import SharedResults
    from pipeline.engine.statements import StatementRuns
    from pipeline.engine.undeclared import UndeclaredOutputs


class Performed(NamedTuple):
    """Outcome of one action. `state` is one of those in which an action ends; `warning` is what a successful tool said
    on stderr."""

    state: ActionState
    warning: str = ""
    failure: ActionFailure | None = None
    notes: tuple[Reason, ...] = ()


class _Missing(Exception):
    """A declared input is not there or cannot be read."""


class ActionRunner:
    """Performs actions for one `run` of the engine."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._table, self._results = workspace.table, workspace.store.results
        self._undeclared: UndeclaredOutputs | None = None
        """Made for the first command of a user."""
        self._lock = threading.Lock()
        self._stopping = False
        self._observer = Observer(workspace)
        self._discovery = self._observer.discovery
        self._restorer = Restorer(workspace.store.blobs, self._table, workspace.build_place)
        self._keeper = ResultKeeper(workspace, self._observer, lambda: self._statements, self._offer)
        self._knows_shared = False
        self._shared: SharedResults | None = None
        """Once something was missing here, and where `[cache] remote` names one."""
        self._far: FarCompiles | None = None
        """Once something must be executed, and where `[execution] remote` names who else may."""

    @cached_property
    def _statements(self) -> StatementRuns:
        """Made for the first statement of another build system."""
        from pipeline.engine.statements import StatementRuns

        return StatementRuns(self._workspace, self._observer)

    @property
    def shared(self) -> SharedResults | None:
        """What other machines may have, asked for the first time when something is missing here."""
        if not self._knows_shared:
            self._knows_shared = True
            if (remote := self._workspace.host.remote()) is not None:
                from pipeline.engine.shared_results import SharedResults

                self._shared = SharedResults(self._workspace, remote)
        return self._shared

    def _offer(self, key: ActionKey, base: ActionKey | None) -> None:
        """A result was stored here, and may be of use to others."""
        if self._shared is not None:
            self._shared.offer(key, base)

    @property
    def is_sharing(self) -> bool:
        """Was something missing here, and are there others to ask?"""
        return self._shared is not None

    def bring(self, inquiry: Inquiry) -> None:
        """Ask other machines. What is told to be here `find` will find now; never raises."""
        with contextlib.suppress(OSError):
            if self.shared is not None:
                self.shared.bring(inquiry, self._observer)

    def shared_counts(self) -> SharedCounts:
        """What was asked of other machines in this run, but for `restored`."""
        counts = SharedCounts() if self._shared is None else self._shared.counts()
        return counts if self._far is None else counts._replace(executed=self._far.executed)

    def cancel(self) -> None:
        """Give up what runs, here and elsewhere."""
        self.stop()
        self._workspace.host.runner.cancel()
        if self._far is not None:
            self._far.cancel()

    def stop(self) -> None:
        """Start nothing any more; what runs may end."""
        self._stopping = True

    def mark_finished(self, action: Action) -> None:
        """The outputs of `action` will not change any more in this run."""
        self._keeper.mark_finished(action)

    def find(self, action: Action, cause: Cause) -> Performed | Keyed:
        """Make `action` up to date without executing it, if that can be done; else what `perform` needs to know.
        `cause` is why it is not up to date.

        For the thread that decides what starts: a restore is so short that handing it to another thread and waiting
        for the interpreter's lock there costs more than the restore."""
        if action.__class__ is not Action:
            # One of few bytes says its words anew each time, and from here on it is asked a dozen times.
            action = Action._make(action)
        return self._guarded(action, lambda: self._settle(action, lambda refused: self._decide(action, cause, refused)))

    def is_waited_for_alone(self, action: Action) -> bool:
        """Does `perform` stop for nothing but a compile's own command, so that one thread can have many under way? All
        else may wait for others, compute for long, or both."""
        return action.count_as == "compiled" and not action.builtin and not self._workspace.host.far_jobs

    def perform(self, keyed: Keyed) -> Steps[Performed]:
        """Execute what `find` did not find. Raises KeyboardInterrupt when the runner was cancelled."""
        if self._stopping:
            return Performed(ActionState.NOT_RUN)
        action = keyed.action
        try:
            done = yield from self._perform(keyed)
        except (_Missing, OSError) as error:
            return _failed(action, error)
        return self._ended(action, done)

    def _guarded(self, action: Action, work: Callable[[], Performed | Keyed]) -> Performed | Keyed:
        """What `work` gives, or the failure that it raises."""
        try:
            done = work()
        except (_Missing, OSError) as error:
            return _failed(action, error)
        return self._ended(action, done) if isinstance(done, Performed) else done

    def _ended(self, action: Action, done: Performed) -> Performed:
        if done.failure is None:
            self.mark_finished(action)
        return done

    # --- what was found -------------------------------------------------------------------------

    def _decide(self, action: Action, cause: Cause, refused: set[ActionKey]) -> ActionDecision:
        decision = decide(action, self._observer, cause, refused)
        if decision.fate is Fate.BLOCKED:
            raise _Missing(f"{decision.subject} {decision.why}")
        return decision

    def _settle(self, action: Action, ask: Callable[[set[ActionKey]], ActionDecision]) -> Performed | Keyed:
        """What `ask` decides, done, unless that is to execute. A result that the cache turns out not to have whole is
        refused, and it is asked again."""
        refused: set[ActionKey] = set()
        while True:
            decision = ask(refused)
            if decision.fate is Fate.RUN:
                assert decision.keyed is not None  # only a record or a result does without
                return decision.keyed
            done = self._put_in_place(action, decision)
            if done is not None:
                return done
            refused.add(decision.key)

    def _put_in_place(self, action: Action, decision: ActionDecision) -> Performed | None:
        """None when the result of the cache cannot be had after all."""
        placed = None
        if decision.result is not None:
            placed = self._restorer.place(decision.result, decision.right)
            if placed is None:
                return None
            self._was_of_use(action, decision)
        if decision.keyed is not None and decision.found is not None:
            self._keeper.remember(decision.keyed, decision.key, decision.found, decision.outputs)
        if decision.by_ninja:
            self._workspace.ledger.take_over(action)
        elif action.statement is not None:
            self._statements.up_to_date(action, decision.keyed, decision.found)
        if placed is not None and placed.restored:
            return Performed(ActionState.RESTORED, _text(placed.stderr))
        return Performed(ActionState.UP_TO_DATE)

    def _was_of_use(self, action: Action, decision: ActionDecision) -> None:
        """The entry, and what else is kept for it if that may be old, too."""
        if self._results.used(decision.key) and action.depfile:
            keyed = decision.keyed or key_of(action, self._observer)
            if isinstance(keyed, Keyed):
                self._results.used(keyed.base)

    def _perform(self, keyed: Keyed) -> Steps[Performed]:
        # What the run saw first may be minutes old: an edit since then gets its own key.
        action = keyed.action
        if not keyed.lacks and self._is_still(keyed):
            return (yield from self._execute(keyed))
        self._observer.forget(action.inputs if not keyed.taken else [path for path, _ in keyed.inputs], None)
        fresh = key_of(action, self._observer)
        if isinstance(fresh, Blocked):
            raise _Missing(f"{fresh.path} {fresh.why}")
        if action.statement is None and fresh.base != keyed.base:
            found = self._settle(action, lambda refused: look_up(fresh, self._observer, refused))
            if isinstance(found, Performed):
                return found
        return (yield from self._execute(fresh))

    def _is_still(self, keyed: Keyed) -> bool:
        """Do the declared inputs hold what the key was made of? Then it need not be made again."""
        paths = [path for path, _ in keyed.inputs]  # what was taken is looked at after the action, with all else
        if self._table.are_still(list(map(self._workspace.resolve, paths)), [entry for _, entry in keyed.inputs]):
            return True
        self._observer.forget(paths, None)
        try:
            return all(self._observer.entry(path) == entry for path, entry in keyed.inputs)
        except OSError:
            return False

    # --- executing ------------------------------------------------------------------------------

    def _execute(self, keyed: Keyed) -> Steps[Performed]:
        action = keyed.action
        start = self._keeper.start()
        self._keeper.forget(action)
        if action.statement is not None:
            return (yield from self._execute_statement(keyed, start))
        ran, stray = self._run_watched(keyed) if action.is_users else ((yield from self._run(keyed)), "")
        failure = ran.failure or self._missing_output(action, ran)
        if failure is None and stray:
            message = f"the command wrote {stray}, which no action declares as an output"
            failure = refused(action, FailureKind.UNDECLARED_OUTPUT, message, ran)
        kept: tuple[Reason, ...] | ActionFailure = ()
        if failure is None:
            reported = self._discovery.from_depfile(action)
            if isinstance(reported, str):
                failure = refused(action, FailureKind.DEPFILE, reported, ran)
            else:
                kept = self._keeper.keep(keyed, reported, ran, start)
                failure = kept if isinstance(kept, ActionFailure) else None
        outputs = made_files(self._workspace, action) if action.is_users or failure is not None else []
        if failure is not None or isinstance(kept, ActionFailure):
            if ran.argv or ran.failure is None:
                remove_files(outputs)  # else nothing ran, and what is there is not ours
            self._workspace.former.put_back(outputs if action.is_users else ())
            return Performed(ActionState.FAILED, failure=failure)
        self._workspace.former.drop(outputs)
        if action.count_as == "compiled":
            self._observer.forget(action.inputs[:1], None)  # nobody else reads a source; there may be very many
        return Performed(ActionState.EXECUTED, _text(ran.stderr), notes=kept)

    def _execute_statement(self, keyed: Keyed, start: ActionStart) -> Steps[Performed]:
        """As ninja: what it made stays when it fails, and an output that it does not make is no failure."""
        from pipeline.engine.statements import MOST_UNDECLARED, execute_statement, made_files

        action = keyed.action
        ran = yield from execute_statement(self._workspace, action)
        assert action.statement is not None
        if not action.statement.evidence:
            self._observer.forget_written(action.statement)
        outputs = made_files(self._workspace, action)
        failure, notes, found = ran.failure, tuple[Reason, ...](), None
        if failure is None:
            reported = self._discovery.from_depfile(action)
            if isinstance(reported, str):
                failure = refused(action, FailureKind.DEPFILE, reported, ran)
            elif not keyed.lacks and all(map(os.path.exists, map(self._workspace.resolve, action.outputs))):
                keyed = self._with_own_files(keyed)
                kept = self._keeper.keep(_local(keyed, reported), reported, ran, start)
                failure, notes = (kept, ()) if isinstance(kept, ActionFailure) else (None, kept)
                found = self._observer.identify(reported.candidate)
        if failure is not None:
            if outputs:
                remove_files(outputs)
            self._workspace.former.put_back(outputs)
            return Performed(ActionState.FAILED, failure=failure)
        self._workspace.former.drop(outputs)
        if not any(note.kind == CHANGED for note in notes):
            self._statements.up_to_date(action, keyed, found, ran.duration_s, start.moment.earliest_ns)
        known = {f"read {path}" for path, _ in found.discovered} if found is not None else set()
        used = [line for line in ran.undeclared if line not in known][:MOST_UNDECLARED]
        notes = (*notes, *(Reason("undeclared", action.name, "", line) for line in used))
        return Performed(ActionState.EXECUTED, _text(ran.stdout + ran.stderr), notes=notes)

    def _with_own_files(self, keyed: Keyed) -> Keyed:
        """What a generator ran with, its own files as they are now that it ran: CMake writes some of those in the build
        directory that decide whether it runs again. Nobody else's are there."""
        statement = keyed.action.statement
        if statement is None or not statement.generator:
            return keyed
        self._observer.forget([path for path in keyed.action.inputs if statement.is_own(path)], None)
        fresh = key_of(keyed.action, self._observer)
        return fresh if isinstance(fresh, Keyed) and not fresh.lacks else keyed

    def _run(self, keyed: Keyed) -> Steps[Executed]:
        """Here or elsewhere."""
        if not self._workspace.host.far_jobs:
            return execute(self._workspace, keyed.action)
        with self._lock:
            if self._far is None:
                from pipeline.engine.far_compiles import FarCompiles

                far = self._workspace.host.far()
                self._far = FarCompiles(self._workspace, self._observer, self._discovery, far)
        return execute(self._workspace, keyed.action, partial(self._far.run, keyed))

    def _run_watched(self, keyed: Keyed) -> tuple[Executed, str]:
        """What the command of a user did, and what it wrote that no action declares."""
        with self._lock:
            if self._undeclared is None:
                from pipeline.engine.interpreters import clear
                from pipeline.engine.undeclared import UndeclaredOutputs

                clear(self._workspace.directories.state)
                self._undeclared = UndeclaredOutputs(self._workspace)
        return self._undeclared.run(lambda: in_turn(self._run(keyed), self._workspace.host.runner))

    def _missing_output(self, action: Action, ran: Executed) -> ActionFailure | None:
        for path in filter(None, (*action.outputs, action.depfile)):
            kind = kind_of_output(self._workspace.resolve(path))
            if kind and (path != action.depfile or kind != "nothing"):
                message = f"the command succeeded but did not write its output {path}"
                if kind != "nothing":
                    message = f"the command made {path} {kind}; let it write a regular file"
                return refused(action, FailureKind.OUTPUT_MISSING, message, ran)
        return None


def _failed(action: Action, error: _Missing | OSError) -> Performed:
    if isinstance(error, _Missing):
        return Performed(ActionState.FAILED, failure=ActionFailure(action.name, FailureKind.INPUT_MISSING, str(error)))
    message = f"{error.filename or 'a file'}: {error.strerror or error}"
    failure = ActionFailure(action.name, FailureKind.FILE_SYSTEM, message)
    return Performed(ActionState.FAILED, failure=failure)


def _local(keyed: Keyed, reported: Reported) -> Keyed:
    """One whose result stays here, where it is not known for certain what it read."""
    return keyed if reported.is_whole else keyed._replace(action=keyed.action._replace(cacheable=False))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
