"""What the loop writes down: a run's facts from its report, the row of RESULTS.csv, and the lines of RESULTS.jsonl.

Pure. Does not know files, or what the facts mean to the loop. Invariants: the CSV's columns are exactly `CSV_HEADER`,
so that other tools' files can be joined with it; everything else goes to the JSONL; a record equals itself after a
round trip, and a line that is damaged or of another version costs that line only.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.measure.loop.judgement import LOOP_SCHEMA, Finding, Iteration, LoopRun, Rule, Test
from pipeline.model import FailureCategory, RegionAction, Stage

CSV_HEADER = "timestamp,test,total_ms,build_ms,verify_outcome,deploy_ms,reconnect_ms,ttfb_ms,sha,notes"

NOT_OURS = frozenset(
    {
        FailureCategory.LOCK_TIMEOUT,
        FailureCategory.PORT_MISSING,
        FailureCategory.PORT_BUSY,
        FailureCategory.PORT_PERMISSION,
        FailureCategory.PORT_AMBIGUOUS,
        FailureCategory.WRONG_DEVICE,
        FailureCategory.INTERRUPTED,
    }
)
"""A run that failed so says nothing about the loop: somebody or something was in the way."""


# --- one run ----------------------------------------------------------------------------------


def measure(test: Test, wall_ms: int, report: Mapping[str, Any] | None) -> LoopRun:
    """The facts of a run. `report` is its report, or what its event log says of a run without a device; `None` when
    `doit` answered from the fast path's state alone, which is only ever "up to date"."""
    if report is None:
        return LoopRun(test, wall_ms, {"startup": wall_ms, "remainder": 0}, compiled=0, restored=0, linked=0)
    totals, failure = report["totals"], report["failure"]
    phases = {row["phase"]: row["measured_ms"] for row in report["budget"]["phases"] if row["measured_ms"] is not None}
    phases |= {row["stage"]: row["duration_ms"] for row in report["stages"] if row["duration_ms"] is not None}
    known_ms = report["budget"]["total"]["measured_ms"]
    # In-process boards model their waits instead of sleeping, so that the run can be longer than the wall clock says.
    total_ms = max(wall_ms, known_ms)
    return LoopRun(
        test,
        total_ms,
        {**phases, "remainder": total_ms - sum(phases.values())},
        outcome=report["outcome"] or "",
        compiled=totals["compiled"],
        restored=totals["restored"],
        linked=totals["linked"],
        bytes_written=totals["bytes_written"],
        regions={row["name"]: row["action"] for row in report["regions"]},
        moved=tuple(_reason(row) for row in report["reasons"]),
        ttfb_ms=report["ttfb"]["total_ms"],
        segments={name: ms for name, ms in report["ttfb"]["segments"].items() if ms is not None},
        attempts=report["plan"]["reattach_attempts"],
        failure=failure["category"] if failure else "",
        tx=report["transaction_id"],
    )


def _reason(row: Mapping[str, str]) -> str:
    moved = f": {row['before']} -> {row['after']}" if row["before"] or row["after"] else ""
    return f"{row['kind']} {row['subject']}{moved}"


def held_after(report: Mapping[str, Any]) -> dict[str, str]:
    """Region -> MD5 of what the device holds there after this run, as far as it is known."""
    return {
        row["name"]: row["device_md5_before"] if row["action"] == RegionAction.KEPT else row["md5"]
        for row in report["regions"]
    }


def broken_precondition(
    primed: Mapping[str, Any] | None, report: Mapping[str, Any] | None, moved: Sequence[str]
) -> str:
    """Why a run does not count, `""` when it does. `primed`: the report of the deploy before it, `None` when that did
    not succeed; `moved`: files of the project that changed meanwhile, other than by the loop's own edit."""
    if primed is None:
        return "not_primed"
    if moved:
        return f"sources_changed:{moved[0]}"
    if report is None:
        return ""
    failure = report["failure"]
    if failure and failure["category"] in NOT_OURS:
        return str(failure["category"])
    if report["toolchain"] != primed["toolchain"]:
        return "toolchain_changed"
    mac, before = report["device"]["mac"], primed["device"]["mac"]
    if mac and before and mac != before:
        return f"other_device:{mac}"
    held = held_after(primed)
    for row in report["regions"]:
        seen, left = row["device_md5_before"], held.get(row["name"], "")
        if seen and left and seen != left:
            return f"device_changed:{row['name']}"
    ran = {row["stage"]: row["outcome"] for row in report["stages"]}
    if not failure and "deploy" in report["targets"] and ran.get(Stage.REATTACH) == "not-run":
        return "no_reattach"
    return ""


