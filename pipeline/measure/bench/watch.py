"""`doit bench:watch`: how long from a save to the end of its build, to its first diagnostic, and to "nothing to do".

Runs a real `doit watch` in a scratch copy of the project and saves files under it; then the same saves through
`hotplate compile link`, as editors' hooks call it; and the compiler alone, the peer of what cannot be less. Does not
touch the project or its cache.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from pipeline.editor.watch import FINISHED, STARTED
from pipeline.effects.process import SystemProcessRunner
from pipeline.effects.spawned import Group
from pipeline.engine.execution import placed_command
from pipeline.formats.diagnostics import is_error
from pipeline.measure.bench.deploys import DeployBench
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import BenchRow, measured
from pipeline.model import Failure
from pipeline.run.build import Build, load_build
from pipeline.run.options import Options

TIMEOUT_S = 60.0
BROKEN = "int broken( {\n"


class WatchLines:
    """The lines of a process with the instants at which they came."""

    def __init__(self, streams: Sequence[IO[bytes]]) -> None:
        self._queue: SimpleQueue[tuple[float, str]] = SimpleQueue()
        for stream in streams:
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._queue.put((time.perf_counter(), line.decode(errors="replace").rstrip()))

    def until(self, found: Callable[[str], bool]) -> float:
        """The instant of the first line from here on that `found` says yes to. Raises RuntimeError."""
        while True:
            try:
                at_s, line = self._queue.get(timeout=TIMEOUT_S)
            except Empty:
                raise RuntimeError(f"`doit watch` was silent for {TIMEOUT_S:.0f} s") from None
            if found(line):
                return at_s


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    """The suite. Raises RuntimeError when `doit watch` does not come up, CannotRun without a source in C."""
    runs = options["runs"]
    name = next((path for path in build.engine.sources() if path.endswith(".c")), None)
    if name is None:
        raise CannotRun("the project has no source in C to save", "run it in a project that compiles")
    times: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        scratch = DeployBench(build, Path(directory))
        source = scratch.project / name
        text = source.read_text()
        recorder.step("the first build of `doit watch`")
        with watched(scratch.project, scratch.scratch.env) as lines:
            for number in range(runs):
                recorder.step("saves under `doit watch`", number, runs)
                _saves(times, lines, source, text, number)
        recorder.step("saves and `hotplate compile link`")
        _hooks(times, scratch, source, text, runs)
        recorder.step("the compiler alone")
        _compiler(times, scratch, source, text, runs)
    recorder.add(*_rows(recorder.suite, times))


@contextlib.contextmanager
def watched(root: Path, env: Mapping[str, str]) -> Iterator[WatchLines]:
    """A `doit watch` after its first build, and what it says. Raises RuntimeError when it does not come up."""
    group = Group()
    try:
        child = group.start([sys.executable, "-m", "doit", "watch"], root, env)
        assert child.stdout is not None and child.stderr is not None
        lines = WatchLines((child.stdout, child.stderr))
        lines.until(FINISHED.__eq__)
        yield lines
    finally:
        group.kill()


def _saves(times: dict[str, list[float]], lines: WatchLines, source: Path, text: str, number: int) -> None:
    """One round: a touch, a comment, an error, its repair."""

    def save(content: str | None, name: str, found: Callable[[str], bool]) -> None:
        # the watch must be at rest, with a run in reserve, as when somebody types
        time.sleep(1.0)
        began_s = time.perf_counter()
        if content is None:
            os.utime(source)
        else:
            source.write_text(content)
        times["watch: save -> build started"].append(lines.until(STARTED.__eq__) - began_s)
        at_s = lines.until(found)
        if name:
            times[name].append(at_s - began_s)
        if found != FINISHED.__eq__:
            lines.until(FINISHED.__eq__)

    save(None, "watch: touch -> nothing to do", FINISHED.__eq__)
    save(f"{text}// {number} {time.time()}\n", "watch: comment edit -> end of the build", FINISHED.__eq__)
    save(f"{text}// {number} {time.time()}\n{BROKEN}", "watch: error -> first diagnostic", is_error)
    save(text, "", FINISHED.__eq__)


def _hooks(times: dict[str, list[float]], scratch: DeployBench, source: Path, text: str, runs: int) -> None:
    """The same through whole processes of `hotplate`."""
    hotplate = ("-c", "import sys; from pipeline.fastpath import main; sys.exit(main())", "compile", "link")
    for number in range(runs):
        scratch.run(*hotplate)
        scratch.run(*hotplate)
        times["hook: nothing saved"].append(scratch.run(*hotplate).wall_s)
        os.utime(source)
        times["hook: touch -> nothing to do"].append(scratch.run(*hotplate).wall_s)
        source.write_text(f"{text}// hook {number} {time.time()}\n")
        times["hook: comment edit -> end of the build"].append(scratch.run(*hotplate).wall_s)
    source.write_text(text)


def _compiler(times: dict[str, list[float]], scratch: DeployBench, source: Path, text: str, runs: int) -> None:
    """The command of the action alone, good and failing."""
    build = load_build(Options(), scratch.project)
    assert not isinstance(build, Failure)
    name = source.relative_to(scratch.project).as_posix()
    engine = build.engine
    action = next(action for action in engine.graph.order if action.argv and action.inputs[0] == name)
    argv, env = placed_command(engine.workspace, action)
    runner = SystemProcessRunner(build.clock)
    for label, content in ((GOOD, text), (BAD, text + BROKEN)):
        source.write_text(content)
        for _ in range(runs):
            done = runner.run(argv, cwd=scratch.project, env=env, timeout_s=TIMEOUT_S)
            times[label].append(done.duration_s)
    runner.close()
    build.close()


GOOD, BAD = "compiler alone: good", "compiler alone: error"
PEERS = {
    "watch: comment edit -> end of the build": GOOD,
    "watch: error -> first diagnostic": BAD,
    "hook: comment edit -> end of the build": GOOD,
}
"""What a case cannot do without."""


def _rows(suite: str, times: Mapping[str, Sequence[float]]) -> Iterator[BenchRow]:
    in_ms = {name: [1000 * took for took in found] for name, found in times.items()}
    for name, found in in_ms.items():
        peer = PEERS.get(name, "")
        yield measured(suite, name, found, "ms", peer, in_ms[peer] if peer else ())
