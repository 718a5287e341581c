"""The in-process port: pyserial's surface, a clock that skips silence, and reads that always end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.unit.test_vb_board import FakeMachine
from tests.unit.test_vb_loader import MAC, SYNC
from virtualboard.board import Board, Mode
from virtualboard.chips import CHIPS, UnknownMac
from virtualboard.faults import parse_fault
from virtualboard.machine import Machine
from virtualboard.nor import BoardBusy, NorFlash
from virtualboard.port import BoardClock, PortClosed, VirtualPort, open_virtual
from virtualboard.timing import parse_timing


class PortBench:
    """A port whose host clock stands still: every second that passes was modelled."""

    def __init__(self) -> None:
        self.clock = BoardClock(lambda: 1000.0)
        self.machine: FakeMachine | None = None
        self.port = VirtualPort(
            Board(CHIPS["esp32c3"], NorFlash(0x4000), MAC, self.clock.now, machine_factory=self._make), self.clock
        )

    def _make(self, flash: NorFlash, registers: Mapping[int, int], now: Callable[[], float]) -> Machine:
        self.machine = FakeMachine(flash, registers, now)
        return self.machine


def test_opening_powers_the_board_and_reading_gets_its_boot() -> None:
    port = PortBench().port
    assert (port.is_open, port.isOpen(), port.dtr, port.rts, port.baudrate) == (True, True, True, True, 115_200)
    assert port.name == port.port == port.portstr == "rfc2217:virtual-esp32c3"
    port.timeout = 1.0
    assert port.read(5) == b"rom\r\n"
    assert port.in_waiting == port.inWaiting() == 5
    assert port.read(100) == b"app\r\n"


def test_a_board_that_is_reset_into_its_loader_at_once_boots_nothing_before() -> None:
    bench = PortBench()
    bench.port.reset_input_buffer()
    bench.port.baudrate = 115_200
    bench.port.dtr = False
    assert bench.port.board.mode.value == "held in reset", "both were asserted: RTS alone is reset"
    bench.port.dtr = True
    bench.port.rts = False
    bench.port.timeout = 0.1
    assert b"waiting for download" in bench.port.read(200)
    assert bench.port.board.mode is Mode.DOWNLOAD
    assert bench.machine is None, "nothing was executed"


def test_a_board_whose_lines_do_not_hold_it_in_reset_boots_when_they_change() -> None:
    bench = PortBench()
    bench.port.rts = False
    assert bench.port.board.mode is Mode.RUN and bench.machine is not None


def test_a_host_that_is_kept_waiting_while_it_releases_reset_finds_the_boot_still_before_it() -> None:
    """The strap is sampled 2 ms after the line has changed, however long the host takes for changing it: a fault that
    is set then, for the boot, is there in time."""
    host = itertools.count(1000.0, 0.005)
    clock = BoardClock(lambda: next(host))
    board = Board(CHIPS["esp32"], NorFlash(0x4000), MAC, clock.now, timing=parse_timing("esp32-uart"))
    port = VirtualPort(board, clock)
    port.dtr = False
    port.rts = False
    assert board.mode is Mode.STRAP, "it has not begun to boot inside that call"
    board.inject(parse_fault("panic:boot=0"))
    port.timeout = 1.0
    assert b"Guru Meditation" in port.read(400)


def test_a_board_that_has_its_power_back_before_anybody_looks_is_not_powered_again() -> None:
    bench = PortBench()
    bench.port.board.power_on()
    bench.port.board.press_reset(download=True)
    bench.port.timeout = 0.1
    assert b"waiting for download" in bench.port.read(200)
    assert bench.port.board.mode is Mode.DOWNLOAD


def test_silence_costs_board_time_only() -> None:
    bench = PortBench()
    bench.port.timeout = 3600.0
    before = bench.clock.now()
    assert bench.port.read(11) == b"rom\r\napp\r\n"
    assert bench.port.read(1) == b""
    assert bench.clock.now() - before == pytest.approx(7200.0, abs=1.0)


def test_a_read_stops_at_the_instant_of_its_last_byte() -> None:
    bench = PortBench()
    bench.port.timeout = 60.0
    bench.port.read(10)
    assert bench.machine is not None
    start = bench.clock.now()
    bench.machine.work, bench.machine.wake_at = 0, start + 2.5
    assert bench.port.read(5) == b"app\r\n"
    assert bench.port.now_s() - start == pytest.approx(2.5, abs=0.01)


def test_a_read_of_a_firmware_that_computes_for_ever_ends_at_its_deadline() -> None:
    bench = PortBench()
    bench.port.timeout = 0.5
    bench.port.read(10)
    assert bench.machine is not None
    bench.machine.script, bench.machine.work = b"", 10**9
    before, executed = bench.clock.now(), bench.port.board.executed
    assert bench.port.read(1) == b""
    assert 0.5 <= bench.clock.now() - before < 0.51
    assert bench.port.board.executed - executed == pytest.approx(80_000_000, rel=0.01)


def test_timeout_zero_takes_what_is_there() -> None:
    bench = PortBench()
    bench.port.timeout = 0
    assert bench.port.read(100) == b"rom\r\napp\r\n"
    assert bench.port.read(100) == b""


def test_a_read_that_could_never_end_is_an_error() -> None:
    port = PortBench().port
    port.read(10)
    with pytest.raises(PortClosed, match="it would never end"):
        port.read(1)


def test_classic_reset_and_loader() -> None:
    port = PortBench().port

    def mode() -> Mode:
        return port.board.mode

    port.setDTR(False)
    port.setRTS(True)
    assert mode() is Mode.RESET
    port.setDTR(True)
    port.setRTS(False)
    port.setDTR(False)
    assert mode() is Mode.DOWNLOAD
    port.reset_input_buffer()
    port.flushOutput()
    port.flush()
    assert port.write(SYNC) == len(SYNC)
    assert port.in_waiting == 14 * 8
    port.flushInput()
    assert port.in_waiting == 0


def test_a_closed_port_refuses_and_opens_again() -> None:
    port = PortBench().port
    with port:
        pass
    port.close()
    assert not port.is_open
    for call in (port.read, port.flush, lambda: port.write(b""), lambda: port.in_waiting, lambda: port.setDTR(True)):
        with pytest.raises(PortClosed, match="not open"):
            call()
    port.baudrate = 9600
    port.open()
    assert port.is_open
    with pytest.raises(PortClosed, match="already open"):
        port.open()


def test_open_virtual_checks_its_arguments_before_it_makes_a_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownMac):
        open_virtual("esp32c3", tmp_path / "flash.bin", "nonsense")
    with pytest.raises(KeyError):
        open_virtual("esp8266", tmp_path / "flash.bin")
    assert list(tmp_path.iterdir()) == []


def test_open_virtual_locks_its_flash_and_powers_on_at_each_open(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    port = open_virtual("esp32c3", path, flash_size=0x100000, execute=False)
    with pytest.raises(BoardBusy):
        open_virtual("esp32c3", path, flash_size=0x100000)
    port.timeout = 1.0
    assert b"POWERON" in port.read(1000)
    port.board.flash.program(0, b"kept")
    port.close()
    port.open()
    assert b"POWERON" in port.read(1000)
    assert port.board.flash.read(0, 4) == b"kept"
    port.close()
    open_virtual("esp32c3", path, flash_size=0x100000, execute=False).close()
