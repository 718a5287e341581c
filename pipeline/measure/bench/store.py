"""`doit bench:store`: a large store counted, collected and verified, against `find` on the same files.

Makes a store of its own in a scratch directory (`--blobs N`); touches no other. The peers are `find`, which asks for
the size of each file and lists none, and `find -delete` on as many files of another store like it; where there is no
`find`, a Python loop that does the same. Does not know how the store does it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cache.actions import ActionResult, OutputFile, encode_entry
from cache.digest import ActionKey, Digest, digest_bytes
from cache.store import Store
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.table import BenchTarget, at_most, measured, ratio_at_most
from pipeline.measure.child import Spent, run_program
from pipeline.measure.experiment import repeated
from pipeline.run.build import Build

BLOBS = 100_000
"""With half as many entries, of two blobs each."""
TIMEOUT_S = 1800.0
HUGE = 1 << 50
COUNT, COLLECT, HALVE, VERIFY = "stats", "gc, nothing to drop", "gc, half is dropped", "verify"
MOST_WAIT_MS = 100
FROM_NOTHING = "without an index"

_FIND = """
import os, sys
def walk(path):
    with os.scandir(path) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False): walk(entry.path)
            elif len(sys.argv) > 2: os.unlink(entry.path)
            else: entry.stat(follow_symlinks=False)
