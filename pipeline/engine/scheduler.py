"""Bring the actions of one stage up to date: which may start, who does it, what was counted.

Knows the order and the states of actions, not how one is made up to date (`action_runner`). Imported only when
something must be done. Invariant: an action starts only after those that make its inputs; after the first failure none
starts; whatever ends the run, no child process is left and finished work is kept.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from pipeline.effects.api import Clock
from pipeline.engine.action_runner import ActionRunner, Performed
from pipeline.engine.decision import Cause, Keyed
from pipeline.engine.look import Look
from pipeline.engine.results import ActionFailure, ActionSpan, RunResult
from pipeline.engine.states import TRANSITIONS, ActionState
from pipeline.engine.workspace import Workspace
from pipeline.model import Action, Reason, Stage

T = TypeVar("T")


class _StageRun:
    """The bookkeeping of one `run`; only the main thread touches it."""

    def __init__(self, workspace: Workspace, look: Look, stage: Stage) -> None:
        graph = workspace.graph
        self._order, self._look = graph.order, look
        self.indices = [n for n, action in enumerate(graph.order) if action.stage is stage]
        self._states = dict.fromkeys(self.indices, ActionState.WAITING)
        self._waits = {n: sum(need in self._states for need in graph.needs[n]) for n in self.indices}
        self._users: dict[int, list[int]] = {n: [] for n in self.indices}
        for n in self.indices:
            for need in graph.needs[n]:
                if need in self._users:
                    self._users[need].append(n)
        skipped = workspace.skipped
        self.skipped = skipped.actions.get(stage, 0) if skipped is not None else 0
        self.counts = dict.fromkeys(("compiled", "linked", "built", "restored", "up_to_date", "failed", "not_run"), 0)
        self.causes: dict[int, Cause] = {}
        self.executed: list[str] = []
        self.failures: list[ActionFailure] = []
        self.warnings: list[tuple[str, str]] = []
        self.notes: list[Reason] = []
        self.finished = 0

    def action(self, index: int) -> Action:
        return self._order[index]

    def set(self, index: int, state: ActionState) -> None:
        """The only way from one state to another."""
        before = self._states[index]
        if state not in TRANSITIONS[before]:
            raise RuntimeError(f"{self.action(index).name}: {before} -> {state} [this is a bug]")
        self._states[index] = state

    def ready(self) -> list[int]:
        """Those that wait for nothing, the first last."""
        found = [index for index in reversed(self.indices) if self._waits[index] == 0]
        for index in found:
            self.set(index, ActionState.READY)
        return found

    def must_run(self, index: int) -> bool:
        """Remembers why; answers from stamps alone, which suffices for almost all of them."""
        cause = self._look.cause(self.action(index))
        if cause is not None:
            self.causes[index] = cause
        return cause is not None

    def finish(self, index: int, done: Performed) -> list[int]:
        """Count it; the actions that may start now, the first last."""
        self.set(index, done.state)
        if done.state is ActionState.NOT_RUN:
            return []
        action = self.action(index)
        self.finished += 1
        self.counts[action.count_as if done.state is ActionState.EXECUTED else done.state.value] += 1
        self.notes.extend(done.notes)
        if index in self.causes:
            # It was performed: what was seen of its outputs before says nothing any more.
            self._look.invalidate(action)
        if done.state is ActionState.UP_TO_DATE:
            self.causes.pop(index, None)
        if done.state is ActionState.EXECUTED:
            self.executed.append(action.name)
        if done.warning:
            self.warnings.append((action.name, done.warning))
        if done.failure is not None:
            self.failures.append(done.failure)
            return []
        ready = []
        for user in self._users[index]:
            self._waits[user] -= 1
            if self._waits[user] == 0:
                self.set(user, ActionState.READY)
                ready.append(user)
        ready.reverse()
        return ready

    def result(self) -> RunResult:
        """What the caller is told."""
        self.counts["not_run"] = len(self.indices) - self.finished
        self.counts["up_to_date"] += self.skipped
        return RunResult(
            dict(self.counts),
            tuple(self.causes[index].reason(self.action(index)) for index in sorted(self.causes)),
            tuple(self.executed),
            tuple(self.failures),
            tuple(self.warnings),
            tuple(self.notes),
        )


def run_stage(
    workspace: Workspace,
    look: Look,
    stage: Stage,
    progress: Callable[[str, int, int], None],
    performed: Callable[[ActionSpan], None],
) -> RunResult:
    """Run the stage. `progress(action, done, total)` and `performed` are called from this thread for each action that
    was performed. Raises KeyboardInterrupt after a Ctrl-C; no child is left then."""
    run = _StageRun(workspace, look, stage)
    runner = ActionRunner(workspace)
    timed = _Timed(workspace.host.clock, runner)
    answers: queue.SimpleQueue[tuple[int, Future[tuple[Performed, ActionSpan]]]] = queue.SimpleQueue()
    ready = run.ready()
    under_way, jobs = 0, max(1, workspace.host.jobs)
    pools = _Pools()

    def finish(index: int, done: Performed, span: ActionSpan) -> None:
        ready.extend(run.finish(index, done))
        if done.state is not ActionState.NOT_RUN:
            performed(span)
        progress(run.action(index).name, run.skipped + run.finished, run.skipped + len(run.indices))
        if run.failures:
            runner.stop()
            ready.clear()

    with ThreadPoolExecutor(jobs, "action") as pool:

        def start(allowed: tuple[int, Keyed] | None) -> None:
            nonlocal under_way
            if allowed is not None:
                index, keyed = allowed
                pool.submit(timed.perform, keyed).add_done_callback(partial(_answer, answers, index))
                under_way += 1

        try:
            while ready or under_way:
                # Not further ahead: what another project stores meanwhile must be found, and not made again.
                while ready and under_way < jobs * 2:
                    index = ready.pop()
                    if not run.must_run(index):
                        runner.mark_finished(run.action(index))
                        ready.extend(run.finish(index, Performed(ActionState.UP_TO_DATE)))
                        continue
                    found = timed.find(run.action(index), run.causes[index])
                    if isinstance(found, Keyed):
                        run.set(index, ActionState.QUEUED)
                        start(pools.enter(index, found))
                    else:
                        finish(index, *found)
                if under_way:
                    index, future = answers.get()
                    under_way -= 1
                    finish(index, *future.result())
                    start(pools.leave(run.action(index)))
        except BaseException:
            runner.stop()
            workspace.host.runner.cancel()
            raise
    return run.result()


class _Pools:
    """How many statements of a pool of ninja run, and which wait for their turn."""

    def __init__(self) -> None:
        self._running: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[int, Keyed]]] = {}

    def enter(self, index: int, keyed: Keyed) -> tuple[int, Keyed] | None:
        """What may start now: this one, or nothing."""
        name, depth = ("", 0) if keyed.action.statement is None else keyed.action.statement.pool
        if depth and self._running.get(name, 0) >= depth:
            self._waiting.setdefault(name, []).append((index, keyed))
            return None
        self._running[name] = self._running.get(name, 0) + 1
        return index, keyed

    def leave(self, action: Action) -> tuple[int, Keyed] | None:
        """One ended; the next of its pool."""
        name, depth = ("", 0) if action.statement is None else action.statement.pool
        self._running[name] -= 1
        if depth and self._waiting.get(name):
            self._running[name] += 1
            return self._waiting[name].pop(0)
        return None


class _Timed:
    """Finds and performs actions, and says when and on which thread."""

    def __init__(self, clock: Clock, runner: ActionRunner) -> None:
        self._clock, self._runner = clock, runner
        self._workers: dict[int, int] = {}
        self._lock = threading.Lock()

    def find(self, action: Action, cause: Cause) -> tuple[Performed, ActionSpan] | Keyed:
        began_s = self._clock.now_s()
        found = self._runner.find(action, cause)
        return found if isinstance(found, Keyed) else (found, self._span(action, found, began_s))

    def perform(self, keyed: Keyed) -> tuple[Performed, ActionSpan]:
        began_s = self._clock.now_s()
        done = self._runner.perform(keyed)
        return done, self._span(keyed.action, done, began_s)

    def _span(self, action: Action, done: Performed, began_s: float) -> ActionSpan:
        thread = threading.get_ident()
        worker = self._workers.get(thread)
        if worker is None:
            with self._lock:
                worker = self._workers.setdefault(thread, len(self._workers))
        return ActionSpan(action.name, done.state.value, worker, began_s, self._clock.now_s() - began_s)


def _answer(answers: queue.SimpleQueue[tuple[int, T]], index: int, future: T) -> None:
    answers.put((index, future))
