"""How the board acts when a fault strikes, and how long its boot takes, on a clock that the test moves."""

from __future__ import annotations

import struct

import pytest

from tests.unit.test_vb_board import MAC, FakeMachine
from tests.unit.test_vb_loader import SYNC, block, frame
from virtualboard.active_faults import ActiveFaults
from virtualboard.board import Board, Mode
from virtualboard.chips import CHIPS
from virtualboard.faults import parse_fault
from virtualboard.nor import NorFlash
from virtualboard.timing import INSTANT, Timing

BOOT = Timing(rom_s=0.02, bootloader_s=0.25, app_s=0.15)


class FaultBench:
    """A powered board whose machine logs what is done to it."""

    def __init__(self, *faults: str, timing: Timing = INSTANT, usb: bool = False, wake_after: float | None = None):
        self.t = 100.0
        self.flash = NorFlash(0x40000)
        self.machine: FakeMachine | None = None
        self._wake_after = wake_after
        self.board = Board(
            CHIPS["esp32c3"],
            self.flash,
            MAC,
            lambda: self.t,
            machine_factory=self._make,
            timing=timing,
            usb=usb,
            faults=ActiveFaults(map(parse_fault, faults)),
        )
        self.board.power_on()

    def _make(self, *args: object) -> FakeMachine:
        self.machine = FakeMachine(*args)  # type: ignore[arg-type]
        return self.machine

    @property
    def resets(self) -> list[str]:
        """Causes of the machine's resets so far."""
        assert self.machine is not None
        return [line.removeprefix("reset ") for line in self.machine.log if line.startswith("reset")]

    def wait(self, seconds: float) -> bytes:
        """Advance at every instant at which the board asks for it; what it sent meanwhile."""
        end, out = self.t + seconds, b""
        self.board.advance()
        while (due := self.board.wake_at()) is not None and due <= end:
            self.t = max(self.t, due)
            self.board.advance()
            out += self.board.transmit()
        self.t = end
        self.board.advance()
        return out + self.board.transmit()

    def mode(self) -> Mode:
        return self.board.mode

    def download(self) -> None:
        for dtr, rts in ((False, True), (True, False), (False, False)):
            self.board.set_lines(dtr, rts)
        assert self.mode() is Mode.DOWNLOAD
        self.board.transmit()

    def say(self, wire: bytes) -> bytes:
        self.board.receive(wire)
        self.board.advance()
        return self.board.transmit()


def test_a_boot_takes_the_time_of_rom_bootloader_and_app() -> None:
    bench = FaultBench(timing=BOOT)
    assert bench.wait(0.0199) == b""
    assert bench.wait(0.0002) == b"rom\r\n"
    assert bench.wait(0.399) == b""
    assert bench.wait(0.002) == b"app\r\n"


def test_the_cpus_own_clock_stands_while_the_boot_is_modelled() -> None:
    bench = FaultBench(timing=BOOT)
    bench.wait(1.0)
    assert bench.machine is not None
    assert bench.machine.now() == pytest.approx(100.0 + 1.0 - 0.42)
    bench.machine.work, bench.machine.wake_at = 0, bench.machine.now() + 2.0
    assert bench.board.wake_at() == pytest.approx(103.0)
    assert bench.wait(1.9) == b"" and bench.wait(0.2) == b"app\r\n"


def test_a_slow_boot_is_slower_and_a_fault_that_is_spent_is_not() -> None:
    bench = FaultBench("slow-boot:by=3,times=1")
    assert bench.wait(2.9) == b""
    assert bench.wait(0.2) == b"rom\r\napp\r\n"
    bench.board.press_reset(download=False)
    assert bench.wait(0.01) == b"rom\r\napp\r\n"


def test_buttons() -> None:
    bench = FaultBench()
    bench.board.press_reset(download=True)
    assert bench.mode() is Mode.DOWNLOAD
    bench.board.press_reset(download=False)
    assert bench.mode() is Mode.RUN and bench.resets == ["0x1", "0x1"]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [("brown-out:after=1", "0xf"), ("watchdog:after=1", "0x7"), ("power-cut:after=1,for=0.5", "0x1")],
)
def test_a_reset_out_of_the_blue_boots_with_its_cause(fault: str, cause: str) -> None:
    bench = FaultBench(fault)
    assert bench.wait(0.9) == b"rom\r\napp\r\n"
    assert bench.wait(5.0) == b"rom\r\napp\r\n"
    assert bench.resets == ["0x1", cause]


def test_without_power_nothing_answers_and_then_the_lines_decide() -> None:
    bench = FaultBench("power-cut:after=1,for=0.5")
    bench.wait(1.1)
    assert bench.mode() is Mode.OFF
    bench.board.press_reset(download=False)
    bench.board.receive(SYNC)
    bench.board.set_lines(True, False)
    assert bench.mode() is Mode.OFF and bench.wait(0.1) == b""
    assert b"waiting for download" in bench.wait(0.4)
    bench.board.inject(parse_fault("power-cut:for=0.5"))
    bench.wait(0.1)
    bench.board.set_lines(False, True)
    bench.wait(1.0)
    assert bench.mode() is Mode.RESET


def test_a_boot_loop_never_starts_the_firmware() -> None:
    bench = FaultBench("boot-loop:boot=0.5,times=3")
    assert bench.wait(10.0) == b"rom\r\n" * 3 + b"rom\r\napp\r\n"
    assert bench.resets == ["0x1", "0x7", "0x7", "0x7"]


