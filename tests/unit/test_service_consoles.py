"""Consoles over owned ports: what viewers see, from where, who shares a port, and what memory holds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pipeline.client.protocol import Channel, ConsoleChunk, ConsoleEntry, ConsoleNote, DeviceRef, Holder, NoteKind
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.service import console as console_module
from pipeline.service.consoles import Deliver, OwnedConsoles
from pipeline.service.hub import Since
from pipeline.service.port_owner import PortClock, PortOwner
from pipeline.service.ring import ENTRY_COST, EntryRing
from tests.fake_serial import FakeSerial

TIMEOUT_S = 60
ELF = "ab" * 32
ALL = Since("all")
BOOT = b"ESP-ROM:esp32c3\r\nrst:0x1 (POWERON),boot:0xd\r\n"
READY = f'{{"jsonrpc":"2.0","method":"ready","params":{{"app_elf_sha256":"{ELF}"}}}}\n'.encode()


def device(name: str = "bench", port: str = "/dev/fake0", root: str = "/p") -> DeviceRef:
    return DeviceRef(root, name, "esp32c3", port)


class ConsoleBench:
    """Consoles whose ports are fake ones, by name."""

    def __init__(self) -> None:
        self.ports: dict[str, FakeSerial] = {}
        self.failures: dict[str, Failure] = {}
        self.made = 0
        self.consoles = OwnedConsoles(asyncio.get_running_loop(), make_owner=self._make)
        self.seen: list[ConsoleEntry] = []

    def _make(self, wanted: DeviceRef, deliver: Deliver, clock: PortClock) -> PortOwner:
        self.made += 1

        def opener() -> FakeSerial:
            if wanted.port in self.failures:
                raise DeviceError(self.failures[wanted.port])
            self.ports[wanted.port] = FakeSerial(wanted.port)
            return self.ports[wanted.port]

        def reopen(port: FakeSerial) -> None:
            port.close()
            port.open()

        return PortOwner(opener, reopen, wanted.where, clock, deliver)

    async def until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not ready():
            assert time.monotonic() < deadline, self.seen
            await asyncio.sleep(0.001)

    async def opened(self, wanted: DeviceRef) -> FakeSerial:
        self.consoles.know(wanted)
        await self.until(lambda: self.state(wanted) == "open")
        return self.ports[wanted.port]

    def state(self, wanted: DeviceRef) -> str:
        return next(state.state for state in self.consoles.states() if state.device == wanted)

    def watch(self, wanted: DeviceRef, since: Since = ALL) -> list[ConsoleEntry]:
        seen: list[ConsoleEntry] = []
        self.consoles.subscribe(wanted, since, seen.append)
        return seen

    async def feed(self, port: FakeSerial, data: bytes) -> None:
        console = self.consoles.of(device())
        wanted = console.bytes_seen + len(data)
        port.feed(data)
        await self.until(lambda: console.bytes_seen == wanted)


def run(body: Callable[[ConsoleBench], Awaitable[None]]) -> None:
    async def whole() -> None:
        bench = ConsoleBench()
        try:
            await body(bench)
        finally:
            bench.consoles.close(TIMEOUT_S)

    asyncio.run(whole())


def text(entries: list[ConsoleEntry]) -> bytes:
    return b"".join(entry.data for entry in entries if isinstance(entry, ConsoleChunk))


def kinds(entries: list[ConsoleEntry]) -> list[str]:
    return [entry.kind.value for entry in entries if isinstance(entry, ConsoleNote)]


def test_late_viewers_begin_where_they_want_to() -> None:
    async def body(bench: ConsoleBench) -> None:
        port = await bench.opened(device())
        first = bench.watch(device())
        await bench.feed(port, b"old words\n")
        await bench.feed(port, BOOT)
        await bench.feed(port, READY)
        last = first[-1].number
        await bench.feed(port, b"more\n")
        assert text(bench.watch(device(), Since("boot"))) == BOOT + READY + b"more\n"
        assert text(bench.watch(device(), Since("all"))) == b"old words\n" + BOOT + READY + b"more\n" == text(first)
        assert text(bench.watch(device(), Since("number", last))) == b"more\n"
        now = bench.watch(device(), Since("now"))
        assert now == []
        await bench.feed(port, b"news")
        assert text(now) == b"news"
        assert [entry.number for entry in first] == list(range(1, len(first) + 1))
        boot = [entry for entry in first if isinstance(entry, ConsoleNote) and entry.kind is NoteKind.BOOT]
        assert [note.elf for note in boot] == [ELF]
        (state,) = bench.consoles.states()
        assert (state.elf, state.viewers) == (ELF, 5)

    run(body)


def test_a_deploy_is_a_place_to_begin_from() -> None:
    async def body(bench: ConsoleBench) -> None:
        port = await bench.opened(device())
        await bench.feed(port, b"before\n")
        console = bench.consoles.of(device())
        lease = console.leases.ask(console.key, Holder(1, "doit", tx="tx-1"))
        heard: list[bytes] = []

        class OneLessee:
            def data(self, chunk: object) -> None:
                heard.append(getattr(chunk, "data"))  # noqa: B009 - any chunk

            def gone(self) -> None: ...
            def back(self, name: str, ms: int) -> None: ...

        console.lent(lease, OneLessee())
        await bench.feed(port, b"during\n")
        refused = bench.consoles.send(device(), b"x")
        assert refused is not None and refused.category is FailureCategory.PORT_BUSY and "tx-1" in refused.message
        assert bench.consoles.reset(device()) == refused and bench.consoles.release(device()) == refused
        returned = asyncio.Event()
        console.give_back(lease, time.monotonic(), returned.set)
        console.left(lease)
        await returned.wait()
        entries = bench.watch(device(), Since("deploy"))
        assert kinds(entries) == ["preempted", "reattached"] and text(entries) == b"during\n"
        assert heard == [b"during\n"]
        assert bench.consoles.send(device(), b"x") is None
        await bench.until(lambda: "write b'x'" in port.log)

    run(body)


def test_a_viewer_that_raises_has_left() -> None:
    async def body(bench: ConsoleBench) -> None:
        port = await bench.opened(device())
        good = bench.watch(device())

        def bad(entry: ConsoleEntry) -> None:
            raise RuntimeError(entry)

        bench.consoles.subscribe(device(), Since("now"), bad)
        await bench.feed(port, b"a")
        await bench.feed(port, b"b")
        assert text(good) == b"ab" and bench.consoles.states()[0].viewers == 1

    run(body)


def test_two_devices_of_one_port_share_its_owner(tmp_path: Path) -> None:
    async def body(bench: ConsoleBench) -> None:
        real = tmp_path / "ttyX"
        real.touch()
        alias = tmp_path / "by-id"
        alias.symlink_to(real)
        one, two = device("a", str(real), "/p"), device("b", str(alias), "/q")
        await bench.opened(one)
        bench.consoles.know(two)
        assert bench.made == 1 and bench.state(two) == "open"
        moved = device("a", "/dev/elsewhere", "/p")
        await bench.opened(moved)
        assert bench.made == 2 and bench.state(two) == "open", "the other one still has it"
        assert [state.device for state in bench.consoles.states()] == [two, moved]
        bench.consoles.know(device("b", "/dev/elsewhere", "/q"))
        assert bench.made == 2 and len(bench.consoles.states()) == 2
        await bench.until(lambda: not bench.ports[str(real)].is_open)

    run(body)


def test_a_released_port_is_left_alone_until_it_is_named_again() -> None:
    async def body(bench: ConsoleBench) -> None:
        port = await bench.opened(device())
        seen = bench.watch(device())
        assert bench.consoles.release(device()) is None
        await bench.until(lambda: not port.is_open)
        assert bench.state(device()) == "closed" and kinds(seen) == ["closed"]
        assert bench.made == 1
        await bench.opened(device())
        assert bench.made == 2 and kinds(seen) == ["closed", "opened"]

    run(body)


def test_a_port_that_cannot_be_opened_is_tried_again_while_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "RETRY_FIRST_S", 0.001)

    async def body(bench: ConsoleBench) -> None:
        wanted = device()
        failure = fail(FailureCategory.PORT_BUSY, stage=None, where=wanted.where, message="in use: pid 7 (screen)")
        bench.failures[wanted.port] = failure
        assert await bench.consoles.of(wanted).opened() == failure
        made = bench.made
        await asyncio.sleep(0)
        assert bench.made == made, "nobody watches"
        seen = bench.watch(wanted)
        await bench.until(lambda: bench.made > made + 3)
        assert kinds(seen) == ["busy"], "one line, however often it is tried"
        assert bench.consoles.states()[0].failure == failure
        refused = bench.consoles.send(wanted, b"x")
        assert refused == failure
        bench.failures.clear()
        await bench.until(lambda: bench.state(wanted) == "open")
        assert kinds(seen) == ["busy", "opened"] and bench.consoles.states()[0].failure is None

    run(body)


def test_a_port_that_vanishes_is_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "GONE_S", 0.01)

    async def body(bench: ConsoleBench) -> None:
        port = await bench.opened(device())
        seen = bench.watch(device())
        await bench.feed(port, b"a line that is")
        port.vanish()
        await bench.until(lambda: bench.state(device()) == "gone")
        refused = bench.consoles.send(device(), b"x")
        assert refused is not None and refused.category is FailureCategory.PORT_MISSING
        failure = await bench.consoles.of(device()).opened()
        assert failure is not None and "has not come back" in failure.message
        port.present = True
        monkeypatch.setattr(console_module, "GONE_S", TIMEOUT_S)
        assert await bench.consoles.of(device()).opened() is None
        await bench.until(lambda: bench.state(device()) == "open")
        await bench.feed(port, b" not ended\n")
        assert kinds(seen) == ["gone", "back"] and text(seen) == b"a line that is not ended\n"

    run(body)


def test_memory_is_bounded_and_what_is_gone_is_told() -> None:
    async def body(bench: ConsoleBench) -> None:
        port = await bench.opened(device())
        await bench.feed(port, b"first\n")
        for _ in range(40):
            await bench.feed(port, b"x" * 50_000)
        seen = bench.watch(device(), Since("all"))
        assert kinds(seen)[0] == "dropped" and len(text(seen)) <= 1 << 20
        note = seen[0]
        assert isinstance(note, ConsoleNote) and note.number == seen[1].number - 1 and "older entries" in note.text

    run(body)


def test_a_board_of_a_run_has_no_port() -> None:
    async def body(bench: ConsoleBench) -> None:
        virtual = device(port="virtual:")
        bench.consoles.know(virtual)
        failure = await bench.consoles.of(virtual).opened()
        assert failure is not None and "lives in the runs themselves" in failure.message
        for refused in (bench.consoles.send(virtual, b"x"), bench.consoles.reset(virtual)):
            assert refused is not None and "lives in the runs themselves" in refused.message
        assert bench.made == 0
        console = bench.consoles.of(virtual)
        seen = bench.watch(virtual)
        console.begin_telling(Holder(1, "doit", tx="tx-9"))
        console.take("at", 1.0, Channel.CONSOLE, BOOT + READY)
        assert bench.state(virtual) == "open" and bench.consoles.states()[0].elf == ELF
        console.end_telling()
        assert kinds(seen) == ["opened", "reset", "boot", "closed"] and bench.state(virtual) == "closed"
        assert text(bench.watch(virtual, Since("deploy"))) == BOOT + READY

    run(body)


def test_the_ring_counts_what_it_dropped() -> None:
    ring = EntryRing(limit=3 * (ENTRY_COST + 10))
    for number in range(1, 8):
        ring.push(ConsoleChunk(number, "", float(number), 0, Channel.CONSOLE, b"0123456789"))
    assert [entry.number for entry in ring.after(0)] == [5, 6, 7]
    assert (ring.missing(0), ring.missing(3), ring.missing(4), ring.missing(7)) == (4, 1, 0, 0)
    assert ring.number_at(6.0) == 6 and ring.number_at(99.0) == 7


def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())  # of earlier tests, some of which may end meanwhile

    async def body(bench: ConsoleBench) -> None:
        await bench.opened(device())
        await bench.opened(device("other", "/dev/fake1"))

    run(body)
    assert set(threading.enumerate()) <= before
