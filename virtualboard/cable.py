"""The cable between a host and a board: bytes take their time, some get lost or spoilt, and it can be unplugged.

Has the board's own surface (`receive`, `transmit`, `advance`, `wake_at`, lines and rate), so that a transport need not
know whether time is modelled. Does not know transports. Invariant: without faults every byte arrives once, in order; at
most `_MAX_TO_HOST` bytes wait for a host that does not read, and `full` says when no more should be sent to the board.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from virtualboard.board import DEFAULT_BAUD, Board

_MAX_TO_HOST = 1 << 20
# What a serial driver takes from its user before it makes him wait: a page (Linux, SERIAL_XMIT_SIZE).
DRIVER_BUFFER = 4096
# The host looks at arriving bytes this often while more are on the way; single bytes would cost a step each.
_GLANCE_S = 0.001
# Instants are computed in two ways; a difference below this is rounding.
_ROUNDING_S = 1e-9


class Cable:
    """`board` behind a line with the pace of its `timing`. `now` is the board's clock; `record` is given what goes to
    the host, as it is sent, whether or not anybody takes it."""

    def __init__(
        self, board: Board, now: Callable[[], float], record: Callable[[bytes], object] = lambda data: None
    ) -> None:
        self.board = board
        self._record = record
        self._now = now
        self._baud: int | None = DEFAULT_BAUD
        self._enumerated = board.plug.generation
        self._to_board = _Pipe(math.inf, 0.0)
        self._to_host = _Pipe(_MAX_TO_HOST, board.timing.latency_s)

    @property
    def present(self) -> bool:
        """Whether the board's port is there for the host's system to see."""
        return self.board.plug.present(self._now())

    @property
    def reachable(self) -> bool:
        """Whether clients find it: it is there, and what serves it has opened it again (`plug_in`)."""
        return self.present and self._enumerated == self.board.plug.generation

    @property
    def full(self) -> bool:
        """Whether the driver's buffer is full: a host that goes on writing is made to wait."""
        return self._to_board.waiting > DRIVER_BUFFER

    def set_lines(self, dtr: bool, rts: bool) -> None:
        """The host's lines; what was on its way before arrives before."""
        self.advance()
        self.board.set_lines(dtr, rts)
        self._collect()

    def press_reset(self, *, download: bool) -> None:
        """The board's buttons: reset, with or without boot held."""
        self.advance()
        self.board.press_reset(download=download)
        self._collect()

    def set_baud(self, baud: int | None) -> None:
        """The host's rate; None where none travels. What was sent before was sent at the old one."""
        if baud == self._baud:
            return
        self.advance()
        self._baud = baud
        self.board.set_baud(baud)

    def receive(self, data: bytes) -> None:
        """Bytes from the host."""
        data = self.board.faults.line("board", data)
        if byte_s := self._byte_s():
            self._to_board.push(data, self._now(), byte_s)
        else:
            self.board.receive(data)

    def advance(self) -> None:
        """Deliver what has arrived at the board and let it do what is due."""
        if self._to_board.waiting:
            self.board.receive(self._to_board.pull(self._now()))
        self.board.advance()
        self._collect()

    def _collect(self) -> None:
        if sent := self.board.transmit():
            sent = self.board.faults.line("host", sent)
            self._record(sent)
            self._to_host.push(sent, self._now(), self._byte_s())

    def transmit(self) -> bytes:
        """Take what has arrived at the host."""
        return self._to_host.pull(self._now()) if self._to_host.waiting else b""

    def wake_at(self) -> float | None:
        """When `advance` or `transmit` has something to do next."""
        due = [self.board.wake_at(), self._to_board.last_at(), self._to_host.next_at()]
        return min((at for at in due if at is not None), default=None)

    def drained_at(self) -> float | None:
        """When everything that was sent has arrived at the board; None when it has."""
        return self._to_board.last_at()

    def forget(self) -> None:
        """The host forgets what has arrived and nobody took (it opens the port, or purges)."""
        self.advance()
        self.transmit()

    def unplug(self) -> None:
        """What was on the line is lost."""
        self._to_board.clear()
        self._to_host.clear()

    def plug_in(self) -> None:
        """The port has been opened again after the enumeration that the board counts now."""
        self._enumerated = self.board.plug.generation

    def _byte_s(self) -> float:
        return self.board.timing.byte_s(self._baud or DEFAULT_BAUD)


class _Pipe:
    """One direction: bytes that follow each other at a pace, and are seen `latency_s` later."""

    def __init__(self, limit: float, latency_s: float) -> None:
        self.waiting = 0
        self._limit = limit
        self._latency_s = latency_s
        self._busy_until = self._seen_at = -math.inf
        self._parts: deque[tuple[float, float, bytes]] = deque()  # begin of the first byte, time of each

    def push(self, data: bytes, now: float, byte_s: float) -> None:
        """Send `data` as soon as the line is free; what does not fit is lost."""
        data = data[: int(min(self._limit - self.waiting, len(data)))]
        if data:
            begin = max(now, self._busy_until)
            self._parts.append((begin, byte_s, data))
            self._busy_until = begin + len(data) * byte_s
            self.waiting += len(data)

    def pull(self, now: float) -> bytes:
        """The bytes that have arrived."""
        seen = now - self._latency_s + _ROUNDING_S
        out = bytearray()
        while self._parts and self._parts[0][0] <= seen:
            begin, byte_s, data = self._parts.popleft()
            count = int((seen - begin) / byte_s) if byte_s and begin + len(data) * byte_s > seen else len(data)
            out += data[:count]
            if count < len(data):
                self._parts.appendleft((begin + count * byte_s, byte_s, data[count:]))
                break
        if out:
            self.waiting -= len(out)
            self._seen_at = now
        return bytes(out)

    def next_at(self) -> float | None:
        """When there is something to pull: the first byte at once, then whatever each look finds."""
        if not self._parts:
            return None
        begin, byte_s, _data = self._parts[0]
        return min(self._busy_until + self._latency_s, max(begin + byte_s + self._latency_s, self._seen_at + _GLANCE_S))

    def last_at(self) -> float | None:
        """When everything sent so far has arrived."""
        if not self._parts:
            return None
        return self._busy_until + self._latency_s

    def clear(self) -> None:
        """Lose what is on the line."""
        self._parts.clear()
        self.waiting = 0
        self._busy_until = -math.inf
