"""Baselines: reports of child runs in, rows, statistics and comparisons out.

Pure: dicts of JSON types in and out. Does not start runs and does not know files, the clock or how a baseline is shown
(`view.py`).
Invariant: what was not measured has no duration, and never counts as 0; a statistic is made of successful steps only.

A run is named `<series>-<number>`: `cold-1`, `warm-3`, `edit-2`. The first warm run begins from nothing and is there
to get warm: statistics are of the others. `deploy/total` is what a report calls total: from the start of the process to
the end of the last stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.model import HOST_STAGES, Stage, StageOutcome
from pipeline.report.budget import TOTAL, Judged, budget_dict, judge
from pipeline.statistics import bootstrap, difference, median, summary

SCHEMA = 1
"""Version of the JSON; baselines of different versions are not compared."""

MODES = ("cold", "warm", "full")
EDITS = ("comment", "header", "real")

STEPS: Mapping[Stage, tuple[str, str]] = {
    Stage.FINGERPRINT: ("build", "fingerprint"),
    Stage.COMPILE: ("build", "compile"),
    Stage.LINK: ("build", "link"),
    Stage.VERIFY_FLASH: ("flash", "verify"),
    Stage.REFLASH: ("flash", "write"),
    Stage.REATTACH: ("serial", "reattach"),
    Stage.TTFB: ("serial", "ttfb"),
}
"""Category and step of each stage."""

RESOLUTION_S = 0.001
"""Durations are whole ms: a difference of one is rounding."""


class BaselineRun(NamedTuple):
    """One child run. `edit`: the kind of edit before it, `""` for none. `phases`: startup, dispatch, stages and total,
    in ms. `failure`: (category, stage or "", message)."""

    series: str
    number: int
    edit: str
    phases: Mapping[str, int | None]
    outcomes: Mapping[str, str]
    counts: Mapping[str, int | None]
    failure: tuple[str, str, str] | None = None

    @property
    def run(self) -> str:
        return f"{self.series}-{self.number}"


class BaselineRow(NamedTuple):
    """One line of the CSV. `status`: `ok`, `up-to-date` (nothing to do: the time is that of finding out), `not-run`, or
    `fail:<category>`."""

    run: str
    category: str
    step: str
    status: str
    duration_s: float | None

    @property
    def key(self) -> tuple[str, str, str]:
        """(series, category, step): what is compared with what."""
        return (self.run.partition("-")[0], self.category, self.step)

    @property
    def counts(self) -> bool:
        """Is this row part of the statistics?"""
        return self.duration_s is not None and self.status in ("ok", "up-to-date") and self.run != "warm-1"


def measured(series: str, number: int, edit: str, report: Mapping[str, Any]) -> BaselineRun:
    """What the report of a child run says."""
    failure = report["failure"]
    budget = report["budget"]
    return BaselineRun(
        series,
        number,
        edit,
        {row["phase"]: row["measured_ms"] for row in (*budget["phases"], budget["total"])},
        {row["stage"]: row["outcome"] for row in report["stages"]},
        {name: report["totals"][name] for name in ("compiled", "restored", "linked", "bytes_written")},
        (failure["category"], failure["stage"] or "", failure["message"]) if failure else None,
    )


def unmeasured(series: str, number: int, edit: str, category: str, message: str) -> BaselineRun:
    """A child run that failed before it could measure anything."""
    return BaselineRun(series, number, edit, {}, {}, {}, (category, "", message))


def not_run(series: str, number: int, edit: str) -> BaselineRun:
    """A child run that there was no way to make: an edit of a file that the project does not have."""
    return BaselineRun(series, number, edit, {}, {}, {})


def answered_by_fastpath(series: str, number: int, edit: str, duration_ms: int) -> BaselineRun:
    """A child that the fast path answered: every stage was up to date before it began, which is 0 ms as in a run of
    doit's that it informed."""
    nothing = {stage.value: StageOutcome.UP_TO_DATE.value for stage in HOST_STAGES}
    phases = {**dict.fromkeys(nothing, 0), TOTAL: duration_ms}
    return BaselineRun(series, number, edit, phases, nothing, {"compiled": 0, "restored": 0, "linked": 0})


