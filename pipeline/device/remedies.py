"""What can be tried when a chip's loader does not answer, in which order, for how long, and what a person does last.

Pure; does not know how anything is tried (`recovery.py`). Invariant: every remedy has a limit, and those that a deploy
tries without being told of a power switch take 10 s together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS
from pipeline.effects.api import RECOVERED
from pipeline.model import Reason


class Remedy(StrEnum):
    """One way to bring a board back; each ends with an attempt to enter the loader."""

    LOADER_ENTRY = "loader-entry"
    SOFT_RESET = "soft-reset"
    RESET_LINE = "reset-line"
    OTHER_BAUD = "other-baud"
    REENUMERATE = "reenumerate"
    POWER_CYCLE = "power-cycle"


LIMIT_S: Mapping[Remedy, float] = MappingProxyType(
    {
        Remedy.SOFT_RESET: 2.5,
        Remedy.RESET_LINE: 2.0,
        Remedy.OTHER_BAUD: 2.5,
        Remedy.REENUMERATE: 3.0,
        Remedy.POWER_CYCLE: 40.0,
    }
)
"""Those that follow the entry which every deploy begins with, in the order in which they are tried. The last one only
with a command in `power`: 30 s for the command, the rest for the board to come back."""

COMMAND_S = 30.0
"""What a command that switches power may take."""

PATIENCE_S = 10.0
"""How long `doit recover` waits for a port that is not there."""


class RemedyResult(StrEnum):
    """How a remedy ended. `SKIPPED`: this port, board or configuration does not allow it."""

    WORKED = "worked"
    FAILED = "failed"
    SKIPPED = "skipped"


class Attempt(NamedTuple):
    """A remedy that was tried or left out: how it ended, how long it took, and what it found."""

    remedy: Remedy
    result: RemedyResult
    took_s: float
    fact: str

    def line(self) -> str:
        took = "" if self.result is RemedyResult.SKIPPED else f" after {self.took_s:.1f} s"
        return f"{self.remedy}: {self.result}{took}: {self.fact}"


NOT_RECOVERED = "not-recovered"
"""Kind of a reason: a remedy that did not help, or was left out."""


def reasons_of(attempts: Sequence[Attempt]) -> tuple[Reason, ...]:
    """For the report: what brought the board back, after what did not. Nothing, if nothing was tried."""
    reasons = []
    for attempt in attempts:
        kind = RECOVERED if attempt.result is RemedyResult.WORKED else NOT_RECOVERED
        took = "skipped" if attempt.result is RemedyResult.SKIPPED else f"{attempt.took_s:.1f} s"
        reasons.append(Reason(kind, str(attempt.remedy), took, attempt.fact))
    return tuple(reasons)


def tried(attempts: Sequence[Attempt]) -> str:
    """`tried loader-entry, soft-reset; skipped power-cycle`, for a failure's message."""
    parts = []
    for word, results in (("tried", (RemedyResult.FAILED, RemedyResult.WORKED)), ("skipped", (RemedyResult.SKIPPED,))):
        names = [str(attempt.remedy) for attempt in attempts if attempt.result in results]
        if names:
            parts.append(f"{word} {', '.join(names)}")
    return "; ".join(parts)


class BoardPlace(NamedTuple):
    """Where a person finds the board. `port`: its name now; `location`: its place on the USB hubs, where the system
    names one; `native`: the chip's own USB port; `vanished`: the port is not there."""

    port: str
    location: str = ""
    native: bool = False
    vanished: bool = False


def needs_hands(chip: str, place: BoardPlace) -> str:
    """What a person has to do with the board itself: one line that starts with a verb. Sources: the chips' hardware
    design guidelines (download guidelines) for the pin; esptool, "Boot Mode Selection", for the buttons."""
    if place.port.startswith("virtual:"):
        return "take the fault out of the device's `port` in deploy.toml: a board in this process has no buttons"
    where = f"{place.port} (USB place {place.location})" if place.location else place.port
    if place.vanished:
        return f"replug the cable of the board on {where}, or give it power, then run again"
    replug = " (or replug the cable)" if place.native else ""
    pin = f"GPIO{CHIPS[chip].boot_gpio}"
    press = f"press and release EN (RST){replug}, let BOOT go, then run again"
    return f"hold BOOT ({pin} to GND) of the board on {where}, {press}"
