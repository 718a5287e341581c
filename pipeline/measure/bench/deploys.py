"""`doit bench:warm`: what a warm and a cold deploy cost here, against the cheapest possible doit run.

Runs the very commands that users run, as whole processes, in a scratch copy of the project, interleaved so that a busy
moment hits all of them. Does not touch the project, its cache or its board.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import Row, measured
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


class Bench:
    """A copy of the project in a temporary directory, an empty project beside it, and commands run in them."""

    def __init__(self, build: Build, directory: Path) -> None:
        self.empty = directory / "empty"
        self.empty.mkdir()
        (self.empty / "dodo.py").write_text(EMPTY_DODO)
        self.device = next((d.name for d in build.project.devices if d.is_virtual), "")
        self.chip = build.config.toolchain.chip
        self.scratch = Scratch(build, directory)
        self.project = self.scratch.project

    def need_device(self) -> None:
        """Raises CannotRun when there is none to measure on."""
        if not self.device:
            raise CannotRun("no selected device is virtual", "choose one with --device")

    def run(self, directory: Path, *args: str) -> tuple[float, str, str]:
        """(seconds, stdout, stderr) of one whole process. Raises RuntimeError when it fails."""
        started = time.perf_counter()
        done = self.scratch.python(*args, cwd=directory, timeout_s=TIMEOUT_S)
        elapsed_s = time.perf_counter() - started
        if done.exit_code != 0:
            raise RuntimeError(f"{' '.join(args)} ended with {done.exit_code}:\n{done.stderr.decode(errors='replace')}")
        return elapsed_s, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    @contextlib.contextmanager
    def board(self, timing: str) -> Iterator[str]:
        """A board process that keeps running; its URL."""
        from pipeline.effects.process import background

        argv = [sys.executable, "-m", "virtualboard", "--chip", self.chip, "--rfc2217", "0", "--timing", timing]
        with background(argv, self.project, os.environ) as first_line:
            yield next(word for word in first_line.split() if word.startswith("rfc2217://"))

    def deploy(self, *python_args: str) -> tuple[float, Any, str]:
        """(seconds, JSON report, stderr) of one `doit deploy`."""
        elapsed_s, out, err = self.run(self.project, *python_args, "-m", "doit", "deploy", "--device", self.device)
        found = re.search(r"^DEPLOY_TX_ID=.*DEPLOY_REPORT=(\S+)", out, re.M)
        assert found is not None, out
        return elapsed_s, json.loads((self.project / found[1]).with_suffix(".json").read_text()), err


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    """The suite. Raises CannotRun when the project has no virtual device to measure on."""
    runs = options["runs"]
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        bench = Bench(build, Path(directory))
        bench.need_device()
        cold = []
        for number in range(min(runs, COLD_RUNS)):
            recorder.step("cold deploys", number, min(runs, COLD_RUNS))
            cold.append(_cold(bench))
        times: dict[str, list[float]] = defaultdict(list)
        reports = []
        for number in range(runs):
            recorder.step("warm deploys and their peers", number, runs)
            times["python -c pass"].append(bench.run(bench.empty, "-c", "pass")[0])
            times[EMPTY].append(bench.run(bench.empty, "-m", "doit")[0])
            times["doit list"].append(bench.run(bench.project, "-m", "doit", "list")[0])
            elapsed_s, report, _ = bench.deploy()
            times["doit deploy, warm"].append(elapsed_s)
            reports.append(report)
        times["doit deploy, cold"] = cold
        recorder.add(*_processes(recorder.suite, times))
        recorder.add(*_stages(recorder.suite, reports))
        recorder.note(*_imports(bench))


EMPTY = "empty doit"


def _cold(bench: Bench) -> float:
    """A deploy with no build products, no cache and an erased board."""
    bench.scratch.erase()
    return bench.deploy()[0]


def _processes(suite: str, times: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    """Whole processes, against a doit that has nothing to do."""
    in_ms = {name: [1000 * seconds for seconds in found] for name, found in times.items()}
    for name, found in in_ms.items():
        peer, theirs = ("", []) if name == EMPTY else (EMPTY, in_ms[EMPTY])
        yield measured(suite, name, found, "ms", peer, theirs)


def _stages(suite: str, reports: Sequence[Any]) -> Iterator[Row]:
    """The parts of a warm deploy, against the whole of it."""
    whole = [report["totals"]["duration_ms"] for report in reports]
    for stage in Stage:
        times = [row["duration_ms"] for report in reports for row in report["stages"] if row["stage"] == stage]
        found = [took for took in times if took is not None]
        if found:
            yield measured(suite, f"warm deploy: {stage}", found, "ms", "all of the run", whole)
    rest = [report["totals"]["remainder_ms"] for report in reports]
    yield measured(suite, "warm deploy: remainder", rest, "ms", "all of the run", whole)


def _imports(bench: Bench) -> tuple[str, str]:
    """Self time of imports by top-level package; -X importtime slows everything, so read the shares."""
    from tabulate import tabulate

    _, _, text = bench.deploy("-X", "importtime")
    spent: dict[str, int] = defaultdict(int)
    for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", text, re.M):
        spent[name.split(".")[0]] += int(own)
    rows = sorted(((name, us / 1000) for name, us in spent.items()), key=lambda row: -row[1])[:15]
    _, _, listed = bench.run(bench.project, "-X", "importtime", "-m", "doit", "list")
    loaded = [name for name in HEAVY if re.search(rf"\|\s+{name}$", listed, re.M)]
    told = f"doit list imports of {', '.join(HEAVY)}: {', '.join(loaded) or 'none'}"
    table = tabulate(rows, headers=("package", "ms"), floatfmt=".1f")
    return "imports of a warm deploy, self time under -X importtime", f"{table}\n\n{told}"
