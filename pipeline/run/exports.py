"""What a run leaves beside its reports when someone asked: a trace, JUnit XML, CI's summary, a stream of events.

Knows files and stdout; what stands in them are pure renderings of the run's events. Imported only when an option or the
environment asks. Invariant: what cannot be written is a line of text, never a lost run.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from cache.durable import write_atomic
from pipeline.model import Event, Failure
from pipeline.report.document import build_report
from pipeline.report.live_tests import SuiteResult
from pipeline.report.ndjson import event_line, failure_line, progress_line, report_line
from pipeline.report.terminal import silence
from pipeline.run.options import Options
from pipeline.run.transactions import Rendered

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"

Logs = Sequence[tuple[str, Sequence[Event]]]
"""(device or "", events) of each transaction of a run."""


def write(
    root: Path,
    options: Options,
    environment: Mapping[str, str],
    logs: Logs,
    suites: Sequence[SuiteResult] = (),
) -> list[str]:
    """Write what was asked for; one line about each file that could not be written. Paths count from the project.
    `suites`: tests that ran beside the stages."""
    notes = []
    if options.trace and logs:
        from pipeline.report.perfetto import render_trace

        notes += _write(root / options.trace, options.trace, render_trace(logs))
    if options.junit:
        from pipeline.report.junit import render_junit

        notes += _write(
            root / options.junit, options.junit, render_junit([build_report(said) for _, said in logs], suites)
        )
    summary = environment.get(SUMMARY_VARIABLE)
    if summary and logs:
        from pipeline.report.step_summary import render_summary

        try:
            with Path(summary).open("a", encoding="utf-8") as stream:
                stream.write(render_summary([build_report(said) for _, said in logs]))
        except OSError as error:
            notes.append(f"${SUMMARY_VARIABLE}: the summary cannot be written ({error.strerror})")
    return notes


def _write(path: Path, shown: str, text: str) -> list[str]:
    try:
        # A lone surrogate (a file name that is not UTF-8) must not lose the rest.
        write_atomic(path, text.encode("utf-8", "replace"), durable=False)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [f"{shown}: cannot be written ({reason})"]
    return []


class Stream:
    """NDJSON on `out`, each line at once. A reader that went away ends the stream and not the run."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()  # stages of several devices may run at once
        self._percent: dict[str, int] = {}
        self.broken = ""

    def event(self, tx: str, device: str, event: Event) -> None:
        self._write(event_line(tx, device, event))

    def reports(self, rendered: Sequence[Rendered]) -> None:
        for one in rendered:
            path = one.report["report_path"].removesuffix(".md") + ".json" if one.path is not None else None
            self._write(report_line(one.report, path))

    def progress(self, label: str, done: int, total: int) -> None:
        """A line per percent, or per tenth call where nobody knows the total."""
        share = 100 * done // total if total else done // 10
        if self._percent.get(label) != share:
            self._percent[label] = share
            self._write(progress_line(label, done, total))

    def failure(self, failure: Failure) -> None:
        self._write(failure_line(failure))

    def _write(self, line: str) -> None:
        with self._lock:
            if self.broken:
                return
            try:
                self._out.write(line)
                self._out.flush()
            except (OSError, ValueError) as error:
                went = isinstance(error, BrokenPipeError)
                told = "the reader went away" if went else "stdout cannot be written"
                self.broken = f"--json: {told} ({getattr(error, 'strerror', None) or error})"
                silence(self._out)  # what is left in its buffer would be told at the end of the process
