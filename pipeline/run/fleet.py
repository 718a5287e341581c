"""Several boards at once: who has a worker, who waits, and what stops the others.

A *lane* is all that one run does with one board; a *worker* is a thread that takes one lane after the other. Knows
names and whether a lane went well; does not know stages, boards or reports. Invariants: a lane is begun at most once
and has one end; no lane begins before all canaries went well; after `join` returned True no worker is at work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from cache.named_tuple import NamedTuple

POLL_S = 0.25
"""Longest single wait of the thread that takes signals."""


class FleetPolicy(NamedTuple):
    """`workers`: lanes at once. `canary`: so many lanes first, the others only when all of those went well."""

    workers: int
    canary: int = 0
    fail_fast: bool = False


class LaneStopped(BaseException):
    """This lane has to end now: somebody interrupted the run. No Exception, so that nobody takes it for a failure."""


class Fleet:
    """`run_lane(name)` does the work of a lane and says whether it went well; `stopped(name, cause)` is called instead
    of it where a lane must not begin, with the name of the lane that failed, `""`: the run was interrupted."""

    def __init__(
        self,
        names: Sequence[str],
        policy: FleetPolicy,
        run_lane: Callable[[str], bool],
        stopped: Callable[[str, str], None],
    ) -> None:
        self._policy = policy
        self._run_lane = run_lane
        self._stopped = stopped
        self._waiting = list(names)
        self._canaries = frozenset(names[: policy.canary]) if policy.canary < len(names) else frozenset()
        self._good: set[str] = set()
        self._over: set[str] = set()
        self._cause: str | None = None
        """The lane that stopped the others; `""`: an interrupt."""
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Let the workers begin, once."""
        if self._threads:
            return
        count = max(1, min(self._policy.workers, len(self._waiting)))
        self._threads = [threading.Thread(target=self._work, name=f"lane-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    @property
    def started(self) -> bool:
        return bool(self._threads)

    # --- for lanes ------------------------------------------------------------------------------

    def must_stop(self, name: str) -> bool:
        """Shall the lane `name` not begin anything new?"""
        return self._cause is not None and self._cause != name

    def check(self) -> None:
        """Raises LaneStopped when lanes have to end within what they are doing."""
        if self._cause == "":
            raise LaneStopped

    @property
    def cause(self) -> str:
        """The lane that stopped the others, if one did."""
        return self._cause or ""

    # --- for the thread that waits for them -----------------------------------------------------

    def wait_until(self, happened: Callable[[], bool], name: str) -> None:
        """Wait until `happened()`, or until the lane `name` is over. Answers Ctrl-C."""
        with self._changed:
            while not (happened() or name in self._over):
                self._changed.wait(POLL_S)

    def tell(self) -> None:
        """Something happened that somebody may wait for."""
        with self._changed:
            self._changed.notify_all()

    def interrupt(self) -> None:
        """No lane begins any more, and those under way end within what they are doing."""
        with self._changed:
            self._cause = ""
            self._changed.notify_all()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until every lane is over. False: some are not, after so long."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            while thread.is_alive() and (deadline_s is None or time.monotonic() < deadline_s):
                thread.join(POLL_S)
        return not any(thread.is_alive() for thread in self._threads)

    # --- workers --------------------------------------------------------------------------------

    def _work(self) -> None:
        while (name := self._next()) is not None:
            good = False
            try:
                good = self._run_lane(name)
            except LaneStopped:
                pass
            finally:
                self._end(name, good=good)

    def _next(self) -> str | None:
        """The next lane to begin, once it may; None when none is left. Those that may not begin are told so."""
        with self._changed:
            while self._waiting and self._cause is None and not self._may_begin(self._waiting[0]):
                self._changed.wait(POLL_S)
            if self._cause is not None:
                left, self._waiting = self._waiting, []
                for name in left:
                    self._stopped(name, self._cause)
                self._over.update(left)
                self._changed.notify_all()
            return self._waiting.pop(0) if self._waiting else None

    def _may_begin(self, name: str) -> bool:
        return name in self._canaries or self._canaries <= self._good

    def _end(self, name: str, *, good: bool) -> None:
        with self._changed:
            self._over.add(name)
            if good:
                self._good.add(name)
            elif self._cause is None and (self._policy.fail_fast or name in self._canaries):
                self._cause = name
            self._changed.notify_all()
