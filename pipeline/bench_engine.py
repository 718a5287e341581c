"""`doit bench:engine`: the engine against its peers on generated projects, as ratios within one run.

Runs whole processes in a scratch directory, interleaved so that a busy moment hits all of them, and prints medians.
Peers: ninja, a C program that stats the same files, plain doit with its own checker, ccache under ninja; one that is
not installed has no row. Judges nothing. Does not touch the project that it is called from.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline import bench_project
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner

TIMEOUT_S = 1800
PLAIN_RUNS = 3
"""Plain doit takes seconds to find that nothing is to be done."""
_PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


class Spent(NamedTuple):
    """Seconds on the wall, and of CPU by the process and its children: a busy machine stretches the former more."""

    wall_s: float
    cpu_s: float = 0.0


class Row(NamedTuple):
    """One measurement and the peer's, whose ratio counts. `unit` is ms or MB (of which `wall_s` holds the number)."""

    case: str
    units: int
    what: str
    value: Spent
    peer: str
    peer_value: Spent
    target: str
    unit: str = "ms"


class Bench:
    """One generated project with its tools, and commands in it."""

    def __init__(self, directory: Path, units: int, *, real: bool) -> None:
        self.units = units
        self.root = directory / "project"
        self._runner = SystemProcessRunner(SystemClock())
        bench_project.write_project(self.root, units)
        self.zig = bench_project.write_compiler(directory / "tools")
        self.env = {**os.environ, "PYTHONPATH": f"{directory / 'tools'}{os.pathsep}{Path(__file__).parents[1]}"}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._compile(directory, "zig", bench_project.COMPILER, self.zig, f'-DREAL="{"cc" if real else ""}"')
        self.statter = directory / "statter"
        self._compile(directory, "statter", bench_project.STATTER, self.statter)
        bench_project.write_ninja(self.root, units, self.zig)
        bench_project.write_plain_doit(self.root, units, self.zig)

    def _compile(self, directory: Path, name: str, text: str, out: Path, *flags: str) -> None:
        source = directory / f"{name}.c"
        source.write_text(text)
        found = shutil.which("cc")
        compiler = [found] if found else [sys.executable, "-m", "ziglang", "cc"]
        self.run(*compiler, "-O2", *flags, "-o", str(out), str(source), env=dict(os.environ))

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> Spent:
        """What one process took. Raises RuntimeError when it fails."""
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = self._runner.run(argv, cwd=self.root, env=env or self.env, timeout_s=TIMEOUT_S)
        elapsed_s = time.perf_counter() - began_s
        if done.exit_code != 0:
            raise RuntimeError(
                f"{' '.join(argv)[:200]} failed:\n{(done.stdout + done.stderr).decode(errors='replace')}"
            )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Spent(elapsed_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def peak_mb(self, *argv: str) -> float:
        """Peak resident memory of one process."""
        done = self._runner.run([sys.executable, "-c", _PEAK, *argv], cwd=self.root, env=self.env, timeout_s=TIMEOUT_S)
        return int(done.stdout.split()[-1]) / 1024

    def until_compiled(self, argv: Sequence[str], out: str, number: int) -> Spent:
        """From the start of a command, after an edit of the first unit, until its object is written; CPU to the end."""
        source = self.root / bench_project.source_names(1)[0]
        source.write_text(f"{bench_project.source_text(0)}int edit{number};\n")
        began_ns = time.time_ns()
        spent = self.run(*argv)
        return spent._replace(wall_s=((self.root / out).stat().st_mtime_ns - began_ns) / 1e9)

    def write_paths(self) -> None:
        """What the C program stats: every source, header and object."""
        built = [f"build/local-fast/obj/app/{name}.o" for name in bench_project.source_names(self.units)]
        headers = [f"include/h{n:02}.h" for n in range(bench_project.HEADERS)]
        (self.root / "paths.txt").write_text("\n".join([*bench_project.source_names(self.units), *headers, *built, ""]))

    def touch_all(self) -> None:
        for path in (self.root / "src").rglob("*.c"):
            path.touch()


DOIT = (sys.executable, "-m", "doit", "compile", "link")
HOTPLATE = (sys.executable, "-c", "import sys; from pipeline.gate import main; sys.exit(main())", "compile", "link")
IN_PYTHON = {"HOTPLATE_NATIVE": "0"}
"""The gate without its compiled loop."""


def run(units: Sequence[int] = (100, 1000, 10000), runs: int = 9) -> str:
    """Measure and return a table. Raises RuntimeError when ninja is missing or a build fails."""
    ninja = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
    if ninja is None:
        raise RuntimeError("ninja is not installed\nhint: install the extra `bench` (pip install 'hotplate[bench]')")
    rows: list[Row] = []
    for count in units:
        with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
            rows += _no_op(Bench(Path(directory), count, real=False), ninja, runs)
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        rows += _real(Bench(Path(directory), min(max(units), 1000), real=True), ninja)
    return table(rows)


def _no_op(bench: Bench, ninja: str, runs: int) -> list[Row]:
    bench.run(ninja)
    for _ in range(3):  # the stamps of what was written just now are believed from the next run on
        bench.run(*DOIT)
    bench.run(*HOTPLATE)
    bench.write_paths()
    commands: dict[str, tuple[str, ...]] = {"stat in C": (str(bench.statter),), "ninja": (ninja,)}
    commands |= {"python -c pass": (sys.executable, "-c", "pass"), "doit": DOIT, "hotplate": HOTPLATE}
    measured = {name: partial(bench.run, *argv) for name, argv in commands.items()}
    measured["without"] = partial(bench.run, *HOTPLATE, env={**bench.env, **IN_PYTHON})
    times = _interleaved(measured, runs)
    case, n = "warm no-op", bench.units
    rows = [
        Row(case, n, "doit", times["doit"], "ninja", times["ninja"], "<= 1.6 at 10,000"),
        Row(case, n, "hotplate", times["hotplate"], "ninja", times["ninja"], "<= 0.5 at 10,000"),
        Row(case, n, "hotplate", times["hotplate"], "stat in C", times["stat in C"], "<= 1.5 at 10,000"),
        Row(case, n, "hotplate, in Python", times["without"], "ninja", times["ninja"], "<= 0.8 at 10,000"),
        Row(case, n, "hotplate, in Python", times["without"], "stat in C", times["stat in C"], "<= 2.5 at 10,000"),
        Row(case, n, "hotplate", times["hotplate"], "python -c pass", times["python -c pass"], "<= 12 ms at 100"),
    ]
    plain = (sys.executable, "-m", "doit", "-f", "plain_dodo.py")
    bench.run(*plain)
    both = _interleaved({"plain doit": partial(bench.run, *plain), "doit": partial(bench.run, *DOIT)}, PLAIN_RUNS)
    rows.append(Row(case, n, "plain doit", both["plain doit"], "doit", both["doit"], ">= 15 at 10,000"))
    ours, theirs = Spent(bench.peak_mb(*DOIT)), Spent(bench.peak_mb(ninja))
    rows.append(Row("warm no-op, memory", n, "doit", ours, "ninja", theirs, "<= 60 MB", "MB"))
    touched = _interleaved({"touched": partial(_touched, bench), "doit": partial(_settled, bench)}, 3)
    rows.append(Row("all touched", n, "doit", touched["touched"], "doit", touched["doit"], "<= 5 x no-op"))
    bench.run(ninja)
    source = bench_project.source_names(1)[0]
    edits = iter(range(1000))
    started = _interleaved(
        {
            "ninja": lambda: bench.until_compiled((ninja,), f"ninja/{source[:-2]}.o", next(edits)),
            "doit": lambda: bench.until_compiled(DOIT, f"build/local-fast/obj/app/{source}.o", next(edits)),
        },
        3,
    )
    rows.append(Row("one edit, until compiled", n, "doit", started["doit"], "ninja", started["ninja"], "<= 2"))
    return rows


def _touched(bench: Bench) -> Spent:
    bench.touch_all()
    return bench.run(*DOIT)


def _settled(bench: Bench) -> Spent:
    """A no-op after whatever came before: the second run, whose stamps are all believed."""
    bench.run(*DOIT)
    return bench.run(*DOIT)


def _real(bench: Bench, ninja: str) -> list[Row]:
    n = bench.units
    theirs, ours = bench.run(ninja), bench.run(*DOIT)
    rows = [Row("cold", n, "doit", ours, "ninja", theirs, "CPU <= 1.05")]
    shutil.rmtree(bench.root / "build")
    restore = bench.run(*DOIT)
    ccache = shutil.which("ccache")
    if ccache is None:
        return [*rows, Row("restore", n, "doit", restore, "ninja without ccache", theirs, "")]
    bench_project.write_ninja(bench.root, n, bench.zig, ccache)
    bench.env["CCACHE_DIR"] = str(bench.root / "ccache")
    for _ in range(2):
        shutil.rmtree(bench.root / "ninja")
        theirs = bench.run(ninja)
    return [*rows, Row("restore", n, "doit", restore, "ninja and ccache", theirs, "CPU <= 0.1")]


def _interleaved(commands: Mapping[str, Callable[[], Spent]], runs: int) -> dict[str, Spent]:
    """Medians."""
    times: dict[str, list[Spent]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(command())
    return {name: Spent(*map(statistics.median, zip(*spent, strict=True))) for name, spent in times.items()}


def table(rows: Sequence[Row]) -> str:
    """The rows as a table; times in ms, ratios of times on the wall and of CPU."""
    from tabulate import tabulate

    def shown(row: Row, value: float) -> str:
        return f"{value * 1000:.1f} ms" if row.unit == "ms" else f"{value:.1f} {row.unit}"

    def ratio(ours: float, theirs: float) -> str:
        return f"{ours / theirs:.2f}" if theirs else ""

    cells = [
        (
            *(row.case, row.units, row.what, shown(row, row.value.wall_s), row.peer, shown(row, row.peer_value.wall_s)),
            *(ratio(ours, theirs) for ours, theirs in zip(row.value, row.peer_value, strict=True)),
            row.target,
        )
        for row in rows
    ]
    headers = ("case", "units", "what", "median", "peer", "its median", "ratio", "of CPU", "target")
    return str(tabulate(cells, headers=headers))
