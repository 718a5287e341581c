"""What the device stages hand on to each other: each ends with a value that says where the board is now.

    verify-flash -> InLoader | StillRunning       reflash: InLoader -> InLoader
    reattach: InLoader -> Booting                 ttfb: Booting | StillRunning -> Confirmed

Values only; whoever opened a port lets go of it. Invariant: a value of this kind exists only after its stage ended
well, so that a later stage has everything it needs, or is not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cache.named_tuple import NamedTuple
from pipeline.effects.api import Answers, FlashSession, Reader, SerialLink
from pipeline.flash.journal import DeviceState
from pipeline.flash.plan import deploy_outcome, part_outcome
from pipeline.flash_model import FlashPlan, Image, RegionPlan
from pipeline.model import DeployOutcome


class Journal(Protocol):
    """The journal of one board; `state` is what it said when it was opened."""

    @property
    def state(self) -> DeviceState: ...
    def begin(self, tx: str, at: str, images: Sequence[Image], about: Mapping[str, str], by: str = "") -> None: ...
    def written(self, tx: str, name: str) -> None: ...
    def commit(self, tx: str) -> None: ...


class Proof(NamedTuple):
    """What this run knows of the board's flash. `level`: that of the verify ladder which the plan rests on. `written`:
    regions of the plan that were written since, and confirmed by the device."""

    plan: FlashPlan
    level: str = "md5"
    written: tuple[RegionPlan, ...] = ()

    def pending(self, region: str = "") -> tuple[RegionPlan, ...]:
        """Writes of the plan that are still to be done. Of one region, if it is named: then only if it differs, since
        what escalates to a full flash is not its matter."""
        done = {written.image.name for written in self.written}
        writes = tuple(write for write in self.plan.writes if write.image.name not in done)
        if not region:
            return writes
        return tuple(w for w in writes if w.image.name == region and w.device_md5_before != w.image.md5)

    def nothing_to_write(self, region: str = "") -> bool:
        """Does the flash hold everything, or this region? False for a region that is not in the plan."""
        return region in ("", *(each.image.name for each in self.plan.regions)) and not self.pending(region)

    @property
    def outcome(self) -> DeployOutcome | None:
        """What was done and proven so far; None: something is still to be written."""
        if not self.pending():
            return deploy_outcome(self.plan, self.level)
        return part_outcome(self.written) if self.written else None


class InLoader(NamedTuple):
    """The board waits in its loader; the session has passed the identity checks."""

    session: FlashSession
    journal: Journal
    proof: Proof


class StillRunning(NamedTuple):
    """The firmware itself answered for its flash, and nothing resets it. `answers`: what it said on this link."""

    link: SerialLink
    answers: Answers
    proof: Proof


class Booting(NamedTuple):
    """Reset was released at this instant of link time, after `reader` had begun to listen. `mac`: the board's, as its
    loader said."""

    link: SerialLink
    reader: Reader
    reset_released_s: float
    mac: str
    proof: Proof


class Confirmed(NamedTuple):
    """The device was ready as `readiness.until` asks."""

    proof: Proof


Board = InLoader | StillRunning | Booting | Confirmed