walk(sys.argv[1])
"""
_CODE = """
import sys
from pathlib import Path
from cache.store import Store
store = Store(Path(sys.argv[1]), int(sys.argv[2]))
getattr(store, sys.argv[3])()
"""


def measure(build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    """The suite. Raises CannotRun when the machine has no room for it, RuntimeError when a process fails."""
    del build  # its store is generated
    blobs = options["blobs"]
    if blobs < 2:
        raise CannotRun(f"--blobs is {blobs}, but must be at least 2", "use --blobs 100000")
    with tempfile.TemporaryDirectory(prefix="hotplate-bench-") as directory:
        bench = _StoreBench(Path(directory), blobs)
        recorder.step(f"making {blobs} blobs")
        bench.make()
        _read(recorder, bench, options["runs"])
        recorder.step("dropping half")
        _dropped(recorder, bench)


def _read(recorder: Recorder, bench: _StoreBench, runs: int) -> None:
    """What changes nothing: each as a process of its own, its start included."""
    commands: dict[str, Callable[[], Spent]] = {
        "find": bench.find,
        COUNT: partial(bench.run, "stats"),
        COLLECT: partial(bench.run, "gc"),
        f"{COUNT}, {FROM_NOTHING}": partial(bench.anew, "stats"),
        f"{COLLECT}, {FROM_NOTHING}": partial(bench.anew, "gc"),
        VERIFY: partial(bench.run, "verify"),
    }
    bench.run("gc")
    times = repeated(commands, runs, partial(recorder.step, "counting"))
    limits = {COUNT: ratio_at_most(1), COLLECT: ratio_at_most(2)}
    for case in list(commands)[1:]:
        _rows(recorder, bench, case, times[case], "find", times["find"], limits.get(case))


def _rows(
    recorder: Recorder,
    bench: _StoreBench,
    case: str,
    ours: Sequence[Spent],
    peer: str,
    theirs: Sequence[Spent],
    target: BenchTarget | None,
) -> None:
    """A row for the wall, and one for the CPU. Targets are for BLOBS: in a small store the interpreter's start is most
    of what is measured."""
    limit = target if bench.blobs >= BLOBS else None
    for what, field in (("", "wall_s"), (", CPU", "cpu_s")):
        mine, its = ([1000 * getattr(spent, field) for spent in found] for found in (ours, theirs))
        name = f"{case}, {bench.blobs} blobs, against {peer}{what}"
        recorder.add(measured(recorder.suite, name, mine, "ms", peer, its, limit))


def _dropped(recorder: Recorder, bench: _StoreBench) -> None:
    """Once: what is gone is gone. Builds begin all the while, and the longest that one of them waited is a row."""
    found, half = bench.find(), Store(bench.root).stats().bytes // 2
    copy = bench.made("copy")
    bench.make(copy, bench.blobs // 2)
    bench.settle()
    deleted = bench.delete(copy)
    bench.settle()
    spent, waits = _with_builds(bench, lambda: bench.run("gc", half))
    _rows(recorder, bench, HALVE, [spent], "find", [found], ratio_at_most(10))
    _rows(recorder, bench, HALVE, [spent], "find -delete of as many", [deleted], None)
    limit = at_most(MOST_WAIT_MS)
    recorder.add(measured(recorder.suite, "a build begins while a gc removes", waits, "ms", target=limit))
    recorder.add(measured(recorder.suite, "the longest of these", [max(waits)], "ms", target=limit))


def _with_builds(bench: _StoreBench, collect: Callable[[], Spent]) -> tuple[Spent, list[float]]:
    """What a gc alone took, and then how many ms each of many builds waited that began while gcs removed what is left.

    A build that begins ends the gc, so the two are not measured in one."""
    spent = collect()
    waits: list[float] = []
    ended = threading.Event()

    def collect_again() -> None:
        while not ended.is_set() and Store(bench.root).gc(0).left_bytes > 0:
            pass
        ended.set()

    thread = threading.Thread(target=collect_again)
    thread.start()
    try:
        while not ended.is_set():
            began_s = time.perf_counter()
            with Store(bench.root, HUGE).in_use():
                waits.append(1000 * (time.perf_counter() - began_s))
            ended.wait(0.2)
    finally:
        ended.set()
        thread.join()
    return spent, waits


class _StoreBench:
    """A generated store, and commands on it."""

    def __init__(self, directory: Path, blobs: int) -> None:
        self._directory = directory
        self.root, self.blobs = directory / "store", blobs
        self._runner = SystemProcessRunner(SystemClock())
        self._env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        self._find = shutil.which("find") if os.name == "posix" else None

    def made(self, name: str) -> Path:
        return self._directory / name

    def make(self, root: Path | None = None, blobs: int = 0) -> None:
        """Blobs of 100 to 600 bytes, two for each entry, written straight where they belong."""
        store = Store(root or self.root)
        for files in (store.blobs.files, store.results.files):
            for group in range(256):
                (Path(files.top) / f"{group:02x}").mkdir(parents=True)
        for number in range((blobs or self.blobs) // 2):
            digests = [_put(store, b"%d " % n * (20 + n % 50)) for n in (2 * number, 2 * number + 1)]
            key = ActionKey(digest_bytes(b"key %d" % number).hex)
            outputs = tuple(OutputFile(f"build/{at}.o", digest, False) for at, digest in enumerate(digests))
            path = store.results.path(key)
            path.write_bytes(encode_entry(key, ActionResult(outputs)))
            os.utime(path, (1e9 + number, 1e9 + number))

    def settle(self) -> None:
        """Have everything on the disk: a file that never came there is removed for less."""
        if os.name == "posix":
            os.sync()

    def run(self, method: str, max_bytes: int = HUGE) -> Spent:
        return self._process(sys.executable, "-c", _CODE, str(self.root), str(max_bytes), method)

    def anew(self, method: str) -> Spent:
        (self.root / "index.v1").unlink(missing_ok=True)
        return self.run(method)

    def find(self) -> Spent:
        """Look at every file. Nothing is printed, since we print no list either."""
        if self._find:
            return self._process(self._find, str(self.root), "-size", "+999999M")
        return self._process(sys.executable, "-c", _FIND, str(self.root))

    def delete(self, root: Path) -> Spent:
        if self._find:
            return self._process(self._find, str(root), "-delete")
        return self._process(sys.executable, "-c", _FIND, str(root), "delete")

    def _process(self, *argv: str) -> Spent:
        return run_program(self._runner, argv, self._directory, self._env, TIMEOUT_S)


def _put(store: Store, data: bytes) -> Digest:
    digest = digest_bytes(data)
    store.blobs.path(digest).write_bytes(data)
    return digest
