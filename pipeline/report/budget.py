"""Compare measured durations with the limits of `deploy.toml`.

Pure. Does not know stages, events or what happens to a run that is over its budget.
Invariant: only the total decides (`fits`); phases may trade time with each other. A phase that did not run is
`NOT_MEASURED`, never 0 ms within its budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from cache.named_tuple import NamedTuple

TOTAL = "total"


class Judged(StrEnum):
    """Verdict of one phase with a limit."""

    WITHIN = "WITHIN"
    OVER = "OVER"
    NOT_MEASURED = "NOT_MEASURED"


class PhaseBudget(NamedTuple):
    """One row, in ms. `limit_ms is None`: no budget was set, so there is nothing to judge. `margin_ms` is the limit
    minus the measured time, negative when over."""

    phase: str
    limit_ms: int | None
    measured_ms: int | None

    @property
    def margin_ms(self) -> int | None:
        if self.limit_ms is None or self.measured_ms is None:
            return None
        return self.limit_ms - self.measured_ms

    @property
    def judged(self) -> Judged | None:
        if self.limit_ms is None:
            return None
        if self.measured_ms is None:
            return Judged.NOT_MEASURED
        return Judged.WITHIN if self.measured_ms <= self.limit_ms else Judged.OVER


class BudgetReport(NamedTuple):
    """`bottleneck` is the measured phase that took longest (the first of equals), `""` when none was measured: where
    time can be gained, whether or not anything is over."""

    phases: tuple[PhaseBudget, ...]
    total: PhaseBudget
    bottleneck: str

    @property
    def fits(self) -> bool:
        """Is the total within its limit? True when no limit is set; False when it was not measured."""
        return self.total.judged in (None, Judged.WITHIN)

    @property
    def over(self) -> tuple[PhaseBudget, ...]:
        return tuple(phase for phase in self.phases if phase.judged is Judged.OVER)


def judge(limits_ms: Mapping[str, int], measured_ms: Mapping[str, int | None]) -> BudgetReport:
    """Judge each phase of either mapping, in the order of `measured_ms` and then of `limits_ms`. The key `total` of
    both decides. A value of `None`, or a phase without a value, was not measured."""
    names = [name for name in dict.fromkeys([*measured_ms, *limits_ms]) if name != TOTAL]
    phases = tuple(PhaseBudget(name, limits_ms.get(name), measured_ms.get(name)) for name in names)
    timed = [phase for phase in phases if phase.measured_ms is not None]
    longest = max(timed, key=lambda phase: phase.measured_ms or 0, default=None)
    total = PhaseBudget(TOTAL, limits_ms.get(TOTAL), measured_ms.get(TOTAL))
    return BudgetReport(phases, total, longest.phase if longest else "")


def budget_dict(judged: BudgetReport) -> dict[str, Any]:
    """The tree as reports and baselines hold it."""
    return {
        "phases": [_row(row) for row in judged.phases],
        "total": _row(judged.total),
        "bottleneck": judged.bottleneck,
        "fits": judged.fits,
    }


def _row(row: PhaseBudget) -> dict[str, Any]:
    return {
        "phase": row.phase,
        "limit_ms": row.limit_ms,
        "measured_ms": row.measured_ms,
        "margin_ms": row.margin_ms,
        "verdict": row.judged.value if row.judged else None,
    }
