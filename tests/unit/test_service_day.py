"""A day of service, compressed: memory, descriptors and threads stay as they were, and files within their bounds."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path

import pytest

from pipeline.client.protocol import ConsoleEntry, DeviceRef, Holder
from pipeline.service.consoles import Deliver, OwnedConsoles
from pipeline.service.history import LIMIT, HistoryWriter
from pipeline.service.hub import Since, Subscription
from pipeline.service.port_owner import PortBytes, PortClock, PortOwner
from pipeline.service.server import memory_kb
from tests.descriptors import descriptors
from tests.fake_serial import FakeSerial

TIMEOUT_S = 120
DEVICES = 3
LINE = b"I (12345) sampler: temperature=21.5 humidity=40 pressure=1013 this is what a firmware says\r\n"
FILL = (b"x" * 60_000 + b"\n") * 18
BOOT = b"ESP-ROM:esp32c3-api1-20210207\r\nrst:0x1 (POWERON),boot:0xd (SPI_FAST_FLASH_BOOT)\r\n"


class DayLessee:
    """Takes what it is told."""

    def __init__(self) -> None:
        self.heard = 0

    def data(self, chunk: PortBytes) -> None:
        self.heard += len(chunk.data)

    def gone(self) -> None: ...
    def back(self, name: str, ms: int) -> None: ...


class Day:
    """Fake ports, viewers that come and go, deploys, resets, boards that are unplugged."""

    def __init__(self, root: Path) -> None:
        self.ports: dict[str, FakeSerial] = {}
        self.history = HistoryWriter()
        loop = asyncio.get_running_loop()
        self.consoles = OwnedConsoles(loop, record=self.history.of, make_owner=self._make)
        self.devices = [DeviceRef(str(root), f"d{n}", "esp32c3", f"/dev/fake{n}") for n in range(DEVICES)]
        self.viewers: list[Subscription] = []
        self.seen = 0

    def _make(self, wanted: DeviceRef, deliver: Deliver, clock: PortClock) -> PortOwner:
        def opener() -> FakeSerial:
            return self.ports.setdefault(wanted.port, FakeSerial(wanted.port))

        def reopen(port: FakeSerial) -> None:
            port.close()
            port.open()

        quick = clock._replace(pause=lambda s: None)
        return PortOwner(opener, reopen, wanted.where, quick, deliver)

    async def until(self, wanted: str, device: DeviceRef) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while self.consoles.of(device).state != wanted:
            assert time.monotonic() < deadline
            await asyncio.sleep(0)

    async def event(self, dice: random.Random) -> None:
        device = dice.choice(self.devices)
        port = self.ports[device.port]
        what = dice.random()
        if what < 0.7:
            await self.speak(device, LINE * dice.randrange(1, 8))
        elif what < 0.8:
            await self.speak(device, BOOT)
        elif what < 0.9:
            self.look(device, dice)
        elif what < 0.98:
            await self.deploy(device)
        else:
            port.vanish()
            await self.until("gone", device)
            port.present = True
            await self.until("open", device)

    def look(self, device: DeviceRef, dice: random.Random) -> None:
        """Somebody comes, and whoever has been here longest goes."""
        found = self.consoles.subscribe(device, Since(dice.choice(["all", "boot", "deploy", "now"])), self.show)
        assert not isinstance(found, tuple)
        self.viewers.append(found)
        if len(self.viewers) > 6:
            self.viewers.pop(0).close()

    def show(self, entry: ConsoleEntry) -> None:
        del entry
        self.seen += 1

    async def speak(self, device: DeviceRef, data: bytes) -> None:
        console = self.consoles.of(device)
        wanted = console.bytes_seen + len(data)
        self.ports[device.port].feed(data)
        deadline = time.monotonic() + TIMEOUT_S
        while console.bytes_seen < wanted:
            assert time.monotonic() < deadline
            await asyncio.sleep(0)

    async def deploy(self, device: DeviceRef) -> None:
        console, lessee, returned = self.consoles.of(device), DayLessee(), asyncio.Event()
        lease = console.leases.ask(console.key, Holder(1, "doit", tx="tx-1"))
        console.lent(lease, lessee)
        await self.speak(device, LINE)
        assert lessee.heard == len(LINE)
        console.give_back(lease, time.monotonic(), returned.set)
        console.left(lease)
        await returned.wait()


@pytest.mark.parametrize("events", [300, pytest.param(20_000, marks=pytest.mark.stress)])
def test_nothing_grows(events: int, tmp_path: Path) -> None:
    strangers, threads = descriptors(), set(threading.enumerate())  # of earlier tests, which may go meanwhile

    async def whole() -> None:
        day, dice = Day(tmp_path), random.Random(24)
        try:
            for device in day.devices:
                day.consoles.know(device)
                await day.until("open", device)
                await day.speak(device, FILL)  # as much as memory holds of a console
            marks = []
            for n in range(events):
                if n in (events // 4, events - 1):
                    ours = len(descriptors() - strangers), len({*threading.enumerate()} - threads)
                    marks.append((memory_kb(), *ours))
                await day.event(dice)
            (memory, *early), (later_memory, *late) = marks
            assert late == early
            assert later_memory < memory + 4096
            assert day.seen > events and sum(len(console.leases) for console in map(day.consoles.of, day.devices)) == 0
        finally:
            day.consoles.close(TIMEOUT_S)
            day.history.close(TIMEOUT_S)
        assert day.history.lost == 0
        files = list((tmp_path / ".deploy/console").iterdir())
        assert len(files) <= 2 * DEVICES and all(file.stat().st_size <= LIMIT * 5 // 4 for file in files)

    asyncio.run(whole())
