"""`doit bench:live`: what the resident service makes of the live loop, each case beside the same without it.

Runs a real `doit serve` with a runtime directory of its own, and whole processes of `hotplate` and `doit` in a scratch
copy of the project, with and without it, in turn; then the verdict on a generated project of 10,000 units against
ninja. What lent ports cost, `live_ports.py` measures. Does not touch the project, its cache, or the
user's own service.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.editor.watch import FINISHED
from pipeline.effects.process import background
from pipeline.engine.execution import placed_command
from pipeline.fastpath import quick_build
from pipeline.measure.bench import live_ports
from pipeline.measure.bench.deploys import DeployBench
from pipeline.measure.bench.engine import DOIT, LARGE, GeneratedBench
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import BenchTarget, at_most, measured, ratio_at_most
from pipeline.measure.bench.watch import watched
from pipeline.measure.child import Spent, run_program
from pipeline.measure.experiment import repeated
from pipeline.model import Failure
from pipeline.run.build import Build, load_build
from pipeline.run.options import Options

TIMEOUT_S = 600
ALONE = {"HOTPLATE_SERVICE": "0"}
WARNING = "#warning hotplate"
READY_S = 60.0
REST_S = 1.0
"""After so long nothing is under way any more of what follows a build."""


class LiveBench:
    """A service, and both clients of its verdicts."""

    def __init__(self, build: Build, directory: Path, runtime: Path) -> None:
        self._runner = build.runner
        self.runtime = runtime
        script = f"#!{sys.executable}\nimport sys\nfrom pipeline.fastpath import main\nsys.exit(main())\n"
        self.quick = quick_build.QuickPlaces(directory / "bin/hotplate", directory / "libexec/hotplate")
        self.quick.script.parent.mkdir()
        self.quick.script.write_text(script)
        self.quick.script.chmod(0o755)
        failure = quick_build.install(build.runner, self.quick)
        if failure is not None:
            raise CannotRun(failure.message, failure.hint)

    def at(self, runtime: Path) -> LiveBench:
        """The same with a service that listens elsewhere."""
        other = copy.copy(self)
        other.runtime = runtime
        return other

    def run(self, argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str], *, alone: bool = False) -> Spent:
        """One whole process, with the service or without. Raises RuntimeError when it fails."""
        more = ALONE if alone else {"XDG_RUNTIME_DIR": str(self.runtime)}
        return run_program(self._runner, [str(word) for word in argv], cwd, {**env, **more}, TIMEOUT_S)

    def until_known(self, cwd: Path, env: Mapping[str, str]) -> None:
        """Ask until the service knows the project: it looks at all of it first. Raises RuntimeError."""
        with _environment({**env, "XDG_RUNTIME_DIR": str(self.runtime)}, cwd):
            from pipeline.fastpath import from_service

            end_s = time.monotonic() + READY_S
            while not isinstance(from_service(("compile", "link")), str):
                if time.monotonic() > end_s:
                    raise RuntimeError(f"the service has not known {cwd} for {READY_S:.0f} s")
                time.sleep(0.05)


@contextlib.contextmanager
def _environment(env: Mapping[str, str], cwd: Path) -> Iterator[None]:
    """This process as one of the project, since who asks says where, and with which variables."""
    before, here = dict(os.environ), Path.cwd()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    """The suite. Raises CannotRun without a virtual device, a compiler for this machine, or the service."""
    if sys.platform != "linux":
        raise CannotRun("verdicts and runner need Linux", "run it there")
    with (
        tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory,
        tempfile.TemporaryDirectory(prefix="hp-", dir="/tmp") as runtime,
    ):
        bench = LiveBench(build, Path(directory), Path(runtime))
        scratch = DeployBench(build, Path(directory))
        scratch.need_device()
        env = {**scratch.scratch.env, "XDG_RUNTIME_DIR": runtime}
        with background([sys.executable, "-m", "doit", "serve"], scratch.project, env):
            cases = _LiveCases(recorder, bench, scratch, options["runs"])
            cases.deploys()
            cases.saves()
            cases.edits()
            _ports(recorder, options["runs"])
        _large(recorder, bench, options["runs"])


class _LiveCases:
    """The cases in the copy of the project, each recorded as soon as it is measured."""

    def __init__(self, recorder: Recorder, bench: LiveBench, scratch: DeployBench, runs: int) -> None:
        self._recorder = recorder
        self._bench = bench
        self._scratch = scratch
        self._runs = runs
        name = next((path for path in _sources(scratch) if path.endswith(".c")), None)
        if name is None:
            raise CannotRun("the project has no source in C to save", "run it in a project that compiles")
        self._source = scratch.project / name

    def _run(self, *argv: str | Path, alone: bool = False) -> Spent:
        return self._bench.run(argv, self._scratch.project, self._scratch.scratch.env, alone=alone)

    def _row(
        self, case: str, ours: Sequence[Spent], peer: str, theirs: Sequence[Spent], target: BenchTarget | None
    ) -> None:
        mine, other = ([1000 * spent.wall_s for spent in found] for found in (ours, theirs))
        self._recorder.add(measured(self._recorder.suite, case, mine, "ms", peer, other, target))

    def deploys(self) -> None:
        """Whole warm deploys, here and in the runner."""
        words = ("deploy", "--device", self._scratch.device)
        for _ in range(4):  # the first starts the runner; stamps of what was written just now are not believed
            self._run(sys.executable, "-m", "doit", *words)
            self._run(sys.executable, "-m", "doit", *words, alone=True)
        commands: dict[str, Callable[[], Spent]] = {
            "doit": partial(self._run, sys.executable, "-m", "doit", *words),
            "doit alone": partial(self._run, sys.executable, "-m", "doit", *words, alone=True),
            "hotplate": partial(self._run, self._bench.quick.kept, *words),
            "hotplate alone": partial(self._run, self._bench.quick.kept, *words, alone=True),
        }
        times = repeated(commands, self._runs, partial(self._recorder.step, "warm deploys"))
        case, without = "warm {} deploy through the service", "the same without"
        self._row(case.format("doit"), times["doit"], without, times["doit alone"], ratio_at_most(0.5))
        self._row(case.format("hotplate"), times["hotplate"], without, times["hotplate alone"], ratio_at_most(0.5))

    def saves(self) -> None:
        """Saved as it was, then the verdict, in whole processes."""
        env = self._scratch.scratch.env
        self._run(self._bench.quick.kept, "compile", "link", alone=True)
        self._bench.until_known(self._scratch.project, env)

        def saved(program: Path, *, alone: bool = False) -> Spent:
            self._source.write_bytes(self._source.read_bytes())
            return self._run(program, "compile", "link", alone=alone)

        quick = self._bench.quick
        commands: dict[str, Callable[[], Spent]] = {
            "quick": partial(saved, quick.script),
            "script": partial(saved, quick.kept),
            "alone": partial(saved, quick.kept, alone=True),
            "python": lambda: self._run(sys.executable, "-c", "pass"),
        }
        times = repeated(commands, self._runs, partial(self._recorder.step, "saves without a change"))
        case, alone = "save without a change -> verdict, {}", "without the service"
        self._row(case.format("compiled client"), times["quick"], alone, times["alone"], at_most(15))
        self._row(case.format("script"), times["script"], "python -c pass", times["python"], None)

    def edits(self) -> None:
        """From a save to the diagnostics of the compiler, and to the first JSON-RPC byte."""
        text = self._source.read_text()
        compiler, linker = _bare(self._scratch, self._source, text, self._runs)
        beyond: list[float] = []
        whole: list[float] = []
        for number in range(self._runs):
            self._recorder.step("edits", number, self._runs)
            self._source.write_text(f"{text}{WARNING}\n// {number} {time.time_ns()}\n")
            spent = self._run(self._bench.quick.script, "compile")
            if "warning" not in spent.out + spent.err:
                raise RuntimeError(f"the compiler gave no diagnostic:\n{spent.out}{spent.err}")
            beyond.append(1000 * spent.wall_s - compiler)
            self._source.write_text(f"{text}// {number} {time.time_ns()}\nint hotplate_{number};\n")
            words = ("deploy", "--device", self._scratch.device)
            whole.append(1000 * self._run(self._bench.quick.script, *words).wall_s - compiler - linker)
        self._source.write_text(text)
        suite, add = self._recorder.suite, self._recorder.add
        add(
            measured(
                suite,
                "comment edit -> diagnostics, less the compiler",
                beyond,
                "ms",
                "compiler",
                [compiler],
                at_most(60),
            )
        )
        case = "edit -> first JSON-RPC byte, less compiler and linker"
        add(measured(suite, case, whole, "ms", "compiler and linker", [compiler + linker], at_most(400)))


def _sources(scratch: DeployBench) -> Sequence[str]:
    build = load_build(Options(), scratch.project)
    if isinstance(build, Failure):
        raise CannotRun(build.message, build.hint)
    try:
        return tuple(build.engine.sources())
    finally:
        build.close()


def _bare(scratch: DeployBench, source: Path, text: str, runs: int) -> tuple[float, float]:
    """What the compiler and the linker alone take, ms: the median of the very commands."""
    build = load_build(Options(), scratch.project)
    assert not isinstance(build, Failure)
    engine, name = build.engine, source.relative_to(scratch.project).as_posix()
    compiles = next(action for action in engine.graph.order if action.argv and action.inputs[0] == name)
    links = [a for a in engine.graph.order if a.argv and set(compiles.outputs) & set(a.inputs)]
    source.write_text(f"{text}{WARNING}\n")
    took: list[list[float]] = []
    try:
        for action in (compiles, *links[:1]):
            argv, env = placed_command(engine.workspace, action)
            found = [
                build.runner.run(argv, cwd=scratch.project, env=env, timeout_s=TIMEOUT_S).duration_s
                for _ in range(runs)
            ]
            took.append(sorted(1000 * one for one in found))
    finally:
        source.write_text(text)
        build.close()
    medians = [found[len(found) // 2] for found in took]
    return medians[0], sum(medians[1:])


def _ports(recorder: Recorder, runs: int) -> None:
    """What lending costs, and a byte's way to a viewer: on a pseudo-terminal, whose board this process is."""
    found = live_ports.measure_ports(runs, recorder.step)
    for case, times, limit in (
        ("port lent to a deploy", found.lent, live_ports.LENT_MS),
        ("port given back to its viewers", found.returned, live_ports.LENT_MS),
        ("board's byte -> viewer's socket", found.byte, live_ports.BYTE_MEDIAN_MS),
    ):
        recorder.add(measured(recorder.suite, case, times, "ms", target=at_most(limit)))
    late = sorted(found.byte)[min(len(found.byte) - 1, int(0.99 * len(found.byte)))]
    case = "board's byte -> viewer's socket, p99"
    recorder.add(measured(recorder.suite, case, [late], "ms", target=at_most(live_ports.BYTE_P99_MS)))


