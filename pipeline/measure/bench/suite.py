"""What a suite of benchmarks is given: a place for its rows, and a line that says what is being measured.

Knows the terminal's progress line; not which suites there are or what becomes of the rows.
Invariant: what was recorded before a suite broke off stays recorded.
"""

from __future__ import annotations

from pipeline.effects.api import Progress
from pipeline.measure.bench.table import BenchRow, Suite


class CannotRun(Exception):
    """A suite cannot begin or go on: what is missing, and what to do about it."""

    def __init__(self, fact: str, hint: str) -> None:
        super().__init__(fact)
        self.hint = hint


class Recorder:
    """Collects what one suite finds."""

    def __init__(self, suite: str, progress: Progress) -> None:
        self.suite = suite
        self.strict = False
        """A missed target fails the task: nothing but the code can have moved the figures."""
        self._progress = progress
        self._rows: list[BenchRow] = []
        self._notes: list[tuple[str, str]] = []

    def step(self, label: str, done: int = 0, total: int = 1) -> None:
        """Say what is measured now: `done` of `total` measurements are behind us."""
        self._progress(f"bench:{self.suite} {label}", done, total)

    def add(self, *rows: BenchRow) -> None:
        self._rows += rows

    def note(self, title: str, text: str) -> None:
        """What does not fit a row, shown below them; nothing when `text` is empty."""
        if text:
            self._notes.append((title, text))

    def ended(self, error: str = "", hint: str = "") -> Suite:
        return Suite(self.suite, tuple(self._rows), tuple(self._notes), error, hint, self.strict)
