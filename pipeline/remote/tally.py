"""What a run had of a shared cache, and what its user is told of it: each thing once.

Knows counts and words, no transport. Invariant: after `close` nothing is asked any more in this run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cache.remote import RemoteCounts, RemoteSpeed


class Tally:
    """Of one client; called from several threads. `name`: the URL."""

    def __init__(self, name: str, speed: Callable[[], RemoteSpeed], *, has_credentials: bool) -> None:
        self._name, self._speed = name, speed
        self._has_credentials = has_credentials
        self._counts = RemoteCounts()
        self._notes: dict[str, Callable[[], str]] = {}
        self._lock = threading.Lock()
        self.is_closed = False
        self.takes_nothing = False
        """It does not take results, or not any more."""

    def add(self, **counts: int) -> None:
        """More of these fields of `RemoteCounts`."""
        with self._lock:
            now = self._counts._asdict()
            self._counts = RemoteCounts(**{**now, **{name: now[name] + many for name, many in counts.items()}})

    def counts(self) -> RemoteCounts:
        """So far."""
        return self._counts

    def notes(self) -> tuple[str, ...]:
        """Lines for the user, in the order in which they came up."""
        with self._lock:
            return tuple([note() for note in self._notes.values()])

    def close(self) -> None:
        """Ask nothing any more."""
        self.is_closed = True

    def unreachable(self, why: str) -> None:
        """It failed in a way that costs time, which is not spent again in this run."""
        if not self.is_closed:
            self.close()
            self._say("unreachable", f"{why}; this run goes on without it")

    def denied(self, status: int | str) -> None:
        """It wants somebody else."""
        self.close()
        hint = "check the token" if self._has_credentials else "set HOTPLATE_CACHE_TOKEN, or write a line into ~/.netrc"
        self._say("denied", f"it does not let this client read ({status}); {hint}")

    def lied(self, why: str) -> None:
        """An answer was refused."""
        self._say("lied", f"an answer was refused: {why}; what it was for is made here")

    def takes_no(self, why: str) -> None:
        """It takes no results."""
        if not (self.takes_nothing or self.is_closed):
            self.takes_nothing = True
            self._say("takes", f"it does not take results: {why}; they stay on this machine")

    def takes_not_this(self, why: str) -> None:
        """It takes no result as large as that."""
        if not self.is_closed:
            self._say(
                "too large", f"it does not take every result: {why}; raise its limit (nginx: client_max_body_size)"
            )

    def gave_up(self, results: int, timeout_s: float) -> None:
        """The end came before everything was sent."""
        self.add(given_up=results)
        self._say("gave up", f"{results} results were not sent within {timeout_s:g} s after the run; they stay here")

    def declined(self, results: int) -> None:
        """Fetching would have cost more than making. The rate is said as it is known when it is told of."""
        if results:
            self.add(declined=results)
            with self._lock:
                self._notes.setdefault("declined", self._slowness)

    def _slowness(self) -> str:
        latency_s, rate, _ = self._speed()
        said = [f"{rate / 1e6:.1f} MB/s" if rate >= 1e6 else f"{rate / 1e3:.0f} kB/s"] if rate else []
        said = [*said, f"{latency_s * 1000:.0f} ms"]
        return f"{self._about}some results are made here, which is faster than fetching them ({', '.join(said)})"

    @property
    def _about(self) -> str:
        return f"shared cache {self._name}: "

    def _say(self, what: str, text: str) -> None:
        said = f"{self._about}{text}"
        with self._lock:
            self._notes.setdefault(what, lambda: said)
