"""The real clock, and the deadline that is made of it.

Knows time only. Invariant: `now_s` never goes back. In-process virtual boards model waits instead of sleeping; the
time they skipped is added here, so that a run's durations are host time and modelled board time together.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cache.named_tuple import NamedTuple
from pipeline.effects.api import Clock


class SystemClock:
    """Monotonic host time plus whatever the followed virtual boards have skipped."""

    def __init__(self) -> None:
        self._skews: list[Callable[[], float]] = []

    def follow(self, skew_s: Callable[[], float]) -> None:
        """Add the seconds that `skew_s()` reports (never decreasing) to every later reading."""
        self._skews.append(skew_s)

    def now_s(self) -> float:
        return time.monotonic() + self.modelled_s if self._skews else time.monotonic()

    @property
    def modelled_s(self) -> float:
        """The part of `now_s` that was modelled and not waited for."""
        return sum(skew() for skew in self._skews)

    def utc(self) -> str:
        seconds, ns = divmod(time.time_ns(), 1_000_000_000)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ns // 1_000_000:03}Z"


class LaneClock(SystemClock):
    """The clock of one board among several at once: what the others skipped is not its own time."""

    def __init__(self, base: SystemClock) -> None:
        super().__init__()
        self._base = base

    def now_s(self) -> float:
        return self._base.now_s() + self.modelled_s


class BoardClocks:
    """The clock of a run, and one for each board that has its turn beside others."""

    def __init__(self) -> None:
        self.run = SystemClock()
        self._boards: dict[str, LaneClock] = {}

    @property
    def beside_each_other(self) -> bool:
        """Do boards have their turns at once?"""
        return bool(self._boards)

    def of(self, device: str) -> SystemClock:
        """That of the device, if it has its own."""
        return self._boards.get(device, self.run)

    def begin(self, device: str) -> None:
        """From here on it has."""
        self._boards[device] = LaneClock(self.run)

    def end(self) -> None:
        """All have had their turns: the run took as long as the one that modelled most."""
        clocks = list(self._boards.values())
        self._boards.clear()
        self.run.follow(lambda: max((clock.modelled_s for clock in clocks), default=0.0))


class Deadline(NamedTuple):
    """An instant on `clock` after which waiting ends."""

    clock: Clock
    at_s: float

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> Deadline:
        return cls(clock, clock.now_s() + seconds)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - self.clock.now_s())

    @property
    def expired(self) -> bool:
        return self.remaining_s == 0.0
