"""One asking of other machines, and whether those who could make the same here should wait for it.

Knows how many answers came, how quickly, and what making costs here. Does not know transports, nor how anything is made
or put in place. Invariants: each action that is asked for is either told of once (its result is here, or will not
come) or taken once, to be made here; what was taken is not asked for any more. Answers are judged by their progress
alone: while they come quickly enough nothing is taken, however long all of them last.

Touched by the thread that decides what runs (`spare`, `cut`), the one that asks (`waiting`, `settle`...) and those of
the client (the methods of a `RoundWatch`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from cache.digest import ActionKey
from cache.named_tuple import NamedTuple
from cache.remote import RemoteSpeed
from pipeline.engine.keys import Keyed

LOOK_S = 0.01
"""So often somebody looks whether answers come."""
LEAST_PATIENCE_S, MOST_PATIENCE_S = 0.04, 0.25
_LATENCIES = 1.5
"""Before the first answer, so many of the latencies that are known are waited."""
SILENCE_S = 0.25
"""Answers that came and do not come any more are taken for lost after so long."""
NO_RACE_S = 0.1
"""What is here within that time is waited for in any case."""
SHARE = 0.25
"""What the network needs in comparison to making, up to which nothing is made meanwhile: idle cores would gain less
than their work costs."""
PER_ANSWER = 512
"""Bytes of an answer beside what it is about."""
LIKELY_ENTRY, LIKELY_BLOB = 400, 8192
LIKELY_S, LIKELY_ALL_S = 0.1, 2.0
"""Of making something of which nobody has said how long it takes, and of all at least: it may be a long link."""


class Seen(NamedTuple):
    """What was heard by now. `number`: of the round that is waited for, 0 while none is; `weight`: of all answers, in
    bytes; `left`: likely weight of what is still to come; `rounds_left`: that follow this one."""

    number: int
    weight: int
    left: float
    rounds_left: int


class Pace:
    """How quickly answers come, by looks every LOOK_S or so. Pure: the caller says when it looks, and at what. `busy`:
    how many times more than its cores could do is asked of this machine; there time passes more slowly, for answers
    take longer, and no core is idle."""

    def __init__(self, speed: RemoteSpeed, busy: float = 1.0) -> None:
        """`speed`: as earlier askings of the run found it."""
        self._patience_s = min(max(_LATENCIES * speed.latency_s, LEAST_PATIENCE_S), MOST_PATIENCE_S)
        self._patience_s = max(0.0, self._patience_s - speed.silent_s)
        self._known = speed
        self._busy = max(busy, 1.0)
        self._last = Seen(0, 0, 0, 0)
        self._at_s = 0.0
        self._silent_s = self._latency_s = self._busy_s = 0.0
        self._hears = self._is_slow = self._has_taken = False

    def has_taken(self) -> None:
        """Something is made here: idle cores are idle for nothing from now on."""
        self._has_taken = True

    def is_slow(self, now_s: float, seen: Seen, made_s: float, one_s: float) -> bool:
        """Would what is still to come take long enough to make some of it here, where all takes `made_s`, and what
        comes last `one_s`?"""
        passed_s, self._at_s = ((now_s - self._at_s) / self._busy if self._at_s else 0.0), now_s
        last, self._last = self._last, seen
        if seen.number == 0 and seen.weight:
            return self._is_slow
        if seen.number == 0:
            pass  # nobody waits for the other side yet
        elif seen.number != last.number:
            self._silent_s, self._hears = 0.0, False
        elif seen.weight > last.weight:
            if self._hears:
                self._busy_s += passed_s
            else:
                self._latency_s = self._silent_s
            self._silent_s, self._hears = 0.0, True
        else:
            # A machine that is too busy to look often is too busy to hear much, too.
            self._silent_s += min(passed_s, 2 * LOOK_S) if seen.weight == 0 else passed_s
            self._busy_s += passed_s if self._hears else 0.0
        # What comes before it is made is never made, however long: that could not be taken back.
        self._is_slow = self._judge(seen, one_s if self._has_taken else max(one_s, NO_RACE_S, SHARE * made_s))
        return self._is_slow

    def _judge(self, seen: Seen, bound_s: float) -> bool:
        if seen.weight == 0:
            latency_s, rate, _ = self._known
            rest_s = seen.left / rate + latency_s * (seen.rounds_left + 1) if rate else 0.0
            return self._silent_s >= self._patience_s or rest_s / self._busy > bound_s
        if self._silent_s >= max(SILENCE_S, _LATENCIES * self._latency_s):
            return True
        rest_s = seen.left * self._busy_s / seen.weight + self._latency_s * seen.rounds_left
        return rest_s > bound_s


class Costs:
    """What is known of how long actions take: what was said of them where they were made, and what was measured here.
    The one is corrected by the other."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}
        self._said_s = 0.0
        self._took_s, self._took = 0.0, 0
        self._both_said_s = self._both_took_s = 0.0
        """Of those of which both are known."""

    def said(self, name: str, duration_ms: int) -> None:
        """Of the action of that name, where it was made; 0: nobody did."""
        if duration_ms and name not in self._said:
            self._said[name] = duration_ms / 1000
            self._said_s += duration_ms / 1000

    def took(self, name: str, duration_s: float) -> None:
        """Here, in this run, beside others."""
        self._took_s, self._took = self._took_s + duration_s, self._took + 1
        if name in self._said:
            self._both_said_s += self._said[name]
            self._both_took_s += duration_s

    def of(self, name: str) -> float | None:
        """Of that action; None if nothing is known."""
        return self._said[name] * self._here if name in self._said else self.mean_s()

    def mean_s(self) -> float | None:
        """Of any."""
        if self._said:
            return self._said_s / len(self._said) * self._here
        return self._took_s / self._took if self._took else None

    @property
    def _here(self) -> float:
        return self._both_took_s / self._both_said_s if self._both_said_s else 1.0


