"""The bookkeeping of one run of a stage: which actions wait for which, in which state each is, what was counted.

Knows the graph and the states of actions. Does not know who does one or when (`scheduler`). Invariant: an action is
ready only after those that make its inputs ended well.
"""

from __future__ import annotations

from pipeline.engine.action_runner import Performed
from pipeline.engine.decision import Cause
from pipeline.engine.look import Look
from pipeline.engine.results import ActionFailure, RunResult
from pipeline.engine.states import TRANSITIONS, ActionState
from pipeline.engine.workspace import Workspace
from pipeline.model import Action, Reason, Stage


class StageRun:
    """Only the thread that decides touches it."""

    def __init__(self, workspace: Workspace, look: Look, stage: Stage) -> None:
        graph = workspace.graph
        self._order, self._look = graph.order, look
        self.indices = [n for n, action in enumerate(graph.order) if action.stage is stage]
        self._states = dict.fromkeys(self.indices, ActionState.WAITING)
        self._waits = {n: sum(need in self._states for need in graph.needs[n]) for n in self.indices}
        self._users: dict[int, list[int]] = {}
        for n in self.indices:
            for need in graph.needs[n]:
                if need in self._states:
                    self._users.setdefault(need, []).append(n)
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
            if action.count_as == "compiled":
                self._look.entries.pop(action.inputs[0], None)  # nobody else reads a source; there may be very many
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
        for user in self._users.get(index, ()):
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
            tuple(self.executed),
            tuple(self.failures),
            tuple(self.warnings),
            tuple(self.notes),
        )
