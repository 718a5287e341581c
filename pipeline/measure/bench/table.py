"""What a benchmark found: rows of ours against a peer, suites of rows, and the report of a run as data.

Pure: measured numbers in, the dict of `<id>.json` out. Does not know how anything is measured or shown.
Invariants: a ratio is always ours / the peer's, so that less is better; a verdict follows from numbers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.statistics import median, summary

SCHEMA = 1
KIND = "bench"


class TargetVerdict(StrEnum):
    MET = "MET"
    MISSED = "MISSED"
    NO_TARGET = "NO_TARGET"


class Of(StrEnum):
    """What a target limits."""

    OURS = "ours"
    RATIO = "ratio"


class BenchTarget(NamedTuple):
    """At most `limit`."""

    of: Of
    limit: float


class BenchRow(NamedTuple):
    """One case. `ours` and `peer_value` are medians in `unit`; `low` and `high` are the least and the most of the `n`
    measurements of ours."""

    suite: str
    case: str
    ours: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    target: BenchTarget | None = None
    n: int = 1
    low: float | None = None
    high: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours / the peer's; None without a peer, or when the peer's is 0."""
        return self.ours / self.peer_value if self.peer_value else None

    @property
    def verdict(self) -> TargetVerdict:
        """A target whose value cannot be computed is missed: nothing shows that it was met."""
        if self.target is None:
            return TargetVerdict.NO_TARGET
        value = self.ours if self.target.of is Of.OURS else self.ratio
        return TargetVerdict.MET if value is not None and value <= self.target.limit else TargetVerdict.MISSED

    @property
    def target_text(self) -> str:
        """As a person reads it; empty without a target."""
        if self.target is None:
            return ""
        of, limit = self.target
        if of is Of.RATIO:
            return f"ratio <= {limit:.3g}"
        return f"<= {number(limit)} {self.unit}".rstrip()


class Suite(NamedTuple):
    """What one suite found. `error`: why it could not go on (its rows so far stand); `notes`: title and text of what
    does not fit a row; `strict`: a missed target is a failure, as the figures depend on nothing but the code."""

    name: str
    rows: tuple[BenchRow, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    error: str = ""
    hint: str = ""
    strict: bool = False

    @property
    def failure(self) -> str:
        """Why its task fails; `""` when it does not."""
        if self.error:
            return f"could not run: {self.error}"
        worse = sum(row.verdict is TargetVerdict.MISSED for row in self.rows) if self.strict else 0
        return f"{worse} of {len(self.rows)} figures are worse than kept" if worse else ""


def measured(
    suite: str,
    case: str,
    ours: Sequence[float],
    unit: str = "ms",
    peer: str = "",
    theirs: Sequence[float] = (),
    target: BenchTarget | None = None,
) -> BenchRow:
    """The row of measurements made several times. Raises ValueError when there is none of ours."""
    mine, found = summary(ours), median(theirs) if theirs else None
    return BenchRow(suite, case, mine.median, unit, peer, found, target, mine.n, mine.minimum, mine.maximum)


def at_most(limit: float) -> BenchTarget:
    return BenchTarget(Of.OURS, limit)


def ratio_at_most(limit: float) -> BenchTarget:
    return BenchTarget(Of.RATIO, limit)


def number(value: float | None) -> str:
    """At least three significant digits; counts as they are; nothing as `""`."""
    if value is None:
        return ""
    if value == int(value):
        return f"{int(value)}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


# --- the report -------------------------------------------------------------------------------


def build(facts: Mapping[str, Any], suites: Sequence[Suite]) -> dict[str, Any]:
    """The report. `facts`: id, started_at, command, machine, load, tools, git."""
    rows = [row for suite in suites for row in suite.rows]
    return {
        "schema": SCHEMA,
        "kind": KIND,
        **facts,
        "outcome": "incomplete" if any(suite.error for suite in suites) else "measured",
        "missed": [f"{row.suite}: {row.case}" for row in rows if row.verdict is TargetVerdict.MISSED],
        "suites": [_suite(suite) for suite in suites],
    }


def _suite(suite: Suite) -> dict[str, Any]:
    return {
        "name": suite.name,
        "error": suite.error,
        "hint": suite.hint,
        "strict": suite.strict,
        "rows": [_row(row) for row in suite.rows],
        "notes": [{"title": title, "text": text} for title, text in suite.notes],
    }


def _row(row: BenchRow) -> dict[str, Any]:
    return {
        "suite": row.suite,
        "case": row.case,
        "ours": row.ours,
        "unit": row.unit,
        "peer": row.peer,
        "peer_value": row.peer_value,
        "ratio": row.ratio,
        "target": row.target_text,
        "verdict": row.verdict.value,
        "n": row.n,
        "low": row.low,
        "high": row.high,
    }
