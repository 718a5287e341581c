"""Many questions at once over a few connections that stay open: one round, which ends at its deadline whatever happens.

Knows connections, retries and time; not what is asked or what an answer means (`Question.take` does). Invariants: `ask`
returns by its deadline, or when it is ended; a question is answered at most once, and never after that; a connection
that said something garbled or that was left in the middle of an answer is closed. Threads are daemons: one that hangs
in a name server holds up nobody's end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple
from pipeline.remote.wire import Endpoint, Garbled, HttpAnswer, Wire

if TYPE_CHECKING:
    import ssl

    from cache.remote import RoundWatch

MOST_CONNECTIONS = 6
_AT_ONCE = 32
"""Questions sent on one connection before the first is answered."""
_STEP_S, _MANY_IN_A_STEP = 0.01, 8
"""Another connection is of use while fewer answers come in that time."""
_TRIES = 3
_FIRST_PAUSE_S = 0.05
_INTERIM_S = 1.0
_BUSY = frozenset((408, 429, 500, 502, 503, 504))
_HOPELESS = ("ConnectionRefusedError", "gaierror", "SSLCertVerificationError")
"""What is no better a moment later, by name: `ssl` is loaded for https alone."""


class Question(NamedTuple):
    """`text`: the request with its headers. `take` is called with the answer, on a thread of the round, and may raise
    Garbled: then it is counted as refused. `body` follows the headers; such a question is sent alone."""

    text: bytes
    take: Callable[[HttpAnswer], None]
    body: Callable[[], Iterator[bytes]] | None = None
    head_only: bool = False
    expects: bool = False
    """The body is sent when the other side says that it wants it, or says nothing."""
    is_wanted: Callable[[], bool] | None = None
    """Asked before it is sent."""


class RoundOutcome(NamedTuple):
    """How many questions were answered, refused (garbled), failed, and not answered in time; `why`: of the last refused
    or failed one. `unwanted`: were not sent, or their answers not waited for, since nobody wants them any more."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    late: int = 0
    why: str = ""
    unwanted: int = 0


