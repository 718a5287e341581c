"""Reset lines and boot strap in time, UART rates, delayed work, and the CPU as the board drives it."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from tests.unit.test_rom_boot import make_image
from tests.unit.test_vb_loader import SYNC, frame
from virtualboard import rom
from virtualboard.board import SLICE_INSTRUCTIONS, Board, Mode
from virtualboard.chips import CHIPS
from virtualboard.machine import Machine
from virtualboard.nor import NorFlash
from virtualboard.rom_elf import WHERE_FROM
from virtualboard.timing import Timing

MAC = "7c:df:a1:00:11:22"


@dataclass
class FakeMachine:
    """A CPU that says what was done to it. `script` is what each slice sends; `work` how many slices are left."""

    flash: NorFlash
    registers: Mapping[int, int]
    now: Callable[[], float]
    script: bytes = b"app\r\n"
    work: int = 1
    wake_at: float | None = None
    pending_reset: int | None = None
    usb: bool = False
    log: list[str] = field(default_factory=list)
    out: bytearray = field(default_factory=bytearray)

    @property
    def idle(self) -> bool:
        return self.work == 0

    def reset(self, cause: int) -> None:
        self.log.append(f"reset {cause:#x}")
        self.pending_reset = None
        self.out += b"rom\r\n"
        self.work = 1

    def start(self, entry: int, segments: Sequence[rom.RomSegment]) -> None:
        self.log.append(f"start {entry:#x}")
        self.work = 1

    def feed(self, data: bytes) -> None:
        self.log.append(f"feed {data!r}")
        self.work += 1

    def run(self, max_instructions: int) -> int:
        self.work = max(0, self.work - 1)
        self.wake_at = None
        self.out += self.script
        return max_instructions

    def transmit(self) -> bytes:
        out = bytes(self.out)
        self.out.clear()
        return out


class BoardBench:
    """A powered board on a clock that the test moves."""

    def __init__(self, timing: Timing | None = None, chip: str = "esp32c3") -> None:
        self.t = 100.0
        self.machines: list[FakeMachine] = []
        flash = NorFlash(0x400000)
        self.board = Board(
            CHIPS[chip], flash, MAC, lambda: self.t, machine_factory=self._make, timing=timing or Timing()
        )
        self.board.power_on()
        self.board.advance()
        assert self.board.transmit() == b"rom\r\napp\r\n"

    def _make(self, flash: NorFlash, registers: Mapping[int, int], now: Callable[[], float]) -> Machine:
        self.machines.append(FakeMachine(flash, registers, now))
        return self.machines[-1]

    @property
    def machine(self) -> FakeMachine:
        (machine,) = self.machines
        return machine

    def lines(self, dtr: int, rts: int, after: float = 0.0) -> None:
        """`after` seconds later the lines change."""
        self.wait(after)
        self.board.set_lines(bool(dtr), bool(rts))

    def wait(self, seconds: float) -> None:
        """Advance at every instant at which the board asks for it."""
        end = self.t + seconds
        while (due := self.board.wake_at()) is not None and due <= end:
            self.t = max(self.t, due)
            self.board.advance()
        self.t = end
        self.board.advance()

    def mode(self) -> Mode:
        return self.board.mode

    def download(self) -> None:
        for dtr, rts in ((0, 1), (1, 0), (0, 0)):
            self.lines(dtr, rts)
        assert self.mode() is Mode.DOWNLOAD
        self.board.transmit()


def test_power_on_boots_the_flash_once_and_shares_the_efuses() -> None:
    bench = BoardBench()
    assert bench.machine.log == ["reset 0x1"]
    assert bench.machine.registers[0x60008844] == 0xA1001122
    assert bench.board.wake_at() is None


def test_opening_a_port_asserts_both_lines_and_does_not_reset() -> None:
    bench = BoardBench()
    for dtr, rts in ((1, 0), (1, 1), (0, 0), (1, 1)):
        bench.lines(dtr, rts, after=0.05)
    assert bench.machine.log == ["reset 0x1"]
    assert bench.mode() is Mode.RUN


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.1, 0.24])
def test_classic_reset_enters_download_however_late_the_second_line_is(gap: float) -> None:
    bench = BoardBench()
    for dtr, rts in ((0, 1), (1, 1), (1, 0)):
        bench.lines(dtr, rts, after=gap)
    assert bench.mode() is Mode.DOWNLOAD
    assert bench.board.transmit() == (
        b"ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\n"
        b"rst:0x1 (POWERON),boot:0x4 (DOWNLOAD(USB/UART0/1))\r\nwaiting for download\r\n"
    )
    bench.lines(0, 0, after=gap)
    assert bench.mode() is Mode.DOWNLOAD


def test_tight_reset_enters_download_at_once() -> None:
    bench = BoardBench()
    for dtr, rts in ((0, 0), (1, 1), (0, 1), (1, 0), (0, 0)):
        bench.lines(dtr, rts)
    assert bench.mode() is Mode.DOWNLOAD


def test_both_lines_asserted_for_too_long_boot_the_firmware() -> None:
    bench = BoardBench()
    bench.lines(0, 1)
    bench.lines(1, 1)
    assert bench.board.wake_at() == pytest.approx(bench.t + 0.25)
    bench.wait(0.249)
    assert bench.mode() is Mode.STRAP
    bench.wait(0.002)
    assert bench.mode() is Mode.RUN
    bench.lines(1, 0)
    assert bench.mode() is Mode.RUN


def test_a_change_that_comes_after_the_strap_was_due_is_too_late() -> None:
    bench = BoardBench()
    bench.lines(0, 1)
    bench.lines(1, 1)
    bench.t += 0.3  # nobody called advance
    bench.board.set_lines(True, False)
    assert bench.mode() is Mode.RUN


def test_hard_reset_runs_the_firmware_after_the_capacitor() -> None:
    bench = BoardBench()
    bench.lines(0, 1)
    assert bench.mode() is Mode.RESET
    bench.board.receive(b"lost")
    bench.lines(0, 0, after=0.1)
    assert bench.mode() is Mode.STRAP
    assert bench.board.wake_at() == pytest.approx(bench.t + 0.002)
    bench.wait(0.01)
    assert bench.machine.log == ["reset 0x1", "reset 0x1"]
    assert bench.board.transmit() == b"rom\r\napp\r\n"


def test_io0_that_falls_within_the_capacitors_time_still_counts() -> None:
    bench = BoardBench()
    bench.lines(0, 1)
    bench.lines(0, 0)
    bench.lines(1, 0, after=0.001)
    assert bench.mode() is Mode.DOWNLOAD


def test_a_chip_held_in_reset_does_nothing() -> None:
    bench = BoardBench()
    bench.download()
    bench.lines(0, 1)
    bench.board.receive(SYNC)
    bench.wait(1)
    assert bench.board.transmit() == b""
    assert bench.board.wake_at() is None


def test_the_rom_measures_the_rate_and_the_stub_keeps_its_own() -> None:
    bench = BoardBench()
    bench.download()
    bench.board.set_baud(460_800)
    bench.board.receive(SYNC)
    bench.board.advance()
    assert bench.board.transmit().startswith(b"\xc0\x01\x08")
    bench.board.receive(frame(0x0F, struct.pack("<II", 921_600, 0)))
    bench.board.advance()
    assert bench.board.transmit().startswith(b"\xc0\x01\x0f")  # at the old rate
    bench.board.receive(frame(0x0D, bytes(8)))
    bench.board.advance()
    assert bench.board.transmit() == b""  # sent at 460800, heard by nobody
    bench.board.set_baud(921_600)
    bench.board.receive(frame(0x0D, bytes(8)))
    bench.board.advance()
    assert bench.board.transmit().startswith(b"\xc0\x01\x0d")
    bench.board.set_baud(115_200)
    bench.board.receive(SYNC)  # the ROM measures again
    bench.board.advance()
    assert bench.board.transmit().startswith(b"\xc0\x01\x08")


def test_at_another_rate_the_firmware_is_garbled_and_deaf() -> None:
    bench = BoardBench()
    bench.board.set_baud(9_600)
    bench.board.receive(b"lost")
    bench.machine.work = 1
    bench.board.advance()
    garbled = bench.board.transmit()
    assert len(garbled) == len(b"app\r\n") and min(garbled) >= 0x80
    bench.board.set_baud(115_200)
    bench.board.receive(b"heard")
    assert bench.machine.log == ["reset 0x1", "feed b'heard'"]


def test_the_watchdog_reset_of_esptool_boots_the_firmware() -> None:
    bench = BoardBench()
    bench.download()
    for address, value in ((0x600080A8, 0x50D83AA1), (0x60008094, 2000), (0x60008090, 0xD0000102), (0x600080A8, 0)):
        bench.board.receive(frame(0x09, struct.pack("<4I", address, value, 0xFFFFFFFF, 0)))
        bench.board.advance()
    assert bench.mode() is Mode.DOWNLOAD
    bench.wait(0.02)
    assert bench.mode() is Mode.RUN
    assert bench.machine.log == ["reset 0x1", "reset 0x10"]


def test_work_takes_the_profiles_time_and_nothing_else_happens_meanwhile() -> None:
    bench = BoardBench(Timing(erase_sector_s=0.05))
    bench.download()
    bench.board.receive(frame(0x02, struct.pack("<5I", 0x2000, 8, 0x400, 0x10000, 0)) + SYNC)
    bench.board.advance()
    assert bench.board.transmit() == b""
    assert bench.board.wake_at() == pytest.approx(bench.t + 0.1)
    bench.wait(0.1)
    assert bench.board.transmit().startswith(b"\xc0\x01\x02\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc0\xc0\x01\x08")


def test_the_cpu_runs_in_slices_and_wakes_when_it_says() -> None:
    bench = BoardBench()
    bench.machine.work = 2
    assert bench.board.wake_at() == bench.t
    bench.board.advance()
    assert bench.board.executed == 2 * SLICE_INSTRUCTIONS
    bench.machine.work = 0
    bench.machine.wake_at = bench.t + 5
    assert bench.board.wake_at() == bench.t + 5
    bench.board.advance()
    assert bench.board.executed == 2 * SLICE_INSTRUCTIONS
    bench.t += 5
    bench.board.advance()
    assert bench.board.executed == 3 * SLICE_INSTRUCTIONS


def test_a_reset_by_software_starts_again_with_its_cause() -> None:
    bench = BoardBench()
    bench.machine.work = 1
    bench.machine.pending_reset = 3
    bench.board.advance()
    assert bench.machine.log == ["reset 0x1", "reset 0x3"]
    assert bench.board.transmit() == b"app\r\nrom\r\n"


def test_output_that_nobody_takes_is_bounded() -> None:
    bench = BoardBench()
    bench.machine.script = b"x" * 70_000
    bench.machine.work = 20
    for _ in range(20):
        bench.board.advance()
    assert len(bench.board.transmit()) == 1 << 20


def with_image(chip: str) -> NorFlash:
    """A flash whose bootloader the ROM of `chip` accepts."""
    flash = NorFlash(0x4000)
    image = make_image([], entry=0x40380000, chip_id=CHIPS[chip].chip_id)
    flash.program(CHIPS[chip].bootloader_offset, image)
    return flash


@pytest.mark.parametrize(
    ("chip", "execute", "text"),
    [
        ("esp32c3", False, b"this board was started without a CPU"),
        ("esp32", True, b"there is no CPU model for ESP32"),
        ("esp32s3", True, b"there is no CPU model for ESP32-S3"),
    ],
)
def test_a_board_that_cannot_execute_says_so_in_one_line(chip: str, execute: bool, text: bytes) -> None:
    board = Board(CHIPS[chip], with_image(chip), MAC, lambda: 0.0, execute)
    board.power_on()
    board.advance()
    lines = board.transmit().splitlines()
    assert lines[-1] == b"virtualboard: firmware is not executed: " + text
    assert lines[-2] == b"entry 0x40380000"
    assert board.wake_at() is None


@pytest.mark.parametrize(
    ("address", "called"),
    [
        (0x400000F4, "ROM function tinfl_decompress (0x400000f4)"),
        (0x40000434, "ROM function qsort (0x40000434)"),
        (0x4000068C, "ROM function ets_aes_block (0x4000068c)"),
        (0x40000FE4, "ROM function for Bluetooth (0x40000fe4)"),
        (0x40001720, "ROM function for Wi-Fi or the radio (0x40001720)"),
        (0x40001F00, "ROM function at 0x40001f00"),
    ],
)
def test_a_rom_function_that_is_missing_is_named_on_the_line(address: int, called: str) -> None:
    pytest.importorskip("unicorn", reason="unicorn is not installed")
    high, low = address + 0x800 & 0xFFFFF000, address & 0xFFF
    jump = struct.pack("<2I", high | 5 << 7 | 0x37, low << 20 | 5 << 15 | 0x67)  # lui t0; jr low(t0)
    flash = NorFlash(0x4000)
    flash.program(0, make_image([(0x403CC710, jump)], entry=0x403CC710))
    board = Board(CHIPS["esp32c3"], flash, MAC, lambda: 0.0)
    board.power_on()
    board.advance()
    text = f"virtualboard: the program calls the {called}, which this board does not have: it traps here\r\n"
    text += f"virtualboard: {WHERE_FROM}\r\n"
    before, found, after = board.transmit().decode().partition(text)
    assert found and before.endswith("entry 0x403cc710\r\n\r\n")
    assert after.startswith("\r\nGuru Meditation Error: Core 0 panic'ed (Instruction access fault)")


def test_a_missing_cpu_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unicorn", None)
    for name in ("rv32", "rv32_program", "rv32_cpu"):
        monkeypatch.delitem(sys.modules, f"virtualboard.{name}", raising=False)
    board = Board(CHIPS["esp32c3"], with_image("esp32c3"), MAC, lambda: 0.0)
    board.power_on()
    board.advance()
    assert b"virtualboard: firmware is not executed: " in board.transmit()
