"""A run as Markdown for a page that CI shows beside its log (GitHub's step summary).

Pure: reports in, text out. Does not know CI. Invariant: values cannot change the structure of the page (see
`report/markdown.py`), and the text stays far below the page's limit of 1 MiB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.markdown import NOTHING, code, markdown_table, quoted_block

DETAIL_LINES = 60


def render_summary(reports: Sequence[Mapping[str, Any]]) -> str:
    """One section per report of a run, failed ones first."""
    ordered = sorted(reports, key=lambda report: report["failure"] is None)
    return "\n".join(line for report in ordered for line in _section(report))


def _section(report: Mapping[str, Any]) -> list[str]:
    total, totals = report["budget"]["total"], report["totals"]
    limit = "" if total["limit_ms"] is None else f" of {total['limit_ms']}"
    lines = [
        f"## Deploy {code(report['device']['name'] or 'host')}: {report['outcome'] or 'done'}",
        "",
        f"{total['measured_ms']}{limit} ms, transaction {code(report['transaction_id'])}, "
        + ", ".join(f"{key} {NOTHING if totals[key] is None else totals[key]}" for key in _COUNTED),
        "",
        "| stage | outcome | ms | budget | margin |",
        "|---|---|--:|--:|--:|",
    ]
    for row in report["stages"]:
        cells = (row["stage"], row["outcome"], row["duration_ms"], row["budget_ms"], row["margin_ms"])
        lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    lines.append("")
    if report.get("size"):
        from pipeline.report.size import totals_table

        lines += [markdown_table(*totals_table(report["size"])), ""]
    failure = report["failure"]
    if failure:
        where = f"{failure['where']}: " if failure["where"] else ""
        lines += [f"**{failure['category']}** {code(where + failure['message'])}", "", f"Hint: {code(failure['hint'])}"]
        detail = failure["detail"].rstrip("\n").split("\n") if failure["detail"] else []
        if detail:
            lines += ["", quoted_block("\n".join(line[:1000] for line in detail[-DETAIL_LINES:]))]
        lines.append("")
    return lines


_COUNTED = ("compiled", "restored", "linked", "bytes_written")
