"""`doit bench:warm`: what a warm and a cold deploy cost here, against the cheapest possible doit run.

Runs the very commands that users run, as whole processes, in a scratch copy of the project, interleaved so that a busy
moment hits all of them. Does not touch the project, its cache or its board.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import BenchRow, measured
from pipeline.measure.child import Spent, report_of, run_program
from pipeline.measure.experiment import repeated
from pipeline.measure.scratch import Scratch
from pipeline.model import Stage
from pipeline.run.build import Build

EMPTY_DODO = """
DOIT_CONFIG = {"backend": "sqlite3", "dep_file": ":memory:"}

def task_nothing():
    return {"actions": [], "uptodate": [True]}
"""
TIMEOUT_S = 300
COLD_RUNS = 3
HEAVY = ("esptool", "serial", "networkx", "unicorn")


class DeployBench:
    """A copy of the project in a temporary directory, an empty project beside it, and commands run in them."""

    def __init__(self, build: Build, directory: Path) -> None:
        self.empty = directory / "empty"
        self.empty.mkdir()
        (self.empty / "dodo.py").write_text(EMPTY_DODO)
        self.device = next((d.name for d in build.project.devices if d.is_virtual), "")
        self.chip = build.config.toolchain.chip
        self.scratch = Scratch(build, directory)
        self.project = self.scratch.project
        self._runner = build.runner

    def need_device(self) -> None:
        """Raises CannotRun when there is none to measure on."""
        if not self.device:
            raise CannotRun("no selected device is virtual", "choose one with --device")

    def run(self, *args: str, cwd: Path | None = None) -> Spent:
        """One whole process of this interpreter, in the copy or in `cwd`. Raises RuntimeError when it fails."""
        argv = [sys.executable, *args]
        return run_program(self._runner, argv, cwd or self.project, self.scratch.env, TIMEOUT_S)

    def deploy(self, *python_args: str) -> tuple[Spent, Any]:
        """One `doit deploy`, and its JSON report."""
        spent = self.run(*python_args, "-m", "doit", "deploy", "--device", self.device)
        return spent, report_of(self.project, spent.out)


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    """The suite. Raises CannotRun when the project has no virtual device to measure on."""
    runs = options["runs"]
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        bench = DeployBench(build, Path(directory))
        bench.need_device()
        cold = repeated({COLD: lambda: _cold(bench)}, min(runs, COLD_RUNS), partial(recorder.step, "cold deploys"))
        reports: list[Any] = []

        def warm() -> Spent:
            spent, report = bench.deploy()
            reports.append(report)
            return spent

        commands: dict[str, Callable[[], Spent]] = {
            "python -c pass": lambda: bench.run("-c", "pass", cwd=bench.empty),
            EMPTY: lambda: bench.run("-m", "doit", cwd=bench.empty),
            "doit list": lambda: bench.run("-m", "doit", "list"),
            "doit deploy, warm": warm,
        }
        times = repeated(commands, runs, partial(recorder.step, "warm deploys and their peers"))
        recorder.add(*_processes(recorder.suite, {**times, **cold}))
        recorder.add(*_stages(recorder.suite, reports))
        recorder.note(*_imports(bench))


EMPTY, COLD = "empty doit", "doit deploy, cold"


def _cold(bench: DeployBench) -> Spent:
    """A deploy with no build products, no cache and an erased board."""
    bench.scratch.erase()
    return bench.deploy()[0]


def _processes(suite: str, times: Mapping[str, Sequence[Spent]]) -> Iterator[BenchRow]:
    """Whole processes, against a doit that has nothing to do."""
    in_ms = {name: [1000 * spent.wall_s for spent in found] for name, found in times.items()}
    for name, found in in_ms.items():
        peer, theirs = ("", []) if name == EMPTY else (EMPTY, in_ms[EMPTY])
        yield measured(suite, name, found, "ms", peer, theirs)


def _stages(suite: str, reports: Sequence[Any]) -> Iterator[BenchRow]:
    """The parts of a warm deploy, against the whole of it."""
    whole = [report["totals"]["duration_ms"] for report in reports]
    for stage in Stage:
        times = [row["duration_ms"] for report in reports for row in report["stages"] if row["stage"] == stage]
        found = [took for took in times if took is not None]
        if found:
            yield measured(suite, f"warm deploy: {stage}", found, "ms", "all of the run", whole)
    rest = [report["totals"]["remainder_ms"] for report in reports]
    yield measured(suite, "warm deploy: remainder", rest, "ms", "all of the run", whole)


def _imports(bench: DeployBench) -> tuple[str, str]:
    """Self time of imports by top-level package; -X importtime slows everything, so read the shares."""
    from tabulate import tabulate

    text = bench.deploy("-X", "importtime")[0].err
    spent: dict[str, int] = defaultdict(int)
    for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", text, re.M):
        spent[name.split(".")[0]] += int(own)
    rows = sorted(((name, us / 1000) for name, us in spent.items()), key=lambda row: -row[1])[:15]
    listed = bench.run("-X", "importtime", "-m", "doit", "list").err
    loaded = [name for name in HEAVY if re.search(rf"\|\s+{name}$", listed, re.M)]
    told = f"doit list imports of {', '.join(HEAVY)}: {', '.join(loaded) or 'none'}"
    table = tabulate(rows, headers=("package", "ms"), floatfmt=".1f")
    return "imports of a warm deploy, self time under -X importtime", f"{table}\n\n{told}"
