"""The RFC 2217 server and the shared terminal behind it: slow, hostile and foreign clients, and who may write when."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pipeline.client.protocol import Channel, DeviceRef, Holder
from pipeline.model import Failure
from pipeline.service import rfc2217_server
from pipeline.service.console import Console
from pipeline.service.line_intent import LineMeaning
from pipeline.service.port_owner import PortBytes, PortClock, PortEvent, PortOpened
from pipeline.service.rfc2217_server import MAX_CLIENTS, MAX_UNSENT, Rfc2217Server, peer_uid
from pipeline.service.shared_terminal import SYNC, SharedTerminal

DEVICE = DeviceRef("/p", "bench", "esp32c3", "/dev/ttyUSB0")


class NotedOwner:
    """A `PortOwner` that notes what is asked, and does it at once."""

    def __init__(self, deliver: Callable[[PortEvent], None]) -> None:
        self.deliver = deliver
        self.asked: list[Any] = []
        self.name, self.usb, self.queued, self.patient, self.in_loader = "/dev/ttyUSB0", None, 0, True, False
        self.state = (115200, False, False)

    def open(self) -> None:
        self.deliver(PortOpened(0.0, self.name))

    def close(self) -> None: ...

    def want(self, wanted: bool, *, now: bool = False) -> None: ...

    def _note(self, what: Any, done: Callable[[OSError | None], None] = lambda error: None) -> None:
        self.asked.append(what)
        done(None)

    def write(self, data: bytes, done: Any = lambda error: None) -> None:
        self._note(data, done)

    def set_baud(self, baud: int, done: Any = lambda error: None) -> None:
        self._note(baud, done)

    def set_lines(self, dtr: bool | None, rts: bool | None, done: Any = lambda error: None) -> None:
        self._note((dtr, rts), done)

    def set_channel(self, channel: Channel, done: Any = lambda error: None) -> None:
        self._note(channel, done)

    def barrier(self, done: Any) -> None:
        self._note("barrier", done)

    def reset(self, done: Any = lambda error: None) -> None:
        self._note("reset", done)


class TerminalBench:
    """A console on a noted owner."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        clock = PortClock(lambda: 1.0, lambda: "2026-11-29T08:00:00.000Z")
        self.loop = loop
        self.console = Console("/dev/ttyUSB0", loop, clock, self._owner)  # type: ignore[arg-type]
        self.console.devices[DEVICE.root, DEVICE.name] = DEVICE
        self.heard: list[bytes] = []

    def _owner(self, device: DeviceRef, deliver: Callable[[PortEvent], None]) -> NotedOwner:
        self.owner = NotedOwner(deliver)
        return self.owner

    def terminal(self, sink: Callable[[bytes], None] | None = None) -> SharedTerminal:
        holder = Holder(7, "a terminal", "a terminal")
        return SharedTerminal(self.console, self.loop, lambda: (1.0, "now"), holder, sink or self.heard.append)

    def say(self, data: bytes) -> None:
        self.owner.deliver(PortBytes("now", 1.0, 0, Channel.CONSOLE, data))

    async def did(self) -> list[Any]:
        """What was asked of the port since the last time."""
        for _ in range(5):
            await asyncio.sleep(0)
        asked, self.owner.asked = self.owner.asked, []
        return asked


def run(scenario: Callable[[TerminalBench], Coroutine[Any, Any, None]]) -> None:
    async def inside() -> None:
        await scenario(TerminalBench())

    asyncio.run(inside())


def nothing() -> None:
    """Nobody waits."""


def test_a_terminal_that_flashes_has_the_port_for_itself() -> None:
    """From the boot pin to the reset into the application, at its own rate and then at the console's again."""

    async def scenario(bench: TerminalBench) -> None:
        one, other = bench.terminal(), bench.terminal()
        assert await one.open() is None and await other.open() is None
        await bench.did()
        one.set_baud(460800, nothing)
        one.write(b"typed", nothing)
        assert await bench.did() == [b"typed"], "the rate is the console's"
        one.set_lines(LineMeaning.RESET, nothing)
        one.set_lines(LineMeaning.BOOT_PIN, nothing)
        one.set_lines(LineMeaning.REST, nothing)
        assert await bench.did() == [
            *((False, True), 460800, Channel.LOADER, (None, True), (True, False), (False, False)),
        ]
        assert one.flashing and bench.console.leases.any_exclusive
        other.write(b"not now", nothing)
        other.set_lines(LineMeaning.RESET, nothing)
        one.write(b"block", nothing)
        assert await bench.did() == [b"block"] and other.refused == 7
        one.set_lines(LineMeaning.RESET, nothing)
        one.set_lines(LineMeaning.REST, nothing)
        assert await bench.did() == [(False, True), Channel.CONSOLE, (None, True), (False, False), 115200]
        assert not one.flashing and not bench.console.leases.any_exclusive
        other.write(b"again", nothing)
        assert await bench.did() == [b"again"]

    run(scenario)


