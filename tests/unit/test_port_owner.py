"""An owned port: every byte once, in order, on the right channel, whatever is asked of it meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.client.protocol import Channel
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import FailureCategory
from pipeline.service.channel_switch import ChannelSwitch
from pipeline.service.port_owner import (
    PortBytes,
    PortClock,
    PortEvent,
    PortGone,
    PortLetGo,
    PortOpened,
    PortOwner,
)
from tests.fake_serial import FakeSerial

TIMEOUT_S = 60


class OwnerBench:
    """An owner of a fake port, and everything that it told."""

    def __init__(self, *, pulse: bool = False, opener: Callable[[], Any] | None = None) -> None:
        self.port = FakeSerial()
        self.told: list[PortEvent] = []
        self._changed = threading.Condition()
        clock = PortClock(time.monotonic, lambda: "2026-11-29T08:00:00.000Z", lambda s: None)
        self.owner = PortOwner(
            opener or (lambda: self.port), self._reopen, "x", clock, self._tell, pulse=lambda port: pulse
        )
        self.owner.open()

    def _reopen(self, port: FakeSerial) -> None:
        port.close()
        port.open()
        port.port = "/dev/fake1"

    def _tell(self, event: PortEvent) -> None:
        with self._changed:
            self.told.append(event)
            self._changed.notify_all()

    def wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(ready, TIMEOUT_S), self.told

    def wait_for(self, kind: type[Any]) -> Any:
        self.wait(lambda: any(isinstance(event, kind) for event in self.told))
        return next(event for event in self.told if isinstance(event, kind))

    def do(self, call: Callable[..., None], *args: Any) -> OSError | None:
        """Ask, and wait until it is through."""
        through = threading.Event()
        found: list[OSError | None] = []

        def done(error: OSError | None) -> None:
            found.append(error)
            through.set()

        call(*args, done)
        assert through.wait(TIMEOUT_S)
        return found[0]

    @property
    def chunks(self) -> list[PortBytes]:
        return [event for event in self.told if isinstance(event, PortBytes)]

    def data(self, channel: Channel) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks if chunk.channel is channel)


@pytest.fixture
def bench() -> Iterator[OwnerBench]:
    made = OwnerBench()
    yield made
    made.owner.close()
    assert made.owner.join(TIMEOUT_S)
    assert not made.port.is_open and made.port.purged == 0


def test_bytes_are_told_once_in_order_with_their_place(bench: OwnerBench) -> None:
    parts = [bytes([n]) * (n % 7 + 1) for n in range(200)]
    for part in parts:
        bench.port.feed(part)
    wanted = b"".join(parts)
    bench.wait(lambda: len(bench.data(Channel.CONSOLE)) >= len(wanted))
    assert bench.data(Channel.CONSOLE) == wanted
    place = 0
    for chunk in bench.chunks:
        assert chunk.offset == place
        place += len(chunk.data)
    stamps = [chunk.at_s for chunk in bench.chunks]
    assert stamps == sorted(stamps)


def test_a_barrier_ends_after_what_was_pending(bench: OwnerBench) -> None:
    bench.wait_for(PortOpened)
    for n in range(50):
        bench.port.feed(b"%03d" % n)
        assert bench.do(bench.owner.barrier) is None
        assert bench.data(Channel.CONSOLE).endswith(b"%03d" % n)


def test_commands_are_done_in_order(bench: OwnerBench) -> None:
    bench.owner.write(b"a")
    bench.owner.set_baud(921600)
    bench.owner.set_baud(921600)
    bench.owner.set_lines(False, True)
    bench.owner.write(b"b")
    assert bench.do(bench.owner.barrier) is None
    assert bench.port.log == ["write b'a'", "baud 921600", "dtr 0", "rts 1", "write b'b'"]
    assert bench.owner.state == (921600, False, True) and bench.owner.queued == 0


def test_the_channel_changes_while_the_chip_is_held_in_reset(bench: OwnerBench) -> None:
    bench.port.feed(b"application")
    bench.owner.set_channel(Channel.LOADER)
    bench.do(bench.owner.barrier)
    bench.port.feed(b" still speaks")
    bench.owner.set_lines(False, True)
    bench.do(bench.owner.barrier)
    assert bench.owner.in_loader
    bench.port.feed(b", a straggler")
    bench.owner.set_lines(True, False)
    bench.do(bench.owner.barrier)
    bench.port.feed(b"loader")
    bench.do(bench.owner.barrier)
    assert bench.data(Channel.CONSOLE) == b"application still speaks, a straggler"
    assert bench.data(Channel.LOADER) == b"loader"
    # a reset that nobody announced changes nothing
    bench.owner.set_lines(False, True)
    bench.owner.set_lines(False, False)
    bench.do(bench.owner.barrier)
    bench.port.feed(b"!")
    bench.do(bench.owner.barrier)
    assert bench.data(Channel.LOADER) == b"loader!" and bench.owner.in_loader
    bench.do(bench.owner.reset)
    bench.port.feed(b"ready")
    bench.do(bench.owner.barrier)
    assert bench.data(Channel.CONSOLE).endswith(b"stragglerready") and not bench.owner.in_loader


def test_where_rts_is_a_message_the_channel_changes_before_it() -> None:
    bench = OwnerBench(pulse=True)
    bench.port.feed(b"old")
    bench.owner.set_channel(Channel.LOADER)
    bench.do(bench.owner.set_lines, False, True)
    bench.port.feed(b"new")
    bench.do(bench.owner.barrier)
    assert (bench.data(Channel.CONSOLE), bench.data(Channel.LOADER)) == (b"old", b"new")
    bench.owner.close()
    assert bench.owner.join(TIMEOUT_S)


def test_a_board_held_in_reset_would_stay_there(bench: OwnerBench) -> None:
    bench.wait_for(PortOpened)
    assert not bench.owner.in_loader, "both lines asserted: it runs"
    bench.do(bench.owner.set_lines, False, None)
    assert bench.owner.in_loader


def test_a_port_that_vanishes_is_found_again(bench: OwnerBench) -> None:
    bench.port.feed(b"before")
    bench.wait(lambda: bench.data(Channel.CONSOLE) == b"before")
    bench.port.vanish()
    bench.wait_for(PortGone)
    error = bench.do(bench.owner.set_lines, True, True)
    assert error is not None
    bench.owner.write(b"lost")
    assert bench.do(bench.owner.barrier) is None and bench.owner.queued == 0, "nobody waits for a port that is gone"
    bench.port.present = True
    bench.wait(lambda: sum(isinstance(event, PortOpened) for event in bench.told) == 2)
    again = [event for event in bench.told if isinstance(event, PortOpened)][1]
    assert again.name == "/dev/fake1" and again.again_ms is not None and again.again_ms >= 0
    bench.port.feed(b"after")
    bench.wait(lambda: bench.data(Channel.CONSOLE) == b"beforeafter")
    assert bench.chunks[-1].offset + len(bench.chunks[-1].data) == len(b"beforeafter")


def test_a_port_that_cannot_be_opened_says_why() -> None:
    failure = fail(FailureCategory.PORT_BUSY, stage=None, where="device a on b", message="it is in use")

    def opener() -> Any:
        raise DeviceError(failure)

    bench = OwnerBench(opener=opener)
    assert bench.wait_for(PortLetGo).failure == failure
    error = bench.owner.join(TIMEOUT_S)
    assert error and bench.owner.name == "" and bench.owner.state == (0, False, False)


def test_a_rate_that_cannot_be_is_an_error_and_not_the_end(bench: OwnerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(port: FakeSerial, baud: int) -> None:
        raise ValueError(f"Not a valid baudrate: {baud!r}")

    with monkeypatch.context() as patch:
        patch.setattr(FakeSerial, "baudrate", property(lambda port: 115200, refuse))
        error = bench.do(bench.owner.set_baud, 7)
    assert error is not None and "Not a valid baudrate: 7" in str(error)
    assert bench.do(bench.owner.set_baud, 9600) is None


def test_closing_tells_what_came_last() -> None:
    bench = OwnerBench()
    bench.wait_for(PortOpened)
    bench.port.feed(b"last words")
    bench.owner.close()
    assert bench.owner.join(TIMEOUT_S)
    assert bench.data(Channel.CONSOLE) == b"last words"
    assert isinstance(bench.told[-1], PortLetGo)


def test_a_switch_that_was_asked_for_is_done_once() -> None:
    switch = ChannelSwitch()
    assert not switch.asserted() and not switch.loading
    switch.ask(Channel.LOADER)
    assert switch.loading and switch.current is Channel.CONSOLE
    assert switch.asserted() and switch.current is Channel.CONSOLE
    switch.switch()
    assert switch.current is Channel.LOADER and not switch.asserted()
    switch.ask(Channel.CONSOLE)
    assert switch.loading, "until the reset it is in its loader"
