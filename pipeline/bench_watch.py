"""`doit bench:watch`: how long from a save to the end of its build, to its first diagnostic, and to "nothing to do".

Runs a real `doit watch` in a scratch copy of the project and saves files under it; then the same saves through
`hotplate compile link`, as editors' hooks call it; and the compiler alone, for what cannot be less. Prints medians;
judges nothing. Does not touch the project or its cache.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from pipeline.bench import Bench
from pipeline.context import Context, load_context
from pipeline.core.diagnostics import is_error
from pipeline.core.model import Failure
from pipeline.effects.process import Group, SystemProcessRunner
from pipeline.engine_execute import placed_command
from pipeline.options import Options
from pipeline.watch import FINISHED, STARTED

TIMEOUT_S = 60.0
BROKEN = "int broken( {\n"


class _Lines:
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


def run(context: Context, runs: int) -> str:
    """Measure; the table."""
    times: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        scratch = Bench(context, Path(directory))
        source = scratch.project / next(path for path in context.engine.sources() if path.endswith(".c"))
        text = source.read_text()
        group = Group()
        try:
            child = group.start([sys.executable, "-m", "doit", "watch"], scratch.project, scratch.scratch.env)
            assert child.stdout is not None and child.stderr is not None
            lines = _Lines((child.stdout, child.stderr))
            lines.until(FINISHED.__eq__)
            for number in range(runs):
                _saves(times, lines, source, text, number)
        finally:
            group.kill()
        _hooks(times, scratch, source, text, runs)
        _compiler(times, scratch, source, text, runs)
    return _table(times)


def _saves(times: dict[str, list[float]], lines: _Lines, source: Path, text: str, number: int) -> None:
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


def _hooks(times: dict[str, list[float]], scratch: Bench, source: Path, text: str, runs: int) -> None:
    """The same through whole processes of `hotplate`."""
    hotplate = ("-c", "import sys; from pipeline.gate import main; sys.exit(main())", "compile", "link")
    for number in range(runs):
        scratch.run(scratch.project, *hotplate)
        scratch.run(scratch.project, *hotplate)
        times["hook: nothing saved"].append(scratch.run(scratch.project, *hotplate)[0])
        os.utime(source)
        times["hook: touch -> nothing to do"].append(scratch.run(scratch.project, *hotplate)[0])
        source.write_text(f"{text}// hook {number} {time.time()}\n")
        times["hook: comment edit -> end of the build"].append(scratch.run(scratch.project, *hotplate)[0])
    source.write_text(text)


def _compiler(times: dict[str, list[float]], scratch: Bench, source: Path, text: str, runs: int) -> None:
    """The command of the action alone, good and failing."""
    context = load_context(Options(), scratch.project)
    assert not isinstance(context, Failure)
    name = source.relative_to(scratch.project).as_posix()
    engine = context.engine
    action = next(action for action in engine.graph.order if action.argv and action.inputs[0] == name)
    argv, env = placed_command(engine, action)
    runner = SystemProcessRunner(context.clock)
    for label, content in (("compiler alone: good", text), ("compiler alone: error", text + BROKEN)):
        source.write_text(content)
        for _ in range(runs):
            done = runner.run(argv, cwd=scratch.project, env=env, timeout_s=TIMEOUT_S)
            times[label].append(done.duration_s)
    runner.close()
    context.close()


def _table(times: dict[str, list[float]]) -> str:
    from tabulate import tabulate

    rows = [
        (name, len(found), *(1000 * of(found) for of in (min, statistics.median, max))) for name, found in times.items()
    ]
    median = {name: statistics.median(found) for name, found in times.items()}
    beyond = {
        "watch: comment edit, beyond the compiler": ("watch: comment edit -> end of the build", "compiler alone: good"),
        "watch: diagnostic, beyond the compiler": ("watch: error -> first diagnostic", "compiler alone: error"),
        "hook: comment edit, beyond the compiler": ("hook: comment edit -> end of the build", "compiler alone: good"),
    }
    rows += [(name, "", "", 1000 * (median[whole] - median[part]), "") for name, (whole, part) in beyond.items()]
    return str(tabulate(rows, headers=("", "runs", "min ms", "median ms", "max ms"), floatfmt=".0f"))