# --- rows -------------------------------------------------------------------------------------


def rows(run: BaselineRun, *, deploy: bool) -> list[BaselineRow]:
    """The lines of one run. `deploy`: were the device stages asked for? An edit is one line: from the saved file to the
    end of the run. The total is that of what was asked for."""
    total_s = _seconds(run.phases.get(TOTAL))
    status = f"fail:{run.failure[0]}" if run.failure else "not-run" if total_s is None else "ok"
    if run.edit:
        return [BaselineRow(run.run, "edit", run.edit, status, total_s)]
    found = [_stage_row(run, stage) for stage in (Stage if deploy else HOST_STAGES)]
    return [*found, BaselineRow(run.run, "deploy", "total", status, total_s)]


def _stage_row(run: BaselineRun, stage: Stage) -> BaselineRow:
    outcome = run.outcomes.get(stage.value, StageOutcome.NOT_RUN.value)
    status = "ok" if outcome == StageOutcome.RAN.value else outcome
    if outcome in (StageOutcome.FAILED.value, StageOutcome.INTERRUPTED.value):
        status = f"fail:{run.failure[0] if run.failure else outcome}"
    return BaselineRow(run.run, *STEPS[stage], status, _seconds(run.phases.get(stage.value)))


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def samples(found: Iterable[BaselineRow]) -> dict[tuple[str, str, str], list[float]]:
    """(series, category, step) -> its durations in seconds, in the order of the rows; only what counts."""
    sorted_out: dict[tuple[str, str, str], list[float]] = {}
    for row in found:
        if row.counts and row.duration_s is not None:
            sorted_out.setdefault(row.key, []).append(row.duration_s)
    return sorted_out


# --- the baseline as data ---------------------------------------------------------------------


def build(
    facts: Mapping[str, Any],
    runs: Sequence[BaselineRun],
    limits_ms: Mapping[str, int],
    earlier: Mapping[str, Any] | None = None,
    *,
    enforced: bool = False,
) -> dict[str, Any]:
    """The whole baseline. `facts` are what is known beside the measurements (id, mode, deploy, device, machine...);
    `earlier` is the baseline to compare with; `enforced`: warm runs over the total make this one a failure."""
    found = [row for run in runs for row in rows(run, deploy=facts["deploy"])]
    budget = {**_budget(runs, limits_ms), "enforced": enforced}
    failed = [_failed(run) for run in runs if run.failure]
    over = enforced and budget["series"] == "warm" and budget["total"]["verdict"] == Judged.OVER.value
    return {
        "schema": SCHEMA,
        "kind": "baseline",
        **facts,
        "notes": [*facts["notes"], *(_notes(runs) if facts["deploy"] else ())],
        "outcome": "failed" if failed else "over_budget" if over else "ok",
        "rows": [row._asdict() for row in found],
        "runs": [{"run": run.run, "edit": run.edit, **run.counts} for run in runs],
        "summary": [_summary(key, found) for key in dict.fromkeys(row.key for row in found)],
        "first_run": _first_run(runs),
        "budget": budget,
        "compared": compare(earlier, found) if earlier else None,
        "failures": failed,
    }


def _notes(runs: Sequence[BaselineRun]) -> list[str]:
    """What would make a figure mean something else than its name says."""
    edited = [run for run in runs if run.edit == "real" and not run.failure]
    unchanged = [run.run for run in edited if run.counts.get("bytes_written") == 0]
    return [f"the real edit did not change the image in {', '.join(unchanged)}"] if unchanged else []


def _failed(run: BaselineRun) -> dict[str, Any]:
    assert run.failure is not None
    category, stage, message = run.failure
    return {"run": run.run, "edit": run.edit, "category": category, "stage": stage, "message": message}


def _summary(key: tuple[str, str, str], found: Sequence[BaselineRow]) -> dict[str, Any]:
    mine = [row for row in found if row.key == key and row.run != "warm-1"]
    durations = samples(mine).get(key, [])
    told = summary(durations) if durations else None
    between = bootstrap(durations) if durations else None
    return {
        "series": key[0],
        "category": key[1],
        "step": key[2],
        "n": len(durations),
        "median_ms": _ms(told and told.median),
        "median_low_ms": _ms(between and between.low),
        "median_high_ms": _ms(between and between.high),
        "p90_ms": _ms(told and told.p90),
        "min_ms": _ms(told and told.minimum),
        "max_ms": _ms(told and told.maximum),
        "status": _statuses(mine),
    }


