"""The engine: which actions are up to date, and why not, and a run that makes them so.

The face of this folder for stages and views. Knows its parts; what is up to date is decided in `decision`, by what
`look` sees, and made so by `scheduler`. Does not know doit, boards, or what the actions are for. Invariant: asking
writes nothing, and on any way out of `run`, what was finished is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.effects.memory import give_back, give_large_back_at_once
from pipeline.engine.build_log import Record
from pipeline.engine.results import ActionFailure, ActionSpan, RunResult, ScanResult
from pipeline.engine.saved_state import STATE_KIND, STATE_NAME, Saved
from pipeline.engine.workspace import BuildSteps, Directories, Host, SkippedActions, Workspace
from pipeline.model import Action, Reason, Stage, State, Verdict

if TYPE_CHECKING:
    from pipeline.engine.dag import Dag
    from pipeline.engine.look import Look

__all__ = ["STATE_KIND", "STATE_NAME", "ActionFailure", "Engine", "Record", "RunResult", "ScanResult"]


_LARGE = 4096
"""With more actions than this a stage frees so much that it is worth to give it back."""


class Engine:
    """The actions of one project. One `run` at a time per project: the caller holds the project's lock."""

    def __init__(
        self,
        directories: Directories,
        steps: BuildSteps,
        host: Host,
        saved: Saved | None = None,
        skipped: SkippedActions | None = None,
    ) -> None:
        """As `Workspace`. Raises ConfigError when the actions do not form a DAG."""
        self.workspace = Workspace(directories, steps, host, saved, skipped)
        self.table = self.workspace.table
        self.records, self.skipped = self.workspace.records, skipped
        self._asked: set[Stage] = set()
        """Stages about which it is known here what must be done."""

    @property
    def graph(self) -> Dag:
        """What is known of the order by now."""
        return self.workspace.graph

    @cached_property
    def _look(self) -> Look:
        """Made at the first question: a run that the fast path answers asks none."""
        from pipeline.engine.look import Look

        return Look(self.workspace)

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user, about the state file."""
        return self.workspace.notes

    def sources(self) -> list[str]:
        """Every file that is read and that no action makes."""
        return self.workspace.sources()

    @property
    def input_count(self) -> int:
        """How many files are read that no action makes."""
        return self.workspace.input_count

    def record(self, action: Action) -> Record | None:
        """The last recorded run of `action`."""
        return self.workspace.record(action)

    def peek(self) -> Verdict:
        """Would `scan` find anything? Writes nothing. Reads only a file whose stamp was taken in the tick of the clock
        in which it was written."""
        self._look.reset()
        reasons = []
        for path in self.sources():
            if self._look.entry(path) is None:
                old = self.table.remembered(path)
                reasons.append(Reason("file", path, "unknown" if old is None else "seen", "moved or missing"))
        return Verdict(State.DIRTY if reasons else State.UP_TO_DATE, tuple(reasons))

    def scan(self) -> ScanResult:
        """Look at every input that this look has not found unchanged yet and read those whose stamp moved. A file that
        cannot be read counts as missing, with the reason. Writes nothing: `save` does, as the end of every `run`."""
        read_before, changed, missing = self.table.files_read, [], []
        seen = self._look.entries
        for path in self.sources():
            if seen.get(path) is not None:
                continue
            old = self.table.remembered(path)
            try:
                if path in self.workspace.leftovers:
                    now = seen[path] = None
                else:
                    # What `peek` looked at moved or is missing.
                    now = seen[path] = self.table.read(path) if path in seen else self.table.current(path)
            except OSError as error:
                now = seen[path] = None
                changed.append(Reason("unreadable", path, "", error.strerror or str(error)))
            if now is None:
                missing.append(path)
            if (old and old.fingerprint) != (now and now.fingerprint):
                changed.append(Reason("file", path, old.fingerprint if old else "", now.fingerprint if now else ""))
        self._look.forget_answers()
        read = self.table.files_read - read_before
        counts = {"inputs": self.input_count, "read": read, "changed": len(changed), "missing": len(missing)}
        return ScanResult(counts, tuple(changed), tuple(missing), self.notes)

    def verdict(self, stage: Stage) -> Verdict:
        """Are all actions of `stage` up to date? One reason per action that is not: what about it moved first."""
        self._asked.add(stage)
        reasons = tuple(
            cause.reason(action)
            for action in self.graph.order
            if action.stage is stage and (cause := self._look.cause(action)) is not None
        )
        return Verdict(State.DIRTY if reasons else State.UP_TO_DATE, reasons)

    def run(
        self,
        stage: Stage,
        progress: Callable[[str, int, int], None],
        performed: Callable[[Sequence[ActionSpan]], None] = lambda spans: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> RunResult:
        """Bring every action of `stage` up to date: see `scheduler.run_stage`. On any way out, what was finished is
        remembered.

        What changed while an action used it is looked at again before this ends, once; so is what an action was found
        to read without waiting for it, until there is no such.

        Stage compile may have been left to an engine of a few actions. What was saved while that one worked is declared
        now and was never built: that comes first, and counts here."""
        if len(self.graph.order) > _LARGE:
            give_large_back_at_once()
        stages = [stage]
        if self._has_more_to_compile(stage):
            stages.insert(0, Stage.COMPILE)
        result: RunResult | None = None
        try:
            self.workspace.remove_leftovers()
            with self.workspace.store.in_use():
                for one in stages:
                    done = self._run_until_right(one, progress, performed, meanwhile)
                    result = done if result is None else result.and_then(done)
                    if not done.ok:
                        break
            assert result is not None  # there is one stage at least
            return result.with_shared_counts()
        finally:
            self.table.settle()
            self.workspace.end()
            self.workspace.forget_undeclared()
            self.give_back()
            self.save()

    def _run_until_right(
        self,
        stage: Stage,
        progress: Callable[[str, int, int], None],
        performed: Callable[[Sequence[ActionSpan]], None],
        meanwhile: Callable[[], None],
    ) -> RunResult:
        """Run the stage, and again what was done too early: a person who saves is done by the second look, and one who
        goes on saving has the next run. What is made anew may itself say what is read, but each time there is an action
        less whose order is not known. One that turns out to use nothing of stage link is of the stage before."""
        done = self._run_stage(stage, progress, performed, meanwhile)
        for attempt in range(1 + sum(action.is_users for action in self.graph.order)):
            learnt = done.ok and self.workspace.learn_order()
            if not learnt and not (done.ok and done.changed_meanwhile and attempt == 0):
                break
            self._look.reset()
            if learnt and stage is Stage.LINK and not self.verdict(Stage.COMPILE).up_to_date:
                early = self._run_stage(Stage.COMPILE, progress, performed)
                done = done.and_then(early._replace(counts={**early.counts, "up_to_date": 0}))
            if done.ok:
                done = done.repeated(self._run_stage(stage, progress, performed))
        return done

    def _run_stage(
        self,
        stage: Stage,
        progress: Callable[[str, int, int], None],
        performed: Callable[[Sequence[ActionSpan]], None],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> RunResult:
        """As `scheduler.run_stage`; a compile that failed before what it may need was made is tried again behind it."""
        from pipeline.engine.scheduler import run_stage

        generators = self._users_that_may_run((stage,))
        self.workspace.begin(generators)
        done = run_stage(self.workspace, self._look, stage, progress, performed, meanwhile)
        if generators and not done.ok and self.workspace.learn_from_failures(done.failures, generators):
            self._look.reset()
            done = done.retried(run_stage(self.workspace, self._look, stage, progress, performed))
        return done

    def _has_more_to_compile(self, stage: Stage) -> bool:
        self._asked.add(stage)
        return (
            self.skipped is None  # else the actions are those of the last run
            and Stage.FINGERPRINT is not stage
            and Stage.COMPILE not in self._asked
            and not all(
                self.workspace.is_declared_as_recorded(action)
                for action in self.graph.order
                if action.stage is Stage.COMPILE
            )
        )

    def _users_that_may_run(self, stages: Sequence[Stage]) -> list[Action]:
        """Users' actions that are not up to date, or come after one that is not."""
        mine = [(n, action) for n, action in enumerate(self.graph.order) if action.stage in stages]
        if not any(action.is_users for _, action in mine):
            return []
        doubtful: set[int] = set()
        for index, action in mine:
            if self._look.cause(action) is not None or not doubtful.isdisjoint(self.graph.needs[index]):
                doubtful.add(index)
        return [action for index, action in mine if action.is_users and index in doubtful]

    def give_back(self) -> None:
        """What is written next takes room: let go of what a large run has freed."""
        if len(self.graph.order) > _LARGE:
            give_back()

    def save(self) -> None:
        """Write the state if it changed."""
        self.workspace.save()
