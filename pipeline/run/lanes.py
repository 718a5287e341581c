"""What one run does with several boards: for each a lane of stages, one after the other, beside those of the others.

A task runner that wants a stage of a lane done waits here for its result. Knows the order of a lane and when it must
stop; what a stage does, and what is recorded of it, is its host's. Invariant: a board's stages follow each other
without another board's in between, so that what they took is the board's own time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.model import Stage, StageResult, StageWork
from pipeline.run.board_turns import BoardTurns
from pipeline.run.fleet import Fleet, FleetPolicy
from pipeline.run.screen import Screen
from pipeline.run.stage_of import StageOf


class LaneHost(Protocol):
    """The run, as far as lanes use it."""

    def consider(self, which: StageOf) -> None: ...
    def started(self, which: StageOf) -> None: ...
    def execute(self, which: StageOf) -> StageResult: ...
    def up_to_date(self, which: StageOf) -> StageResult: ...
    def nothing_to_write(self, device: str, region: str = "") -> bool: ...


class Lanes:
    """`plan`: device -> its stages, in their order."""

    def __init__(
        self,
        host: LaneHost,
        turns: BoardTurns,
        screen: Screen,
        plan: Mapping[str, Sequence[StageOf]],
        policy: FleetPolicy,
    ) -> None:
        self._host = host
        self._turns = turns
        self._screen = screen
        self._plan = plan
        self._results: dict[StageOf, StageResult] = {}
        self.fleet = Fleet(list(plan), policy, self._run, self._stopped)
        turns.of(self.fleet)

    @property
    def devices(self) -> Sequence[str]:
        """In the order in which they begin."""
        return list(self._plan)

    def hold(self, which: StageOf) -> bool:
        """Is it a stage of one of these lanes?"""
        return which in self._plan.get(which.device, ())

    def result(self, which: StageOf) -> StageResult:
        """How this stage ended, which is waited for; where it was not reached, why not. Begins the lanes."""
        self.fleet.start()
        self.fleet.wait_until(lambda: which in self._results, which.device)
        found = self._results.get(which)
        return found or StageWork(failure=self._turns.failure(which.device)).took(which.stage, 0.0)

    def _run(self, device: str) -> bool:
        if not self._turns.begin(device):
            return False
        stopped_by: str | None = None
        for which in self._plan[device]:
            if self.fleet.must_stop(device):
                stopped_by = self.fleet.cause
                break
            result = self._results[which] = self._one(which)
            self.fleet.tell()
            if result.failure is not None:
                self._screen.failure(result.failure)
                break
        return self._turns.end(device, stopped_by=stopped_by)

    def _one(self, which: StageOf) -> StageResult:
        self._host.consider(which)
        if which.stage is Stage.REFLASH and self._host.nothing_to_write(which.device, which.region):
            self._screen.stage(which.task, up_to_date=True)
            return self._host.up_to_date(which)
        self._host.started(which)
        self._screen.stage(which.task)
        return self._host.execute(which)

    def _stopped(self, device: str, cause: str) -> None:
        if cause:
            self._turns.end(device, stopped_by=cause)
