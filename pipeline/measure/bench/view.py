"""A report of benchmarks as text: Markdown, and what the terminal shows.

Pure: the dict of `measure/bench/table.py` in, text out. Does not know files or how anything was measured.
Invariants: all renderings show the same numbers; nothing is computed here; no value changes the structure of a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.measure.bench.table import TargetVerdict, number
from pipeline.measure.page import text_table
from pipeline.report.markdown import Bullets, code, code_block, markdown_table, section
from pipeline.text import visible, visible_text

HEAD = ("case", "ours", "peer", "its", "ratio", "target", "verdict", "n", "min..max")
_RIGHT = ("ours", "its", "ratio", "n")
WIDE = 160
"""Columns where no terminal limits them: nothing is left out."""

_NARROW = 24
"""A case's name is wrapped to no less."""

_LESS = ("min..max", "n", "its")
"""What is left out first where the terminal is narrow; the report has it."""

Report = Mapping[str, Any]


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One row in the columns of `HEAD`. A single measurement has no spread."""
    spread = f"{number(row['low'])}..{number(row['high'])}" if row["n"] > 1 else ""
    values = (f"{number(row['ours'])} {row['unit']}".rstrip(), row["peer"], number(row["peer_value"]))
    return (row["case"], *values, ratio(row["ratio"]), row["target"], verdict(row["verdict"]), str(row["n"]), spread)


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def verdict(value: str) -> str:
    """`NO_TARGET` is said by an empty cell."""
    return "" if value == TargetVerdict.NO_TARGET else value


# --- Markdown ---------------------------------------------------------------------------------


def render_markdown(report: Report) -> str:
    """The page of one report: what was missed first."""
    parts = [section("# Benchmark Report", _header(report)), *_missed(report)]
    parts += [_suite(suite) for suite in report["suites"]]
    return "\n".join(parts)


def _header(report: Report) -> Bullets:
    for name in ("id", "started_at", "outcome", "command"):
        yield name, report[name]
    for name, value in report["machine"].items():
        yield f"machine_{name}", value
    for name, value in report["load"].items():
        yield f"load_{name}", value
    for name, value in report["tools"].items():
        yield f"tool_{name}", value
    yield "git_sha", report["git"]["sha"]
    yield "git_dirty", report["git"]["dirty"]


def _missed(report: Report) -> Iterator[str]:
    failed = [suite for suite in report["suites"] if suite["error"]]
    if failed:
        yield section("## Suites that could not run", ((suite["name"], suite["error"]) for suite in failed))
    if report["missed"]:
        yield "\n".join(["## Missed targets", "", *(f"- {code(name)}" for name in report["missed"]), ""])


def _suite(suite: Mapping[str, Any]) -> str:
    lines = [f"## {suite['name']}", ""]
    if suite["error"]:
        lines += [f"Could not go on: {code(suite['error'])}. Hint: {code(suite['hint'])}", ""]
    if suite["rows"]:
        lines += [markdown_table(HEAD, [cells(row) for row in suite["rows"]]), ""]
    for note in suite["notes"]:
        lines += [f"{note['title']}:", "", code_block(note["text"]), ""]
    return "\n".join(lines)


# --- terminal ---------------------------------------------------------------------------------


def render_suite(suite: Mapping[str, Any], columns: int) -> str:
    """One suite as a table that fits `columns`: names of cases are wrapped, and the last columns left out for it."""
    parts = [f"{suite['name']}:"]
    if suite["rows"]:
        parts.append(_table([cells(row) for row in suite["rows"]], columns))
    if suite["error"]:
        parts.append(f"could not go on: {visible(suite['error'])}\nhint: {visible(suite['hint'])}")
    parts += [f"\n{visible(note['title'])}:\n{visible_text(note['text'])}" for note in suite["notes"]]
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]], columns: int) -> str:
    """Without the columns in which nothing stands."""
    every = {name: [visible(row[place]) for row in rows] for place, name in enumerate(HEAD)}
    used = {name: texts for name, texts in every.items() if any(texts)}
    for name in _LESS:
        if _NARROW + _beside_case(used) > columns:
            used.pop(name, None)
    names = max(_NARROW, columns - _beside_case(used))
    widths = [names, *[None] * (len(used) - 1)]
    return text_table(list(used), list(zip(*used.values(), strict=True)), _RIGHT, widths)


def _beside_case(used: Mapping[str, Sequence[str]]) -> int:
    """The width of all columns but the first, with the gaps. tabulate makes a column two wider than its head."""
    return sum(max(len(name) + 2, *map(len, texts)) + 2 for name, texts in used.items() if name != "case")


def render_end(report: Report) -> str:
    """What is said after the suites: each missed target."""
    return "".join(f"missed: {visible(name)}\n" for name in report["missed"])


def render_text(report: Report, columns: int) -> str:
    """The whole report, as `doit report show` prints it."""
    parts = [render_suite(suite, columns) for suite in report["suites"]]
    return "\n".join([*parts, *filter(None, [render_end(report)])])
