"""Consoles without boards: a test says what a board says. Everything else is as `hub.py` promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.client.protocol import Channel, ConsoleChunk, ConsoleEntry, ConsoleNote, DeviceRef, Holder, NoteKind
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.service.hub import ConsoleState, Since, Sink


class FakeSubscription:
    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def close(self) -> None:
        self._leave()


class FakeConsole:
    """One device. `entries`: what memory holds."""

    def __init__(self, device: DeviceRef, utc: Callable[[], str], now_s: Callable[[], float]) -> None:
        self.device = device
        self.state = "open"
        self.holder: Holder | None = None
        self.elf = ""
        self.failure: Failure | None = None
        self.dropped = 0
        self.sent = b""
        self.resets = 0
        self.entries: list[ConsoleEntry] = []
        self.sinks: list[Sink] = []
        self._utc = utc
        self._now_s = now_s
        self._number = 0
        self._offset = 0

    def says(self, data: bytes, channel: Channel = Channel.CONSOLE) -> None:
        self._number += 1
        self._give(ConsoleChunk(self._number, self._utc(), self._now_s(), self._offset, channel, data))
        self._offset += len(data)

    def notes(self, kind: NoteKind, text: str, tx: str = "", elf: str = "") -> None:
        self._number += 1
        self._give(ConsoleNote(self._number, self._utc(), self._now_s(), kind, text, tx, elf))

    def _give(self, entry: ConsoleEntry) -> None:
        self.entries.append(entry)
        for sink in list(self.sinks):
            sink(entry)

    @property
    def snapshot(self) -> ConsoleState:
        return ConsoleState(
            self.device,
            self.device.port,
            self.state,
            self.failure,
            self.holder,
            self.elf,
            self._offset,
            self.dropped,
            len(self.sinks),
        )


class FakeConsoles:
    """Of all devices; `boot` in a Since means everything."""

    def __init__(self, utc: Callable[[], str], now_s: Callable[[], float]) -> None:
        self._utc = utc
        self._now_s = now_s
        self.of: dict[DeviceRef, FakeConsole] = {}

    def states(self) -> Sequence[ConsoleState]:
        return [console.snapshot for console in self.of.values()]

    def know(self, device: DeviceRef) -> None:
        console = self.of.setdefault(device, FakeConsole(device, self._utc, self._now_s))
        console.state = "open"

    def subscribe(self, device: DeviceRef, since: Since, sink: Sink) -> FakeSubscription | Failure:
        console = self.of[device]
        for entry in console.entries if since.what != "now" else ():
            sink(entry)
        console.sinks.append(sink)
        return FakeSubscription(lambda: console.sinks.remove(sink) if sink in console.sinks else None)

    def send(self, device: DeviceRef, data: bytes) -> Failure | None:
        console = self.of[device]
        if console.holder is not None and console.holder.exclusive:
            return _held(device, console.holder)
        console.sent += data
        return None

    def reset(self, device: DeviceRef) -> Failure | None:
        console = self.of[device]
        if console.holder is not None:
            return _held(device, console.holder)
        console.resets += 1
        console.notes(NoteKind.RESET, "reset by a viewer")
        return None

    def release(self, device: DeviceRef) -> Failure | None:
        self.of[device].state = "closed"
        return None


def _held(device: DeviceRef, holder: Holder) -> Failure:
    fact = f"the port is lent to {holder.text}"
    return fail(FailureCategory.PORT_BUSY, stage=None, where=device.where, message=fact)
