"""The door of the page: its port, its secrets and its file; what is behind it is loaded when somebody knocks.

Knows sockets and `http.json`. Does not know HTTP. Invariants: until somebody opens the page, the service starts as fast
and stays as small as without one; without the extra `[serve]`, with a port that is taken, or after whatever else goes
wrong, the service is the same, and the reason is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from cache.named_tuple import NamedTuple
from pipeline.client import endpoint
from pipeline.effects.api import Clock
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.service.access import RefusalCounts, Secrets
from pipeline.service.environments import Environments
from pipeline.service.hub import Consoles

SERVER = "pipeline.service.http"
NEEDED = ("starlette", "uvicorn", "websockets")
BACKLOG = 64


class PageOf(NamedTuple):
    """What a page shows, and who is told of what goes wrong."""

    consoles: Consoles
    environments: Environments
    clock: Clock
    say: Callable[[str], None]


class BehindTheDoor(Protocol):
    """What is loaded at the first knock (`http.py`, which knows this module)."""

    @property
    def pages(self) -> int: ...
    async def serve(self, sock: socket.socket) -> None: ...
    async def stop(self) -> None: ...


class PageDoor:
    """Make it in the service's loop; `open` it, `close` it."""

    def __init__(self, of: PageOf) -> None:
        self._of = of
        self.counts = RefusalCounts()
        self.address = ""
        """Without the token, once it is open."""
        self.url = ""
        """With it."""
        self._secrets = Secrets.fresh()
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._server: BehindTheDoor | None = None

    def open(self, port: int = 0) -> Failure | None:
        """Listen on this port of 127.0.0.1 (0: any), and say where in `http.json`."""
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            return _no(f"{', '.join(missing)} cannot be imported", "install it with: pip install 'hotplate[serve]'")
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            sock.listen(BACKLOG)
            sock.setblocking(False)
            number = sock.getsockname()[1]
            self.address = f"http://127.0.0.1:{number}/{self._secrets.place}/"
            self.url = f"{self.address}?token={self._secrets.token}"
            _write_private(endpoint.HTTP, json.dumps({"url": self.address, "token": self._secrets.token}) + "\n")
        except OSError as error:
            sock.close()
            hint = "set `port` of [service] to another one, or leave it out"
            return _no(f"port {port} cannot be used: {error.strerror}", hint)
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._knock)
        return None

    def status(self) -> dict[str, Any]:
        """For `doit serve --status`; the address without what opens it."""
        pages = 0 if self._server is None else self._server.pages
        return {"address": self.address, "pages": pages, "refused": self.counts.by_reason()}

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        if self._socket is None:
            return
        _remove_private(endpoint.HTTP)
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._server is not None:
            await self._server.stop()
        self._socket.close()
        self._socket = None

    def _knock(self) -> None:
        """The first connection waits; it is accepted by whoever can answer it."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        self._task = loop.create_task(self._answer(self._socket))

    async def _answer(self, sock: socket.socket) -> None:
        # Half a second in which ports must be heard: in a thread.
        try:
            module = await asyncio.to_thread(importlib.import_module, SERVER)
        except ImportError as error:
            self._of.say(f"the page cannot be served: {error}")
            return
        server: BehindTheDoor = module.PageServer(self._of, self.counts, self._secrets)
        self._server = server
        await server.serve(sock)


def _no(fact: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where="the page", message=fact, hint=hint)


def _write_private(name: str, text: str) -> None:
    directory = endpoint.runtime_dir()
    if directory is None:
        return
    fresh = Path(directory) / f".{name}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(Path(directory) / name)


def _remove_private(name: str) -> None:
    directory = endpoint.runtime_dir()
    if directory is not None:
        with contextlib.suppress(OSError):
            (Path(directory) / name).unlink()
