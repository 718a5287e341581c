"""Bring the actions of one stage up to date: which may start, who does it, what was counted.

Knows the order and the states of actions, not how one is made up to date (`action_runner`). Imported only when
something must be done. Invariant: an action starts only after those that make its inputs; after the first failure none
starts; whatever ends the run, no child process is left and finished work is kept.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from cache.named_tuple import NamedTuple
from pipeline.effects.api import Children, Completed, ParallelRunner
from pipeline.engine.action_runner import ActionRunner, Performed
from pipeline.engine.asked_elsewhere import AskedElsewhere
from pipeline.engine.decision import Cause
from pipeline.engine.execution import TIMEOUT_S, Steps, in_turn
from pipeline.engine.inquiry import LOOK_S
from pipeline.engine.keys import Keyed
from pipeline.engine.look import Look
from pipeline.engine.results import RESTORED_REMOTE, ActionSpan, RunResult
from pipeline.engine.stage_run import StageRun
from pipeline.engine.states import ActionState
from pipeline.engine.workspace import Workspace
from pipeline.model import Action, Stage

_BOOKED_AT_ONCE = 16
"""Ended actions that are booked together: what they read in common is looked at once for all of them."""
_QUIET_S = 0.005
"""When nothing has ended for so long, what has is booked, however few."""
_LONG_S = 3600.0


def run_stage(
    workspace: Workspace,
    look: Look,
    stage: Stage,
    progress: Callable[[str, int, int], None],
    performed: Callable[[Sequence[ActionSpan]], None],
    meanwhile: Callable[[], None] = lambda: None,
) -> RunResult:
    """Run the stage. `progress(action, done, total)` is called from this thread for each action that was performed,
    `performed` for a few of them at once; `meanwhile` once, when all that can be done is under way in other threads,
    and not at all when that does not happen. Raises KeyboardInterrupt after a Ctrl-C; no child is left then."""
    run = StageRun(workspace, look, stage)
    with _Threads() as threads, _StageLoop(workspace, run, threads, progress, performed, meanwhile) as loop:
        loop.run()
    shared = loop.runner.shared_counts()
    return run.result()._replace(shared=shared._replace(restored=loop.restored_remote))


class _Work(NamedTuple):
    """An action that is being executed, as worker number `worker`; `number` is its own in the stage."""

    number: int
    keyed: Keyed
    steps: Steps[Performed]
    worker: int
    began_s: float


class _StageLoop:
    """What is ready, what is asked of other machines, what waits for a worker, what runs, and what has ended and is not
    booked yet; only the main thread touches it. What other threads come to know is put into `_news`, as what is to be
    done about it.

    Compiles need no thread: their commands are waited for together, and the next one is started before what an ended
    one made is looked at. That is done for a few at once, which saves looking at the same headers for each."""

    def __init__(
        self,
        workspace: Workspace,
        run: StageRun,
        threads: _Threads,
        progress: Callable[[str, int, int], None],
        performed: Callable[[Sequence[ActionSpan]], None],
        meanwhile: Callable[[], None],
    ) -> None:
        self._meanwhile: Callable[[], None] | None = meanwhile
        self.runner = ActionRunner(workspace)
        self._run, self._threads = run, threads
        self._progress, self._performed = progress, performed
        self._clock, self._processes = workspace.host.clock, workspace.host.runner
        self._children = self._processes.together() if isinstance(self._processes, ParallelRunner) else None
        self._pools = _Pools()
        # Not further ahead: what another project stores meanwhile must be found, and not made again.
        self._most = workspace.host.all_jobs * 2
        self._ready = run.ready()
        self._elsewhere = AskedElsewhere(self.runner, self._tell)
        self.restored_remote = 0
        """How many of the restored ones came from another machine."""
        self._to_execute: deque[int] = deque()
        """Nobody has them. Looked up once more when a worker is free: that may be a while later."""
        self._to_start: deque[tuple[int, Keyed]] = deque()
        """As soon as a worker is free."""
        self._free = list(reversed(range(workspace.host.all_jobs)))
        """Workers that have nothing to do."""
        self._by_command: dict[object, _Work] = {}
        self._in_threads = 0
        self._ended: deque[tuple[_Work, float, Completed | BaseException]] = deque()
        """Their commands have ended, at that instant."""
        self._spans: list[ActionSpan] = []
        self._workers: dict[int, int] = {}
        self._news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def __enter__(self) -> _StageLoop:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Whatever ends the run: what has ended is kept, what has not is killed, and leaves nothing."""
        try:
            self._elsewhere.end()
            if kind is not None:
                self.runner.cancel()
                while self._ended:
                    self._book(*self._ended.popleft())
        finally:
            if self._children is not None:
                self._children.close()
            for work in self._by_command.values():
                work.steps.close()
            self._say_performed()

    def run(self) -> None:
        """Until nothing can be done any more."""
        while self._has_more:
            if len(self._ended) >= _BOOKED_AT_ONCE:
                self._book_all()
            elif self._ready and (self._under_way < self._most or self.runner.is_sharing):
                self._settle(self._ready.pop())
            elif self._to_execute and self._under_way < self._most:
                self._execute(self._to_execute.popleft())
            elif self._elsewhere.is_ready:
                self._to_execute.extend(self._elsewhere.ask())
            elif (spare := self._spare()) is not None:
                self._execute(spare)
            else:
                self._await()
            self._look_around()

    @property
    def _has_more(self) -> bool:
        waiting = self._ready or self._to_execute or self._ended
        return bool(waiting) or self._under_way > 0 or self._elsewhere.has_more

    @property
    def _under_way(self) -> int:
        """How many run, or are about to."""
        return len(self._to_start) + len(self._by_command) + self._in_threads

    # --- what ends ------------------------------------------------------------------------------

    def _await(self) -> None:
        """Something to happen; what has ended is booked when nothing else is to be done for a while."""
        if self._meanwhile is not None and self._in_threads and not (self._by_command or self._ended):
            work, self._meanwhile = self._meanwhile, None
            work()
        elif not self._ended:
            self._take_news(LOOK_S if self._elsewhere.is_asking else _LONG_S)
        elif not (self._by_command or self._in_threads) or not self._take_news(_QUIET_S):
            self._book_all()

    def _book_all(self) -> None:
        for _ in range(len(self._ended)):
            self._book(*self._ended.popleft())
            self._look_around()
        self._say_performed()

    def _look_around(self) -> None:
        if self._by_command or self._in_threads:
            self._take_news(0.0)

    def _take_news(self, patience_s: float) -> bool:
        """What commands and other threads have to say; False if there was nothing within that time."""
        heard = False
        if self._children is None:
            with contextlib.suppress(queue.Empty):
                news = self._news.get(timeout=patience_s) if patience_s else self._news.get_nowait()
                news()
                heard = True
        for command, done in self._children.ended(patience_s) if self._children is not None else ():
            work, heard = self._by_command.pop(command), True
            self._leave(work)
            if isinstance(done, Completed) and done.exit_code == 0:
                self._ended.append((work, self._clock.now_s(), done))
            else:
                self._book(work, self._clock.now_s(), done)  # before another one starts
        while not self._news.empty():
            self._news.get()()
            heard = True
        self._start_next()
        return heard

    def _book(self, work: _Work, ended_s: float, done: Completed | BaseException) -> None:
        """Go on with an action whose command has ended."""
        try:
            command = work.steps.throw(done) if isinstance(done, BaseException) else work.steps.send(done)
        except StopIteration as end:
            self._finish(work.number, end.value, self._span(work.keyed.action, end.value, work, ended_s))
        else:
            raise RuntimeError(f"{work.keyed.action.name}: a second command: {command} [this is a bug]")

    def _leave(self, work: _Work) -> None:
        """Its worker is free, and it is out of its pool."""
        self._free.append(work.worker)
        self._line_up(self._pools.leave(work.keyed.action))

    # --- what is to be done ---------------------------------------------------------------------

    def _settle(self, index: int) -> None:
        """Without executing it, if that can be done."""
        run, action = self._run, self._run.action(index)
        if not run.must_run(index):
            self.runner.mark_finished(action)
            self._ready.extend(run.finish(index, Performed(ActionState.UP_TO_DATE)))
            return
        found = self._find(action, run.causes[index])
        if not isinstance(found, Keyed):
            self._finish(index, *found)
            return
        run.set(index, ActionState.QUEUED)
        if self._elsewhere.may_have(found):
            self._elsewhere.miss(index, found)
        elif self._under_way < self._most:
            self._line_up(self._pools.enter(index, found))
        else:
            self._to_execute.append(index)

    def _execute(self, index: int) -> None:
        found = self._find(self._run.action(index), self._run.causes[index])
        if isinstance(found, Keyed):
            self._line_up(self._pools.enter(index, found))
        else:
            self._finish(index, *found)

    def _find(self, action: Action, cause: Cause) -> tuple[Performed, ActionSpan] | Keyed:
        began_s = self._clock.now_s()
        found = self.runner.find(action, cause)
        return found if isinstance(found, Keyed) else (found, self._span(action, found, began_s, self._clock.now_s()))

    def _line_up(self, allowed: tuple[int, Keyed] | None) -> None:
        if allowed is not None:
            self._to_start.append(allowed)
            self._start_next()

    def _start_next(self) -> None:
        while self._free and self._to_start:
            index, keyed = self._to_start.popleft()
            work = _Work(index, keyed, self.runner.perform(keyed), self._free.pop(), self._clock.now_s())
            if self._children is not None and self.runner.is_waited_for_alone(keyed.action):
                self._start(work, self._children)
            else:
                self._start_in_thread(work)

    def _start(self, work: _Work, children: Children) -> None:
        try:
            command = next(work.steps)
            while True:
                try:
                    child = children.start(command.argv, cwd=command.cwd, env=command.env, timeout_s=TIMEOUT_S)
                    break
                except BaseException as error:  # it cannot be started, or nothing may be any more
                    command = work.steps.throw(error)
        except StopIteration as end:
            self._leave(work)
            self._finish(work.number, end.value, self._span(work.keyed.action, end.value, work, self._clock.now_s()))
        else:
            self._by_command[child] = work

    def _start_in_thread(self, work: _Work) -> None:
        def told(done: Performed | BaseException) -> None:
            self._news.put(partial(self._executed, work, done))
            if self._children is not None:
                self._children.wake()

        self._threads.do(partial(in_turn, work.steps, self._processes), told, self._in_threads)
        self._in_threads += 1

    def _executed(self, work: _Work, done: Performed | BaseException) -> None:
        self._in_threads -= 1
        self._leave(work)
        if isinstance(done, BaseException):
            raise done
        self._finish(work.number, done, self._span(work.keyed.action, done, work, self._clock.now_s()))

    # --- other machines ---------------------------------------------------------------------------

    def _tell(self, keyed: Keyed, is_here: bool) -> None:
        """On any thread."""
        self._news.put(lambda: self._told(keyed, is_here))
        if self._children is not None:
            self._children.wake()

    def _told(self, keyed: Keyed, is_here: bool) -> None:
        index = self._elsewhere.take(keyed)
        if index is None:
            return  # a failure has ended the run
        found = self._find(keyed.action, self._run.causes[index]) if is_here else keyed
        if isinstance(found, Keyed):
            self._to_execute.append(index)
            return
        done, span = found
        if done.state is ActionState.RESTORED:
            self.restored_remote += 1
            span = span._replace(how=RESTORED_REMOTE)
        self._finish(index, done, span)

    def _spare(self) -> int | None:
        """What is asked for and is to be made here meanwhile."""
        if not self._elsewhere.is_asking:
            return None
        is_idle = bool(self._free) and not self._to_start and not self._pools.is_any_full
        return self._elsewhere.spare(self._clock.now_s(), is_idle=is_idle)

    # --- what is said -----------------------------------------------------------------------------

    def _finish(self, index: int, done: Performed, span: ActionSpan) -> None:
        run = self._run
        self._ready.extend(run.finish(index, done))
        if done.state is ActionState.EXECUTED and self.runner.is_sharing and self.runner.shared is not None:
            self.runner.shared.took(run.action(index), span.duration_s)
        if done.state is not ActionState.NOT_RUN:
            self._spans.append(span)
            if len(self._spans) >= _BOOKED_AT_ONCE:
                self._say_performed()
        self._progress(run.action(index).name, run.skipped + run.finished, run.skipped + len(run.indices))
        if run.failures:
            self.runner.stop()
            self._elsewhere.end()
            self._elsewhere.forget_missed()
            self._ready.clear()
            self._to_execute.clear()

    def _say_performed(self) -> None:
        spans, self._spans = self._spans, []
        if spans:
            self._performed(spans)

    def _span(self, action: Action, done: Performed, work: _Work | float, ended_s: float) -> ActionSpan:
        began_s, worker = (work.began_s, work.worker) if isinstance(work, _Work) else (work, -1)
        number = self._workers.setdefault(worker, len(self._workers))
        return ActionSpan(action.name, done.state.value, number, began_s, ended_s - began_s)


