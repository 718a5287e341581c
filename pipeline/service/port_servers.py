"""Port servers for every console that has a port: an RFC 2217 server and a pseudo-terminal each.

Knows which consoles there are, and the names and addresses of their servers; what those do, they know. Invariant: a
server that cannot be made is told of in the status and disturbs nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.client.protocol import DeviceRef, Holder
from pipeline.service.console import Console
from pipeline.service.pty_server import PtyServer
from pipeline.service.rfc2217_server import Rfc2217Server
from pipeline.service.shared_terminal import SharedTerminal

DIRECTORY = "ports"
"""In the runtime directory: a link per device."""

FIRST_PORT, PORTS = 20_000, 10_000
"""Where a device's number lies, below those that systems give out by themselves: the same each time, so that what an
IDE was told stays true."""


class _Served:
    """Of one console."""

    def __init__(self) -> None:
        self.rfc2217: Rfc2217Server | None = None
        self.pty: PtyServer | None = None
        self.problems: list[str] = []


class PortServers:
    """Tell it of each console with `add`. `directory`: the runtime directory."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, directory: Path, clock: Callable[[], tuple[float, str]]
    ) -> None:
        self._loop = loop
        self._directory = directory / DIRECTORY
        self._clock = clock
        self._served: dict[Console, _Served] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, console: Console) -> None:
        """Serve it, unless its board lives in the runs themselves."""
        if console.told or console in self._served:
            return
        served = self._served[console] = _Served()
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            served.pty = PtyServer(self._loop, self._maker(console, "a terminal"), self._link(console.device))
        except (OSError, ImportError) as error:
            served.problems.append(f"no terminal: {error}")
        task = self._loop.create_task(self._listen(console, served))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, console: Console, served: _Served) -> None:
        server = Rfc2217Server(self._loop, self._maker(console, "an RFC 2217 client"))
        try:
            await server.listen(number_of(console.device))
        except OSError as error:
            served.problems.append(f"no RFC 2217 server: {error}")
            return
        served.rfc2217 = server

    def status(self) -> list[Mapping[str, Any]]:
        """A row per device."""
        return [
            {
                "root": device.root,
                "device": device.name,
                "rfc2217": served.rfc2217.url if served.rfc2217 is not None else "",
                "pty": str(served.pty.link) if served.pty is not None else "",
                "clients": len(served.rfc2217.clients) if served.rfc2217 is not None else 0,
                "dropped": sum(one.dropped for one in (served.rfc2217, served.pty) if one is not None),
                "problems": served.problems,
            }
            for console, served in self._served.items()
            for device in console.devices.values()
        ]

    def close(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        for served in self._served.values():
            for one in (served.rfc2217, served.pty):
                if one is not None:
                    one.close()
        self._served.clear()
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    def _maker(self, console: Console, what: str) -> Callable[[Callable[[bytes], None]], SharedTerminal]:
        holder = Holder(os.getpid(), what, reason=what)
        return lambda sink: SharedTerminal(console, self._loop, self._clock, holder, sink)

    def _link(self, device: DeviceRef) -> Path:
        """Named after the device; after its project too, where another one has a device of that name."""
        taken = {served.pty.link for served in self._served.values() if served.pty is not None}
        link = self._directory / device.name
        return link if link not in taken else self._directory / f"{Path(device.root).name}-{device.name}"


def number_of(device: DeviceRef) -> int:
    """The TCP port that this device has, if it is free."""
    return FIRST_PORT + zlib.crc32(f"{device.root}\0{device.name}".encode()) % PORTS
