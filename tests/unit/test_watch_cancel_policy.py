"""Saves without end: builds are cancelled, but not for ever. With a clock and runs that the test moves."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

import pipeline.editor.watch
from pipeline.editor.cancel_policy import CANCELS_FOR_S, MOST_CANCELS, CancelPolicy
from pipeline.editor.watch import FINISHED, STARTED, FilesSaved, RunEnded, Stop, WatchLoop
from pipeline.run.options import Options


class FakeClock:
    def __init__(self) -> None:
        self.s = 100.0

    def now_s(self) -> float:
        return self.s

    def utc(self) -> str:
        return "2026-11-21T08:00:00.000Z"


def test_few_cancels_or_a_short_time_do_not_exhaust() -> None:
    policy = CancelPolicy()
    for _ in range(MOST_CANCELS - 1):
        policy.cancelled(0.0)
    assert not policy.exhausted(1000.0), "a long build may be given up a few times"
    policy.cancelled(1.0)
    assert not policy.exhausted(CANCELS_FOR_S - 0.1), "a burst may be long"
    assert policy.exhausted(CANCELS_FOR_S)
    policy.ended()
    assert not policy.exhausted(2000.0)
    policy.cancelled(2000.0)
    for _ in range(MOST_CANCELS):
        assert not policy.exhausted(2000.0), "the time of the row before does not count"
        policy.cancelled(2001.0)


class BusyRun:
    """A watch in whose every run a file is saved before it ends: `build_s` on the clock is what a whole build takes,
    a cancelled one takes `save_s`."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, save_s: float, build_s: float) -> None:
        self.clock = FakeClock()
        self.out = io.StringIO()
        (root / ".deploy/locks").mkdir(parents=True)
        watch = self.watch = WatchLoop(root, Options(), deploy=False, out=self.out, clock=self.clock)
        clock, busy = self.clock, self
        self.stop = False

        class FakeRun:
            def __init__(self, _root: Path) -> None:
                pass

            def begin(
                self, _argv: Sequence[str], _env: Mapping[str, str], _ended: Callable[[int], None], _look: object
            ) -> None:
                clock.s += save_s
                watch.events.put(Stop() if busy.stop else FilesSaved(frozenset([str(root / "main.c")])))
                watch.events.put(RunEnded(0))  # the watch has taken the save, and decided, before it sees this

            def cancel(self) -> None:
                pass

        monkeypatch.setattr(pipeline.editor.watch, "BackgroundRun", FakeRun)
        monkeypatch.setattr(watch, "_matters", lambda paths: True)
        self._build_s = build_s

    def build(self) -> str:
        """One build; what the watch said about it."""
        before = len(self.out.getvalue())
        self.watch._build()
        first, *middle, last = self.out.getvalue()[before:].splitlines()
        assert (first, last) == (STARTED, FINISHED)
        (line,) = middle
        if "cancelled" not in line:
            self.clock.s += self._build_s
        return line


@pytest.mark.parametrize("save_s", [0.02, 0.5, 2.0, 50.0])
def test_a_build_ends_however_fast_saves_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_s: float) -> None:
    busy = BusyRun(tmp_path, monkeypatch, save_s, 1.0)
    for _ in range(3):
        began_s, cancels = busy.clock.s, 0
        while "cancelled" in busy.build():
            cancels += 1
            assert busy.clock.s - began_s <= max(CANCELS_FOR_S + save_s, MOST_CANCELS * save_s)
        assert cancels >= MOST_CANCELS


def test_the_user_stops_a_build_that_no_save_cancels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = BusyRun(tmp_path, monkeypatch, CANCELS_FOR_S, 1.0)
    for _ in range(MOST_CANCELS):
        assert "cancelled by a newer save" in busy.build()
    busy.stop = True
    assert busy.build().startswith("[watch] stopped (")
