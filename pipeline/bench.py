"""`doit bench:warm`: what a warm and a cold deploy cost here, against the cheapest possible doit run.

Runs the very commands that users run, as whole processes, in a scratch copy of the project, interleaved so that a busy
moment hits all of them. Prints medians and ratios; judges nothing. Does not touch the project, its cache or its board.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.context import Context
from pipeline.core.model import Stage
from pipeline.scratch import Scratch

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

    def __init__(self, context: Context, directory: Path) -> None:
        self.empty = directory / "empty"
        self.empty.mkdir()
        (self.empty / "dodo.py").write_text(EMPTY_DODO)
        self.device = next((d.name for d in context.devices if d.config.is_virtual), "")
        self.chip = context.config.toolchain.chip
        self.scratch = Scratch(context, directory)
        self.project = self.scratch.project

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


def warm(context: Context, runs: int) -> bool:
    """Measure and print. False (with a line saying why) when the project has no virtual device to measure on."""
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        bench = Bench(context, Path(directory))
        if not bench.device:
            print("bench:warm: error: no selected device is virtual\nhint: choose one with --device", file=sys.stderr)
            return False
        cold = [_cold(bench) for _ in range(min(runs, COLD_RUNS))]
        times: dict[str, list[float]] = defaultdict(list)
        reports = []
        for _ in range(runs):
            times["python -c pass"].append(bench.run(bench.empty, "-c", "pass")[0])
            times["empty doit"].append(bench.run(bench.empty, "-m", "doit")[0])
            times["doit list"].append(bench.run(bench.project, "-m", "doit", "list")[0])
            elapsed_s, report, _ = bench.deploy()
            times["doit deploy, warm"].append(elapsed_s)
            reports.append(report)
        times["doit deploy, cold"] = cold
        _print_times(times)
        _print_stages(reports, times["doit deploy, warm"])
        _print_imports(bench)
    return True


def _cold(bench: Bench) -> float:
    """A deploy with no build products, no cache and an erased board."""
    bench.scratch.erase()
    return bench.deploy()[0]


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from tabulate import tabulate

    print(tabulate(rows, headers=headers, floatfmt=".1f"), end="\n\n")


def _print_times(times: dict[str, list[float]]) -> None:
    base = statistics.median(times["empty doit"])
    rows = [
        (
            name,
            len(seconds),
            *(1000 * f(seconds) for f in (min, statistics.median, max)),
            statistics.median(seconds) / base,
        )
        for name, seconds in times.items()
    ]
    print_table(("whole process", "runs", "min ms", "median ms", "max ms", "x empty doit"), rows)


def _print_stages(reports: Sequence[Any], totals: Sequence[float]) -> None:
    rows: list[tuple[str, float]] = []
    for stage in Stage:
        times = [
            s["duration_ms"]
            for r in reports
            for s in r["stages"]
            if s["stage"] == stage and s["duration_ms"] is not None
        ]
        rows.append((str(stage), statistics.median(times) if times else 0.0))
    rows.append(("remainder", statistics.median(r["totals"]["remainder_ms"] for r in reports)))
    inside = statistics.median(r["totals"]["duration_ms"] for r in reports)
    rows.append(("before and after the run", 1000 * statistics.median(totals) - inside))
    print_table(("part of a warm deploy", "median ms"), rows)


def _print_imports(bench: Bench) -> None:
    """Self time of imports by top-level package; -X importtime slows everything, so read the shares."""
    _, _, text = bench.deploy("-X", "importtime")
    spent: dict[str, int] = defaultdict(int)
    for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", text, re.M):
        spent[name.split(".")[0]] += int(own)
    rows = sorted(((name, us / 1000) for name, us in spent.items()), key=lambda row: -row[1])[:15]
    print_table(("import of a warm deploy (self time)", "ms"), rows)
    _, _, listed = bench.run(bench.project, "-X", "importtime", "-m", "doit", "list")
    loaded = [name for name in HEAVY if re.search(rf"\|\s+{name}$", listed, re.M)]
    print(f"doit list imports of {', '.join(HEAVY)}: {', '.join(loaded) or 'none'}")
