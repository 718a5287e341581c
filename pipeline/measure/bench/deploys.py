"""`doit bench:warm`: what warm and cold commands cost here, each against the cheapest that could be.

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

from pipeline.measure.bench.first_byte import first_byte, talking_board
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import BenchRow, BenchTarget, at_most, measured
from pipeline.measure.child import Spent, report_of, run_program
from pipeline.measure.experiment import repeated
from pipeline.measure.scratch import Scratch
from pipeline.model import Stage
from pipeline.run.build import Build
from pipeline.run.project import CONFIG_FILE

EMPTY_DODO = """
DOIT_CONFIG = {"backend": "sqlite3", "dep_file": ":memory:"}

def task_nothing():
    return {"actions": [], "uptodate": [True]}
"""
TIMEOUT_S = 300
COLD_RUNS = 3
HEAVY = ("esptool", "serial", "networkx", "virtualboard.rv32_cpu")


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
            PASS: lambda: bench.run("-c", "pass", cwd=bench.empty),
            IMPORT: lambda: bench.run("-c", "import doit.doit_cmd", cwd=bench.empty),
            EMPTY: lambda: bench.run("-m", "doit", cwd=bench.empty),
            "doit list": lambda: bench.run("-m", "doit", "list"),
            "doit link, warm": lambda: bench.run("-m", "doit", "link"),
            "hotplate link, warm": lambda: bench.run(*HOTPLATE, "link"),
            DEPLOY: warm,
            "hotplate deploy, warm": lambda: bench.run(*HOTPLATE, "deploy", "--device", bench.device),
        }
        times = repeated(commands, runs, partial(recorder.step, "warm deploys and their peers"))
        recorder.add(*_processes(recorder.suite, {**times, **cold}))
        recorder.add(*_first_bytes(bench, recorder, runs))
        recorder.add(*_stages(recorder.suite, reports))
        recorder.note(*_imports(bench))


EMPTY, COLD, DEPLOY = "empty doit", "doit deploy, cold", "doit deploy, warm"
PASS, IMPORT = "python -c pass", "python -c 'import doit.doit_cmd'"
HOTPLATE = ("-c", "import sys; from pipeline.fastpath import main; sys.exit(main())")
PEERS = {"doit link, warm": IMPORT, "hotplate link, warm": PASS, "hotplate deploy, warm": DEPLOY, IMPORT: PASS}
"""Whom a command is compared with, where that is not an empty doit."""

MONITOR, DOIT_MONITOR = "hotplate monitor, first byte", "doit monitor, first byte"
PRINT = "python -c print"
MONITOR_MS = 150.0


def _cold(bench: DeployBench) -> Spent:
    """A deploy with no build products, no cache and an erased board."""
    bench.scratch.erase()
    return bench.deploy()[0]


def _processes(suite: str, times: Mapping[str, Sequence[Spent]]) -> Iterator[BenchRow]:
    """Whole processes, in wall time and in CPU time."""
    for name in times:
        yield from _against(suite, times, name, "" if name in (EMPTY, PASS) else PEERS.get(name, EMPTY))


def _against(
    suite: str, times: Mapping[str, Sequence[Spent]], name: str, peer: str, target: BenchTarget | None = None
) -> Iterator[BenchRow]:
    """The two rows of a command; `target` is one for the wall time."""
    ours, theirs = times[name], times.get(peer, [])
    walls = [1000 * spent.wall_s for spent in ours], [1000 * spent.wall_s for spent in theirs]
    yield measured(suite, name, walls[0], "ms", peer, walls[1], target)
    if all(spent.cpu_s for spent in (*ours, *theirs)):  # Windows says nothing
        cpu = [1000 * spent.cpu_s for spent in ours], [1000 * spent.cpu_s for spent in theirs]
        yield measured(suite, f"{name}, CPU", cpu[0], "ms", peer, cpu[1])


def _first_bytes(bench: DeployBench, recorder: Recorder, runs: int) -> Iterator[BenchRow]:
    """From the start of a monitor to what it shows first, of a board that is talking already."""
    try:
        with talking_board() as port:
            path = bench.project / CONFIG_FILE
            path.write_text(f'{path.read_text()}\n[device.talking]\nport = "{port}"\n')
            words = ("monitor", "talking", "--no-reset")

            def shown(*args: str) -> Callable[[], Spent]:
                return lambda: first_byte([sys.executable, *args], bench.project, bench.scratch.env)

            commands = {
                PRINT: shown("-c", "print('shown', flush=True)"),
                MONITOR: shown(*HOTPLATE, *words),
                DOIT_MONITOR: shown("-m", "doit", *words),
            }
            times = repeated(commands, runs, partial(recorder.step, "the first byte of a monitor"))
    except OSError as error:
        recorder.note("the first byte of a monitor was not measured", str(error))
        return
    yield from _against(recorder.suite, times, MONITOR, PRINT, at_most(MONITOR_MS))
    yield from _against(recorder.suite, times, DOIT_MONITOR, MONITOR)


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