def csv_row(run: LoopRun, timestamp: str, sha: str, notes: Sequence[str] = ()) -> str:
    """One line of RESULTS.csv with its end. What was not measured is an empty field."""
    told = [f"precondition:{run.precondition}"] if run.precondition else []
    told += [f"failed:{run.failure}"] if run.failure else []
    fields: list[Any] = [timestamp, run.test.value, run.total_ms, run.build_ms, run.outcome, run.deploy_ms]
    fields += [run.reconnect_ms, run.ttfb_ms, sha, "; ".join([*told, *notes])]
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow("" if field is None else field for field in fields)
    return line.getvalue()


# --- the JSONL --------------------------------------------------------------------------------


class LoopOrigin(NamedTuple):
    """What must be equal for two iterations to be compared: whose figures they are."""

    machine: str
    device: str
    profile: str


def encode_iteration(place: LoopOrigin, iteration: Iteration, ended: Rule | None, facts: Mapping[str, Any]) -> str:
    """One line. `ended`: the rule with which the loop ended here; `facts`: for people and other tools."""
    record = {
        "schema": LOOP_SCHEMA,
        "kind": "iteration",
        **place._asdict(),
        "number": iteration.number,
        "green": iteration.green,
        "ended": int(ended) if ended else None,
        "findings": [finding._asdict() for finding in iteration.findings],
        "unscored": list(iteration.unscored),
        "measured": {test: _plain(run) for test, run in iteration.measured.items()},
        **facts,
    }
    return json.dumps(record, separators=(",", ":")) + "\n"


def encode_run(place: LoopOrigin, number: int, run: LoopRun, facts: Mapping[str, Any]) -> str:
    """One line for one run of a test."""
    record = {"schema": LOOP_SCHEMA, "kind": "run", **place._asdict(), "iteration": number, **_plain(run), **facts}
    return json.dumps(record, separators=(",", ":")) + "\n"


def _plain(run: LoopRun) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in run._asdict().items()}


class LoopHistory(NamedTuple):
    """`open`: the iterations since the loop last ended, `reference`: those of the last loop that ended green; `last`:
    the number of the last iteration of all."""

    open: tuple[Iteration, ...] = ()
    reference: tuple[Iteration, ...] = ()
    last: int = 0


def read_history(lines: Iterable[str], place: LoopOrigin) -> LoopHistory:
    """What the JSONL says about `place`. Lines of other places, of other versions and damaged ones are passed over."""
    open_: list[Iteration] = []
    reference: tuple[Iteration, ...] = ()
    last = 0
    for line in lines:
        try:
            record = json.loads(line)
            if record["schema"] != LOOP_SCHEMA or record["kind"] != "iteration":
                continue
            here = LoopOrigin(record["machine"], record["device"], record["profile"])
            iteration, ended = _iteration(record), record["ended"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        last = max(last, iteration.number)
        if here != place:
            continue
        open_.append(iteration)
        if ended == Rule.GREEN:
            reference = tuple(open_)
        if ended in (Rule.GREEN, Rule.NO_PROGRESS):
            open_ = []
    return LoopHistory(tuple(open_), reference, last)


def _iteration(record: Mapping[str, Any]) -> Iteration:
    return Iteration(
        record["number"],
        tuple(Finding(**{**row, "rule": Rule(row["rule"])}) for row in record["findings"]),
        tuple(record["unscored"]),
        {test: _measured(row) for test, row in record["measured"].items()},
    )


def _measured(row: Mapping[str, Any]) -> LoopRun:
    return LoopRun(**{**row, "test": Test(row["test"]), "moved": tuple(row["moved"]), "rebuilt": tuple(row["rebuilt"])})
