"""The builds of one run, one for each profile that the selected devices need, each with the boards that get it.

Knows which device gets which build, and that a build which failed stops its own boards alone. Does not know what a
stage does, nor what is recorded. Invariant: each selected device belongs to exactly one variant, and the first one is
the only one where every device has the same profile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple
from pipeline.effects.api import Clock
from pipeline.model import Failure, Stage, StageOutcome, StageResult, StageWork, Verdict
from pipeline.run.build import Build
from pipeline.run.device_service import DeviceService
from pipeline.run.records import DeviceRecords

if TYPE_CHECKING:
    from pipeline.config.schema import DeviceConfig


class Variant(NamedTuple):
    """One build, and the boards that get it."""

    build: Build
    boards: DeviceService
    records: DeviceRecords

    @property
    def devices(self) -> tuple[DeviceConfig, ...]:
        """Those that were selected."""
        return self.build.project.devices


class Variants:
    """`record(build, result)` is told how a host stage of each build ended, where there are several."""

    def __init__(self, every: Sequence[Variant], record: Callable[[Build, StageResult], None]) -> None:
        self.every = tuple(every)
        self.broken: dict[Build, Failure] = {}
        """Builds that failed while others went on."""
        self._record = record
        self._verdicts: dict[tuple[Stage, Build], bool] = {}
        """Was it up to date when that was asked last?"""

    @property
    def several(self) -> bool:
        return len(self.every) > 1

    def of(self, device: str) -> Variant:
        """The build that `device` gets, and its board."""
        return next(it for it in self.every if any(d.name == device for d in it.devices))

    def device(self, name: str) -> DeviceConfig:
        """The selected device of this name, as its profile means it."""
        return next(device for it in self.every for device in it.devices if device.name == name)

    # --- host stages ------------------------------------------------------------------------------

    def verdict(self, stage: Stage) -> Verdict:
        """Is this host stage up to date in every build? See `Build.host_verdict`."""
        verdicts = [it.build.host_verdict(stage) for it in self.every]
        for it, verdict in zip(self.every, verdicts, strict=True):
            self._verdicts[stage, it.build] = verdict.up_to_date
        reasons = tuple(reason for verdict in verdicts for reason in verdict.reasons)
        return next((v._replace(reasons=reasons) for v in verdicts if not v.up_to_date), verdicts[0])

    def up_to_date(self, stage: Stage) -> StageResult:
        """Nothing was to be done in any of several builds, with proof."""
        results = [self._as_it_is(stage, it.build) for it in self.every]
        for it, result in zip(self.every, results, strict=True):
            self._record(it.build, result)
        return results[0]

    def _as_it_is(self, stage: Stage, build: Build) -> StageResult:
        return StageResult(stage, StageOutcome.UP_TO_DATE, 0.0, counts=build.up_to_date_counts(stage))

    def execute(self, stage: Stage, work: Callable[[Build], StageWork], clock: Clock) -> list[StageResult]:
        """The stage of each of several builds that is not broken, one after the other."""
        results = []
        for build in [it.build for it in self.every if it.build not in self.broken]:
            began_s = clock.now_s()
            if self._verdicts.get((stage, build)):
                result = self._as_it_is(stage, build)
            else:
                result = work(build).took(stage, clock.now_s() - began_s)
            self._record(build, result)
            results.append(result)
            if result.failure is not None:
                self.broken[build] = result.failure
        return results
