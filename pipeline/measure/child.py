"""One `doit` of a measurement: a whole process in a scratch copy of the project, and what its event log says of it.

Knows where a run keeps its log; does not know what is measured or judged. Invariant: a run that could not even begin
still gives a `Child`, with a reason; only Ctrl-C and a machine that cannot start processes raise.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.effects.api import Clock
from pipeline.effects.run_log import SUFFIX, read
from pipeline.events import format_tx
from pipeline.measure.scratch import Scratch
from pipeline.model import FailureCategory
from pipeline.report.document import build_report, whole_ms
from pipeline.run.project import STATE_DIR
from pipeline.run.transactions import RUNS

TIMEOUT_S = 1800.0
EXIT_CONFIG = 2


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
