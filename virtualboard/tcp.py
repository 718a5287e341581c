"""A board's line on a TCP port of the loopback interface, plain or with RFC 2217.

The board keeps running between clients. One client at a time: others wait their turn, and each is refused with a line
of text when it has waited `GRACE_S`. Does not know the loader or the CPU. Invariant: no client, however broken, raises
out of here or makes it grow: output that nobody takes is dropped, as on a real line, and input waits in the kernel.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections import deque
from collections.abc import Callable

from virtualboard.cable import Cable
from virtualboard.server import ListenError, Loop
from virtualboard.telnet import Baud, Data, Event, Lines, Purge, Session

GRACE_S = 2.0
_MAX_WAITING = 64
_MAX_UNSENT = 1 << 20
_CHUNK = 1 << 16
_HOST = "127.0.0.1"


class RawSession:
    """Plain TCP: bytes are bytes, and neither lines nor a rate travel. The surface of `telnet.Session`."""

    def __init__(self) -> None:
        self.outgoing = bytearray()
        self.negotiated = True  # there is nothing to say first

    def send(self, data: bytes) -> None:
        """Bytes from the serial line, for the client."""
        self.outgoing += data

    def feed(self, data: bytes) -> list[Event]:
        """Bytes from the client."""
        return [Data(data)]


class TcpPort:
    """Listens on 127.0.0.1:`port`, 0 picks a free one. `telnet`: RFC 2217. Raises ListenError."""

    def __init__(self, loop: Loop, cable: Cable, port: int, now: Callable[[], float], *, telnet: bool) -> None:
        self._loop = loop
        self._cable = cable
        self._now = now
        self._telnet = telnet
        self._client: _Client | None = None
        self._waiting: deque[tuple[socket.socket, float]] = deque()  # further clients and when they are refused
        self._listener: socket.socket | None = None
        self.number = port
        if not telnet:
            cable.set_baud(None)
        self._listen(port)

    @property
    def url(self) -> str:
        """As pyserial writes it."""
        return f"{'rfc2217' if self._telnet else 'socket'}://{_HOST}:{self.number}"

    def due(self) -> float | None:
        """When the next client that waits is refused."""
        return self._waiting[0][1] if self._waiting else None

    def pump(self) -> None:
        """Pass on what has arrived from the board; refuse who has waited too long."""
        data = self._cable.transmit()
        client = self._client
        if client is not None:
            if len(client.session.outgoing) < _MAX_UNSENT:
                client.session.send(data)
            self._flush(client)
        self._refuse_late()

    def unplug(self) -> None:
        """Close the listener and every connection."""
        if self._client is not None:
            self._drop(self._client, next_one=False)
        for connection, _refuse_at in self._waiting:
            connection.close()
        self._waiting.clear()
        if self._listener is not None:
            self._loop.watch(self._listener, 0, self._accept)
            self._listener.close()
            self._listener = None

    def plug_in(self, *, renamed: bool) -> None:
        """Listen again; another name is another port number. Raises ListenError."""
        self._listen(0 if renamed else self.number)

    def close(self) -> None:
        """Vanish for good."""
        self.unplug()

    def _listen(self, port: int) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((_HOST, port))
            listener.listen()
        except (OSError, OverflowError) as exc:
            listener.close()
            reason = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise ListenError(
                f"{_HOST}:{port}: error: cannot listen: {reason}\nGive another port, or 0 to have a free one chosen."
            ) from exc
        self.number = listener.getsockname()[1]
        listener.setblocking(False)
        self._listener = listener
        self._loop.watch(listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return  # the client has gone already, or there are no descriptors: it is tried again
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._client is None:
            self._admit(connection)
        elif len(self._waiting) < _MAX_WAITING:
            self._waiting.append((connection, self._now() + GRACE_S))
        else:
            self._refuse(connection)

    def _admit(self, connection: socket.socket) -> None:
        session = Session() if self._telnet else RawSession()
        self._client = _Client(connection, session, self._now())
        self._cable.forget()  # what was sent while nobody listened is gone
        self._flush(self._client)

    @staticmethod
    def _refuse(connection: socket.socket) -> None:
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
        events = selectors.EVENT_WRITE if client.session.outgoing else 0
        # A client that asks for answers and never takes them is not asked again until it does.
        if not self._cable.full and len(client.session.outgoing) < _MAX_UNSENT:
            events |= selectors.EVENT_READ
        self._loop.watch(client.connection, events, lambda: self._ready(client))

    def _ready(self, client: _Client) -> None:
        try:
            data = client.connection.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return  # ready to be written to; `pump` does that
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
                self._cable.receive(data)
                self._cable.advance()
            case Baud(baud):
                self._cable.set_baud(baud)
            case Lines(dtr, rts):
                self._cable.set_lines(dtr, rts)
            case Purge():
                self._cable.forget()

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

    def _drop(self, client: _Client, *, next_one: bool = True) -> None:
        if self._client is not client:
            return
        self._loop.watch(client.connection, 0, lambda: None)
        client.connection.close()
        self._client = None
        if self._telnet:
            self._cable.set_lines(False, False)  # as a serial port does when it is closed
        if self._waiting and next_one:
            self._admit(self._waiting.popleft()[0])


class _Client:
    """A connection with its session, and since when it is the one that is served."""

    def __init__(self, connection: socket.socket, session: Session | RawSession, since: float) -> None:
        self.connection = connection
        self.session = session
        self.since = since
