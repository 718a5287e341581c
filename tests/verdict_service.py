"""The verdicts of the service without its ports: the desk behind a socket, in a thread of this process."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from pathlib import Path

from pipeline.client.endpoint import SOCKET
from pipeline.client.protocol import FrameReader, encode_verdict
from pipeline.service.verdict_desk import VerdictDesk


class _Caller(asyncio.Protocol):
    def __init__(self, desk: VerdictDesk) -> None:
        self._desk = desk
        self._reader = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        credentials = self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, _, _ = struct.unpack("3i", credentials)
        for frame in self._reader.feed(data):
            fields, body = self._desk.judge(frame.header["fields"], pid)
            self._transport.write(encode_verdict(*fields, body=body))


class VerdictThread:
    """Listens in `runtime`/hotplate, where a process with that XDG_RUNTIME_DIR asks."""

    def __init__(self, runtime: Path) -> None:
        self.directory = runtime / "hotplate"
        self.directory.mkdir(mode=0o700)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="verdict service")
        self._thread.start()
        assert self._ready.wait(20)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self.desk = VerdictDesk(self._loop)
        server = await self._loop.create_unix_server(lambda: _Caller(self.desk), self.directory / SOCKET)
        self._ready.set()
        await self._over.wait()
        server.close()
        self.desk.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
        (self.directory / SOCKET).unlink()
        self.directory.rmdir()
