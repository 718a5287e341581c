"""The cable: pace, latency, flow control, and the in-process port on a line that takes time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_vb_board import MAC, FakeMachine
from virtualboard.board import Board
from virtualboard.cable import DRIVER_BUFFER, Cable
from virtualboard.chips import CHIPS
from virtualboard.faults import parse_fault
from virtualboard.nor import NorFlash
from virtualboard.port import BoardClock, PortClosed, VirtualPort
from virtualboard.timing import INSTANT, Timing

UART = Timing(paced=1.0, latency_s=0.001)


class CableBench:
    """A cable to a board with a fake machine; `arrived` is what that machine was fed."""

    def __init__(self, timing: Timing = UART) -> None:
        self.t = 50.0
        self.machine: FakeMachine | None = None
        board = Board(
            CHIPS["esp32c3"], NorFlash(0x4000), MAC, lambda: self.t, machine_factory=self._make, timing=timing
        )
        board.power_on()
        board.advance()
        board.transmit()
        self.cable = Cable(board, lambda: self.t)

    def _make(self, *args: Any) -> FakeMachine:
        self.machine = FakeMachine(*args)
        self.machine.script = b""
        return self.machine

    @property
    def arrived(self) -> bytes:
        assert self.machine is not None
        return b"".join(eval(line.removeprefix("feed ")) for line in self.machine.log if line.startswith("feed"))

    def send(self, data: bytes) -> None:
        """The firmware prints."""
        assert self.machine is not None
        self.machine.out += data
        self.cable.advance()


def test_bytes_take_ten_bits_each_and_the_latency_of_the_driver() -> None:
    bench = CableBench()
    bench.send(b"x" * 1152)
    assert bench.cable.wake_at() == pytest.approx(50.0 + 10 / 115_200 + 0.001)
    assert bench.cable.transmit() == b""
    bench.t = 50.0 + 0.05 + 0.001
    assert len(bench.cable.transmit()) == 576
    bench.t = 50.0 + 0.1 + 0.001
    assert len(bench.cable.transmit()) == 576 and bench.cable.wake_at() is None


def test_a_second_message_waits_for_the_first() -> None:
    bench = CableBench()
    bench.cable.receive(b"a" * 1152)
    bench.t += 0.05
    bench.cable.receive(b"b" * 1152)
    bench.t += 0.1
    bench.cable.advance()
    assert bench.arrived == b"a" * 1152 + b"b" * 576
    assert bench.cable.drained_at() == pytest.approx(50.2)


def test_the_rate_of_the_host_sets_the_pace_and_an_instant_line_has_none() -> None:
    bench = CableBench()
    bench.cable.set_baud(921_600)
    bench.cable.receive(b"a" * 921)
    assert bench.cable.drained_at() == pytest.approx(50.01, abs=1e-4)
    quick = CableBench(INSTANT)
    quick.cable.receive(b"a" * 9999)
    assert quick.arrived == b"a" * 9999 and quick.cable.drained_at() is None
    quick.send(b"now")
    assert quick.cable.transmit() == b"now"


def test_a_host_that_writes_faster_than_the_line_is_told() -> None:
    bench = CableBench()
    bench.cable.receive(bytes(DRIVER_BUFFER))
    assert not bench.cable.full
    bench.cable.receive(b"x")
    assert bench.cable.full
    bench.t += 1.0
    bench.cable.advance()
    assert not bench.cable.full


def test_a_host_that_does_not_read_costs_bounded_memory() -> None:
    bench = CableBench(INSTANT)
    for _ in range(40):
        bench.send(b"x" * 100_000)
    assert len(bench.cable.transmit()) == 1 << 20


def test_what_was_on_an_unplugged_line_is_lost() -> None:
    bench = CableBench()
    bench.cable.receive(b"lost")
    bench.send(b"lost")
    bench.cable.unplug()
    bench.t += 1
    bench.cable.advance()
    assert bench.arrived == b"" and bench.cable.transmit() == b""


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0, 0.05)), min_size=1, max_size=8), st.booleans())
def test_however_it_is_looked_at_every_byte_comes_once_in_order_and_in_time(
    messages: list[tuple[int, float]], to_host: bool
) -> None:
    bench, sent, got, free = CableBench(), b"", b"", 0.0
    for size, pause in messages:
        data = bytes((len(sent) + i) & 0xFF for i in range(size))
        free = max(free, bench.t) + size * 10 / 115_200
        (bench.send if to_host else bench.cable.receive)(data)
        sent += data
        bench.t += pause
        bench.cable.advance()
        got += bench.cable.transmit()
    while (wake := bench.cable.wake_at()) is not None:
        assert wake >= bench.t - 1e-6
        bench.t = max(bench.t, wake)
        bench.cable.advance()
        got += bench.cable.transmit()
    assert (got if to_host else bench.arrived) == sent
    assert bench.t == pytest.approx(max(free + 0.001 * to_host, bench.t), abs=1e-6)


# --- the in-process port -----------------------------------------------------------------------------


def port_with(
    timing: Timing = INSTANT, make: Callable[..., FakeMachine] = FakeMachine, **more: Any
) -> tuple[VirtualPort, BoardClock]:
    clock = BoardClock(lambda: 1000.0)
    board = Board(CHIPS["esp32c3"], NorFlash(0x4000), MAC, clock.now, machine_factory=make, timing=timing, **more)
    return VirtualPort(board, clock), clock


def test_a_write_blocks_until_the_driver_has_room_and_flush_until_all_is_sent() -> None:
    port, clock = port_with(UART)
    before = clock.now()
    port.write(bytes(DRIVER_BUFFER + 1152))
    assert clock.now() - before == pytest.approx(0.1, abs=0.5)
    port.flush()
    assert clock.now() - before == pytest.approx((DRIVER_BUFFER + 1152) * 10 / 115_200, abs=0.01)


def test_what_was_due_while_the_host_slept_happened_when_it_was_due() -> None:
    port, clock = port_with(Timing(rom_s=0.02, bootloader_s=0.25, app_s=0.15, latency_s=0.001))
    clock.advance_to(clock.now() + 10.0)
    assert port.in_waiting == len(b"rom\r\napp\r\n")


def test_a_port_that_vanishes_raises_and_opens_again_when_it_is_back() -> None:
    port, clock = port_with()
    port.timeout = 1.0
    port.board.inject(parse_fault("vanish:for=2"))
    with pytest.raises(OSError, match="unplugged"):
        port.read(100)
    with pytest.raises(OSError, match="unplugged"):
        port.write(b"x")
    port.close()
    with pytest.raises(OSError, match="could not open port rfc2217:virtual-esp32c3: the board is unplugged"):
        port.open()
    clock.advance_to(clock.now() + 2.0)
    port.open()
    port.write(b"x")


def test_under_another_name_it_must_be_looked_for() -> None:
    port, clock = port_with()
    port.board.inject(parse_fault("vanish:for=0,name=new"))
    with pytest.raises(OSError, match="unplugged"):
        port.read(1)
    port.close()
    with pytest.raises(OSError, match="the board is rfc2217:virtual-esp32c3-2 now"):
        port.open()
    port.port = port.current_name
    port.open()
    assert port.name == "rfc2217:virtual-esp32c3-2"
    assert clock.now() == pytest.approx(1000.0, abs=0.1)


def test_a_closed_port_is_not_unplugged() -> None:
    port, _clock = port_with()
    port.close()
    with pytest.raises(PortClosed, match="not open"):
        port.flush()


def test_firmware_that_never_rests_does_not_keep_a_call_from_returning() -> None:
    class BusyBoard(FakeMachine):
        @property
        def idle(self) -> bool:
            return False

    port, clock = port_with(make=BusyBoard)
    clock.advance_to(clock.now() + 3600.0)
    before = port.board.executed
    assert port.in_waiting > 0
    assert port.board.executed - before < 2_000_000


def test_what_is_sent_is_recorded_whether_or_not_anybody_takes_it() -> None:
    bench = CableBench()
    recorded = bytearray()
    bench.cable = Cable(bench.cable.board, lambda: bench.t, recorded.extend)
    bench.send(b"one")
    bench.cable.forget()
    bench.t += 1
    bench.send(b"two")
    assert bytes(recorded) == b"onetwo"
