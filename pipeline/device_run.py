"""One device of a run: what its stages hand on to each other.

Holds sessions, links and plans; opens nothing and decides nothing. Invariant: whatever holds the port is one of
`session` and `link`, and `close` lets go of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.config import DeviceConfig
from pipeline.core.model import DeviceFacts, FlashPlan
from pipeline.effects.api import FlashSession, Reader, SerialLink
from pipeline.effects.device_journal import DeviceJournal


@dataclass(slots=True)
class DeviceRun:
    """One device of this run: what the stages hand on to each other."""

    name: str
    config: DeviceConfig
    session: FlashSession | None = None
    facts: DeviceFacts | None = None
    journal: DeviceJournal | None = None
    plan: FlashPlan | None = None
    link: SerialLink | None = None
    reader: Reader | None = None
    reset_released_s: float = 0.0
    confirmed: bool = False
    flashed: bool = False
    """Every write of the plan was confirmed by the device."""

    @property
    def where(self) -> str:
        return f"device {self.name} on {self.config.port}"

    @property
    def port_shown(self) -> str:
        """The port in use: for `auto`, the one that was picked."""
        return self.session.port if self.session is not None and self.config.port == "auto" else self.config.port

    @property
    def nothing_to_write(self) -> bool:
        """Proven by this run's verify-flash; False before it ran."""
        return self.plan is not None and not self.plan.writes

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
