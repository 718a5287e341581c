"""The go/no-go gate: is a phase worth attacking, and does a candidate make it shorter without changing the result?

Pure. Knows the history, pairs and thresholds; does not know how a deploy is run, files or the clock. Invariants: GO
needs all of enough runs, enough pairs, a large share, a proven effect and equal flash; runs of different schema
versions never meet in one statistic; every verdict has its reasons, and too little evidence is INSUFFICIENT.

The share of the phase is decided by real deploys of this machine (the population). The A/B pairs only size the effect
of the candidate: where the share of their baseline arm would decide otherwise, the population's decision stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum

from cache.named_tuple import NamedTuple
from pipeline.config.schema import GateConfig as Thresholds
from pipeline.model import DeployOutcome, Stage
from pipeline.report.history import DeployHistory, HistoryRow
from pipeline.statistics import Interval, bootstrap, median, quantile

REMAINDER = "remainder"
PHASES = ("startup", "dispatch", *(stage.value for stage in Stage), REMAINDER)
"""What can be gated: the parts that sum to the total of a deploy."""


class GateVerdict(StrEnum):
    GO = "GO"
    NO_GO = "NO-GO"
    INSUFFICIENT = "INSUFFICIENT"


class Timed(NamedTuple):
    """One warm deploy: the phase and the whole of it, in ms."""

    tx: str
    phase_ms: int
    total_ms: int

    @property
    def share(self) -> float:
        return 100 * self.phase_ms / self.total_ms if self.total_ms else 0.0


class Pair(NamedTuple):
    """Two deploys one after the other, one per arm. `first`: the arm that began."""

    number: int
    first: str
    baseline: Timed
    candidate: Timed


class Population(NamedTuple):
    """The real deploys that count, and why the others do not: reason -> how many."""

    runs: tuple[Timed, ...]
    excluded: Mapping[str, int]


class FlashCheck(NamedTuple):
    """What both arms left on the board after `scenario`: two digests."""

    scenario: str
    baseline: str
    candidate: str

    @property
    def equal(self) -> bool:
        return bool(self.baseline) and self.baseline == self.candidate


class Shares(NamedTuple):
    """Share of the phase in percent."""

    n: int
    p50: float
    p90: float


class Effect(NamedTuple):
    """What the candidate saves per pair (negative: costs), in ms: median and its 95 % interval."""

    saved_ms: float
    interval: Interval

    @property
    def proven(self) -> bool:
        return self.interval.low > 0

    @property
    def harmful(self) -> bool:
        return self.interval.high < 0


class Conclusion(NamedTuple):
    """The verdict with its reasons, and the figures behind it (None: there was nothing to compute from)."""

    verdict: GateVerdict
    reasons: tuple[str, ...]
    population: Shares | None
    arms: Shares | None
    phase: Effect | None
    total: Effect | None


# --- one run ----------------------------------------------------------------------------------


def timed(row: HistoryRow, phase: str) -> Timed | None:
    """The phase and the total of a run; None when the phase did not run or was not measured."""
    if not row.total_ms:
        return None
    phases = {**row.phases, REMAINDER: row.total_ms - sum(row.phases.values())}
    return Timed(row.transaction_id, phases[phase], row.total_ms) if phase in phases else None


def why_not(row: HistoryRow, machine: str, device: str, profile: str, since: str) -> str:
    """Why a run is not part of the population, `""`: it is. `since`: the earliest instant that counts."""
    if row.machine != machine:
        return "another machine"
    if row.started_at < since:
        return "too old"
    if (row.device, row.profile) != (device, profile):
        return "another device or profile"
    if row.failed or row.outcome in ("", DeployOutcome.FAILED, DeployOutcome.INTERRUPTED):
        return "not successful"
    if not row.complete:
        return "not a whole deploy"
    return "" if row.warm else "not warm"


def population(history: DeployHistory, phase: str, machine: str, device: str, profile: str, since: str) -> Population:
    """The successful warm deploys of one device and profile on this machine since an instant."""
    runs: list[Timed] = []
    excluded = Counter({"another schema version": history.other_schema, "damaged line": history.damaged})
    for row in history.rows:
        reason = why_not(row, machine, device, profile, since)
        found = None if reason else timed(row, phase)
        if found is not None:
            runs.append(found)
        else:
            excluded[reason or f"{phase} was not measured"] += 1
    return Population(tuple(runs), dict(sorted((+excluded).items())))


# --- statistics -------------------------------------------------------------------------------


def shares(runs: Sequence[Timed]) -> Shares | None:
    if not runs:
        return None
    values = [run.share for run in runs]
    return Shares(len(values), median(values), quantile(values, 0.9))


def effect(saved_ms: Sequence[int]) -> Effect | None:
    """Of the differences within pairs, so that what disturbs both arms of a pair does not count."""
    return Effect(median(saved_ms), bootstrap(saved_ms)) if saved_ms else None


def large(found: Shares, limits: Thresholds) -> bool:
    """Is the phase worth attacking?"""
    return found.p50 >= limits.p50_percent or found.p90 >= limits.p90_percent


# --- the verdict ------------------------------------------------------------------------------


def conclude(
    phase: str, runs: Sequence[Timed], pairs: Sequence[Pair], flash: Sequence[FlashCheck], limits: Thresholds
) -> Conclusion:
    """Weigh the evidence. First what makes any verdict impossible or wrong, then the share, then the effect."""
    found, arms = shares(runs), shares([pair.baseline for pair in pairs])
    on_phase = effect([pair.baseline.phase_ms - pair.candidate.phase_ms for pair in pairs])
    on_total = effect([pair.baseline.total_ms - pair.candidate.total_ms for pair in pairs])

    def ends(verdict: GateVerdict, *reasons: str) -> Conclusion:
        return Conclusion(verdict, reasons, found, arms, on_phase, on_total)

    unequal = [check for check in flash if not check.equal]
    if unequal:
        scenarios = ", ".join(check.scenario for check in unequal)
        return ends(GateVerdict.NO_GO, f"the arms left different flash ({scenarios}): the candidate changes the result")
    missing = _missing(len(runs), len(pairs), bool(flash), limits)
    if found is None or on_phase is None or on_total is None or missing:
        return ends(GateVerdict.INSUFFICIENT, *missing)
    share = _share_reason(phase, found, limits)
    if not large(found, limits):
        return ends(GateVerdict.NO_GO, share, *_tie_break(found, arms, limits))
    told = (share, *_tie_break(found, arms, limits))
    saved = f"the candidate saves {_effect(on_phase)} of {phase} and {_effect(on_total)} of the total"
    if not on_phase.proven:
        return ends(GateVerdict.NO_GO, *told, f"{saved}: no effect on {phase} is proven")
    if on_total.harmful:
        return ends(GateVerdict.NO_GO, *told, f"{saved}: what {phase} gains is lost elsewhere")
    return ends(GateVerdict.GO, *told, saved, "both arms left the same flash in every scenario")


def _missing(runs: int, pairs: int, checked: bool, limits: Thresholds) -> list[str]:
    missing = []
    if runs < limits.min_runs:
        days = f"the last {limits.days} days"
        missing.append(f"{runs} warm deploys of {days} on this machine, {limits.min_runs} are needed")
    if pairs < limits.min_pairs:
        missing.append(f"{pairs} complete A/B pairs, {limits.min_pairs} are needed")
    if not checked:
        missing.append("the flash of both arms was not compared")
    return missing


def _share_reason(phase: str, found: Shares, limits: Thresholds) -> str:
    more = "reaches one of" if large(found, limits) else "reaches neither of"
    wanted = f"{limits.p50_percent} % (p50) or {limits.p90_percent} % (p90)"
    return f"{phase} is {found.p50:.1f} % of a warm deploy (p50), {found.p90:.1f} % (p90): it {more} {wanted}"


def _tie_break(found: Shares, arms: Shares | None, limits: Thresholds) -> tuple[str, ...]:
    if arms is None or large(arms, limits) == large(found, limits):
        return ()
    other = f"in the baseline arm it is {arms.p50:.1f} % (p50), {arms.p90:.1f} % (p90), which would decide otherwise"
    return (f"{other}; the real deploys decide, the pairs only size the effect",)


def _effect(found: Effect) -> str:
    return f"{found.saved_ms:.0f} ms (95 %: {found.interval.low:.0f} to {found.interval.high:.0f})"
