"""Bring the actions of one stage up to date: which may start, who does it, what was counted.

Knows the order and the outcome of actions, not how one is made up to date (`engine_action`). Imported only when
something must be done. Invariant: an action starts only after those that make its inputs; after the first failure none
starts; whatever ends the run, no child process is left and finished work is kept.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.effects.api import Clock
from pipeline.engine.action_runner import ActionRunner, Done, How, Keyed
from pipeline.engine.results import ActionFailure, RunResult, Span
from pipeline.model import Action, Reason, Stage

if TYPE_CHECKING:
    from pipeline.engine.engine import Engine

T = TypeVar("T")


class _StageRun:
    """The bookkeeping of one `run`; only the main thread touches it."""

    def __init__(self, engine: Engine, stage: Stage, progress: Callable[[str, int, int], None]) -> None:
        self.engine, self.progress = engine, progress
        self.indices = [n for n, action in enumerate(engine.graph.order) if action.stage is stage]
        mine = set(self.indices)
        self.waits = {n: sum(need in mine for need in engine.graph.needs[n]) for n in self.indices}
        self.users: dict[int, list[int]] = {n: [] for n in self.indices}
        for n in self.indices:
            for need in engine.graph.needs[n]:
                if need in mine:
                    self.users[need].append(n)
        self.aside = engine.aside.compiles if engine.aside is not None and stage is Stage.COMPILE else 0
        self.counts = dict.fromkeys(("compiled", "linked", "built", "restored", "up_to_date", "failed", "not_run"), 0)
        self.causes: dict[int, Reason] = {}
        self.known: dict[Any, Reason | None] = {}
        self.executed: list[str] = []
        self.failures: list[ActionFailure] = []
        self.warnings: list[tuple[str, str]] = []
        self.notes: list[Reason] = []
        self.finished = 0

    def action(self, index: int) -> Action:
        return self.engine.graph.order[index]

    def start(self, index: int) -> bool:
        """Must it be performed? Remembers why; answers from stamps alone, which suffices for almost all of them."""
        cause = self.engine.judge(self.action(index), self.known)
        if cause is not None:
            self.causes[index] = cause
        return cause is not None

    def finish(self, index: int, done: Done) -> list[int]:
        """Count it; the actions that may start now."""
        if done.how is How.SKIPPED:
            return []
        action = self.action(index)
        self.finished += 1
        self.counts[action.count_as if done.how is How.EXECUTED else done.how.value] += 1
        self.notes.extend(done.notes)
        if index in self.causes:
            # It was performed: what was seen of its outputs before says nothing any more.
            self.engine.look_again(action)
            self.known.clear()
        if done.how is How.UP_TO_DATE:
            self.causes.pop(index, None)
        if done.how is How.EXECUTED:
            self.executed.append(action.name)
        if done.warning:
            self.warnings.append((action.name, done.warning))
        if done.failure is not None:
            self.failures.append(done.failure)
            return []
        ready = []
        for user in self.users[index]:
            self.waits[user] -= 1
            if self.waits[user] == 0:
                ready.append(user)
        return ready

    def result(self) -> RunResult:
        """What the caller is told."""
        self.counts["not_run"] = len(self.indices) - self.finished
        self.counts["up_to_date"] += self.aside
        return RunResult(
            dict(self.counts),
            tuple(self.causes[index] for index in sorted(self.causes)),
            tuple(self.executed),
            tuple(self.failures),
            tuple(self.warnings),
            tuple(self.notes),
        )


def run_stage(
    engine: Engine,
    stage: Stage,
    progress: Callable[[str, int, int], None],
    performed: Callable[[Span], None],
) -> RunResult:
    """Run the stage. `progress(action, done, total)` and `performed` are called from this thread for each action that
    was performed. Raises KeyboardInterrupt after a Ctrl-C; no child is left then."""
    run = _StageRun(engine, stage, progress)
    runner = ActionRunner(engine)
    timed = _Timed(engine.clock, runner)
    answers: queue.SimpleQueue[tuple[int, Future[tuple[Done, Span]]]] = queue.SimpleQueue()
    ready = [index for index in reversed(run.indices) if run.waits[index] == 0]
    under_way, jobs = 0, max(1, engine.jobs)

    def finish(index: int, done: Done, span: Span) -> None:
        ready.extend(reversed(run.finish(index, done)))
        if done.how is not How.SKIPPED:
            performed(span)
        progress(run.action(index).name, run.aside + run.finished, run.aside + len(run.indices))
        if run.failures:
            runner.stop()
            ready.clear()

    with ThreadPoolExecutor(jobs, "action") as pool:
        try:
            while ready or under_way:
                # Not further ahead: what another project stores meanwhile must be found, and not made again.
                while ready and under_way < jobs * 2:
                    index = ready.pop()
                    if not run.start(index):
                        runner.mark_finished(run.action(index))
                        ready.extend(reversed(run.finish(index, Done(How.UP_TO_DATE))))
                        continue
                    found = timed.find(run.action(index), run.causes[index])
                    if isinstance(found, Keyed):
                        future = pool.submit(timed.perform, found)
                        future.add_done_callback(partial(_answer, answers, index))
                        under_way += 1
                    else:
                        finish(index, *found)
                if under_way:
                    index, future = answers.get()
                    under_way -= 1
                    finish(index, *future.result())
        except BaseException:
            runner.stop()
            engine.runner.cancel()
            raise
    return run.result()


class _Timed:
    """Finds and performs actions, and says when and on which thread."""

    def __init__(self, clock: Clock, runner: ActionRunner) -> None:
        self._clock, self._runner = clock, runner
        self._workers: dict[int, int] = {}
        self._lock = threading.Lock()

    def find(self, action: Action, cause: Reason) -> tuple[Done, Span] | Keyed:
        began_s = self._clock.now_s()
        found = self._runner.find(action, cause)
        return found if isinstance(found, Keyed) else (found, self._span(action, found, began_s))

    def perform(self, keyed: Keyed) -> tuple[Done, Span]:
        began_s = self._clock.now_s()
        done = self._runner.perform(keyed)
        return done, self._span(keyed.action, done, began_s)

    def _span(self, action: Action, done: Done, began_s: float) -> Span:
        thread = threading.get_ident()
        worker = self._workers.get(thread)
        if worker is None:
            with self._lock:
                worker = self._workers.setdefault(thread, len(self._workers))
        return Span(action.name, done.how.value, worker, began_s, self._clock.now_s() - began_s)


def _answer(answers: queue.SimpleQueue[tuple[int, T]], index: int, future: T) -> None:
    answers.put((index, future))
