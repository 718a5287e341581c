"""The files of the loop below `reports/loop/`: RESULTS.csv, RESULTS.jsonl, runs/, SUMMARY.md, follow-ups.

Knows where they lie and how they grow; what stands in them, `measure/loop/records.py` and `measure/loop/view.py` know.
Invariants: one loop at a time writes here; lines are only appended; a RESULTS.csv with another header is left alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cache.durable import FileLock, read_text, write_atomic
from pipeline.effects.run_log import prune
from pipeline.failures import fail
from pipeline.measure.loop.judgement import Iteration, Limits, LoopDecision, LoopRun, Rule
from pipeline.measure.loop.records import CSV_HEADER, LoopOrigin, csv_row, encode_iteration, encode_run, read_history
from pipeline.measure.loop.view import LoopSession, followup, followup_name, summary
from pipeline.measure.scratch import Scratch
from pipeline.model import Failure, FailureCategory

CSV = "RESULTS.csv"
JSONL = "RESULTS.jsonl"


class LoopFiles:
    """Make it with `open`, close it at the end."""

    def __init__(self, directory: Path, place: LoopOrigin, keep: int, lock: FileLock) -> None:
        self._directory = directory
        self._place = place
        self._keep = keep
        self._lock = lock
        self.history = read_history(self._lines(), place)
        """What was there when the loop began."""

    @classmethod
    def open(cls, directory: Path, place: LoopOrigin, keep: int) -> LoopFiles | Failure:
        """The files in `directory`, made when there are none. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock")
        busy = lock.try_acquire(f"pid {os.getpid()}")
        if busy is not None:
            message = f"another loop writes here ({busy.holder})"
            return fail(FailureCategory.LOCK_TIMEOUT, stage=None, where=str(directory), message=message)
        csv = directory / CSV
        text = read_text(csv) if csv.exists() else ""
        if text and text.splitlines()[0] != CSV_HEADER:
            lock.release()
            message = f"begins with '{text.splitlines()[0]}', not with '{CSV_HEADER}'"
            hint = "move the file away; the loop begins a new one"
            return fail(FailureCategory.CONFIG_ERROR, stage=None, where=str(csv), message=message, hint=hint)
        if not text:
            csv.write_text(CSV_HEADER + "\n")
        return cls(directory, place, keep, lock)

    def close(self) -> None:
        self._lock.release()

    def run(self, number: int, run: LoopRun, sha: str, at: str, load: float | None, scratch: Scratch) -> None:
        """Record one run, and keep its report. `load`: how busy the machine was."""
        notes = [f"iteration={number}", *([f"load={load:.1f}"] if load is not None else [])]
        notes += [f"tx={run.tx}"] if run.tx else []
        self._append(CSV, csv_row(run, at, sha, notes))
        self._append(JSONL, encode_run(self._place, number, run, {"at": at, "sha": sha, "load": load}))
        runs = self._directory / "runs"
        runs.mkdir(exist_ok=True)
        for suffix in (".md", ".json") if run.tx else ():
            with suppress(FileNotFoundError):  # a run without a device has no report
                shutil.copyfile(scratch.project / "reports" / f"{run.tx}{suffix}", runs / f"{run.tx}{suffix}")
        prune(runs, self._keep)

    def iteration(self, iteration: Iteration, decision: LoopDecision, facts: Mapping[str, object]) -> None:
        """Record an iteration and what was decided after it."""
        ended = decision.rule if decision.ends else None
        said = {**facts, "decision": int(decision.rule), "cause": int(decision.cause), "action": decision.action}
        self._append(JSONL, encode_iteration(self._place, iteration, ended, said))

    def conclude(
        self,
        session: LoopSession,
        history: Sequence[Iteration],
        decision: LoopDecision,
        limits: Limits,
        reference: Mapping[str, LoopRun],
    ) -> Path:
        """Write what the decision asks for, and say where: SUMMARY.md, a follow-up, or the results as they are."""
        if decision.rule is Rule.GREEN:
            return self._write("SUMMARY.md", summary(session, history, limits, reference))
        if decision.rule is Rule.CONTINUE:
            return self._directory / CSV
        return self._write(followup_name(decision), followup(session, history, decision, limits, reference))

    def _write(self, name: str, text: str) -> Path:
        write_atomic(self._directory / name, text.encode(), durable=False)
        return self._directory / name

    def _append(self, name: str, line: str) -> None:
        with (self._directory / name).open("a", newline="") as stream:
            stream.write(line)

    def _lines(self) -> list[str]:
        try:
            return read_text(self._directory / JSONL, errors="replace").splitlines()
        except FileNotFoundError:
            return []
