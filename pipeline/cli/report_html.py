"""`doit report html`: the history of this project as one page.

Knows files; the page is `report/html.py`. Opens no port. Invariant: the page is written whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cache.durable import write_atomic
from pipeline.effects.clock import SystemClock
from pipeline.effects.run_log import SUFFIX, read
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Stage
from pipeline.report.history import DeployHistory, by_device
from pipeline.report.history_file import read_history
from pipeline.report.html import ROWS, Facts, render_page
from pipeline.report.timeline import Timeline, timeline
from pipeline.run.transactions import RUNS

if TYPE_CHECKING:
    from pipeline.run.project import Project

PAGE = "index.html"


def html_text(project: Project, output: str) -> str | Failure:
    """Write the page to `output` (default: `index.html` beside the reports) and say where it is."""
    reports = project.reports_dir
    path = Path.cwd() / output if output else reports / PAGE
    history = read_history(reports)
    page = render_page(history, _facts(project, history, path.parent))
    try:
        write_atomic(path, page.encode("utf-8", "replace"), durable=False)
    except OSError as error:
        message = f"cannot be written: {error.strerror}"
        hint = "name a file in a directory that you can write to with --output"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=str(path), message=message, hint=hint)
    return f"{path.relative_to(project.root) if path.is_relative_to(project.root) else path}\n"


def _facts(project: Project, history: DeployHistory, beside: Path) -> Facts:
    budget = project.config.budget
    limits = {"total": budget.total, "startup": budget.startup, "dispatch": budget.dispatch}
    limits |= {stage.value: limit for stage in Stage if (limit := budget.of(stage)) is not None}
    links = {}
    for row in history.rows[-ROWS:]:
        report = project.reports_dir / f"{row.transaction_id}.md"
        if report.is_file():
            links[row.transaction_id] = Path(os.path.relpath(report, beside)).as_posix()
    newest = {}
    for device, rows in by_device(history.rows).items():
        drawn = _timeline(project, rows[-1].transaction_id)
        if drawn is not None:
            newest[device] = (rows[-1].transaction_id, drawn)
    shown = {name: limit for name, limit in limits.items() if limit is not None}
    return Facts(project.config.project.name, SystemClock().utc(), shown, newest, links)


def _timeline(project: Project, tx: str) -> Timeline | None:
    """The event log is kept for some time; without it the page has the phases, not their places in time."""
    events, _ = read(project.state_dir / RUNS / f"{tx}{SUFFIX}")
    return timeline(events) if events else None
