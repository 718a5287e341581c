"""Reports side by side: the list of them, and two of them compared.

Pure: dicts of `report/document.py` or `measure/baseline/rows.py` in, tables (titles, heads, cells) out. Does not know
files or how a table is drawn. Invariant: nothing is measured or judged here that a report does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.measure.baseline.rows import compare, rows_of
from pipeline.measure.baseline.view import Table, compared_table, number, ratio
from pipeline.report.size import SizeLimits, change, compared

Report = Mapping[str, Any]
NONE = "-"


DEPLOY, BASELINE, BENCH = "deploy", "baseline", "bench"


def kind_of(report: Report) -> str:
    """What the JSON is a report of; that of a deploy does not say so."""
    return str(report.get("kind", DEPLOY))


def list_table(reports: Sequence[Report]) -> Table:
    """One line per report."""
    head = ("id", "started", "device", "profile", "outcome", "total ms", "budget", "bottleneck")
    return head, [_list_row(report) for report in reports]


def _list_row(report: Report) -> tuple[str, ...]:
    kind, started = kind_of(report), str(report["started_at"])[:19].replace("T", " ")
    if kind == BENCH:
        suites = " ".join(suite["name"] for suite in report["suites"])
        return (str(report["id"]), started, NONE, NONE, f"{suites}: {report['outcome']}", NONE, NONE, NONE)
    return (
        str(report["id"] if kind == BASELINE else report["transaction_id"]),
        started,
        str(report["device"]["name"]),
        str(report["profile"]),
        f"{report['mode']}: {report['outcome']}" if kind == BASELINE else str(report["outcome"] or NONE),
        number(report["budget"]["total"]["measured_ms"]),
        str(report["budget"]["total"]["verdict"] or NONE),
        str(report["budget"]["bottleneck"] or NONE),
    )


def diff_tables(before: Report, after: Report) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """(title, head, rows) of each part in which two reports of one kind can differ."""
    kind = kind_of(before)
    if kind == BENCH:
        return [("what differs", *_facts(before, after, _BENCH_FACTS)), ("cases", *_cases(before, after))]
    if kind == BASELINE:
        steps = compared_table(compare(before, rows_of(after)))
        return [("what differs", *_facts(before, after, _BASELINE_FACTS)), ("steps", *steps)]
    return [
        ("what differs", *_facts(before, after, _DEPLOY_FACTS)),
        ("durations", *_durations(before, after)),
        ("regions", *_regions(before, after)),
        ("size", *_sizes(before, after)),
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

_BENCH_FACTS = (
    "command",
    "outcome",
    "machine.id",
    "machine.system",
    "machine.cpu",
    "machine.python",
    "load.before",
    "load.after",
    "tools.hotplate",
    "tools.doit",
    "tools.esptool",
    "tools.toolchain",
    "tools.ninja",
    "tools.ccache",
    "git.sha",
    "git.dirty",
)


def _cases(before: Report, after: Report) -> Table:
    """Ours in both, and the ratio to the peer in both, which a busy machine moves less."""
    old, new = _bench_rows(before), _bench_rows(after)
    rows = []
    for name in [name for name in new if name in old]:
        (suite, case, _), first, second = name, old[name], new[name]
        times = ratio(second["ours"] / first["ours"]) if first["ours"] else NONE
        values = (number(first["ours"]), number(second["ours"]), second["unit"], times)
        rows.append((suite, case, *values, ratio(first["ratio"]), ratio(second["ratio"])))
    return ("suite", "case", "before", "after", "unit", "ratio", "to peer before", "after"), rows


def _bench_rows(report: Report) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    return {(row["suite"], row["case"], row["peer"]): row for suite in report["suites"] for row in suite["rows"]}


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


def _sizes(before: Report, after: Report) -> Table:
    """The totals that are not equal, where both reports have them."""
    old, new = before.get("size"), after.get("size")
    if not old or not new:
        return (), []
    rows = compared(new, old, SizeLimits())["totals"]
    cells = [(row["name"], str(row["before"]), str(row["size"]), change(row["size"], row["before"])) for row in rows]
    return ("memory", "before", "after", "change"), [row for row in cells if row[1] != row[2]]


def _region(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return NONE
    return f"{row['sha256'][:12]} {row['action']} {row['bytes_written']}"
