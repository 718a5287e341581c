"""What a run with several boards shows at its end: a line for each, and how many ended how.

Pure: reports in, lines out. Does not know streams. Invariant: every report has its line, in the order in which they are
given, and nothing that a device or a file name says steers the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.text import visible

if TYPE_CHECKING:
    from pipeline.report.terminal import TerminalLook

_HEAD = ("device", "chip", "outcome", "verify", "write", "ttfb", "waited", "total")
_TIMED = ("verify-flash", "reflash", "ttfb")


def fleet_table(reports: Sequence[Mapping[str, Any]], look: TerminalLook) -> list[str]:
    """Times in ms: of the board's stages, for which it waited, and the deploy without that wait."""
    lines = [look.paint(_row(_HEAD), "bold")]
    for report in reports:
        times = {row["stage"]: row["duration_ms"] for row in report["stages"]}
        waited, total = report["totals"]["waiting_ms"], report["budget"]["total"]["measured_ms"]
        cells = (report["device"]["name"], report["device"]["chip"], _outcome(report))
        lines.append(look.paint(_row((*cells, *(times[stage] for stage in _TIMED), waited, total)), _colour(report)))
        if report["rollback"] is not None:
            lines.append(look.paint(f"  {visible(report['rollback']['message'])}"[: look.columns], "yellow"))
    bad = Counter(_outcome(report) for report in reports if report["failure"] is not None)
    told = "".join(f", {count} {name}" for name, count in sorted(bad.items()))
    lines.append(f"{len(reports)} devices: {len(reports) - bad.total()} ok{told}")
    return lines


def _outcome(report: Mapping[str, Any]) -> str:
    """The outcome, or what failed."""
    failure = report["failure"]
    return str(failure["category"] if failure is not None else report["outcome"] or "-")


def _colour(report: Mapping[str, Any]) -> str:
    if report["failure"] is None:
        return ""
    return "yellow" if report["failure"]["category"] == "interrupted" else "red"


def _row(cells: Sequence[Any]) -> str:
    texts = ["" if cell is None else visible(str(cell)) for cell in cells]
    name, chip, outcome, *times = texts
    return f"{name:<14} {chip:<8} {outcome:<19}{''.join(f' {text:>6}' for text in times)}".rstrip()
