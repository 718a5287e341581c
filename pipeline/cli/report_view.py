"""What `doit report list|show|diff` prints.

Finds the reports, baselines and benchmarks that a project keeps; their layout is that of `report/` and `measure/`.
Writes nothing, opens no port. Never on the warm path. Invariant: a file that cannot be shown is no report; that of a
transaction is then made again from its event log, as long as that is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.durable import read_text
from pipeline.cli import report_diff
from pipeline.effects.run_log import SUFFIX, is_deploy, read
from pipeline.events import is_tx
from pipeline.failures import fail
from pipeline.measure.baseline import view as baseline_view
from pipeline.measure.baseline.rows import SCHEMA as BASELINE_SCHEMA
from pipeline.measure.bench import view as bench_view
from pipeline.measure.bench.table import SCHEMA as BENCH_SCHEMA
from pipeline.model import REPORT_SCHEMA, Failure, FailureCategory
from pipeline.records import json_text, parse_json
from pipeline.report.document import build_report
from pipeline.report.markdown import render_markdown
from pipeline.report.terminal import look_of
from pipeline.run.project import Project
from pipeline.run.transactions import RUNS
from pipeline.text import did_you_mean

Report = Mapping[str, Any]
FORMATS = {
    report_diff.DEPLOY: ("md", "json"),
    report_diff.BASELINE: ("md", "json", "csv"),
    report_diff.BENCH: ("md", "json"),
}
SCHEMAS = {
    report_diff.DEPLOY: REPORT_SCHEMA,
    report_diff.BASELINE: BASELINE_SCHEMA,
    report_diff.BENCH: BENCH_SCHEMA,
}
"""By what the report is of; others are none."""
LAST = "last"


def report_text(project: Project, words: Sequence[str], kind: str, limit: int) -> str | Failure:
    """The text for the words after `doit report`."""
    match list(words):
        case [] | ["list"]:
            return _list(project, kind, limit)
        case ["show"]:
            return _show(project, LAST, kind)
        case ["show", name]:
            return _show(project, name, kind)
        case ["diff", _, _] if kind:
            return _bad(
                f"diff takes no --format, got {kind!r}", "compare what `doit report show TX --format json` prints"
            )
        case ["diff", before, after]:
            return _diff(project, before, after)
    hint = "use: doit report list | show [TX] | diff TX TX | html"
    return _bad(f"cannot be understood: {' '.join(words)!r}", hint)


def _bad(message: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="report", message=message, hint=hint)


# --- finding ----------------------------------------------------------------------------------


def _names(project: Project) -> list[str]:
    """Ids of everything that can be shown, newest first: transactions, baselines, benchmarks."""
    reports = {path.stem for path in project.reports_dir.glob("*.json")}
    logs = {path.stem for path in (project.state_dir / RUNS).glob(f"tx-*{SUFFIX}")}
    mine = [name for name in reports | logs if is_tx(name) or name.startswith(("baseline-", "bench-"))]
    return sorted(mine, key=lambda name: (name.partition("-")[2][:15], name), reverse=True)


def load_report(project: Project, name: str) -> Report | Failure:
    """The report called `name`: an id, the beginning or the end of one, `last`, or the path of a JSON file."""
    if name.endswith(".json") and (Path(name).is_file() or "/" in name):
        found = _from_file(Path(name))
        return found if found is not None else _bad(f"{name} is no report", "name the JSON file of a report")
    names = _names(project)
    matches = [name] if name in names else [one for one in names if one.startswith(name) or one.endswith(name)]
    if name == LAST:
        matches = next(([one] for one in names if from_id(project, one) is not None), [])
    if len(matches) > 1:
        return _bad(f"'{name}' could be {len(matches)} reports: {', '.join(matches[:3])}", "write more of its id")
    found = from_id(project, matches[0]) if matches else None
    if found is None:
        return _bad(f"there is no report '{name}'{did_you_mean(name, names)}", "see `doit report list`")
    return found


def from_id(project: Project, name: str) -> Report | None:
    found = _from_file(project.reports_dir / f"{name}.json")
    if found is None and is_tx(name):
        log, _ = read(project.state_dir / RUNS / f"{name}{SUFFIX}")
        return build_report(log) if log and is_deploy(log) else None
    return found


def _from_file(path: Path) -> Report | None:
    """None when it cannot be read, is of another version, or is damaged."""
    try:
        found = parse_json(read_text(path))
        if found["schema"] != SCHEMAS[report_diff.kind_of(found)]:
            return None
        report_diff.list_table([found])
        _markdown(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None
    return dict(found)


def _markdown(report: Report) -> str:
    kind = report_diff.kind_of(report)
    if kind == report_diff.BENCH:
        return bench_view.render_markdown(report)
    return baseline_view.render_markdown(report) if kind == report_diff.BASELINE else render_markdown(report)


# --- showing ----------------------------------------------------------------------------------


def _list(project: Project, kind: str, limit: int) -> str | Failure:
    if kind not in ("", "json"):
        return _bad(f"--format {kind!r} is not one of json", "use --format json, or none for the table")
    found: list[Report] = []
    for name in _names(project):
        report = from_id(project, name) if len(found) < limit or limit <= 0 else None
        if report is not None:
            found.append(report)
    if kind:
        return json_text(found, indent=2) + "\n"
    if not found:
        return f"there are no reports in {project.reports_dir.name}/\n"
    return _table(*report_diff.list_table(found))


def _show(project: Project, name: str, kind: str) -> str | Failure:
    found = load_report(project, name)
    if isinstance(found, Failure):
        return found
    report_kind = report_diff.kind_of(found)
    if kind == "json":
        return json_text(found, indent=2) + "\n"
    if kind == "csv" and report_kind == report_diff.BASELINE:
        return baseline_view.render_csv(found)
    if kind == "md" or (not kind and report_kind == report_diff.DEPLOY):
        return _markdown(found)
    if not kind:
        wide = look_of(sys.stdout).columns
        return (
            bench_view.render_text(found, wide)
            if report_kind == report_diff.BENCH
            else baseline_view.render_text(found)
        )
    formats = FORMATS[report_kind]
    return _bad(f"--format {kind!r} is not one of {', '.join(formats)}", f"use --format {formats[0]}")


def _diff(project: Project, before: str, after: str) -> str | Failure:
    old, new = load_report(project, before), load_report(project, after)
    if isinstance(old, Failure):
        return old
    if isinstance(new, Failure):
        return new
    kinds = sorted({report_diff.kind_of(old), report_diff.kind_of(new)})
    if len(kinds) > 1:
        return _bad(f"a {kinds[0]} and a {kinds[1]} cannot be compared", "name two of a kind")
    tables = report_diff.diff_tables(old, new)
    return "\n".join(f"{title}\n{_table(head, rows)}" for title, head, rows in tables if rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate

    align = ["right" if name.endswith("ms") or name == "ratio" else "left" for name in head]
    return str(tabulate(rows, headers=head, disable_numparse=True, colalign=align)) + "\n"
