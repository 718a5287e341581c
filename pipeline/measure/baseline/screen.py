"""What `doit baseline:*` shows: a line per run while it goes on, the tables at its end, and one line for scripts.

Knows the terminal; what is run and measured, `measure.py` knows.
"""

from __future__ import annotations

from pipeline.measure.baseline.measure import Watcher, measure
from pipeline.measure.baseline.rows import BaselineRun
from pipeline.measure.baseline.view import render_text
from pipeline.measure.screen import MeasurementScreen, shown
from pipeline.report.budget import TOTAL
from pipeline.report.dated_files import markdown_path
from pipeline.run.build import Build
from pipeline.text import visible


def show(build: Build, mode: str, runs: int, *, deploy: bool) -> str:
    """Measure and show; why the task failed, `""` when it did not."""
    made = shown("baseline", lambda screen: measure(build, mode, runs, deploy=deploy, watch=_watcher(screen)))
    if isinstance(made, str):
        return made
    path = markdown_path(build.project.reports_dir, build.project.root, made["id"])
    print(f"\n{render_text(made)}")
    print(f"BASELINE_ID={made['id']} BASELINE_OUTCOME={made['outcome']} BASELINE_REPORT={path}", flush=True)
    if made["outcome"] == "over_budget":
        total = made["budget"]["total"]
        return f"the warm runs took {total['measured_ms']} ms, but [budget] total is {total['limit_ms']} ms"
    return f"{len(made['failures'])} of the runs failed; {path} says why" if made["failures"] else ""


def _watcher(screen: MeasurementScreen) -> Watcher:
    def watch(run: str, done: int, total: int, measured: BaselineRun | None) -> None:
        if measured is None:
            screen.step(run, done, total)
        else:
            screen.line(_line(run, measured))

    return watch


def _line(run: str, measured: BaselineRun) -> str:
    total = measured.phases.get(TOTAL)
    took = "-" if total is None else f"{total / 1000:.3f} s"
    failure = measured.failure
    return f"{run:<14} {took:>10}" + (f"  {failure[0]}: {visible(failure[2])}" if failure else "")
