"""A board as an RFC 2217 server on the loopback interface: one thread, one loop, real time.

The board keeps running between clients. One client at a time: others wait their turn, and each is refused with a
line of text when it has waited `GRACE_S`. Does not know the loader or the CPU. Invariant: no client, however broken,
ends the loop or makes it grow: output that nobody takes is dropped, as on a real line.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable

from virtualboard.board import Board
from virtualboard.telnet import Baud, Data, Event, Lines, Purge, Session

GRACE_S = 2.0
_MAX_WAITING = 64
_MAX_UNSENT = 1 << 20
_CHUNK = 1 << 16
# With nothing to do the loop still looks around this often, so that a clock that jumps cannot stall a board.
_LONGEST_WAIT_S = 5.0


class ListenError(Exception):
    """The port cannot be listened on. The text is for a person."""


class Server:
    """Serves `board` on 127.0.0.1:`port` (0 picks a free one, see `port`). Raises ListenError."""

    def __init__(self, board: Board, port: int, now: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._now = now
        self._selector = selectors.DefaultSelector()
        self._client: _Client | None = None
        self._waiting: deque[tuple[socket.socket, float]] = deque()  # further clients and when they are refused
        self._stopping = False
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", port))
            self._listener.listen()
        except (OSError, OverflowError) as exc:
            self._listener.close()
            self._selector.close()
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise ListenError(
                f"127.0.0.1:{port}: error: cannot listen: {reason}\nGive another port, or 0 to have a free one chosen."
            ) from exc
        self.port: int = self._listener.getsockname()[1]
        self._listener.setblocking(False)
        # Written to by `stop`, which may run in a signal handler or another thread.
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._stop_requested)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def stop(self) -> None:
        """Make `serve` return. Safe in signal handlers and other threads."""
        self._wake_write.send(b"x")

    def serve(self) -> None:
        """Run the board and its clients until `stop`, then close everything."""
        try:
            while not self._stopping:
                for key, _mask in self._selector.select(self._wait()):
                    key.data()
                self._board.advance()
                self._pass_on()
                self._refuse_late()
        finally:
            self._close()

    def _wait(self) -> float:
        due = [self._now() + _LONGEST_WAIT_S]
        wake = self._board.wake_at()
        due += [] if wake is None else [wake]
        due += [refuse_at for _, refuse_at in self._waiting]
        return max(0.0, min(due) - self._now())

    def _stop_requested(self) -> None:
        self._stopping = True

    def _accept(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return  # the client has gone already
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._client is None:
            self._admit(connection)
        elif len(self._waiting) < _MAX_WAITING:
            self._waiting.append((connection, self._now() + GRACE_S))
        else:
            self._refuse(connection)

    def _admit(self, connection: socket.socket) -> None:
        self._client = _Client(connection, self._now())
        self._board.transmit()  # what was sent while nobody listened is gone
        self._watch(self._client)
        self._flush(self._client)

    def _refuse(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.send(b"virtualboard: error: another client is connected to this board\r\n")
        connection.close()

    def _refuse_late(self) -> None:
        while self._waiting and self._waiting[0][1] <= self._now():
            client = self._client
            if client is not None and not client.session.negotiated and client.since + GRACE_S <= self._now():
                # Whoever is connected never said that it speaks RFC 2217: a stray or half-open connection.
                self._drop(client)
            else:
                self._refuse(self._waiting.popleft()[0])

    def _watch(self, client: _Client) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.session.outgoing else 0)
        if client.events == events:
            return
        if client.events:
            self._selector.modify(client.connection, events, lambda: self._ready(client))
        else:
            self._selector.register(client.connection, events, lambda: self._ready(client))
        client.events = events

    def _ready(self, client: _Client) -> None:
        try:
            data = client.connection.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return  # ready to be written to; `_pass_on` does that
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        for event in client.session.feed(data):
            self._apply(event)

    def _apply(self, event: Event) -> None:
        match event:
            case Data(data):
                self._board.receive(data)
                self._board.advance()
            case Baud(baud):
                self._pass_on()  # what was sent before the change was sent at the old rate
                self._board.set_baud(baud)
            case Lines(dtr, rts):
                self._board.set_lines(dtr, rts)
            case Purge():
                self._board.transmit()

    def _pass_on(self) -> None:
        data = self._board.transmit()
        client = self._client
        if client is not None:
            if len(client.session.outgoing) < _MAX_UNSENT:
                client.session.send(data)
            self._flush(client)

    def _flush(self, client: _Client) -> None:
        outgoing = client.session.outgoing
        try:
            while outgoing:
                del outgoing[: client.connection.send(outgoing[:_CHUNK])]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._drop(client)
            return
        self._watch(client)

    def _drop(self, client: _Client) -> None:
        if self._client is not client:
            return
        self._selector.unregister(client.connection)
        client.connection.close()
        self._client = None
        self._board.set_lines(False, False)  # as a serial port does when it is closed
        if self._waiting and not self._stopping:
            self._admit(self._waiting.popleft()[0])

    def _close(self) -> None:
        self._stopping = True
        if self._client is not None:
            self._drop(self._client)
        for connection, _refuse_at in self._waiting:
            connection.close()
        self._selector.close()
        for end in (self._listener, self._wake_read, self._wake_write):
            end.close()


class _Client:
    """A connection with its telnet state; `events` is what the selector watches, 0 before it does."""

    def __init__(self, connection: socket.socket, since: float) -> None:
        self.connection = connection
        self.since = since
        self.session = Session()
        self.events = 0
