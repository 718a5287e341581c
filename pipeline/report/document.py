"""A run's events, made into the report as data: the JSON that is written beside the Markdown.

Pure: events in, one dict of JSON types out. Does not know files, the clock or the Markdown.
Invariant: any prefix of a run's events gives a complete report; what was not measured is `null`, never 0; and
`sum(stage durations) + waiting_ms + remainder_ms == duration_ms` exactly, as do the segments of the TTFB.

Rounding: each duration in seconds is rounded to whole microseconds, then *down* to whole ms; marks are ms after the
release of reset by the same rule, and segments are differences of such marks. So what the rows cannot hold is in the
remainder. The remainder is negative only when stages overlap in time.

`null` stands where something is unknown; `done` of a region is false when it was planned and its end never seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from cache.named_tuple import NamedTuple
from pipeline.events import (
    DeviceSeen,
    FingerprintRow,
    Fingerprints,
    Payload,
    PhasePart,
    PlanMade,
    Readiness,
    RegionDone,
    RolledBack,
    RunFinished,
    RunStarted,
    Sized,
    StageStarted,
    Waited,
    killed,
    payload,
)
from pipeline.model import (
    REPORT_SCHEMA,
    DeployOutcome,
    Event,
    Failure,
    FailureCategory,
    Mark,
    MarkName,
    Reason,
    RegionAction,
    Stage,
    StageOutcome,
    StageResult,
)
from pipeline.report.budget import TOTAL, BudgetReport, PhaseBudget, budget_dict, judge

TTFB_SCHEMA = 1
"""Version of `SEGMENTS`: rows of different versions must not be compared."""

SEGMENTS: tuple[tuple[str, MarkName, MarkName], ...] = (
    ("reset_to_port_ms", MarkName.RESET_RELEASED, MarkName.PORT_OPEN),
    ("port_to_first_byte_ms", MarkName.PORT_OPEN, MarkName.FIRST_BYTE),
    ("first_byte_to_rom_ms", MarkName.FIRST_BYTE, MarkName.ROM_BANNER),
    ("rom_to_app_ms", MarkName.ROM_BANNER, MarkName.APP_START),
    ("app_to_jsonrpc_ms", MarkName.APP_START, MarkName.FIRST_JSONRPC),
)
"""The parts of a TTFB. A segment whose mark is missing, or that would be negative, is `null`, and its time is in the
remainder."""

SKIP_REASONS = {"md5": "digest_already_deployed", "app-report": "app_confirmed", "journal": "journal_trusted"}
"""Why nothing was written, by the verify level that proved it."""


def whole_ms(seconds: float) -> int:
    """The rounding rule: to microseconds, then down to ms."""
    return round(seconds * 1_000_000) // 1000


class _Run(NamedTuple):
    """The events of one run, sorted by what they say. Of what can come again, the last counts; of failures the first,
    since later ones are consequences."""

    started: RunStarted | None
    started_at: str
    total_s: float
    device: DeviceSeen | None
    began_s: Mapping[Stage, float]
    stages: Mapping[Stage, StageResult]
    fingerprints: Mapping[str, FingerprintRow]
    changed: tuple[str, ...]
    plan: PlanMade | None
    done: Mapping[str, RegionDone]
    marks: Mapping[MarkName, Mark]
    readiness: Readiness | None
    parts: tuple[tuple[PhasePart, Stage | None], ...]
    """With the stage that was under way."""
    failure: Failure | None
    waited_s: float
    rolled_back: RolledBack | None
    sized: Sized | None
    unknown: int
    """Failures that the failure map does not know: each is a defect of ours."""
    outcome: DeployOutcome | None


def build_report(events: Sequence[Event]) -> dict[str, Any]:
    """The report of one run log. A log without an end is that of a killed run, and the report says so."""
    run = _sort([*events, *killed(events)])
    durations = _durations_ms(run)
    budget = _judge(run, durations)
    started, device = run.started, run.device
    return {
        "schema": REPORT_SCHEMA,
        "transaction_id": started.tx if started else "",
        "run": started.run if started else "",
        "started_at": run.started_at,
        "outcome": run.outcome.value if run.outcome else None,
        "report_path": started.report_path if started else "",
        "targets": list(started.targets) if started else [],
        "device": {
            "name": device.name if device else started.device if started else "",
            "mac": device.mac if device else "",
            "chip": device.chip if device else "",
            "port": device.port if device else started.port if started else "",
        },
        "profile": started.profile if started else "",
        "toolchain": started.toolchain if started else "",
        **_given_build(started.given_build if started else ""),
        "verify_level": started.verify_level if started else "",
        "git": {"sha": started.git_sha if started else "", "dirty": started.git_dirty if started else False},
        "plan": _plan(run),
        "reasons": [_reason(reason) for reason in _reasons(run)],
        "stages": [_stage_row(run, row) for row in budget.phases if row.phase in set(Stage)],
        "fingerprints": [row._asdict() for row in run.fingerprints.values()],
        "changed_inputs": list(run.changed),
        "regions": _regions(run),
        "marks": _marks_ms(run),
        "size": None if run.sized is None else dict(run.sized.size),
        "readiness": _readiness(run),
        "ttfb": _ttfb(run),
        "failure": run.failure and failure_json(run.failure),
        "rollback": _rollback(run.rolled_back),
        "budget": {
            **budget_dict(budget),
            "enforced": bool(started and started.budget_enforced),
            "parts": [
                {"phase": part.phase, "part": part.name, "measured_ms": whole_ms(part.duration_s)}
                for part, _ in run.parts
            ],
        },
        "totals": _totals(run, durations),
    }


# --- reading the events -----------------------------------------------------------------------


def _sort(events: Sequence[Event]) -> _Run:
    said = [(event, payload(event)) for event in events]
    items = [item for _, item in said]
    results = {item.stage: item for item in items if isinstance(item, StageResult)}
    ends = _last(items, RunFinished)
    failures = [item for item in items if isinstance(item, Failure)]
    failures += [result.failure for result in results.values() if result.failure is not None]
    prints = [item for item in items if isinstance(item, Fingerprints)]
    return _Run(
        started=_last(items, RunStarted),
        started_at=events[0].at,
        total_s=max(event.since_s for event in events),
        device=_last(items, DeviceSeen),
        began_s={item.stage: event.since_s for event, item in said if isinstance(item, StageStarted)},
        stages=results,
        fingerprints={row.name: row for item in prints for row in item.rows},
        changed=tuple(dict.fromkeys(name for item in prints for name in item.changed)),
        plan=_last(items, PlanMade),
        done={item.name: item for item in items if isinstance(item, RegionDone)},
        marks={item.name: item for item in items if isinstance(item, Mark)},
        readiness=_last(items, Readiness),
        parts=_parts(items),
        failure=failures[0] if failures else None,
        waited_s=waited.seconds if (waited := _last(items, Waited)) else 0.0,
        rolled_back=_last(items, RolledBack),
        sized=_last(items, Sized),
        unknown=len({f for f in failures if f.category is FailureCategory.UNKNOWN}),
        outcome=ends.outcome if ends else None,
    )


P = TypeVar("P")


def _last(items: Iterable[Payload], kind: type[P]) -> P | None:
    found = None
    for item in items:
        if isinstance(item, kind):
            found = item
    return found


# --- stages, budget, totals -------------------------------------------------------------------


def _outcome(run: _Run, stage: Stage) -> StageOutcome:
    if stage in run.stages:
        return run.stages[stage].outcome
    return StageOutcome.INTERRUPTED if stage in run.began_s else StageOutcome.NOT_RUN


def _duration_ms(run: _Run, stage: Stage) -> int | None:
    """Measured; for a stage that was cut off, up to the last event if nobody measured; `None`: it did not run."""
    outcome, result = _outcome(run, stage), run.stages.get(stage)
    if outcome is StageOutcome.NOT_RUN:
        return None
    if result is not None and (result.duration_s > 0 or stage not in run.began_s):
        return whole_ms(result.duration_s)
    return whole_ms(run.total_s - run.began_s[stage]) if outcome is StageOutcome.INTERRUPTED else 0


def _parts(items: Sequence[Payload]) -> tuple[tuple[PhasePart, Stage | None], ...]:
    under_way: Stage | None = None
    found = []
    for item in items:
        if isinstance(item, StageStarted):
            under_way = item.stage
        elif isinstance(item, StageResult):
            under_way = None
        elif isinstance(item, PhasePart):
            found.append((item, under_way))
    return tuple(found)


def _durations_ms(run: _Run) -> dict[Stage, int | None]:
    """By stage. A part that belongs to another phase is that one's, and not the stage's that was under way."""
    durations = {stage: _duration_ms(run, stage) for stage in Stage}
    for part, under_way in run.parts:
        if under_way is not None and under_way.value == part.phase:
            continue
        for stage, sign in ((under_way, -1), (next((s for s in Stage if s.value == part.phase), None), 1)):
            if stage is not None and (before := durations[stage]) is not None:
                durations[stage] = max(0, before + sign * whole_ms(part.duration_s))
    return durations


def _in_phase_ms(run: _Run, phase: str) -> int:
    return sum(whole_ms(part.duration_s) for part, _ in run.parts if part.phase == phase)


def _stage_row(run: _Run, row: PhaseBudget) -> dict[str, Any]:
    stage = Stage(row.phase)
    result = run.stages.get(stage)
    return {
        "stage": stage.value,
        "outcome": _outcome(run, stage).value,
        "reasons": [_reason(reason) for reason in result.reasons] if result else [],
        "duration_ms": row.measured_ms,
        "budget_ms": row.limit_ms,
        "margin_ms": row.margin_ms,
        "counts": dict(result.counts) if result else {},
    }


def _judge(run: _Run, durations: Mapping[Stage, int | None]) -> BudgetReport:
    started = run.started
    before: dict[str, int | None] = {
        "startup": started.startup_ms if started else None,
        "dispatch": started.dispatch_ms if started else None,
    }
    measured = {
        **{name: None if ms is None else ms + _in_phase_ms(run, name) for name, ms in before.items()},
        **{stage.value: duration for stage, duration in durations.items()},
        # what the user waited for: `totals.duration_ms` begins only when the log does. What other boards took in the
        # meantime is not this one's to answer for.
        TOTAL: whole_ms(run.total_s) - whole_ms(run.waited_s) + sum(ms or 0 for ms in before.values()),
    }
    return judge(started.budget_ms if started else {}, measured)


def _totals(run: _Run, durations: Mapping[Stage, int | None]) -> dict[str, Any]:
    total = whole_ms(run.total_s)
    return {
        "duration_ms": total,
        "waiting_ms": whole_ms(run.waited_s),
        "remainder_ms": total - whole_ms(run.waited_s) - sum(ms for ms in durations.values() if ms is not None),
        "compiled": _count(run, "compiled"),
        "restored": _count(run, "restored"),
        "linked": _count(run, "linked"),
        "bytes_written": _bytes_written(run),
        "unknown_failures": run.unknown,
    }


def _count(run: _Run, key: str) -> int | None:
    counted = [result.counts[key] for result in run.stages.values() if key in result.counts]
    return sum(counted) if counted else None


def _bytes_written(run: _Run) -> int:
    """What reflash counted; if its end was never seen, what the finished regions took: at least that much."""
    counted = _count(run, "bytes_written")
    return sum(done.bytes_written for done in run.done.values()) if counted is None else counted


# --- plan and regions -------------------------------------------------------------------------


def _reason(reason: Reason) -> dict[str, str]:
    return {"kind": reason.kind, "subject": reason.subject, "before": reason.before, "after": reason.after}


def _reasons(run: _Run) -> tuple[Reason, ...]:
    """Every reason once: why everything is written first, then what moved, in the order of the stages."""
    of_stages = [reason for stage in Stage if stage in run.stages for reason in run.stages[stage].reasons]
    return tuple(dict.fromkeys([*(run.plan.reasons if run.plan else ()), *of_stages]))


def _given_build(text: str) -> dict[str, str]:
    """`build_skipped` with the proof, or `build_ran` with the reason, of a firmware that has a build of its own."""
    how, _, why = text.partition(": ")
    return {"build_skipped" if how == "skipped" else "build_ran": why} if text else {}


def _plan(run: _Run) -> dict[str, Any]:
    """What this run meant to do; `null` where it did not come so far as to know."""
    compiled, linked, plan, started = _count(run, "compiled"), _count(run, "linked"), run.plan, run.started
    writes = None if plan is None else [row.name for row in plan.regions if row.action is not RegionAction.KEPT]
    reattach = run.stages.get(Stage.REATTACH)
    failed = reattach.failure if reattach else None
    return {
        "build_app": None if compiled is None else compiled > 0,
        "link": None if linked is None else linked > 0,
        "verified_by": plan.verified_by if plan else None,
        "reflash_regions": writes,
        "reflash_skipped": None if writes is None else not writes,
        "reflash_skip_reason": SKIP_REASONS.get(plan.verified_by, plan.verified_by) if plan and not writes else "",
        "requires_full_flash": plan.full if plan else None,
        "full_flash_reason": "; ".join(map(str, plan.reasons)) if plan and plan.full else "",
        "readiness_until": started.readiness_until if started else "",
        "readiness_timeout_ms": started.readiness_timeout_ms if started else None,
        "reattach_mode": "reset" if MarkName.RESET_RELEASED in run.marks else "none" if reattach else None,
        "reattach_performed": bool(reattach and reattach.ok),
        "reattach_attempts": reattach.counts.get("attempts") if reattach else None,
        "reattach_failure_reason": failed.category.value if failed else "",
    }


def _regions(run: _Run) -> list[dict[str, Any]]:
    rows = []
    for row in run.plan.regions if run.plan else ():
        done = run.done.get(row.name)
        kept = row.action is RegionAction.KEPT
        # A write that was cut off may have written any part of its region: that is not known, and not 0.
        cut_off = _outcome(run, Stage.REFLASH) in (StageOutcome.FAILED, StageOutcome.INTERRUPTED)
        unfinished = None if cut_off and not kept else 0
        rows.append(
            {
                "name": row.name,
                "offset": row.offset,
                "size": row.size,
                "sha256": row.sha256,
                "md5": row.md5,
                "device_md5_before": row.device_md5_before,
                "action": (done or row).action.value,
                "bytes_written": done.bytes_written if done else unfinished,
                "done": done is not None or kept,
            }
        )
    return rows


def _readiness(run: _Run) -> dict[str, Any]:
    readiness, origin = run.readiness or Readiness("pending"), _origin_s(run)[1]
    ready_at_s = readiness.ready_at_s
    return {
        "status": readiness.status,
        "failure_reason": readiness.reason,
        "app_elf_sha256": readiness.app_elf_sha256,
        "until": run.started.readiness_until if run.started else "",
        "ready_ms": None if ready_at_s is None or origin is None else whole_ms(ready_at_s - origin),
        "polls": readiness.polls,
        "modules": [dict(module) for module in readiness.modules],
        "note": readiness.note,
    }


def _rollback(said: RolledBack | None) -> dict[str, Any] | None:
    """What became of the images before, where a board did not become ready and they were to be put back."""
    if said is None:
        return None
    return {"transaction_id": said.tx, "outcome": said.outcome and said.outcome.value, "message": said.message}


def failure_json(failure: Failure) -> dict[str, Any]:
    """A failure as reports and programs see it."""
    return {
        "category": failure.category.value,
        "stage": failure.stage.value if failure.stage else None,
        "retryable": failure.retryable,
        "user_action": failure.user_action,
        "where": failure.where,
        "message": failure.message,
        "hint": failure.hint,
        "detail": failure.detail,
    }


# --- marks and TTFB ---------------------------------------------------------------------------


def _origin_s(run: _Run) -> tuple[str | None, float | None]:
    """What the TTFB counts from, and its link time."""
    if MarkName.RESET_RELEASED in run.marks:
        return "reset_released", run.marks[MarkName.RESET_RELEASED].at_s
    if run.readiness is not None and run.readiness.requested_at_s is not None:
        return "request_sent", run.readiness.requested_at_s
    return None, None


def _marks_ms(run: _Run) -> dict[str, int]:
    """Each mark that was seen, in ms after the origin (a port that stayed open has a negative one)."""
    origin = _origin_s(run)[1]
    if origin is None:
        return {}
    return {name.value: whole_ms(run.marks[name].at_s - origin) for name in MarkName if name in run.marks}


def _ttfb(run: _Run) -> dict[str, Any]:
    marks = _marks_ms(run)
    # A port that was open before the reset costs no time after it.
    at = {name: max(0, ms) if name == MarkName.PORT_OPEN else ms for name, ms in marks.items()}
    segments: dict[str, int | None] = {}
    missing = _unavailable(run)
    for name, first, last in SEGMENTS:
        length = at[last] - at[first] if first in at and last in at else None
        if length is not None and length < 0:
            missing.setdefault(last.value, f"it stands before {first.value}, so that nothing can be said")
            length = None
        segments[name] = length
    known = {name: ms for name, ms in segments.items() if ms is not None}
    total = at.get(MarkName.FIRST_JSONRPC)
    total = total if total is not None and total >= 0 else None
    complete = total is not None and len(known) == len(SEGMENTS)
    return {
        "schema": TTFB_SCHEMA,
        "status": "complete" if complete else "partial" if marks else "unavailable",
        "from": _origin_s(run)[0],
        "total_ms": total,
        "segments": segments,
        "remainder_ms": None if total is None else total - sum(known.values()),
        "bottleneck": max(known, key=lambda name: known[name], default=""),
        "last_observed_mark": list(marks)[-1] if marks else "",
        "timing_unavailable_reason": missing,
        "notes": {mark.name.value: mark.note for mark in run.marks.values() if mark.note},
    }


def _unavailable(run: _Run) -> dict[str, str]:
    """For each mark that the segments need and that is missing: why."""
    told = run.readiness.unavailable if run.readiness else {}
    needed = dict.fromkeys(mark for _, first, last in SEGMENTS for mark in (first, last))
    outcome = _outcome(run, Stage.TTFB)
    if run.failure is not None:
        default = f"not seen before the run ended ({run.failure.category})"
    elif outcome is StageOutcome.NOT_RUN:
        default = "stage ttfb did not run"
    else:
        default = "the device did not send what marks it"
    reasons = {MarkName.PORT_OPEN: "this transport does not report it"} if outcome is StageOutcome.RAN else {}
    if _origin_s(run)[0] == "request_sent":
        default = "the device was not reset"
    return {mark.value: told.get(mark, reasons.get(mark, default)) for mark in needed if mark not in run.marks}
