"""`doit bench` and `doit bench:SUITE`: run suites of benchmarks, and gather their rows into one report.

Knows which suites there are, the terminal, and `reports/bench-<time>.{md,json}`; a suite knows what it measures.
Invariants: a suite that breaks off is recorded with the reason and keeps no other from running; the report is written
after each suite, so that an interrupted run leaves what it has found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pipeline.effects.host import GitQuery, load_average
from pipeline.measure.bench import table
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import Suite
from pipeline.measure.bench.view import WIDE, render_end, render_markdown, render_suite
from pipeline.measure.experiment import write_renderings
from pipeline.measure.facts import circumstances
from pipeline.measure.screen import MeasurementScreen
from pipeline.report.dated_files import free_id, markdown_path
from pipeline.run.build import Build

SUITES = {
    "warm": "deploys",
    "engine": "engine",
    "ninja": "ninja",
    "device": "device",
    "shelf": "shelf",
    "watch": "watch",
    "live": "live",
    "remote": "remote",
    "store": "store",
    "work": "work",
}
"""Suite -> the module of this folder whose `measure(build, recorder, options)` runs it."""


PEERS = ("ninja", "ccache")


class BenchSession:
    """The suites of one command. `gathered`: `finish` is called after the last one, and says which could not run."""

    def __init__(self, build: Build, command: str, *, gathered: bool) -> None:
        self._build = build
        self._gathered = gathered
        self._screen = MeasurementScreen()
        self._suites: list[Suite] = []
        started_at = build.clock.utc()
        self._load_before = load_average()
        self._facts = {
            "id": free_id(table.KIND, build.project.reports_dir, started_at),
            "started_at": started_at,
            "command": command,
            **circumstances(build, GitQuery(build.project.root), PEERS),
        }

    def run(self, name: str, options: Mapping[str, Any]) -> str:
        """Run one suite, record and show it; why the task failed, `""` when it did not. Raises OSError when the report
        cannot be written."""
        recorder = Recorder(name, self._screen.step)
        if not self._suites:
            self._write()  # what cannot be written in the end had better fail before the first minute
        recorder.step("begins")
        error = hint = ""
        try:
            if options.get("runs", 1) < 1:
                raise CannotRun(f"--runs is {options['runs']}, but must be at least 1", "use --runs 3")
            import_module(f"pipeline.measure.bench.{SUITES[name]}").measure(self._build, recorder, options)
        except KeyboardInterrupt:
            self._record(recorder.ended("stopped by Ctrl-C", f"run it again: doit bench:{name}"))
            self._say_end()
            raise
        except CannotRun as reason:
            error, hint = str(reason), reason.hint
        except Exception as reason:  # whatever it is, it must not cost the minutes of the other suites
            fact, _, detail = str(reason).partition("\n")
            error, hint = f"{type(reason).__name__}: {fact}", f"run it alone: doit bench:{name}"
            recorder.note("what it said", detail)
        suite = recorder.ended(error, hint)
        self._record(suite)
        if self._gathered:
            return ""
        self._say_end()
        return "\nhint: ".join(filter(None, [suite.failure, hint]))

    def finish(self) -> str:
        """After the last suite: the end of the report; why the task failed, `""` when it did not."""
        self._say_end()
        failed = [f"{suite.name} ({suite.failure})" for suite in self._suites if suite.failure]
        return f"{len(failed)} of {len(self._suites)} suites failed: {', '.join(failed)}" if failed else ""

    def _record(self, suite: Suite) -> None:
        self._suites.append(suite)
        made, look = self._write(), self._screen.look
        self._screen.line(render_suite(made["suites"][-1], look.columns if look.tty else WIDE))

    def _write(self) -> dict[str, Any]:
        """Write the report as it is now. Raises OSError."""
        load = {"before": self._load_before, "after": load_average()}
        made = table.build({**self._facts, "load": load}, self._suites)
        texts = {"md": render_markdown(made), "json": json.dumps(made, indent=2) + "\n"}
        write_renderings(self._build.project.reports_dir, made["id"], texts)
        return made

    def _say_end(self) -> None:
        made = self._write()
        path = markdown_path(self._build.project.reports_dir, self._build.project.root, made["id"])
        print(render_end(made), end="")
        print(f"BENCH_ID={made['id']} BENCH_OUTCOME={made['outcome']} BENCH_REPORT={path}", flush=True)