class _Threads:
    """Threads beside the one that decides, started as they are needed. `concurrent.futures` would do, but it loads the
    modules of logging, which takes longer than a link."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is under way."""
        self._work.put(None)
        for thread in self._threads:
            thread.join()

    def do(
        self,
        work: Callable[[], Performed],
        told: Callable[[Performed | BaseException], None],
        under_way: int,
    ) -> None:
        """Do it in a thread, which then says what came of it, or what was raised. `under_way`: of how many works it is
        not known that they have ended; whoever knows of fewer than there are threads finds one free."""

        def one() -> None:
            try:
                done: Performed | BaseException = work()
            except BaseException as error:  # for whoever waits for it
                done = error
            told(done)

        if under_way >= len(self._threads):
            # One for which a second Ctrl-C did not wait must not keep the process.
            thread = threading.Thread(target=self._until_told, daemon=True, name=f"action {len(self._threads)}")
            thread.start()
            self._threads.append(thread)
        self._work.put(one)

    def _until_told(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        self._work.put(None)  # to the next


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

    @property
    def is_any_full(self) -> bool:
        """Does anything wait for its turn?"""
        return any(self._waiting.values())

    def leave(self, action: Action) -> tuple[int, Keyed] | None:
        """One ended; the next of its pool."""
        name, depth = ("", 0) if action.statement is None else action.statement.pool
        self._running[name] -= 1
        if depth and self._waiting.get(name):
            self._running[name] += 1
            return self._waiting[name].pop(0)
        return None