def test_a_panic_prints_and_restarts_the_cpu() -> None:
    bench = FaultBench("panic:boot=0.2,pc=0x42001234")
    out = bench.wait(5.0)
    assert out.startswith(b"rom\r\napp\r\nGuru Meditation Error: Core  0 panic'ed") and b"0x42001234" in out
    assert out.endswith(b"Rebooting...\r\nrom\r\napp\r\n")
    assert bench.resets == ["0x1", "0xc"]


def test_a_panic_in_the_loader_cannot_be() -> None:
    bench = FaultBench()
    bench.download()
    bench.board.inject(parse_fault("panic"))
    bench.board.inject(parse_fault("watchdog:after=1"))
    assert bench.wait(0.5) == b"" and bench.mode() is Mode.DOWNLOAD
    assert bench.wait(1.0) == b"rom\r\napp\r\n"


def test_silence_loses_what_is_said_meanwhile() -> None:
    bench = FaultBench()
    bench.wait(0.1)
    bench.board.inject(parse_fault("silence:for=1"))
    bench.board.press_reset(download=False)
    assert bench.wait(1.1) == b""
    bench.board.press_reset(download=False)
    assert bench.wait(0.1) == b"rom\r\napp\r\n"


def test_another_chip_and_mac_answer_from_the_next_reset() -> None:
    bench = FaultBench()
    bench.board.inject(parse_fault("wrong-chip:chip=esp32s3"))
    bench.board.inject(parse_fault("other-mac:mac=7c:df:a1:ff:ff:ff"))
    assert (bench.board.chip.name, bench.board.serial) == ("esp32c3", MAC.upper())
    bench.board.press_reset(download=True)
    assert (bench.board.chip.name, bench.board.serial) == ("esp32s3", "7C:DF:A1:FF:FF:FF")
    assert b"ESP-ROM:esp32s3" in bench.board.transmit()


def test_a_write_that_fails_in_the_rom_is_not_acknowledged() -> None:
    bench = FaultBench("brown-out:write=2")
    bench.download()
    bench.say(SYNC)
    begin = struct.pack("<5I", 0x2000, 2, 0x1000, 0x10000, 0)
    assert bench.say(frame(0x02, begin)).startswith(b"\xc0\x01\x02")
    assert bench.say(block(0x03, 0, bytes(0x1000))).startswith(b"\xc0\x01\x03")
    assert bench.say(block(0x03, 1, bytes(0x1000))) == b""
    assert bench.wait(0.1).startswith(b"rom\r\n") and bench.resets == ["0x1", "0xf"]
    assert bench.flash.read(0x10000, 0x2000) == bytes(0x1800) + b"\xff" * 0x800


@pytest.mark.parametrize(
    ("fault", "gone"), [("power-cut:for=0.5", True), ("brown-out", True), ("watchdog", False), ("vanish:for=0.3", True)]
)
def test_which_resets_make_a_usb_port_enumerate_again(fault: str, gone: bool) -> None:
    bench = FaultBench(usb=True, timing=Timing(reenumerate_s=0.3))
    bench.wait(0.1)
    bench.board.inject(parse_fault(fault))
    bench.wait(0.1)
    assert bench.board.plug.present(bench.t) is not gone
    bench.wait(1.0)
    assert bench.board.plug.present(bench.t) and bench.board.plug.generation == gone


def test_a_bridge_stays_when_the_chip_loses_power() -> None:
    bench = FaultBench("power-cut:after=0,for=0.5")
    bench.wait(0.1)
    assert bench.mode() is Mode.OFF and bench.board.plug.present(bench.t)


def test_the_usb_reset_sequence_enters_download_and_the_hard_reset_leaves_it() -> None:
    bench = FaultBench(usb=True)
    for dtr, rts in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)):
        bench.board.set_lines(bool(dtr), bool(rts))
        bench.wait(0.1)
    assert bench.mode() is Mode.DOWNLOAD
    bench.board.set_baud(9600)  # USB has no rate
    assert bench.say(SYNC).startswith(b"\xc0\x01\x08")
    bench.board.set_lines(False, True)
    bench.board.set_lines(False, False)
    assert bench.wait(0.1) == b"rom\r\napp\r\n" and bench.resets == ["0x1", "0x15"]


def test_a_client_that_floods_a_busy_loader_is_not_remembered_without_bound() -> None:
    bench = FaultBench(timing=Timing(erase_sector_s=1000.0))
    bench.download()
    bench.say(SYNC)
    bench.say(frame(0x02, struct.pack("<5I", 0x1000, 1, 0x1000, 0, 0)))
    for _ in range(300):
        bench.board.receive(frame(0x0A, bytes(4)) * 1000)
    answers = bench.wait(1001.0)
    assert 1000 < answers.count(b"\xc0\x01\x0a") <= (1 << 18) // 12


def test_a_slow_line_carries_nothing_above_its_rate() -> None:
    bench = FaultBench("slow-line:baud=460800")
    bench.download()
    answers = []
    for rate in (921600, 460800, 115200):
        bench.board.set_baud(rate)
        bench.board.receive(SYNC)
        answers.append(bool(bench.wait(0.1)))
    assert answers == [False, True, True]
    bench.board.set_baud(921600)
    bench.board.press_reset(download=True)
    heard = bench.wait(0.1)
    assert heard and b"waiting for download" not in heard, "what the chip sends does not arrive either"