def _large(recorder: Recorder, bench: LiveBench, runs: int) -> None:
    """The verdict on an unchanged tree, against ninja's."""
    ninja = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
    if ninja is None:
        raise CannotRun("ninja is not installed", "install it: pip install 'hotplate[bench]'")
    with (
        tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory,
        tempfile.TemporaryDirectory(prefix="hp-", dir="/tmp") as runtime,
        contextlib.ExitStack() as running,
    ):
        recorder.step(f"{LARGE} units")
        project = GeneratedBench(Path(directory, "ours"), LARGE, real=False)
        # Of its own, since the service looks at every save in a tree that it knows, also while ninja builds it.
        theirs = GeneratedBench(Path(directory, "theirs"), LARGE, real=False)
        # A runner does nothing for who finds other modules than it does, as this project's compiler.
        bench = bench.at(Path(runtime))
        env = {**project.env, "XDG_RUNTIME_DIR": runtime}
        running.enter_context(background([sys.executable, "-m", "doit", "serve"], project.root, env))
        build = (ninja,)
        theirs.run(*build)
        for _ in range(3):
            project.run(*DOIT, env={**project.env, **ALONE})
        bench.until_known(project.root, project.env)
        run = partial(bench.run, cwd=project.root, env=project.env)
        commands: dict[str, Callable[[], Spent]] = {
            "ninja": partial(theirs.run, *build),
            "quick": lambda: run([bench.quick.script, "compile", "link"]),
            "script": lambda: run([bench.quick.kept, "compile", "link"]),
            "python": lambda: run([sys.executable, "-c", "pass"]),
        }
        times = repeated(commands, runs, partial(recorder.step, f"verdicts, {LARGE} units"))
        edits = _edits_of_many(recorder, bench, project, partial(theirs.edited, build), runs)
    in_ms = {name: [1000 * spent.wall_s for spent in found] for name, found in times.items()}
    case = f"hotplate, nothing changed, {LARGE} units, {{}}"
    target = ratio_at_most(0.15)
    for who, name, limit in (("compiled client", "quick", target), ("script", "script", None)):
        recorder.add(measured(recorder.suite, case.format(who), in_ms[name], "ms", "ninja", in_ms["ninja"], limit))
    recorder.add(measured(recorder.suite, "python -c pass", in_ms["python"], "ms", "ninja", in_ms["ninja"]))
    for who in ("compiled client", "doit watch"):
        case = f"one edit, total, {LARGE} units, {who}"
        recorder.add(measured(recorder.suite, case, edits[who], "ms", "ninja", edits["ninja"], ratio_at_most(1)))


