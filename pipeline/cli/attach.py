"""`doit attach TX`: show a transaction as its own run shows it, while it happens or afterwards, from its event log.

Knows events, the log's file and the views of a run; needs neither the service nor the run's process. Does not know
doit. Invariants: nothing is shown twice, and nothing left out from `--from` on; a run that was killed is said to be,
and waited for no longer; ending the view touches nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from cache.named_tuple import NamedTuple
from pipeline.effects import run_log
from pipeline.events import finished, is_tx, payload
from pipeline.failures import fail
from pipeline.model import DEVICE_STAGES, DeployOutcome, Event, EventKind, Failure, FailureCategory, StageOutcome
from pipeline.report.document import build_report
from pipeline.report.markdown import last_line
from pipeline.report.ndjson import event_line, report_line
from pipeline.report.terminal import (
    Progress,
    differing_lines,
    failure_block,
    look_of,
    module_table,
    say,
    stage_table,
)
from pipeline.run.project import STATE_DIR
from pipeline.text import did_you_mean, visible

LOOK_S = 0.05
"""Between two looks at the log of a run that is under way."""
INTERRUPTED = 130


class AttachTarget(NamedTuple):
    """A transaction and its log."""

    tx: str
    path: Path


def find(root: Path, tx: str) -> AttachTarget | Failure:
    """The log of a transaction; of the newest when `tx` is empty."""
    directory = root / STATE_DIR / "runs"
    try:
        names = (entry.name for entry in os.scandir(directory) if entry.name.endswith(run_log.SUFFIX))
        known = sorted(name for found in names if is_tx(name := found.removesuffix(run_log.SUFFIX)))
    except OSError:
        known = []
    if not tx and known:
        tx = known[-1]
    if tx in known:
        return AttachTarget(tx, directory / (tx + run_log.SUFFIX))
    message = f"no transaction {tx!r}{did_you_mean(tx, known)}" if tx else "no transaction yet"
    if known:
        hint = f"choose one of {STATE_DIR}/runs; the newest is {known[-1]}"
    else:
        hint = "run `doit deploy` in this project first"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="attach", message=message, hint=hint)


def attach(target: AttachTarget, start: int, view: AttachView, pause: Callable[[float], None]) -> int:
    """Show events from number `start` on (the first is 1) to the end of the run; an exit code as the run's. Raises
    KeyboardInterrupt."""
    shown, size = 0, -1
    while True:
        # Asked before the log is read: what its writer said last, before it let go, is read then.
        dead = run_log.is_dead(target.path)
        now = _size(target.path)
        if now != size or dead:
            size = now
            events, note = run_log.read(target.path)
            for number, event in enumerate(events[shown:], shown + 1):
                view.show(event, quiet=number < start)
            shown = len(events)
            if finished(events):
                return view.end(events, note)
            if dead or note or size < 0:
                return view.cut_off("its log was removed meanwhile" if size < 0 else note or "")
        pause(LOOK_S)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


class AttachView:
    """Events in, what a run prints out. `json`: lines for programs instead."""

    def __init__(self, target: AttachTarget, out: TextIO, err: TextIO, *, json: bool) -> None:
        self._target = target
        self._out = out
        self._err = err
        self._json = json
        self._look = look_of(out)
        self._progress = Progress(out, self._look._replace(tty=self._look.tty and not json))
        self._device = ""
        self._begun: set[str] = set()
        self._built: dict[str, int] = {}
        self._total_bytes = self._bytes = 0

    def show(self, event: Event, *, quiet: bool) -> None:
        """One event, in order. `quiet`: it was seen before."""
        said: Any = payload(event)
        if event.kind is EventKind.RUN_STARTED:
            self._device = said.device
        if self._json:
            if not quiet:
                self._write(event_line(self._target.tx, self._device, event))
            return
        match event.kind:
            case EventKind.STAGE_STARTED:
                self._begun.add(said.stage.value)
                self._line(f".  {self._title(said.stage)}", quiet=quiet)
            case EventKind.STAGE_FINISHED:
                if said.stage.value not in self._begun and said.outcome is StageOutcome.UP_TO_DATE:
                    self._line(f"-- {self._title(said.stage)}", quiet=quiet)
                for reason in said.reasons:
                    if reason.kind == "nearly-full":
                        self._line(f"warning: {visible(str(reason))}", quiet=quiet)
            case EventKind.FAILURE if not quiet:
                self._progress.finish()
                say(self._err, "\n".join(failure_block(said, look_of(self._err))) + "\n")
            case EventKind.ACTION if not quiet:
                stage = said.stage.value
                self._built[stage] = self._built.get(stage, 0) + 1
                self._progress(f"{stage} {self._built[stage]}: {said.name}", self._built[stage], 0)
            case EventKind.PLAN:
                self._total_bytes = sum(row.size for row in said.regions if row.action.value != "kept")
            case EventKind.REGION if not quiet:
                self._bytes += said.bytes_written
                self._progress(said.name, self._bytes, max(1, self._total_bytes))

    def end(self, events: Sequence[Event], note: str | None) -> int:
        """The run has ended."""
        report = build_report(events)
        if self._json:
            self._write(report_line(report, report["report_path"].removesuffix(".md") + ".json"))
        elif self._device:
            lines = [*stage_table(report, self._look), *module_table(report, self._look), *differing_lines(report)]
            if report["outcome"] == "interrupted" and report["failure"] is not None:
                lines.append(visible(report["failure"]["message"]))
            self._line("\n".join([*lines, last_line(report)]), quiet=False)
        if note:
            self._note(note)
        outcome = report["outcome"]
        if outcome == DeployOutcome.INTERRUPTED:
            return INTERRUPTED
        return 1 if outcome == DeployOutcome.FAILED or report["failure"] is not None else 0

    def cut_off(self, note: str) -> int:
        """It has no end that could be read: why, or "" where the run was killed."""
        self._note(f"{self._target.tx}: {note or 'it was killed; the next run writes its report'}")
        return 1

    def leave(self) -> int:
        """Whoever looks has seen enough."""
        self._progress.finish()
        return INTERRUPTED

    def _title(self, stage: Any) -> str:
        return f"{stage.value}:{visible(self._device)}" if stage in DEVICE_STAGES else str(stage.value)

    def _line(self, text: str, *, quiet: bool) -> None:
        if not quiet:
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        self._progress.finish()
        say(self._out, text)

    def _note(self, text: str) -> None:
        self._progress.finish()
        say(self._err, f"note: {visible(text)}\n")
