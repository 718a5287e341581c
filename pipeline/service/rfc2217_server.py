"""Consoles' ports for programs that speak RFC 2217: `rfc2217://127.0.0.1:PORT`, as pyserial writes it.

Knows TCP on loopback and what a client's settings mean for a shared terminal; the bytes of the protocol,
`formats/com_port.py` knows. Invariants: only this machine is listened to, and where the system tells whose a connection
is only this user; no client, however broken or slow, raises out of here, delays another or makes the service grow.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

from pipeline.formats.com_port import ComBaud, ComBytes, ComEvent, ComLines, ComPortSession, ComPurge
from pipeline.service.line_intent import LineIntent
from pipeline.service.shared_terminal import SharedTerminal

HOST = "127.0.0.1"
MAX_UNSENT = 1 << 20
"""Bytes that wait for a client; what comes while they do is dropped, and counted."""

MAX_UNWRITTEN = 1 << 18
"""Bytes of a client that wait for the port; then nothing is taken from it for a while."""

MAX_CLIENTS = 16

BOTH_S = 0.5
"""How long both lines may be asserted in reset until that counts as none."""

MakeTerminal = Callable[[Callable[[bytes], None]], SharedTerminal]


class Rfc2217Server:
    """Of one console. `make_terminal` gives a client its share of the port."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make_terminal: MakeTerminal) -> None:
        self._loop = loop
        self.make_terminal = make_terminal
        self._server: asyncio.Server | None = None
        self.clients: set[Rfc2217Client] = set()
        self.dropped = self.turned_away = 0
        self.port = 0

    async def listen(self, wanted: int) -> None:
        """On `wanted`, or where that is not free on any. Raises OSError."""
        for number in (wanted, 0):
            try:
                self._server = await self._loop.create_server(lambda: Rfc2217Client(self, self._loop), HOST, number)
            except OSError:
                if number == 0:
                    raise
                continue
            self.port = int(self._server.sockets[0].getsockname()[1])
            return

    @property
    def url(self) -> str:
        """What clients open."""
        return f"rfc2217://{HOST}:{self.port}"

    def close(self) -> None:
        """Idempotent."""
        if self._server is not None:
            self._server.close()
        for client in list(self.clients):
            client.end()


class Rfc2217Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: Rfc2217Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._session = ComPortSession(b"hotplate")
        self._intent = LineIntent()
        self._terminal = server.make_terminal(self._say)
        self._give_up: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._held = False

    # --- asyncio ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        owner = peer_uid(sock.getpeername()[1], sock.getsockname()[1])
        if len(self._server.clients) >= MAX_CLIENTS or owner not in (None, os.getuid()):
            self._server.turned_away += 1
            transport.abort()
            return
        self._server.clients.add(self)
        transport.pause_reading()
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        failure = await self._terminal.open()
        if self._transport is None or self._transport.is_closing():
            self._terminal.close()
        elif failure is not None:
            self._transport.write(f"{failure.line()}\r\n".encode())
            self.end()
        else:
            self._flush()
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        for event in self._session.feed(data):
            self._do(event)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._server.clients.discard(self)
        for pending in (self._give_up, self._opening):
            if pending is not None:
                pending.cancel()
        self._terminal.close()

    def end(self) -> None:
        """Close it, after what was sent."""
        if self._transport is not None:
            self._transport.close()

    # --- both ways ----------------------------------------------------------------------------------

    def _do(self, event: ComEvent) -> None:
        if isinstance(event, ComBytes):
            self._terminal.write(event.data, self._written)
            if self._terminal.queued > MAX_UNWRITTEN:
                self._hold(True)
        elif isinstance(event, ComBaud):
            self._terminal.set_baud(event.baud, self._acknowledged(event.reply))
        elif isinstance(event, ComPurge):
            self._terminal.purge(self._acknowledged(event.reply))
        else:
            self._lines(event)

    def _lines(self, event: ComLines) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
        meaning = self._intent.wants(event.dtr, event.rts)
        if meaning is None:
            self._session.acknowledge(event.reply)
        else:
            self._terminal.set_lines(meaning, self._acknowledged(event.reply))
        if self._intent.held:
            self._give_up = self._loop.call_later(BOTH_S, self._both)

    def _both(self) -> None:
        meaning = self._intent.give_up()
        if meaning is not None:
            self._terminal.set_lines(meaning, lambda: None)

    def _acknowledged(self, reply: bytes) -> Callable[[], None]:
        def done() -> None:
            self._session.acknowledge(reply)
            self._flush()

        return done

    def _say(self, data: bytes) -> None:
        """What the board says."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._session.suspended:
            return
        if transport.get_write_buffer_size() > MAX_UNSENT:
            self._server.dropped += len(data)
            return
        self._flush()
        transport.write(self._session.encoded(data))

    def _flush(self) -> None:
        if self._session.outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(self._session.outgoing))
            # one that asks for answers and takes none is not asked again until it does
            self._hold(self._transport.get_write_buffer_size() > MAX_UNSENT)
        self._session.outgoing.clear()

    def _written(self) -> None:
        if self._held and self._terminal.queued <= MAX_UNWRITTEN:
            self._hold(False)

    def _hold(self, held: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or held is self._held:
            return
        self._held = held
        (transport.pause_reading if held else transport.resume_reading)()


def peer_uid(theirs: int, ours: int, table: Callable[[], Any] | None = None) -> int | None:
    """Whose the other end of a connection on loopback is, by the numbers of its two ports; None where the system does
    not tell. Linux: `/proc/net/tcp`, addresses in hexadecimal in the machine's byte order."""
    if table is None and sys.platform != "linux":
        return None
    wanted = (f"0100007F:{theirs:04X}", f"0100007F:{ours:04X}")
    if sys.byteorder == "big":
        wanted = (f"7F000001:{theirs:04X}", f"7F000001:{ours:04X}")
    try:
        with open("/proc/net/tcp", "rb") if table is None else table() as lines:  # noqa: PTH123 - one file, no path
            for line in lines:
                words = line.decode("ascii", "replace").split()
                if tuple(words[1:3]) == wanted:
                    return int(words[7])
    except (OSError, ValueError, IndexError):
        return None
    return -1