class _Round:
    """The questions of one `ask`, and what became of them."""

    def __init__(self, questions: Sequence[Question], until_s: float, lanes: int) -> None:
        self.until_s, self.lanes = until_s, lanes
        self._waiting = deque(questions)
        self._tries: dict[int, int] = {}
        self._size = 1 if any(question.body for question in questions) else min(_AT_ONCE, -(-len(questions) // lanes))
        self._open = len(questions)
        self._answered = self._refused = self._failed = self._unwanted = 0
        self._why = ""
        self._over = self._is_cut = False
        self._wires: set[Wire] = set()
        self._changed = threading.Condition()

    @property
    def is_over(self) -> bool:
        return self._over

    @property
    def is_done(self) -> bool:
        return self._open <= 0

    def wait(self, step_s: float) -> int:
        """For the end, at most so long; how many are answered by now."""
        with self._changed:
            self._changed.wait_for(lambda: self._open <= 0 or self._over, step_s)
            return self._answered

    def batch(self) -> list[Question]:
        """The next questions of a lane, none when it is to end."""
        found: list[Question] = []
        with self._changed:
            while self._waiting and len(found) < self._size and not self._over:
                question = self._waiting.popleft()
                if question.is_wanted is None or question.is_wanted():
                    found.append(question)
                else:
                    self._unwanted += 1
                    self._end(1)
        return found

    def answered(self) -> None:
        with self._changed:
            self._answered += 1
            self._end(1)

    def refused(self, why: str) -> None:
        with self._changed:
            self._refused += 1
            self._why = why
            self._end(1)

    def again(self, questions: Sequence[Question], why: str = "") -> int:
        """Put back what was not answered. `why`: the first of them failed; how often it did by now, or 0 when that was
        too often."""
        with self._changed:
            tries = 0
            if why and questions:
                self._why = why
                first = questions[0]
                tries = self._tries[id(first)] = self._tries.get(id(first), 0) + 1
                if tries >= _TRIES:
                    questions, tries = questions[1:], 0
                    self._failed += 1
                    self._end(1)
            self._waiting.extendleft(reversed(questions))
            if why and tries == 0 and self._answered == 0:
                self._give_up()
            return tries

    def give_up(self, questions: Sequence[Question], why: str) -> None:
        """Nothing of this round will be answered any more."""
        with self._changed:
            self._why = why
            self._waiting.extendleft(reversed(questions))
            self._give_up()

    def _give_up(self) -> None:
        many = len(self._waiting)
        self._waiting.clear()
        self._failed += many
        self._end(many)

    def _end(self, many: int) -> None:
        self._open -= many
        if self._open <= 0:
            self._changed.notify_all()

    def result(self, wait_s: float) -> RoundOutcome:
        """Wait for the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._open <= 0 or self._over, max(0.0, wait_s))
            self._over = True
            late, unwanted = max(0, self._open), self._unwanted
            if self._is_cut:
                late, unwanted = 0, unwanted + late
            return RoundOutcome(self._answered, self._refused, self._failed, late, self._why, unwanted)

    def uses(self, wire: Wire, *, now: bool) -> None:
        """A connection serves this round, or does not any more."""
        with self._changed:
            self._wires.add(wire) if now else self._wires.discard(wire)
            if self._is_cut:
                wire.interrupt()

    def cut(self) -> None:
        """Nobody wants the answers any more."""
        with self._changed:
            if not self._over:
                # Over first: what a lane hears of a connection that was interrupted is no answer.
                self._is_cut = self._over = True
                for wire in self._wires:
                    wire.interrupt()
                self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()


class Rounds:
    """Connections to one endpoint. `jitter`: a number from 0 to 1, drawn anew each time."""

    def __init__(
        self,
        endpoint: Endpoint,
        now_s: Callable[[], float],
        jitter: Callable[[], float],
        most: int = MOST_CONNECTIONS,
    ) -> None:
        self._endpoint, self._now_s, self._jitter, self._most = endpoint, now_s, jitter, most
        self._context: ssl.SSLContext | None = None
        self._idle: list[Wire] = []
        self._wires: set[Wire] = set()
        self._under_way: set[_Round] = set()
        self._lock = threading.Lock()
        self._closed = False
        self.latency_s = 0.0
        """The shortest time from a question to its answer so far; 0.0 before any."""

    def ask(
        self, questions: Sequence[Question], until_s: float, stall_s: float, watch: RoundWatch | None = None
    ) -> RoundOutcome:
        """One round. `until_s`: its deadline; `stall_s`: how long a connection may say nothing before it is taken for
        dead."""
        if not questions:
            return RoundOutcome()
        lanes = max(1, min(self._most, -(-len(questions) // 4)))
        one = _Round(questions, until_s, lanes)
        with self._lock:
            if self._closed:
                return RoundOutcome(failed=len(questions), why="closed")
            self._under_way.add(one)
        try:
            if watch is not None:
                watch.began(len(questions), one.cut)
            self._open_lanes(one, lanes, stall_s)
            return one.result(until_s - self._now_s())
        finally:
            if watch is not None:
                watch.ended()
            with self._lock:
                self._under_way.discard(one)

    def close(self) -> None:
        """End rounds under way, and close every connection."""
        with self._lock:
            self._closed = True
            rounds, wires = [*self._under_way], [*self._wires]
            self._idle.clear()
        for one in rounds:
            one.stop()
        for wire in wires:
            wire.close()

    def _open_lanes(self, one: _Round, lanes: int, stall_s: float) -> None:
        """One at first. Where answers come as quickly as they are taken, more would only wait for the interpreter."""
        opened = answered = 0
        while opened < lanes and self._now_s() < one.until_s:
            more = 1 if not opened else opened if answered else lanes
            for _ in range(min(more, lanes - opened)):
                threading.Thread(target=self._lane, args=(one, stall_s), daemon=True, name="shared cache").start()
                opened += 1
            is_quick = opened < lanes
            while is_quick and self._now_s() < one.until_s:
                before, answered = answered, one.wait(_STEP_S)
                if one.is_over or one.is_done:
                    return
                is_quick = answered - before >= _MANY_IN_A_STEP

    # --- on the threads of a round --------------------------------------------------------------

    def _lane(self, one: _Round, stall_s: float) -> None:
        while batch := one.batch():
            rest = deque(batch)
            fresh = True
            try:
                wire, fresh = self._wire(one, stall_s)
                try:
                    one.uses(wire, now=True)
                    is_usable = self._exchange(wire, one, rest)
                except BaseException:
                    self._drop(wire)
                    raise
                finally:
                    one.uses(wire, now=False)
                self._put_back(wire) if is_usable else self._drop(wire)
                one.again([*rest])
            except (OSError, EOFError) as error:
                if one.is_over:
                    return
                if self._now_s() >= one.until_s:
                    one.stop()  # nobody failed: whoever waits for the round just has not woken yet
                elif type(error).__name__ in _HOPELESS:
                    one.give_up([*rest], _said(error))
                elif len(rest) < len(batch):
                    one.again([*rest])  # some servers answer only so many on one connection
                elif fresh:
                    self._failed(one, rest, _said(error))
                else:
                    one.again([*rest])  # one that was kept too long; the next is fresh, as all old ones go now
                    self._forget_idle()
            except Garbled as error:
                if one.is_over:
                    return
                rest.popleft()
                one.refused(str(error))
                one.again([*rest])

    def _failed(self, one: _Round, rest: deque[Question], why: str) -> None:
        tries = one.again([*rest], why)
        if tries:
            pause_s = _FIRST_PAUSE_S * 2**tries * (0.5 + self._jitter())
            time.sleep(max(0.0, min(pause_s, one.until_s - self._now_s())))

    def _exchange(self, wire: Wire, one: _Round, rest: deque[Question]) -> bool:
        """Send all of `rest` and take the answers; what is answered leaves it. May the connection be used again?"""
        began_s = self._now_s()
        wire.send(b"".join(question.text for question in rest))
        early = self._send_body(wire, rest[0]) if rest[0].body is not None else None
        busy: deque[Question] = deque()
        try:
            return self._take_all(wire, one, rest, early, began_s, busy)
        finally:
            if busy:
                self._failed(one, busy, "it is too busy, or broken")

    def _take_all(
        self,
        wire: Wire,
        one: _Round,
        rest: deque[Question],
        early: HttpAnswer | None,
        began_s: float,
        busy: deque[Question],
    ) -> bool:
        """Take the answers to `rest`; those that say to come again are put into `busy`."""
        is_usable, is_first = early is None, True
        while rest and (is_usable or is_first):
            answer = early or wire.answer(head_only=rest[0].head_only)
            if is_first:
                took_s = max(self._now_s() - began_s, 1e-6)
                self.latency_s = min(self.latency_s or took_s, took_s)
                is_first = False
            if one.is_over:
                return False
            if answer.status in _BUSY:
                busy.append(rest.popleft())
            else:
                rest[0].take(answer)
                rest.popleft()
                one.answered()
            answer.drain()
            is_usable = is_usable and answer.is_done and answer.stays_open
        return is_usable

    def _send_body(self, wire: Wire, question: Question) -> HttpAnswer | None:
        """The answer, if there is one already: to a body that is too large, for one."""
        assert question.body is not None
        if question.expects:
            interim = wire.interim(_INTERIM_S)
            if interim is not None and interim.status != 100:
                return interim
        for chunk in question.body():
            wire.send(chunk)
        return None

    def _wire(self, one: _Round, stall_s: float) -> tuple[Wire, bool]:
        """A connection, and whether it is a new one. Raises OSError."""
        with self._lock:
            wire = self._idle.pop() if self._idle else None
        if wire is not None:
            wire.until_s, wire.stall_s = one.until_s, stall_s
            return wire, False
        if self._endpoint.tls and self._context is None:
            import ssl

            self._context = ssl.create_default_context()
        wire = Wire(self._endpoint, self._now_s, min(one.until_s, self._now_s() + stall_s), self._context)
        wire.until_s, wire.stall_s = one.until_s, stall_s
        with self._lock:
            self._wires.add(wire)
            if self._closed:
                wire.close()
        return wire, True

    def _put_back(self, wire: Wire) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(wire)

    def _drop(self, wire: Wire) -> None:
        wire.close()
        with self._lock:
            self._wires.discard(wire)

    def _forget_idle(self) -> None:
        with self._lock:
            old, self._idle = self._idle, []
        for wire in old:
            self._drop(wire)


def _said(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "it closes the connection without an answer"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
