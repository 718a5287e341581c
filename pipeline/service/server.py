"""The socket of the service: who may connect, what each connection becomes, and what all of them may cost.

Knows asyncio, frames, peers and limits; what a port, a watch or a tell is, `roles.py` knows. Invariants: only processes
of this user are answered; no client, however broken, slow or numerous, raises out of here, delays another or makes the
service grow, and each of them is counted.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pipeline import __version__
from pipeline.client.protocol import (
    PROTOCOL,
    VERDICT_FRAME,
    DeviceRef,
    FrameReader,
    Message,
    ProtocolError,
    ServiceFrame,
    encode,
    encode_failure,
    encode_verdict,
    read_fields,
)
from pipeline.model import Failure
from pipeline.service.consoles import OwnedConsoles
from pipeline.service.environments import Environments

GREETING_S = 10.0
"""By when a connection must have greeted."""

MAX_CONNECTIONS = 200
"""Each is a descriptor; a port needs some too, and its number must stay below what `select` takes (1024)."""

MAX_BEHIND = 1 << 20
"""Bytes that wait for a client; with more it is behind, until it has taken three quarters of them."""

MAX_UNSENT = 4 << 20
"""Bytes that wait for a client that does not take them; then it has lost its connection."""


class Role(Protocol):
    """What a connection has become. Must not block."""

    def frame(self, frame: ServiceFrame) -> None:
        """Raises ProtocolError for what cannot be."""
        ...

    def caught_up(self) -> None:
        """The client has taken what it was behind with."""
        ...

    def ended(self) -> None:
        """The client is gone. Called once."""
        ...


class Service:
    """What all connections share. `roles` makes what a connection becomes, by the message that asks. `verdict` answers
    a verdict frame: its fields, and the pid of who asks; None: nobody does. `stop` is called to end the service."""

    def __init__(
        self,
        consoles: OwnedConsoles,
        roles: Mapping[str, Callable[[Client, ServiceFrame], Role]],
        now_s: Callable[[], float],
        utc: Callable[[], str],
    ) -> None:
        self.consoles = consoles
        self.roles = roles
        self.counts: Counter[str] = Counter()
        """What happened: `connections`, `refused_*`, `broken`, `slow`, ..."""
        self.clients: dict[Client, None] = {}
        """In the order in which they came."""
        self.environments = Environments()
        """Of those who named projects."""
        self.verdict: Callable[[list[bytes], int], tuple[list[bytes], bytes]] | None = None
        self.stop: Callable[[], None] = lambda: None
        self.now_s = now_s
        self.utc = utc
        self.began_s = now_s()
        self.began_at = utc()
        self.more: dict[str, Callable[[], Any]] = {}
        """What other parts add to `status`, by name."""

    def status(self) -> Mapping[str, Any]:
        """Of `done` after `status`."""
        states = [_plain(state) for state in self.consoles.states()]
        return {
            "devices": states,
            "memory_kb": memory_kb(),
            "uptime_s": round(self.now_s() - self.began_s, 3),
            "started_at": self.began_at,
            "pid": os.getpid(),
            "version": __version__,
            "connections": len(self.clients),
            "counts": dict(self.counts),
            **{name: call() for name, call in self.more.items()},
        }

    def has_room(self) -> bool:
        """For one more connection. Where there are too many, one that is nothing yet makes room."""
        if len(self.clients) < MAX_CONNECTIONS:
            return True
        idle = next((client for client in self.clients if client.idle), None)
        if idle is not None:
            self.counts["displaced"] += 1
            self.clients.pop(idle)
            idle.end()
        return idle is not None

    def asked_to_stop(self, *, now: bool) -> str:
        """Why not, or "" and it ends."""
        if self.consoles.writing and not now:
            return "a board is being written to"
        self.stop()
        return ""


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.loop = loop
        self.pid = 0
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self._role: Role | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.ended = False
        self.behind = False
        """Does it take less than is sent?"""

    # --- asyncio ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=MAX_BEHIND)
        service = self.service
        service.counts["connections"] += 1
        who = peer(transport.get_extra_info("socket"))
        if who is not None and who[1] != os.getuid():
            service.counts["refused_user"] += 1
            self.end()
        elif not service.has_room():
            service.counts["refused_many"] += 1
            self.refuse(f"{MAX_CONNECTIONS} connections are open already")
        else:
            self.pid = who[0] if who is not None else 0
            service.clients[self] = None
            self._deadline = self.loop.call_later(GREETING_S, self._late)

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        try:
            for frame in self._reader.feed(data):
                self._frame(frame)
                if self.ended:
                    return
        except ProtocolError as error:
            self.service.counts["broken"] += 1
            self.refuse(str(error))

    def eof_received(self) -> bool:
        self._end_role()
        return True  # what is to be done at its end may take a moment; whoever does it calls `end`

    def pause_writing(self) -> None:
        self.behind = True

    def resume_writing(self) -> None:
        self.behind = False
        if self._role is not None:
            self._role.caught_up()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.ended = True
        self._end_role()
        self.service.clients.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()

    @property
    def idle(self) -> bool:
        """Is it nothing yet, such as a lent port or a view?"""
        return self._role is None

    # --- for roles ----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """A frame. A client that takes nothing loses its connection."""
        if self.ended or self._transport is None:
            return
        self._transport.write(data)
        if self.unsent > MAX_UNSENT:
            self.service.counts["slow"] += 1
            self._transport.abort()
            self.ended = True

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def done(self, **fields: Any) -> None:
        self.send(encode(Message.DONE, **fields))

    def answer(self, failure: Failure | None) -> None:
        """`done`, or why not."""
        self.send(encode(Message.DONE) if failure is None else encode_failure(failure))

    def refuse(self, reason: str) -> None:
        """The last word."""
        self.send(encode(Message.REFUSED, protocol=PROTOCOL, reason=reason))
        self.end()

    def end(self) -> None:
        """Close it, after what was sent. Idempotent."""
        self.ended = True
        if self._transport is not None:
            self._transport.close()

    def hold(self, held: bool) -> None:
        """Take nothing from this client for a while, or again."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if held else self._transport.resume_reading)()

    # --- what it asks -------------------------------------------------------------------------------

    def _late(self) -> None:
        if not self._greeted:
            self.service.counts["silent"] += 1
            self.refuse(f"no greeting within {GREETING_S:g} s")

    def _end_role(self) -> None:
        role, self._role = self._role, None
        if role is not None:
            role.ended()
        elif not self.ended:
            self.end()

    def _frame(self, frame: ServiceFrame) -> None:
        if self._role is not None:
            self._role.frame(frame)
        elif frame.kind == VERDICT_FRAME:  # it names the protocol itself, and needs no greeting
            self._judge(frame)
        elif not self._greeted:
            self._greet(frame)
        else:
            self._ask(frame)

    def _greet(self, frame: ServiceFrame) -> None:
        header = frame.header
        if frame.message != Message.HELLO:
            raise ProtocolError(f"the first message is {frame.message[:40]!r}, not hello")
        if header.get("protocol") != PROTOCOL:
            self.service.counts["refused_version"] += 1
            self.refuse(f"this service speaks protocol {PROTOCOL}")
            return
        self._greeted = True
        if self._deadline is not None:
            self._deadline.cancel()
        self.send(
            encode(
                Message.WELCOME,
                protocol=PROTOCOL,
                version=__version__,
                pid=os.getpid(),
                started_at=self.service.began_at,
            )
        )

    def _judge(self, frame: ServiceFrame) -> None:
        """An empty answer says: look yourself."""
        judge = self.service.verdict
        fields, body = ([], b"") if judge is None else judge(frame.header["fields"], self.pid)
        self.send(encode_verdict(*fields, body=body))

    def _ask(self, frame: ServiceFrame) -> None:
        consoles, header = self.service.consoles, frame.header
        match frame.message:
            case Message.STATUS:
                self.done(**self.service.status())
            case Message.STOP:
                self.done(refused=self.service.asked_to_stop(now=bool(header.get("now"))))
            case Message.RELEASE:
                self.answer(consoles.release(device_of(header)))
            case Message.SEND:
                self.answer(consoles.send(device_of(header), frame.body))
            case Message.RESET:
                self.answer(consoles.reset(device_of(header)))
            case name if name in self.service.roles:
                self._role = self.service.roles[name](self, frame)
                self.service.environments.hear(device_of(header).root, header.get("env"))
            case name:
                raise ProtocolError(f"{name[:40]!r} is nothing that a client can ask")


