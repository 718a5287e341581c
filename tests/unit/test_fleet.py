"""Lanes on workers: how many at once, who goes first, and what stops the others. Counts, and waits for conditions."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.run.fleet import Fleet, FleetPolicy

DEADLINE_S = 60.0
NAMES = [f"b{n}" for n in range(8)]


class FleetLog:
    """What a fleet did. `work(name)` says how a lane goes."""

    def __init__(self, policy: FleetPolicy, work: Callable[[str], bool], names: list[str] = NAMES) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.stopped: list[tuple[str, str]] = []
        self.most = 0
        self._now = 0
        self._work = work
        self._lock = threading.Lock()
        self.fleet = Fleet(names, policy, self._lane, lambda name, cause: self.stopped.append((name, cause)))

    def _lane(self, name: str) -> bool:
        with self._lock:
            self.began.append(name)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            return self._work(name)
        finally:
            with self._lock:
                self._now -= 1
                self.ended.append(name)

    def run(self) -> FleetLog:
        self.fleet.start()
        assert self.fleet.join(DEADLINE_S)
        return self


def test_as_many_at_once_as_there_are_workers() -> None:
    together = threading.Barrier(4)
    log = FleetLog(FleetPolicy(4), lambda name: together.wait(DEADLINE_S) >= 0).run()
    assert log.most == 4 and sorted(log.began) == NAMES and log.stopped == []


def test_one_failure_stops_nobody() -> None:
    log = FleetLog(FleetPolicy(2), lambda name: name not in ("b0", "b5")).run()
    assert sorted(log.ended) == NAMES and log.stopped == []


def test_fail_fast_begins_nothing_more() -> None:
    log = FleetLog(FleetPolicy(1, fail_fast=True), lambda name: name != "b2").run()
    assert log.began == ["b0", "b1", "b2"]
    assert log.stopped == [(name, "b2") for name in NAMES[3:]]


def test_fail_fast_is_known_to_those_under_way() -> None:
    begun, failed = threading.Event(), threading.Event()
    seen: list[bool] = []

    def work(name: str) -> bool:
        if name == "b0":
            assert begun.wait(DEADLINE_S)
            return False
        begun.set()
        log.fleet.wait_until(lambda: log.fleet.must_stop(name), "nobody")
        seen.append(log.fleet.must_stop("b0"))
        return not failed.is_set()

    log = FleetLog(FleetPolicy(2, fail_fast=True), work)
    log.run()
    assert seen == [False], "it is not stopped by itself"
    assert sorted(log.began) == ["b0", "b1"]


@pytest.mark.parametrize("bad", [(), ("b0",), ("b1",)])
def test_canaries_go_first(bad: tuple[str, ...]) -> None:
    log = FleetLog(FleetPolicy(8, canary=2), lambda name: name not in bad)
    order: list[str] = []

    def work(name: str) -> bool:
        order.append(name)
        if name not in ("b0", "b1"):
            assert {"b0", "b1"} <= set(log.ended), "no other one begins before both are over"
        return name not in bad

    log._work = work
    log.run()
    assert bad or sorted(log.began) == NAMES
    if bad:  # the second canary may not have begun when the first one failed
        assert set(log.began) <= {"b0", "b1"} and {name for name, _ in log.stopped} >= set(NAMES[2:])


def test_an_interrupt_ends_what_is_under_way() -> None:
    begun = threading.Event()

    def work(name: str) -> bool:
        begun.set()
        log.fleet.wait_until(lambda: log.fleet.must_stop(name), "nobody")
        log.fleet.check()
        return True

    log = FleetLog(FleetPolicy(1), work)
    log.fleet.start()
    assert begun.wait(DEADLINE_S)
    log.fleet.interrupt()
    assert log.fleet.join(DEADLINE_S)
    assert log.began == ["b0"] and log.stopped == [(name, "") for name in NAMES[1:]]


def test_waiting_for_a_lane_that_ends_without_it() -> None:
    log = FleetLog(FleetPolicy(1), lambda name: False, ["b0"])
    log.fleet.start()
    log.fleet.wait_until(lambda: False, "b0")
    assert log.ended == ["b0"] and log.fleet.join(DEADLINE_S)
    assert not Fleet(["x"], FleetPolicy(1), lambda name: True, lambda name, cause: None).started


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(0, 9), st.booleans(), st.sets(st.sampled_from(NAMES)))
def test_every_lane_has_one_end(workers: int, canary: int, fail_fast: bool, bad: set[str]) -> None:
    log = FleetLog(FleetPolicy(workers, canary, fail_fast), lambda name: name not in bad).run()
    assert sorted([*log.ended, *(name for name, _ in log.stopped)]) == NAMES
    assert log.most <= workers
    if not fail_fast and (canary >= len(NAMES) or not set(NAMES[:canary]) & bad):
        assert log.stopped == []
