"""One device of a run: what its stages hand on to each other.

Holds sessions, links and plans; opens nothing and decides nothing. Invariant: whatever holds the port is one of
`session` and `link`, and `close` lets go of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.config.schema import DeviceConfig
from pipeline.device.journal_file import DeviceJournal
from pipeline.effects.api import Answers, FlashSession, Reader, SerialLink
from pipeline.flash.plan import deploy_outcome, part_outcome
from pipeline.model import DeployOutcome, DeviceFacts, FlashPlan, RegionPlan


@dataclass(slots=True)
class DeviceRun:
    """One device of this run: what the stages hand on to each other."""

    name: str
    config: DeviceConfig
    session: FlashSession | None = None
    facts: DeviceFacts | None = None
    journal: DeviceJournal | None = None
    plan: FlashPlan | None = None
    verified_by: str = "md5"
    """The rung of the verify ladder that `plan` rests on; above `md5` the board runs on, and `link` is open."""
    answers: Answers | None = None
    """What the running firmware said to that, in this run and on this link."""
    link: SerialLink | None = None
    reader: Reader | None = None
    reset_released_s: float = 0.0
    confirmed: bool = False
    done: list[RegionPlan] = field(default_factory=list)
    """Regions that were written, and confirmed by the device, in this run."""

    @property
    def where(self) -> str:
        return f"device {self.name} on {self.config.port}"

    @property
    def port_shown(self) -> str:
        """The port in use: for `auto`, the one that was picked."""
        return self.session.port if self.session is not None and self.config.port == "auto" else self.config.port

    @property
    def keeps_running(self) -> bool:
        """The firmware itself answered for its flash, so that nothing resets the board."""
        return self.verified_by != "md5"

    def pending(self, region: str = "") -> tuple[RegionPlan, ...]:
        """Writes of the plan that are still to be done. Of one region, if it is named: then only if it differs, since
        what escalates to a full flash is not its matter."""
        done = {written.image.name for written in self.done}
        writes = [w for w in (self.plan.writes if self.plan is not None else ()) if w.image.name not in done]
        if not region:
            return tuple(writes)
        return tuple(w for w in writes if w.image.name == region and w.device_md5_before != w.image.md5)

    def nothing_to_write(self, region: str = "") -> bool:
        """Proven by this run's verify-flash; False before it ran."""
        known = self.plan is not None and region in ("", *(each.image.name for each in self.plan.regions))
        return known and not self.pending(region)

    @property
    def outcome(self) -> DeployOutcome | None:
        """What was done and proven so far; None: something is still to be written, or nothing was asked."""
        if self.plan is None:
            return None
        if not self.pending():
            return deploy_outcome(self.plan, self.verified_by)
        return part_outcome(self.done) if self.done else None

    def close(self) -> None:
        """Let go of the port, whatever holds it."""
        if self.reader is not None:
            self.reader.stop()
        if self.link is not None:
            self.link.close()
        if self.session is not None:
            self.session.close()
        if self.journal is not None:
            self.journal.close()
        self.reader = self.link = self.session = None
