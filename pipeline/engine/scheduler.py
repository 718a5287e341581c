"""Bring the actions of one stage up to date: which may start, who does it, what was counted.

Knows the order and the states of actions, not how one is made up to date (`action_runner`). Imported only when
something must be done. Invariant: an action starts only after those that make its inputs; after the first failure none
starts; whatever ends the run, no child process is left and finished work is kept.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from cache.digest import ActionKey
from pipeline.effects.api import Clock
from pipeline.engine.action_runner import ActionRunner, Performed
from pipeline.engine.decision import Cause, Keyed
from pipeline.engine.look import Look
from pipeline.engine.results import RESTORED_REMOTE, ActionFailure, ActionSpan, RunResult
from pipeline.engine.states import TRANSITIONS, ActionState
from pipeline.engine.workspace import Workspace
from pipeline.model import Action, Reason, Stage


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
    with ThreadPoolExecutor(workspace.host.all_jobs, "action") as pool:
        loop = _StageLoop(workspace, run, pool, progress, performed)
        try:
            loop.run()
        except BaseException:
            loop.runner.cancel()
            raise
    shared = loop.runner.shared_counts()
    return run.result()._replace(shared=shared._replace(restored=loop.restored_remote))


class _StageLoop:
    """What is ready, what is asked of other machines, what waits for a worker and what runs; only the main thread
    touches it. What other threads come to know is put into `_news`, as what is to be done about it."""

    def __init__(
        self,
        workspace: Workspace,
        run: _StageRun,
        pool: ThreadPoolExecutor,
        progress: Callable[[str, int, int], None],
        performed: Callable[[ActionSpan], None],
    ) -> None:
        self.runner = ActionRunner(workspace)
        self._run, self._pool = run, pool
        self._progress, self._performed = progress, performed
        self._timed = _Timed(workspace.host.clock, self.runner)
        self._pools = _Pools()
        # Not further ahead: what another project stores meanwhile must be found, and not made again.
        self._most = workspace.host.all_jobs * 2
        self._ready = run.ready()
        self._missed: list[tuple[int, Keyed]] = []
        """Not in the store here, and not asked for elsewhere yet."""
        self._asking = False
        self.restored_remote = 0
        """How many of the restored ones came from another machine."""
        self._to_execute: deque[int] = deque()
        """Nobody has them. Looked up once more when a worker is free: that may be a while later."""
        self._under_way = 0
        self._news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run(self) -> None:
        """Until nothing can be done any more."""
        while self._ready or self._missed or self._to_execute or self._under_way or self._is_answer_awaited:
            while self._ready and (self._under_way < self._most or self.runner.is_sharing):
                self._settle(self._ready.pop())
            while self._to_execute and self._under_way < self._most:
                self._execute(self._to_execute.popleft())
            if self._missed and not self._asking:
                self._ask()
            if self._under_way or self._is_answer_awaited:
                self._news.get()()

    @property
    def _is_answer_awaited(self) -> bool:
        return self._asking and not self._run.failures

    def _settle(self, index: int) -> None:
        """Without executing it, if that can be done."""
        run, action = self._run, self._run.action(index)
        if not run.must_run(index):
            self.runner.mark_finished(action)
            self._ready.extend(run.finish(index, Performed(ActionState.UP_TO_DATE)))
            return
        found = self._timed.find(action, run.causes[index])
        if not isinstance(found, Keyed):
            self._finish(index, *found)
            return
        run.causes[index] = self.runner.explained(found.action, run.causes[index])
        run.set(index, ActionState.QUEUED)
        if self.runner.shared is not None and self.runner.shared.may_have(found):
            self._missed.append((index, found))
        elif self._under_way < self._most:
            self._start(self._pools.enter(index, found))
        else:
            self._to_execute.append(index)

    def _execute(self, index: int) -> None:
        found = self._timed.find(self._run.action(index), self._run.causes[index])
        if isinstance(found, Keyed):
            self._start(self._pools.enter(index, found))
        else:
            self._finish(index, *found)

    def _start(self, allowed: tuple[int, Keyed] | None) -> None:
        if allowed is not None:
            index, keyed = allowed
            self._pool.submit(self._timed.perform, keyed).add_done_callback(
                lambda future: self._news.put(partial(self._executed, index, future))
            )
            self._under_way += 1

    def _executed(self, index: int, future: Future[tuple[Performed, ActionSpan]]) -> None:
        self._under_way -= 1
        self._finish(index, *future.result())
        self._start(self._pools.leave(self._run.action(index)))

    # --- other machines ---------------------------------------------------------------------------

    def _ask(self) -> None:
        """For all that is missing by now at once, while what runs goes on."""
        missed, self._missed, self._asking = self._missed, [], True

        def ask() -> None:
            brought: frozenset[ActionKey] = frozenset()
            try:
                brought = self.runner.bring([keyed for _, keyed in missed])
            finally:
                self._news.put(lambda: self._asked(missed, brought))

        threading.Thread(target=ask, daemon=True, name="asking other machines").start()

    def _asked(self, missed: Sequence[tuple[int, Keyed]], brought: frozenset[ActionKey]) -> None:
        self._asking = False
        if self._run.failures:
            return
        for index, keyed in missed:
            if keyed.base not in brought:
                self._to_execute.append(index)
                continue
            found = self._timed.find(keyed.action, self._run.causes[index])
            if isinstance(found, Keyed):
                self._to_execute.append(index)
            else:
                done, span = found
                if done.state is ActionState.RESTORED:
                    self.restored_remote += 1
                    span = span._replace(how=RESTORED_REMOTE)
                self._finish(index, done, span)

    def _finish(self, index: int, done: Performed, span: ActionSpan) -> None:
        run = self._run
        self._ready.extend(run.finish(index, done))
        if done.state is not ActionState.NOT_RUN:
            self._performed(span)
        self._progress(run.action(index).name, run.skipped + run.finished, run.skipped + len(run.indices))
        if run.failures:
            self.runner.stop()
            for waiting in (self._ready, self._missed, self._to_execute):
                waiting.clear()


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
