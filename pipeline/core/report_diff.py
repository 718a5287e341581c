"""Reports side by side: the list of them, and two of them compared.

Pure: dicts of `core/report_json.py` or `core/baseline.py` in, tables (titles, heads, cells) out. Does not know files or
how a table is drawn. Invariant: nothing is measured or judged here that a report does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.baseline import compare, rows_of
from pipeline.core.baseline_view import Table, compared_table, number, ratio

Report = Mapping[str, Any]
NONE = "-"


def is_baseline(report: Report) -> bool:
    """Is this the JSON of a baseline, not of a deploy?"""
    return bool(report.get("kind") == "baseline")


def list_table(reports: Sequence[Report]) -> Table:
    """One line per report."""
    head = ("id", "started", "device", "profile", "outcome", "total ms", "budget", "bottleneck")
    return head, [
        (
            str(report["id"] if is_baseline(report) else report["transaction_id"]),
            str(report["started_at"])[:19].replace("T", " "),
            str(report["device"]["name"]),
            str(report["profile"]),
            f"{report['mode']}: {report['outcome']}" if is_baseline(report) else str(report["outcome"] or NONE),
            number(report["budget"]["total"]["measured_ms"]),
            str(report["budget"]["total"]["verdict"] or NONE),
            str(report["budget"]["bottleneck"] or NONE),
        )
        for report in reports
    ]


def diff_tables(before: Report, after: Report) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """(title, head, rows) of each part in which two reports of one kind can differ."""
    if is_baseline(before):
        steps = compared_table(compare(before, rows_of(after)))
        return [("what differs", *_facts(before, after, _BASELINE_FACTS)), ("steps", *steps)]
    return [
        ("what differs", *_facts(before, after, _DEPLOY_FACTS)),
        ("durations", *_durations(before, after)),
        ("regions", *_regions(before, after)),
        ("changed inputs of the second", ("input",), [(name,) for name in after["changed_inputs"]]),
    ]


_DEPLOY_FACTS = (
    "outcome",
    "profile",
    "toolchain",
    "verify_level",
    "device.name",
    "device.mac",
    "device.port",
    "git.sha",
    "git.dirty",
    "totals.compiled",
    "totals.restored",
    "totals.linked",
    "totals.bytes_written",
    "readiness.status",
    "readiness.app_elf_sha256",
    "failure.category",
    "failure.message",
    "budget.bottleneck",
)
_BASELINE_FACTS = (
    "mode",
    "outcome",
    "runs_asked",
    "profile",
    "deploy",
    "board",
    "device.name",
    "device.port",
    "device.timing",
    "machine.id",
    "machine.system",
    "machine.cpu",
    "machine.python",
    "tools.hotplate",
    "tools.doit",
    "tools.esptool",
    "tools.toolchain",
    "git.sha",
    "git.dirty",
    "budget.bottleneck",
)


def _facts(before: Report, after: Report, names: Sequence[str]) -> Table:
    """The named facts that are not equal."""
    pairs = [(name, _look_up(before, name), _look_up(after, name)) for name in names]
    return ("fact", "before", "after"), [(name, old, new) for name, old, new in pairs if old != new]


def _look_up(report: Report, dotted: str) -> str:
    value: Any = report
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return NONE if value is None or value == "" else str(value)


def _durations(before: Report, after: Report) -> Table:
    old, new = _measured(before), _measured(after)
    rows = []
    for phase in dict.fromkeys([*old, *new]):
        first, second = old.get(phase), new.get(phase)
        both = first is not None and second is not None
        change = f"{second - first:+d}" if first is not None and second is not None else NONE
        quotient = second / first if both and first and second is not None else None
        rows.append((phase, number(first), number(second), change, ratio(quotient)))
    return ("phase", "before ms", "after ms", "change ms", "ratio"), rows


def _measured(report: Report) -> dict[str, int | None]:
    budget = report["budget"]
    return {row["phase"]: row["measured_ms"] for row in (*budget["phases"], budget["total"])}


def _regions(before: Report, after: Report) -> Table:
    """Regions whose image or treatment differ."""
    old = {row["name"]: row for row in before["regions"]}
    new = {row["name"]: row for row in after["regions"]}
    rows = []
    for name in dict.fromkeys([*old, *new]):
        first, second = _region(old.get(name)), _region(new.get(name))
        if first != second:
            rows.append((name, first, second))
    return ("region", "before", "after"), rows


def _region(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return NONE
    return f"{row['sha256'][:12]} {row['action']} {row['bytes_written']}"
