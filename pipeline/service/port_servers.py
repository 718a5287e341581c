"""Port servers for the consoles that somebody asked for: an RFC 2217 server and a pseudo-terminal each.

Knows which consoles, and the names and addresses of their servers; what those do, they know. A list in the runtime
directory says which devices, for the service that comes after this one. Invariant: a server that cannot be made is told
of in the answer and in the status, and disturbs nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cache.durable import write_atomic
from pipeline.client.protocol import DeviceRef, Holder, ProtocolError, ServiceFrame, encode_failure, read_fields
from pipeline.failures import fail
from pipeline.model import FailureCategory
from pipeline.service.console import Console
from pipeline.service.consoles import OwnedConsoles
from pipeline.service.pty_server import PtyServer
from pipeline.service.rfc2217_server import Rfc2217Server
from pipeline.service.server import Client, Role, device_of
from pipeline.service.shared_terminal import SharedTerminal

DIRECTORY = "ports"
"""In the runtime directory: a link per device."""

LIST = "ports.json"
MAX_LISTED = 64

FIRST_PORT, PORTS = 20_000, 10_000
"""Where a device's number lies, below those that systems give out by themselves: the same each time, so that what an
IDE was told stays true."""


class ServedConsole:
    """The servers of one."""

    def __init__(self) -> None:
        self.rfc2217: Rfc2217Server | None = None
        self.pty: PtyServer | None = None
        self.problems: list[str] = []
        self.listening: asyncio.Task[None] | None = None

    def close(self) -> None:
        """End them."""
        if self.listening is not None:
            self.listening.cancel()
        for one in (self.rfc2217, self.pty):
            if one is not None:
                one.close()

    def addresses(self) -> dict[str, Any]:
        """What programs are told."""
        return {
            "rfc2217": "" if self.rfc2217 is None else self.rfc2217.url,
            "pty": "" if self.pty is None else str(self.pty.link),
            "problems": self.problems,
        }


class PortServers:
    """`directory`: the runtime directory. `clock`: monotonic seconds and UTC text."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        consoles: OwnedConsoles,
        directory: Path,
        clock: Callable[[], tuple[float, str]],
    ) -> None:
        self._loop = loop
        self._consoles = consoles
        self._directory = directory / DIRECTORY
        self._list = directory / LIST
        self._clock = clock
        self._served: dict[Console, ServedConsole] = {}
        consoles.leaving = self.forget

    def forget(self, console: Console) -> None:
        """No device names it any more."""
        if (served := self._served.pop(console, None)) is not None:
            served.close()

    def serve(self, console: Console) -> ServedConsole:
        """Begin to, if it is not served."""
        if (served := self._served.get(console)) is not None:
            return served
        served = self._served[console] = ServedConsole()
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            served.pty = PtyServer(self._loop, self._maker(console, "a terminal"), self._link(console.device))
        except (OSError, ImportError) as error:
            served.problems.append(f"no terminal: {error}")
        served.listening = self._loop.create_task(self._listen(console, served))
        return served

    async def _listen(self, console: Console, served: ServedConsole) -> None:
        server = Rfc2217Server(self._loop, self._maker(console, "an RFC 2217 client"))
        try:
            await server.listen(number_of(console.device))
        except OSError as error:
            served.problems.append(f"no RFC 2217 server: {error}")
            return
        served.rfc2217 = server

    def role(self, client: Client, frame: ServiceFrame) -> Role:
        """Of a connection that asks for the servers of a device."""
        return PortsRole(self, client, self._consoles.of(device_of(frame.header)))

    def status(self) -> list[Mapping[str, Any]]:
        """A row per device."""
        return [
            {
                "root": device.root,
                "device": device.name,
                **served.addresses(),
                "clients": len(served.rfc2217.clients) if served.rfc2217 is not None else 0,
                "dropped": sum(one.dropped for one in (served.rfc2217, served.pty) if one is not None),
            }
            for console, served in self._served.items()
            for device in console.devices.values()
        ]

    def close(self) -> None:
        """End all of them."""
        for served in self._served.values():
            served.close()
        self._served.clear()
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    # --- from one service to the next ---------------------------------------------------------------

    def keep(self) -> None:
        """Write the list."""
        devices = [device._asdict() for console in self._served for device in console.devices.values()]
        with contextlib.suppress(OSError):
            write_atomic(self._list, json.dumps(devices[-MAX_LISTED:]).encode(), durable=False)

    def remember(self) -> None:
        """Serve what the service before this one served. A damaged list is none."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, ProtocolError):
            for fields in json.loads(self._list.read_bytes())[:MAX_LISTED]:
                device: DeviceRef = read_fields(DeviceRef, fields)
                if Path(device.root).is_dir():
                    self.serve(self._consoles.of(device))

    # --- names --------------------------------------------------------------------------------------

    def _maker(self, console: Console, what: str) -> Callable[[Callable[[bytes], None]], SharedTerminal]:
        holder = Holder(os.getpid(), what, reason=what)
        return lambda sink: SharedTerminal(console, self._loop, self._clock, holder, sink)

    def _link(self, device: DeviceRef) -> Path:
        """Named after the device; after its project too, where another one has a device of that name."""
        taken = {served.pty.link for served in self._served.values() if served.pty is not None}
        link = self._directory / device.name
        return link if link not in taken else self._directory / f"{Path(device.root).name}-{device.name}"


class PortsRole:
    """A connection that asked for the servers of a console: answered once they are there."""

    def __init__(self, servers: PortServers, client: Client, console: Console) -> None:
        self._client = client
        if console.told:
            message = "there is no port to serve: this board lives in the runs themselves"
            hint = "name a device with a port"
            where = console.device.where
            client.send(
                encode_failure(fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint))
            )
            return
        served = servers.serve(console)
        assert served.listening is not None

        def answer(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                servers.keep()
                client.done(**served.addresses())

        served.listening.add_done_callback(answer)

    def frame(self, frame: ServiceFrame) -> None:
        raise ProtocolError(f"{frame.message!r:.40} after a question for port servers")

    def caught_up(self) -> None:
        """It was not behind: it has one answer."""

    def ended(self) -> None:
        self._client.end()


def number_of(device: DeviceRef) -> int:
    """The TCP port that this device has, if it is free."""
    return FIRST_PORT + zlib.crc32(f"{device.root}\0{device.name}".encode()) % PORTS
