"""A baseline as text: CSV, Markdown, and what the terminal shows. Comparisons of two deploys or two baselines too.

Pure: the dict of `measure/baseline/rows.py` in, text out. Does not know files or how anything was measured.
Invariant: all renderings show the same numbers; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.measure.baseline.rows import BaselineRow, rows_of
from pipeline.measure.page import NOTHING, text_table
from pipeline.report.markdown import BUDGET_HEAD, Bullets, budget_rows, budget_section, code, markdown_table, section
from pipeline.text import visible

CSV_HEADER = "run,category,step,status,duration_s"

_SPREAD = {True: "yes", False: "no", None: "too few runs"}


def render_csv(baseline: Mapping[str, Any]) -> str:
    """One line per run and step; seconds with three decimals, empty where nothing was measured. No value holds a comma
    or a quote: all are words of this program."""
    return "\n".join([CSV_HEADER, *map(_csv_line, rows_of(baseline))]) + "\n"


def _csv_line(row: BaselineRow) -> str:
    duration = "" if row.duration_s is None else f"{row.duration_s:.3f}"
    return f"{row.run},{row.category},{row.step},{row.status},{duration}"


# --- tables -----------------------------------------------------------------------------------

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def steps_table(baseline: Mapping[str, Any]) -> Table:
    """Median and spread of each step."""
    head = ("runs", "step", "median ms", "p90 ms", "min ms", "max ms", "n", "status")
    keys = ("median_ms", "p90_ms", "min_ms", "max_ms")
    return head, [
        (row["series"], _step(row), *(number(row[key]) for key in keys), str(row["n"]), _status(row["status"]))
        for row in baseline["summary"]
    ]


def _status(statuses: Mapping[str, int]) -> str:
    return ", ".join(status if len(statuses) == 1 else f"{count} {status}" for status, count in statuses.items())


def compared_table(compared: Mapping[str, Any]) -> Table:
    """Before and after of each step."""
    head = ("runs", "step", "before ms", "after ms", "ratio", "95 % of ratio", "n", "outside spread")
    return head, [
        (
            row["series"],
            _step(row),
            number(row["before_ms"]),
            number(row["after_ms"]),
            ratio(row["ratio"]),
            "-" if row["ratio_low"] is None else f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}",
            f"{row['n_before']} / {row['n_after']}",
            _SPREAD[row["outside_spread"]],
        )
        for row in compared["rows"]
    ]


def first_run_table(baseline: Mapping[str, Any]) -> Table:
    """Run 1 against the others."""
    head = ("runs", "run 1 ms", "median of runs 2+ ms", "ratio", "what it says")
    return head, [
        (row["series"], number(row["first_ms"]), number(row["rest_median_ms"]), ratio(row["ratio"]), _verdict(row))
        for row in baseline["first_run"]
    ]


def _verdict(row: Mapping[str, Any]) -> str:
    if row["cold_start_paid_again"] is None:
        return "each run begins from nothing: equal is right"
    if row["cold_start_paid_again"]:
        return "run 1 cost no more than others: A COLD START WAS PAID AGAIN"
    return "runs 2+ are cheaper: no cold start was paid again"


def _step(row: Mapping[str, Any]) -> str:
    return f"{row['category']}/{row['step']}"


def number(value: float | None) -> str:
    """Milliseconds; whole ones without a decimal point."""
    return NOTHING if value is None else f"{value:.1f}".removesuffix(".0")


def ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


# --- Markdown ---------------------------------------------------------------------------------


def render_markdown(baseline: Mapping[str, Any]) -> str:
    """The page of one baseline."""
    parts = [
        section("# Baseline Report", _header(baseline)),
        *_failures(baseline),
        _page("## Steps", steps_table(baseline)),
        budget_section(baseline["budget"]),
        _page("## Run 1 against runs 2+", first_run_table(baseline)),
        _before_after(baseline["compared"]),
    ]
    return "\n".join(parts)


def _header(baseline: Mapping[str, Any]) -> Bullets:
    device, git = baseline["device"], baseline["git"]
    for name in ("id", "mode", "started_at", "outcome", "runs_asked", "profile"):
        yield name, baseline[name]
    yield "device_name", device["name"]
    yield "device_port", device["port"]
    yield "device_chip", device["chip"]
    yield "timing_profile", device["timing"]
    yield "board", baseline["board"]
    yield "include_deploy", baseline["deploy"]
    for name, value in baseline["machine"].items():
        yield f"machine_{name}", value
    for name, value in baseline["tools"].items():
        yield f"tool_{name}", value
    yield "git_sha", git["sha"]
    yield "git_dirty", git["dirty"]
    yield "csv", f"{baseline['id']}.csv"
    for note in baseline["notes"]:
        yield "note", note


def _failures(baseline: Mapping[str, Any]) -> Iterator[str]:
    if baseline["failures"]:
        yield section("## Failures", ((_failed_run(row), _cause(row)) for row in baseline["failures"]))


def _failed_run(row: Mapping[str, Any]) -> str:
    return f"{row['run']}.{row['edit']}" if row["edit"] else str(row["run"])


def _cause(row: Mapping[str, Any]) -> str:
    stage = f" in stage {row['stage']}" if row["stage"] else ""
    return f"{row['category']}{stage}: {row['message']}"


def _before_after(compared: Mapping[str, Any] | None) -> str:
    if compared is None:
        text = "There is no earlier baseline of this machine, mode, profile and device."
        return "\n".join(["## Before and after", "", text, ""])
    git = compared["git"]
    before = f"Before: {code(compared['id'])}, commit {code(git['sha'])}{' with changes' if git['dirty'] else ''}."
    head, cells = compared_table(compared)
    return "\n".join(["## Before and after", "", before, "", markdown_table(head, cells), ""])


def _page(title: str, table: Table) -> str:
    head, cells = table
    return "\n".join([title, "", markdown_table(head, cells) if cells else "Nothing was measured.", ""])


# --- terminal ---------------------------------------------------------------------------------


def render_text(baseline: Mapping[str, Any]) -> str:
    """What the terminal shows at the end of a baseline."""

    def table(shown: Table) -> str:
        head, cells = shown
        return text_table(head, cells, [name for name in head if name.endswith(" ms") or name in ("ratio", "n")])

    parts = [table(steps_table(baseline)), budget_text(baseline["budget"])]
    if baseline["first_run"]:
        parts.append(table(first_run_table(baseline)))
    if baseline["compared"] and baseline["compared"]["rows"]:
        parts.append(
            f"before and after, against {baseline['compared']['id']}:\n" + table(compared_table(baseline["compared"]))
        )
    if baseline["failures"]:
        parts.append("\n".join(f"{_failed_run(row)}: {visible(_cause(row))}" for row in baseline["failures"]))
    return "\n\n".join(parts) + "\n"


def budget_text(budget: Mapping[str, Any]) -> str:
    """The budget tree as a plain table, the bottleneck below it."""
    table = text_table(BUDGET_HEAD, budget_rows(budget), BUDGET_HEAD[1:-1])
    return f"{table}\nbottleneck: {budget['bottleneck'] or '-'}"