def test_a_flashers_first_bytes_are_one_too() -> None:
    async def scenario(bench: TerminalBench) -> None:
        one = bench.terminal()
        await one.open()
        await bench.did()
        one.write(SYNC + bytes(36), nothing)
        assert one.flashing
        await bench.did()
        bench.owner.in_loader = True
        one.close()
        one.close()
        assert await bench.did() == ["reset", 115200]
        assert not bench.console.leases.any_exclusive and bench.console.lessees == {}

    run(scenario)


def test_while_somebody_else_has_it_nothing_is_done() -> None:
    async def scenario(bench: TerminalBench) -> None:
        one = bench.terminal()
        await one.open()
        lease = bench.console.leases.ask(bench.console.key, Holder(1, "doit deploy", tx="tx-1"))
        await bench.did()
        done: list[str] = []
        one.write(b"x", lambda: done.append("write"))
        for meaning in (LineMeaning.RESET, LineMeaning.BOOT_PIN, LineMeaning.REST):
            one.set_lines(meaning, lambda: done.append("lines"))
        assert await bench.did() == [] and done == ["write", "lines", "lines", "lines"], "but acknowledged"
        bench.console.left(lease)

    run(scenario)


def test_what_is_purged_is_for_the_others_only() -> None:
    async def scenario(bench: TerminalBench) -> None:
        one = bench.terminal()
        await one.open()
        held: list[Any] = []
        bench.owner.barrier = held.append  # type: ignore[method-assign,assignment]
        one.purge(nothing)
        bench.say(b"old")
        await bench.did()
        held[0](None)
        await bench.did()
        bench.say(b"new")
        await bench.did()
        assert bench.heard == [b"new"]

    run(scenario)


# --- the server ---------------------------------------------------------------------------------


async def connected(server: Rfc2217Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not ready():
            await asyncio.sleep(0.001)


def test_garbage_and_silence_harm_nobody() -> None:
    async def scenario(bench: TerminalBench) -> None:
        server = Rfc2217Server(bench.loop, bench.terminal)
        await server.listen(0)
        reader, writer = await connected(server)
        _, silent = await connected(server)
        await until(lambda: len(server.clients) == 2 and len(bench.console.lessees) == 2)
        writer.write(bytes(range(256)) * 40 + b"\x00" + b"\xff\xfa,\x05\x08\xff\xf0" + b"\xff" * 999)
        await writer.drain()
        await reader.readuntil(b"\xff\xfa,i\x08\xff\xf0")
        size = MAX_UNSENT // 4
        while not server.dropped:
            bench.say(b"\xff" * size)
            await asyncio.sleep(0)
        assert all(one._transport.get_write_buffer_size() < 2 * MAX_UNSENT for one in server.clients if one._transport)
        silent.close()
        writer.close()
        await until(lambda: not server.clients)
        assert bench.console.lessees == {}
        server.close()

    run(scenario)


async def turned_away(server: Rfc2217Server) -> None:
    reader, writer = await connected(server)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


def test_too_many_and_other_users_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: TerminalBench) -> None:
        server = Rfc2217Server(bench.loop, bench.terminal)
        await server.listen(0)
        open_ones = [await connected(server) for _ in range(MAX_CLIENTS)]
        await until(lambda: len(server.clients) == MAX_CLIENTS)
        await turned_away(server)
        for _, writer in open_ones:
            writer.close()
        await until(lambda: not server.clients)
        monkeypatch.setattr(rfc2217_server, "peer_uid", lambda theirs, ours: 12345)
        await turned_away(server)
        assert server.turned_away == 2 and not server.clients
        server.close()

    run(scenario)


def test_a_port_that_cannot_be_had_is_told() -> None:
    async def scenario(bench: TerminalBench) -> None:
        from pipeline.service.refusals import not_open

        async def not_there() -> Failure | None:
            return not_open("device bench")

        bench.console.opened = not_there  # type: ignore[method-assign]
        server = Rfc2217Server(bench.loop, bench.terminal)
        await server.listen(0)
        reader, writer = await connected(server)
        assert b"device bench: error: the port is not open" in await reader.read()
        writer.close()
        server.close()

    run(scenario)


TABLE = b"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:A001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0
   2: 0100007F:1F90 0100007F:A001 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0
"""


@pytest.mark.skipif("sys.byteorder != 'little'", reason="the table is of a little-endian machine")
def test_whose_a_connection_is() -> None:
    assert peer_uid(0xA001, 0x1F90, lambda: io.BytesIO(TABLE)) == 1000
    assert peer_uid(0xA002, 0x1F90, lambda: io.BytesIO(TABLE)) == -1, "nobody's: it is gone already"
    assert peer_uid(1, 2, lambda: io.BytesIO(b"\xff\n1: 0100007F:0001 0100007F:0002 short\n")) is None


@pytest.mark.skipif("sys.platform != 'linux'", reason="the kernel's table")
def test_whose_a_real_connection_is() -> None:
    import os

    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as one:
        other, _ = listening.accept()
        with other:
            assert peer_uid(one.getsockname()[1], other.getsockname()[1]) == os.getuid()
