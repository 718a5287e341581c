"""`doit size`: how large the application is, what takes the room, and how two builds differ.

Measures the build that lies there, or takes the sizes that reports hold. Writes nothing, opens no port, builds nothing.
Does not know doit. Invariant: returns what belongs on stdout, or why there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.records import json_text
from pipeline.report.size import (
    Size,
    SizeLimits,
    Table,
    archives_table,
    compared,
    sections_table,
    totals_table,
)
from pipeline.text import did_you_mean, visible

if TYPE_CHECKING:
    from pipeline.run.build import Build

FILE, SECTION, ARCHIVE = "file", "section", "archive"
BY = (SECTION, ARCHIVE, FILE)
_LEFT = 2
"""Columns of words in the widest table; the others hold numbers."""


def size_text(build: Build, words: Sequence[str], by: str, *, as_json: bool) -> str | Failure:
    """The text for the words after `doit size`: none, one report, or two to compare."""
    if by not in ("", *BY):
        return _bad(f"--by {by!r} is not one of {', '.join(BY)}{did_you_mean(by, BY)}", f"use --by {SECTION}")
    if len(words) > 2:
        return _bad(f"takes one or two reports, got {len(words)} words", "see `doit help size`")
    if by == FILE and words:
        return _bad("reports hold no sizes by file", f"use --by {ARCHIVE}, or look at the current build")
    if by == FILE:
        return _files(build, as_json=as_json)
    size = _of_reports(build, words) if words else _of_build(build)
    if isinstance(size, Failure):
        return size
    if as_json:
        return json_text(size, indent=2) + "\n"
    tables: list[Table] = []
    if by == "":
        tables.append(totals_table(size))
    if by in ("", SECTION):
        tables.append(sections_table(size))
    if by == ARCHIVE:
        if not size["archives"]:
            return _bad(f"there are no sizes by archive: {size['note'] or 'no map was read'}", "use --by section")
        tables.append(archives_table(size))
    note = f"by section only: {size['note']}\n" if size["note"] else ""
    return "\n".join(_drawn(*table) for table in tables if table[1]) + note


def _of_build(build: Build) -> Size | Failure:
    """What lies there, beside the report before; where it is that of the last report, beside the one before that."""
    from pipeline.run.built_sizes import size_files

    files = size_files(build)
    if files is None:
        return _bad("nothing of this build goes to flash", "see `size` of your toolchain for a program of this machine")
    current, last = build.sizes.current(files), build.sizes.last()
    if not current["sections"] and not any(row["size"] for row in current["totals"]):
        return _bad(f"nothing is built: {current['note']}", "run `doit link`")
    config = build.config.size
    limits = SizeLimits(config.totals, config.sections, config.archives)
    return compared(current, build.sizes.before_last() if current == last else last, limits)


def _of_reports(build: Build, words: Sequence[str]) -> Size | Failure:
    from pipeline.cli.report_view import load_report

    sizes: list[Size] = []
    for word in words:
        report = load_report(build.project, word)
        if isinstance(report, Failure):
            return report._replace(where="size")
        if not report.get("size"):
            return _bad(f"the report '{word}' holds no size: stage link did not end well", "name another report")
        sizes.append(report["size"])
    return sizes[0] if len(sizes) == 1 else compared(sizes[1], sizes[0], SizeLimits())


def _files(build: Build, *, as_json: bool) -> str | Failure:
    from pipeline.report.size_measured import files_of
    from pipeline.run.built_sizes import size_files

    files = size_files(build)
    if files is None:
        return _bad("nothing of this build goes to flash", "see `size` of your toolchain for a program of this machine")
    measured = build.sizes.measure(files)
    if not measured.shares:
        return _bad(f"there are no sizes by file: {measured.note}", "run `doit link`, or use --by section")
    rows = files_of(measured)
    if as_json:
        return json_text([{"name": name, "flash": flash, "ram": ram} for name, flash, ram in rows], indent=2) + "\n"
    return _drawn(("file", "flash", "ram"), [(name, str(flash), str(ram)) for name, flash, ram in rows])


def _drawn(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Words on the left, numbers on the right. A name from a map is shown by its visible form."""
    cells = [[visible(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = sum(not cell[:1].isdigit() and cell != "-" for cell in cells[1][:_LEFT])
    lines = []
    for row in cells:
        placed = [
            cell.ljust(width) if n < words else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(placed).rstrip())
    return "\n".join(lines) + "\n"


def _bad(message: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="size", message=message, hint=hint)