def device_of(header: Mapping[str, Any]) -> DeviceRef:
    """The `device` of a header. Raises ProtocolError."""
    value = header.get("device")
    if not isinstance(value, dict):
        raise ProtocolError("a message without a device")
    device: DeviceRef = read_fields(DeviceRef, value)
    named = device.root + device.name + device.port
    if not device.root.startswith("/") or not device.name or not device.port or "/" in device.name or "\0" in named:
        raise ProtocolError(f"no device has root {device.root!r:.60}, name {device.name!r:.60} and a port")
    return device


def _plain(value: Any) -> Any:
    """Named tuples as objects."""
    if hasattr(value, "_fields"):
        return {name: _plain(getattr(value, name)) for name in value._fields}
    return value


def peer(sock: socket.socket) -> tuple[int, int] | None:
    """(pid, uid) of the other side; None where the system does not tell: then the directory alone keeps others out."""
    try:
        if sys.platform == "linux":
            pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return pid, uid
        if sys.platform == "darwin":
            # xucred: version, uid, ...; SOL_LOCAL 0, LOCAL_PEERCRED 1, LOCAL_PEERPID 2
            _, uid = struct.unpack_from("II", sock.getsockopt(0, 1, 76))
            return struct.unpack("i", sock.getsockopt(0, 2, 4))[0], uid
    except OSError:
        return -1, -1
    return None


def memory_kb() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - asked often
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except (OSError, ValueError, IndexError):
        return 0
