"""The child processes of a measurement: one whole `doit` with what its event log says, any program with what it took,
and a board that keeps running.

Knows where a run keeps its log and its report; does not know what is measured or judged. Invariants: a `doit` that
could not even begin still gives a `Child`, with a reason; any other program that fails raises with what it said.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.effects.api import Clock, ProcessRunner
from pipeline.effects.process import background
from pipeline.effects.run_log import SUFFIX, read
from pipeline.events import format_tx
from pipeline.measure.scratch import Scratch
from pipeline.model import FailureCategory
from pipeline.report.document import build_report, whole_ms
from pipeline.run.project import STATE_DIR
from pipeline.run.transactions import RUNS

TIMEOUT_S = 1800.0
EXIT_CONFIG = 2


class Spent(NamedTuple):
    """What one program took, with its children, and what it printed."""

    wall_s: float
    cpu_s: float = 0.0
    out: str = ""
    err: str = ""


def run_program(
    runner: ProcessRunner, argv: Sequence[str], cwd: Path, env: Mapping[str, str], timeout_s: float
) -> Spent:
    """Run it to its end. Raises RuntimeError when it fails, TimeoutError, KeyboardInterrupt, OSError."""
    before_s = children_cpu_s()
    began_s = time.perf_counter()
    done = runner.run(argv, cwd=cwd, env=env, timeout_s=timeout_s)
    wall_s = time.perf_counter() - began_s
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.exit_code != 0:
        raise RuntimeError(f"{' '.join(argv)[:200]} ended with {done.exit_code}:\n{out}{err}")
    return Spent(wall_s, children_cpu_s() - before_s, out, err)


def children_cpu_s() -> float:
    """Of all children that have ended; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report_of(project: Path, out: str) -> Any:
    """The report of the deploy that printed `out`. Raises RuntimeError when it names none."""
    found = re.search(r"^DEPLOY_TX_ID=.*DEPLOY_REPORT=(\S+)", out, re.M)
    if found is None:
        raise RuntimeError(f"the deploy named no report:\n{out}")
    return json.loads((project / found[1]).with_suffix(".json").read_text())


@contextlib.contextmanager
def board_process(project: Path, chip: str, timing: str, env: Mapping[str, str], mac: str = "") -> Iterator[str]:
    """A virtual board that keeps running; its URL."""
    argv = [sys.executable, "-m", "virtualboard", "--chip", chip, "--rfc2217", "0", "--timing", timing]
    argv += ["--mac", mac] if mac else []
    with background(argv, project, env) as first_line:
        yield next(word for word in first_line.split() if word.startswith("rfc2217://"))


class Child(NamedTuple):
    """`report`: None when there is no log, since the fast path answered (`exit_code` 0) or nothing began; `failure`:
    category and message, `("", "")` for none."""

    words: tuple[str, ...]
    tx: str
    wall_ms: int
    exit_code: int
    report: dict[str, Any] | None
    failure: tuple[str, str] = ("", "")

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and not self.failure[0]


def run_doit(scratch: Scratch, clock: Clock, words: Sequence[str]) -> Child:
    """Run `doit WORDS` and wait for its end. Raises KeyboardInterrupt, OSError."""
    tx = format_tx(clock.utc(), secrets.token_hex(3))
    try:
        done = scratch.python("-m", "doit", *words, timeout_s=TIMEOUT_S, DEPLOY_TX_ID=tx)
    except TimeoutError as error:
        return Child(tuple(words), tx, whole_ms(TIMEOUT_S), 1, None, (FailureCategory.INTERRUPTED.value, str(error)))
    wall_ms = whole_ms(done.duration_s)
    log, _ = read(scratch.project / STATE_DIR / RUNS / f"{tx}{SUFFIX}")
    if log:
        report = build_report(log)
        failed = report["failure"]
        failure = (failed["category"], f"{failed['where']}: {failed['message']}") if failed else ("", "")
        return Child(tuple(words), tx, wall_ms, done.exit_code, report, failure)
    if done.exit_code == 0:
        return Child(tuple(words), tx, wall_ms, 0, None)
    category = FailureCategory.CONFIG_ERROR if done.exit_code == EXIT_CONFIG else FailureCategory.UNKNOWN
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    reason = next((line for line in said if "error: " in line), said[-1] if said else "it said nothing")
    message = f"doit {' '.join(words)} ended with {done.exit_code}: {reason}"
    return Child(tuple(words), tx, wall_ms, done.exit_code, None, (category.value, message))