def _edits_of_many(
    recorder: Recorder, bench: LiveBench, project: GeneratedBench, ninja: Callable[[], Spent], runs: int
) -> Mapping[str, Sequence[float]]:
    """From the save of one unit to the end of its link, ms: through the service, under `doit watch`, by ninja, which
    saves and builds in a tree that no service knows."""
    run = partial(bench.run, cwd=project.root, env=project.env)

    def edited(*argv: str | Path) -> float:
        project.edit(f"edited_at_{time.time_ns()}")
        return 1000 * run(argv).wall_s

    client = (bench.quick.script, "compile", "link")
    for _ in range(3):  # the first starts the runner
        edited(*client)
    took: dict[str, list[float]] = {"ninja": [], "compiled client": [], "doit watch": []}
    for number in range(runs):
        recorder.step(f"edits, {LARGE} units", number, runs)
        bench.until_known(project.root, project.env)  # as when a person types
        took["compiled client"].append(edited(*client))
        bench.until_known(project.root, project.env)
        time.sleep(REST_S)  # the runner has got its next run ready
        took["ninja"].append(1000 * ninja().wall_s)
    env = {**project.env, "XDG_RUNTIME_DIR": str(bench.runtime)}
    with watched(project.root, env) as lines:
        for number in range(runs):
            recorder.step(f"saves under `doit watch`, {LARGE} units", number, runs)
            time.sleep(REST_S)  # with a run in reserve
            began_s = time.perf_counter()
            project.edit(f"edited_at_{time.time_ns()}")
            took["doit watch"].append(1000 * (lines.until(FINISHED.__eq__) - began_s))
    return took