def _statuses(found: Sequence[BaselineRow]) -> dict[str, int]:
    names = [row.status for row in found]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _ms(seconds: float | None) -> float | None:
    """In ms with one decimal: medians and quantiles lie between measured values."""
    return None if seconds is None else round(seconds * 1000, 1)


def _first_run(runs: Sequence[BaselineRun]) -> list[dict[str, Any]]:
    """Run 1 of each series against its other runs. A warm series begins from nothing: if its run 1 cost no more than
    the others, they paid for a cold start again."""
    told = []
    for series in ("cold", "warm"):
        totals = [(run.number, run.phases.get(TOTAL)) for run in runs if run.series == series and not run.failure]
        first = next((ms for number, ms in totals if number == 1), None)
        rest = [ms for number, ms in totals if number > 1 and ms is not None]
        if first is not None and rest:
            told.append(
                {
                    "series": series,
                    "first_ms": first,
                    "rest_median_ms": round(median(rest), 1),
                    "ratio": _ratio(median(rest), first),
                    "cold_start_paid_again": first <= max(rest) if series == "warm" else None,
                }
            )
    return told


def _ratio(value: float, base: float) -> float | None:
    return round(value / base, 3) if base > 0 else None


def _budget(runs: Sequence[BaselineRun], limits_ms: Mapping[str, int]) -> dict[str, Any]:
    """The budget tree on the medians of the warm runs (of the cold ones, if there are no others): the budget is that of
    the warm loop."""
    good = [run for run in runs if not run.failure and not run.edit and run.run != "warm-1"]
    chosen = [run for run in good if run.series == "warm"] or good
    names = [*dict.fromkeys(["startup", "dispatch", *map(str, Stage), TOTAL])]
    medians: dict[str, int | None] = {}
    for name in names:
        known = [ms for run in chosen if (ms := run.phases.get(name)) is not None]
        medians[name] = round(median(known)) if known else None
    series = chosen[0].series if chosen else ""
    return {"series": series, **budget_dict(judge(limits_ms, medians))}


# --- before and after -------------------------------------------------------------------------

SAME = ("schema", "mode", "profile", "deploy", "board")


def comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Were the two measured on the same machine, in the same mode, with the same profile and device?"""
    if one.get("kind") != "baseline" or other.get("kind") != "baseline":
        return False
    try:
        same = all(one[name] == other[name] for name in SAME)
        return bool(same and one["machine"]["id"] == other["machine"]["id"] and one["device"] == other["device"])
    except (KeyError, TypeError):
        return False


def rows_of(baseline: Mapping[str, Any]) -> list[BaselineRow]:
    """The rows of a baseline that was read from its JSON. Raises KeyError, TypeError or ValueError when they are not of
    this shape."""
    return [BaselineRow(**row) for row in baseline["rows"]]


def compare(earlier: Mapping[str, Any], found: Sequence[BaselineRow]) -> dict[str, Any]:
    """Each step before and after, in the order of `found`; steps that only one of the two measured are left out."""
    before, after = samples(rows_of(earlier)), samples(found)
    table = []
    for key, durations in after.items():
        if key not in before:
            continue
        told = difference(before[key], durations, RESOLUTION_S)
        table.append(
            {
                "series": key[0],
                "category": key[1],
                "step": key[2],
                "before_ms": _ms(told.before.median),
                "after_ms": _ms(told.after.median),
                "n_before": told.before.n,
                "n_after": told.after.n,
                "ratio": None if told.ratio is None else round(told.ratio, 3),
                "ratio_low": None if told.interval is None else round(told.interval.low, 3),
                "ratio_high": None if told.interval is None else round(told.interval.high, 3),
                "p": round(told.p, 5),
                "outside_spread": told.outside,
            }
        )
    return {"id": earlier["id"], "git": earlier["git"], "rows": table}