class Inquiry:
    """`told(keyed, is_here)` is called on the thread that asks, or on one of the client's."""

    def __init__(self, missed: Sequence[Keyed], told: Callable[[Keyed, bool], None]) -> None:
        self._waiting = {keyed.base: keyed for keyed in missed}
        """Those of whose results nobody knows where they will come from; what is worth most to fetch comes first."""
        self._told = told
        self._lock = threading.Lock()
        self._names: dict[str, list[ActionKey]] = {}
        """What is asked for now, and for whom."""
        self._each, self._after, self._rounds_left = 0.0, 0.0, 0
        self._number = self._rounds = self._asked = self._answered = self._weight = self._before = 0
        self._parts: dict[str, int] = {}
        """Of answers that are not whole yet, what came."""
        self._end: Callable[[], None] | None = None
        self._came: Callable[[str], None] | None = None
        self.is_cut = False
        self.taken: list[Keyed] = []
        """To be made here, in this order."""
        self._found: set[ActionKey] = set()
        """Those of which the other side has something."""

    # --- for the thread that decides --------------------------------------------------------------

    def spare(self, pace: Pace, now_s: float, costs: Costs, jobs: int, *, is_idle: bool) -> Keyed | None:
        """Look how quickly answers come; one that is to be made here, if that is too slow and somebody is idle."""
        with self._lock:
            if not self._waiting:
                return None
            base, last = next(reversed(self._waiting.items()))
            one_s, each_s, turns = costs.of(last.action.name), costs.mean_s(), -(-len(self._waiting) // jobs)
            made_s = max(one_s or LIKELY_ALL_S, (each_s or LIKELY_S) * turns)
            if not (pace.is_slow(now_s, self._seen(), made_s, one_s or LIKELY_S) and is_idle):
                return None
            pace.has_taken()
            del self._waiting[base]
            self.taken.append(last)
            return last

    def declined(self) -> int:
        """How many of those that the other side seems to have are made here. Functions of this program are no news."""
        return sum(keyed.base in self._found and not keyed.action.builtin for keyed in self.taken)

    def cut(self) -> None:
        """Nothing of it is of use any more."""
        with self._lock:
            self._waiting.clear()
            self.is_cut, end = True, self._end if self._answered < self._asked else None
        if end is not None:
            end()

    def _seen(self) -> Seen:
        many = min(self._asked - self._answered, len(self._waiting)) if self._number else 0
        whole = self._weight - self._before - sum(self._parts.values())
        each = whole / self._answered if self._answered else self._each
        left = max(0, many * each - sum(self._parts.values())) + len(self._waiting) * self._after
        return Seen(self._number, self._weight, left, self._rounds_left)

    # --- for the one that asks --------------------------------------------------------------------

    def waiting(self) -> list[Keyed]:
        """Those that were not taken."""
        with self._lock:
            return [*self._waiting.values()]

    def settle(self, keyed: Keyed, *, is_here: bool, record: Callable[[], bool] = lambda: True) -> None:
        """Tell of it, unless it was taken. `record` puts what came where it is found; False when it could not."""
        with self._lock:
            if self._waiting.pop(keyed.base, None) is None:
                return
        self._told(keyed, is_here and record())

    def order(self, bases: Iterable[ActionKey]) -> None:
        """What is worth most comes first, and is made here last."""
        with self._lock:
            self._waiting = {base: self._waiting[base] for base in bases if base in self._waiting}

    def expect(
        self,
        names: dict[str, list[ActionKey]],
        each: float,
        *,
        after: float,
        rounds: int,
        came: Callable[[str], None] | None = None,
    ) -> None:
        """The next round asks for `names`, each for the actions with these base keys, and answers have that weight;
        `rounds` more follow, with `after` for each action. `came` is called with each name that came."""
        with self._lock:
            self._names, self._each, self._after, self._rounds_left = names, each + PER_ANSWER, after, rounds
            self._came = came

    # --- a `RoundWatch`, for threads of the client -----------------------------------------------------

    def began(self, questions: int, end: Callable[[], None]) -> None:
        with self._lock:
            self._rounds += 1
            self._number, self._end = self._rounds, end
            self._asked, self._answered, self._before = questions, 0, self._weight
            self._parts.clear()
        if self.is_cut:
            end()

    def is_wanted(self, name: str) -> bool:
        return any(base in self._waiting for base in self._names.get(name, ()))

    def received(self, name: str, size: int) -> None:
        with self._lock:
            self._parts[name] = self._parts.get(name, 0) + size
            self._weight += size

    def answered(self, name: str, size: int, *, came: bool) -> None:
        with self._lock:
            self._answered += 1
            self._weight += max(0, size - self._parts.pop(name, 0)) + PER_ANSWER
        if came:
            self._found.update(self._names.get(name, ()))
            if self._came is not None:
                self._came(name)

    def ended(self) -> None:
        with self._lock:
            self._number, self._end = 0, None
