"""The monitor as a library: a device's output as events, and JSON-RPC calls answered by id, on one link.

    with DeviceMonitor(link, reader) as monitor:
        answer = monitor.call("health", timeout_s=2.0)      # CallAnswer, CallRefusal, or a Failure at the deadline
        for seen in monitor.poll(0.1): ...                  # lines, messages, resets, panics, gaps, drops

What arrives while a call waits is kept for the next `poll`, up to `RING_LINES`; what was dropped is told. Does not know
doit, terminals or who opened the port. Invariant: every byte that the link delivers is part of an event or of a number
of dropped ones, and a call ends at its deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.boot.console_events import ConsoleEvent, ConsoleEventKind, ConsoleListener
from pipeline.boot.ring import Ring
from pipeline.effects.api import Reader, SerialLink
from pipeline.failures import fail
from pipeline.formats.jsonrpc import Calls
from pipeline.model import Failure, FailureCategory

RING_LINES = 10_000
POLL_S = 0.1


class CallAnswer(NamedTuple):
    """The result of a call. `at_s`: link time of the answer's first byte; `sent_s`: of the request."""

    result: Any
    sent_s: float
    at_s: float


class CallRefusal(NamedTuple):
    """The firmware answered with an error."""

    code: int
    message: str


class DeviceMonitor:
    """Listens on `link` through `reader`, which it starts, and stops with `close`. One thread at a time."""

    def __init__(
        self,
        link: SerialLink,
        reader: Reader,
        *,
        where: str = "device",
        limit: int = RING_LINES,
        sink: Callable[[bytes], None] = lambda data: None,
    ) -> None:
        """`limit`: events that wait for `poll`. `sink` gets every byte as it comes."""
        self._link = link
        self._reader = reader
        self._where = where
        self._sink = sink
        self._calls = Calls("hotplate")
        self._listener = ConsoleListener()
        self._events: Ring[ConsoleEvent] = Ring(limit)
        self._told = (0, 0, 0)
        self._gaps = 0
        reader.start()

    def __enter__(self) -> DeviceMonitor:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def running(self) -> str:
        """`app_elf_sha256` of the firmware that runs, if it said since its last reset."""
        return self._listener.running

    @property
    def prompt(self) -> str:
        """The line that the device has begun and does not end, since it waits for input; empty when there is none."""
        return self._listener.prompt(self._link.now_s())

    @property
    def dropped_bytes(self) -> int:
        """What arrived and nobody took from the reader."""
        return self._reader.dropped

    @property
    def dropped_events(self) -> int:
        """What was heard and nobody took from here."""
        return self._events.dropped

    def poll(self, timeout_s: float) -> list[ConsoleEvent]:
        """What was heard; waits up to `timeout_s` when there is nothing yet. Raises DeviceError when the port went away
        for good."""
        if not len(self._events):
            self._listen(timeout_s)
        seen = self._losses()
        while (event := self._events.take()) is not None:
            seen.append(event)
        return seen

    def send(self, data: bytes) -> None:
        """Send as it is."""
        self._link.write(data)

    def reset(self) -> None:
        """Reset the board into its application. Raises DeviceError."""
        self._link.release_reset()

    def interrupted(self) -> None:
        """Bytes were lost, or somebody else had the port: what is begun will not end."""
        self._listener.interrupted()

    def call(self, method: str, params: Any = None, timeout_s: float = 2.0) -> CallAnswer | CallRefusal | Failure:
        """Ask, and wait for the answer with the same id; an rpc_timeout failure at the deadline. A call that the device
        cannot answer any more, because it was reset meanwhile, ends at once. Raises DeviceError as `poll`."""
        name, request = self._calls.request(method, params)
        sent_s = self._link.now_s()
        self._link.write(request)
        while (left_s := sent_s + timeout_s - self._link.now_s()) > 0:
            for seen in self._listen(min(POLL_S, left_s)):
                if seen.kind is ConsoleEventKind.RESET:
                    self._calls.forget()
                    return self._no_answer(method, f"the device was reset ({seen.text}) before it answered")
                if seen.message is not None and seen.message.get("id") == name and self._calls.match(seen.message):
                    return _reply(seen, sent_s)
        self._calls.forget(name)
        return self._no_answer(method, f"no answer came within {round(timeout_s * 1000)} ms")

    def close(self) -> None:
        """Stop listening; the link stays open."""
        self._reader.stop()

    def _listen(self, timeout_s: float) -> list[ConsoleEvent]:
        """One read, into the ring too."""
        at_s, data = self._reader.poll(timeout_s)
        while self._gaps < len(self._link.gaps) and self._link.gaps[self._gaps].back_s <= at_s:
            self._listener.interrupted()
            self._gaps += 1
        if data:
            self._sink(data)
        heard = self._listener.feed(at_s, data)
        for seen in heard:
            self._events.push(seen)
        return heard

    def _losses(self) -> list[ConsoleEvent]:
        """What was lost since the last time, as events."""
        gaps, dropped_bytes, dropped_events = len(self._link.gaps), self._reader.dropped, self._events.dropped
        before, self._told = self._told, (gaps, dropped_bytes, dropped_events)
        now_s = self._link.now_s()
        seen = []
        for gap in self._link.gaps[before[0] : gaps]:
            text = f"the port was gone for {round((gap.back_s - gap.gone_s) * 1000)} ms; what came meanwhile is lost"
            seen.append(ConsoleEvent(ConsoleEventKind.GAP, gap.back_s, text))
        for count, unit in ((dropped_bytes - before[1], "bytes"), (dropped_events - before[2], "lines")):
            if count:
                seen.append(
                    ConsoleEvent(
                        ConsoleEventKind.DROPPED, now_s, f"{count} {unit} were dropped: nobody took them in time"
                    )
                )
        return seen

    def _no_answer(self, method: str, fact: str) -> Failure:
        return fail(
            FailureCategory.RPC_TIMEOUT,
            stage=None,
            where=self._where,
            message=f"`{method}`: {fact}",
            hint="check that this firmware serves JSON-RPC on this port, at the device's `monitor_baud`",
        )


def _reply(seen: ConsoleEvent, sent_s: float) -> CallAnswer | CallRefusal:
    message = seen.message
    assert message is not None
    if "error" not in message:
        return CallAnswer(message["result"], sent_s, seen.at_s)
    code = message["error"].get("code")
    return CallRefusal(code if isinstance(code, int) else 0, str(message["error"].get("message", "")))
