"""`doit bench:engine`: the engine against its peers on generated projects, as ratios within one run.

Runs whole processes in a scratch directory, interleaved so that a busy moment hits all of them. A case has a row for
the wall and, where both sides are whole processes, one for the CPU, which a busy machine stretches less. Peers: ninja
with as many commands at once as we start, a C program that stats the same files, plain doit with its own checker,
ccache under ninja; without ccache restoring is compared with ninja alone. All are given our own actions' command lines.
What only we make (images, the partition table) is charged to us. Does not touch the project that it is called from.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.measure.bench import generated_project
from pipeline.measure.bench.generated_project import PeerCommand
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import BenchTarget, at_most, measured, ratio_at_most
from pipeline.measure.child import Spent, run_program
from pipeline.measure.experiment import repeated
from pipeline.run.build import Build

TIMEOUT_S = 1800
SMALL, MIDDLE, LARGE = 100, 1000, 10_000
"""Each target is for one of these numbers of units; other projects have none."""

MOST_UNITS = 100_000
"""The names of generated sources have five digits."""
UNITS = (SMALL, MIDDLE, LARGE)
FEW_RUNS = 3
PLAIN_RUNS = 3
"""Plain doit takes seconds to find that nothing is to be done."""
_PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)

_COMMANDS = """
import json
import sys
from pathlib import Path
from pipeline.engine.execution import placed_command
from pipeline.run.build import load_build
from pipeline.run.options import Options
build = load_build(Options(), Path.cwd())
workspace = build.engines.whole.workspace
Path(sys.argv[1]).write_text(json.dumps([
    (it.count_as, it.outputs[0], it.depfile, placed_command(workspace, it)[0], it.inputs)
    for it in build.toolchain.actions if it.argv
]))
"""

_READ_AND_HASH = (
    "import pathlib, xxhash\n"
    "for path in pathlib.Path('src').rglob('*.c'): xxhash.xxh3_128(path.read_bytes()).hexdigest()"
)
"""The floor of a run that must look at the content of every source: what a touch asks for."""


class GeneratedBench:
    """One generated project with its tools, and commands in it."""

    def __init__(self, directory: Path, units: int, *, real: bool) -> None:
        self.units = units
        self.root = directory / "project"
        self._runner = SystemProcessRunner(SystemClock())
        generated_project.write_project(self.root, units)
        self.zig = generated_project.write_compiler(directory / "tools")
        self.env = {**os.environ, "PYTHONPATH": f"{directory / 'tools'}{os.pathsep}{Path(__file__).parents[3]}"}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._compile(directory, "zig", generated_project.COMPILER, self.zig, f'-DREAL="{"cc" if real else ""}"')
        self.statter = directory / "statter"
        self._compile(directory, "statter", generated_project.STATTER, self.statter)
        self.commands = self._commands()
        generated_project.write_ninja(self.root, self.commands)
        generated_project.write_plain_doit(self.root, self.commands)

    def _commands(self) -> list[PeerCommand]:
        """The command lines of our own actions, as they are run. Asking leaves nothing in the project."""
        said = self.root.parent / "commands.json"  # of ten thousand it is more than a runner keeps of what is printed
        self.run(sys.executable, "-c", _COMMANDS, str(said))
        self.put_away(".deploy")
        told = json.loads(said.read_text())
        return [PeerCommand(said, out, dep, tuple(argv), tuple(read)) for said, out, dep, argv, read in told]

    def _compile(self, directory: Path, name: str, text: str, out: Path, *flags: str) -> None:
        source = directory / f"{name}.c"
        source.write_text(text)
        found = shutil.which("cc")
        compiler = [found] if found else [sys.executable, "-m", "ziglang", "cc"]
        self.run(*compiler, "-O2", *flags, "-o", str(out), str(source), env=dict(os.environ))

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> Spent:
        """What one process took. Raises RuntimeError when it fails."""
        return run_program(self._runner, argv, self.root, env or self.env, TIMEOUT_S)

    def run_with_peak(self, *argv: str) -> tuple[Spent, float]:
        """As `run`, and the peak resident memory of the process in MB."""
        spent = self.run(sys.executable, "-c", _PEAK, *argv)
        return spent, int(spent.out.split()[-1]) / 1024

    def peak_mb(self, *argv: str) -> float:
        """Peak resident memory of one process."""
        return self.run_with_peak(*argv)[1]

    def until_compiled(self, argv: Sequence[str], out: str, number: int) -> Spent:
        """From the start of a command, after an edit of the first unit, until its object is written; CPU to the end."""
        self.edit(f"edit{number}")
        began_ns = time.time_ns()
        spent = self.run(*argv)
        return spent._replace(wall_s=((self.root / out).stat().st_mtime_ns - began_ns) / 1e9)

    def edit(self, name: str) -> None:
        """Save the first unit with a variable of this name."""
        source = self.root / generated_project.source_names(1)[0]
        source.write_text(f"{generated_project.source_text(0)}int {name};\n")

    def edited(self, argv: Sequence[str]) -> Spent:
        """A whole run after an edit that no run has seen."""
        self.edit(f"edited_at_{time.time_ns()}")
        return self.run(*argv)

    def write_paths(self) -> None:
        """What the C program stats: every source, header and object."""
        built = [f"build/local-fast/obj/app/{name}.o" for name in generated_project.source_names(self.units)]
        headers = [f"include/h{n:02}.h" for n in range(generated_project.HEADERS)]
        (self.root / "paths.txt").write_text(
            "\n".join([*generated_project.source_names(self.units), *headers, *built, ""])
        )

    def put_away(self, name: str) -> None:
        """Take what the project has by that name away. Not by removing its files: ext4 without a journal looks at every
        inode that was freed within the last minutes before it makes a file, which would be most of what is measured."""
        gone = self.root.parent / "gone"
        gone.mkdir(exist_ok=True)
        if (self.root / name).exists():
            (self.root / name).rename(gone / f"{Path(name).name}-{len(list(gone.iterdir()))}")

    def touch_all(self) -> None:
        for path in (self.root / "src").rglob("*.c"):
            path.touch()


DOIT = (sys.executable, "-m", "doit", "compile", "link")
HOTPLATE = (
    sys.executable,
    "-c",
    "import sys; from pipeline.fastpath import main; sys.exit(main())",
    "compile",
    "link",
)
OURS, NINJAS = ("build", ".deploy", "reports"), ("ninja", ".ninja_log", ".ninja_deps")
"""What a build leaves: without these it is one from nothing."""
IN_PYTHON = {"HOTPLATE_NATIVE": "0"}
"""The fast path without its compiled loop."""


Times = Mapping[str, Sequence[Spent]]


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any], units: Sequence[int] = UNITS) -> None:
    """The suite. Raises CannotRun when ninja is missing, RuntimeError when a build fails."""
    del build  # its projects are generated
    ninja = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
    if ninja is None:
        raise CannotRun("ninja is not installed", "install it: pip install 'hotplate[bench]'")
    counts = asked_units(options) or units
    for count in counts:
        recorder.step(f"{count} units")
        with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
            _Cases(recorder, GeneratedBench(Path(directory), count, real=False), ninja).all(options["runs"])
    recorder.step("a real compiler")
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        cases = _Cases(recorder, GeneratedBench(Path(directory), min(max(counts), MIDDLE), real=True), ninja)
        cases.cold_and_restore()


def asked_units(options: Mapping[str, Any]) -> tuple[int, ...]:
    """The numbers of units that `--units` names, none where it names none. Raises CannotRun."""
    asked = str(options.get("units") or "")
    words = asked.replace(",", " ").split()
    if not all(word.isdecimal() and 0 < int(word) <= MOST_UNITS for word in words):
        raise CannotRun(f"--units is {asked!r}, but must be numbers from 1 to {MOST_UNITS}", "use --units 1000,10000")
    return tuple(map(int, words))


class _Cases:
    """The cases on one generated project, each recorded as soon as it is measured."""

    def __init__(self, recorder: Recorder, bench: GeneratedBench, ninja: str) -> None:
        self._recorder = recorder
        self._bench = bench
        self._ninja = (ninja,)

    def all(self, runs: int) -> None:
        """What depends on the number of units, with a compiler that costs nothing."""
        self._cold()
        self._no_op(runs)
        self._plain_doit()
        self._memory()
        self._touched()
        self._edited()
        self._edited_and_linked(runs)

    def _large(self, target: BenchTarget) -> BenchTarget | None:
        """`target` where the project is as large as it is meant for."""
        return self._at(LARGE, target)

    def _at(self, units: int, target: BenchTarget) -> BenchTarget | None:
        return target if self._bench.units == units else None

    def _row(
        self, case: str, times: Times, ours: str, peer: str, target: BenchTarget | None, cpu: BenchTarget | None
    ) -> None:
        """A row for the wall, and one for the CPU."""
        name = f"{case}, {self._bench.units} units, {ours}"
        for what, field, limit in (("", "wall_s", target), (", CPU", "cpu_s", cpu)):
            mine, theirs = ([1000 * getattr(spent, field) for spent in times[who]] for who in (ours, peer))
            self._recorder.add(measured(self._recorder.suite, name + what, mine, "ms", peer, theirs, limit))

    def _cold(self) -> None:
        """With a compiler of a millisecond, so that what is ours is seen."""
        times, peaks = self._cold_runs()
        self._row("cold, compiler of 1 ms", times, "doit", "ninja", None, self._large(ratio_at_most(1.15)))
        limit = at_most(150) if self._bench.units > LARGE else None
        case = f"cold, compiler of 1 ms, {self._bench.units} units, memory"
        peak, theirs = peaks["doit"], peaks["ninja"]
        self._recorder.add(measured(self._recorder.suite, case, peak, "MB", "ninja", theirs, limit))

    def _cold_runs(self) -> tuple[Times, Mapping[str, Sequence[float]]]:
        """Both from nothing, and their peak memory; of what takes many minutes one run each."""
        ways = {"ninja": (self._ninja, NINJAS), "doit": (DOIT, OURS)}
        peaks: dict[str, list[float]] = {name: [] for name in ways}

        def run(name: str) -> Spent:
            argv, made = ways[name]
            for each in made:
                self._bench.put_away(each)
            spent, peak = self._bench.run_with_peak(*argv)
            peaks[name].append(peak)
            return spent

        runs = FEW_RUNS if self._bench.units <= LARGE else 1
        return self._interleaved("cold", {name: partial(run, name) for name in ways}, runs), peaks

    def _no_op(self, runs: int) -> None:
        bench = self._bench
        bench.run(*self._ninja)
        for _ in range(3):  # the stamps of what was written just now are believed from the next run on
            bench.run(*DOIT)
        bench.run(*HOTPLATE)
        bench.write_paths()
        commands = {"stat in C": (str(bench.statter),), "ninja": self._ninja, "doit": DOIT, "hotplate": HOTPLATE}
        commands |= {"python -c pass": (sys.executable, "-c", "pass")}
        runner = {name: partial(bench.run, *argv) for name, argv in commands.items()}
        runner["hotplate in Python"] = partial(bench.run, *HOTPLATE, env={**bench.env, **IN_PYTHON})
        times = self._interleaved("warm no-op", runner, runs)
        case, large = "warm no-op", self._large
        self._row(case, times, "doit", "ninja", large(ratio_at_most(1.6)), None)
        self._row(case, times, "hotplate", "ninja", large(ratio_at_most(0.5)), None)
        self._row(case, times, "hotplate", "stat in C", large(ratio_at_most(1.5)), None)
        self._row(case, times, "hotplate in Python", "ninja", large(ratio_at_most(0.8)), None)
        self._row(case, times, "hotplate in Python", "stat in C", large(ratio_at_most(2.5)), None)
        # interpreter and all; the peer is what of it is not ours
        whole = at_most(12) if bench.units == SMALL else None
        self._row(case, times, "hotplate", "python -c pass", whole, None)

    def _plain_doit(self) -> None:
        bench = self._bench
        plain = (sys.executable, "-m", "doit", "-f", "plain_dodo.py")
        bench.run(*plain)
        commands = {"plain doit": partial(bench.run, *plain), "doit": partial(bench.run, *DOIT)}
        times = self._interleaved("plain doit", commands, PLAIN_RUNS)
        self._row("warm no-op", times, "doit", "plain doit", self._large(ratio_at_most(1 / 15)), None)

    def _memory(self) -> None:
        ours, theirs = self._bench.peak_mb(*DOIT), self._bench.peak_mb(*self._ninja)
        case = f"warm no-op, {self._bench.units} units, memory"
        self._recorder.add(measured(self._recorder.suite, case, [ours], "MB", "ninja", [theirs], at_most(60)))

    def _touched(self) -> None:
        peer = "read and hash"
        commands = {"doit": partial(_touched, self._bench, DOIT), "hotplate": partial(_touched, self._bench, HOTPLATE)}
        commands["doit, nothing touched"] = partial(_settled, self._bench)
        commands[peer] = partial(self._bench.run, sys.executable, "-c", _READ_AND_HASH)
        times = self._interleaved("all touched", commands, FEW_RUNS)
        limit = self._large(ratio_at_most(1.3))
        for ours in ("doit", "hotplate"):
            self._row("all touched", times, ours, peer, limit, limit)
        self._row("all touched", times, "doit", "doit, nothing touched", self._large(ratio_at_most(5)), None)

    def _edited(self) -> None:
        """Until the object is written: the CPU is that of the whole run, so it has no row."""
        bench, ninja = self._bench, self._ninja
        bench.run(*ninja)
        source = generated_project.source_names(1)[0]
        edits = iter(range(1000))
        commands = {
            "ninja": lambda: bench.until_compiled(ninja, f"ninja/obj/app/{source}.o", next(edits)),
            "doit": lambda: bench.until_compiled(DOIT, f"build/local-fast/obj/app/{source}.o", next(edits)),
        }
        times = self._interleaved("one edit", commands, FEW_RUNS)
        ours, theirs = ([1000 * spent.wall_s for spent in times[who]] for who in ("doit", "ninja"))
        case = f"one edit, {bench.units} units, until compiled"
        target = self._large(ratio_at_most(2))
        self._recorder.add(measured(self._recorder.suite, case, ours, "ms", "ninja", theirs, target))

    def _edited_and_linked(self, runs: int) -> None:
        """Whole runs, to the end of the link and of the process."""
        bench = self._bench
        for _ in range(2):  # as in `_no_op`
            bench.run(*DOIT)
        ways = {"ninja": self._ninja, "doit": DOIT, "hotplate": HOTPLATE}
        commands = {name: partial(bench.edited, argv) for name, argv in ways.items()}
        times = self._interleaved("one edit, total", commands, runs)
        for ours in ("doit", "hotplate"):
            wall, cpu = self._large(ratio_at_most(2)), self._large(ratio_at_most(3))
            self._row("one edit, total", times, ours, "ninja", wall, cpu)

    def cold_and_restore(self) -> None:
        """With this machine's own compiler."""
        bench = self._bench
        times, _ = self._cold_runs()
        self._row("cold", times, "doit", "ninja", None, self._at(MIDDLE, ratio_at_most(1.05)))
        for _ in range(2):  # as in `_no_op`
            bench.run(*DOIT)
        ways = {"doit": DOIT, "hotplate": HOTPLATE}
        commands = {name: partial(_restored, bench, "build", argv) for name, argv in ways.items()}
        ccache, peer, target = shutil.which("ccache"), "ninja and ccache", ratio_at_most(0.1)
        if ccache is None:
            restored = self._interleaved("restore", commands, FEW_RUNS)
            self._row("restore", {**times, **restored}, "doit", "ninja", None, None)
            return
        generated_project.write_ninja(bench.root, bench.commands, ccache)
        bench.env["CCACHE_DIR"] = str(bench.root / "ccache")
        commands[peer] = partial(_restored, bench, "ninja", self._ninja)
        commands[peer]()  # fills it
        restored = self._interleaved("restore", commands, FEW_RUNS)
        for ours in ways:
            self._row("restore", restored, ours, peer, None, self._at(MIDDLE, target))

    def _interleaved(self, label: str, commands: Mapping[str, Callable[[], Spent]], runs: int) -> Times:
        return repeated(commands, runs, partial(self._recorder.step, f"{label}, {self._bench.units} units"))


def _restored(bench: GeneratedBench, directory: str, argv: Sequence[str]) -> Spent:
    bench.put_away(directory)
    return bench.run(*argv)


def _touched(bench: GeneratedBench, argv: Sequence[str]) -> Spent:
    bench.touch_all()
    return bench.run(*argv)


def _settled(bench: GeneratedBench) -> Spent:
    """A no-op after whatever came before: the second run, whose stamps are all believed."""
    bench.run(*DOIT)
    return bench.run(*DOIT)
