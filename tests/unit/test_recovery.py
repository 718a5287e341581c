"""A board whose loader does not answer: which remedies are tried, in which order, how long, and that none writes."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chips import CHIPS
from pipeline.config.schema import DeviceConfig
from pipeline.device import connect as connecting
from pipeline.device import session
from pipeline.device.power import power_switch
from pipeline.device.recovery import REBOOT, RESTART_KEYS, Recovery, Surroundings
from pipeline.device.remedies import LIMIT_S, BoardPlace, Remedy, RemedyResult, needs_hands
from pipeline.device.rom_loader import RomLoader
from pipeline.device.serial_link import PortLink
from pipeline.effects.clock import SystemClock
from pipeline.effects.process import SystemProcessRunner
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.flash_model import Region
from pipeline.model import FailureCategory, Stage
from tests.unit.test_esp_session import DATA, image, quiet
from virtualboard.active_faults import ActiveFaults
from virtualboard.board import Board
from virtualboard.chip_table import chip_named
from virtualboard.chips import Security
from virtualboard.faults import parse_fault
from virtualboard.nor import NorFlash
from virtualboard.port import BoardClock, VirtualPort, open_virtual

FLASH = 1 << 20
MAC = "7c:df:a1:00:11:22"
LOOK_S = 1e-4
ONE_CALL_S = 1.0
"""More than one call of the port takes of that clock."""

ALL = [Remedy.LOADER_ENTRY, *LIMIT_S]
SILENT = RuntimeError("no answer")
SILENCE = "silence:for=0,boot=0,times=0"


def still_board(flash: Path | None, *faults: str, chip: str = "esp32c3", usb: bool = False) -> VirtualPort:
    """A board whose time is what its port waits for, and a little with each look at the clock, as a busy host's: limits
    can be counted, whatever the machine does meanwhile."""
    looks = itertools.count()
    clock = BoardClock(lambda: 1000.0 + next(looks) * LOOK_S)
    active = ActiveFaults(map(parse_fault, faults))

    def make() -> Board:
        nor = NorFlash(FLASH, flash)
        return Board(chip_named(chip), nor, MAC, clock.now, False, usb=usb, faults=active)

    return VirtualPort(make(), clock, opener=make, closer=lambda board: board.flash.close())


Opener = Callable[..., VirtualPort]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Opener]:
    ports: list[VirtualPort] = []

    def start(*faults: str, **options: Any) -> VirtualPort:
        ports.append(still_board(tmp_path / f"{len(ports)}.flash", *faults, **options))
        return ports[-1]

    yield start
    for port in ports:
        port.close()


class Switch:
    """In place of a hub that switches power; `then` happens while it is off."""

    def __init__(self, then: Callable[[], object] = lambda: None, problem: str = "") -> None:
        self.runs: list[list[str]] = []
        self._then = then
        self._problem = problem

    def __call__(self, argv: Sequence[str], timeout_s: float) -> str:
        assert timeout_s == 30.0
        self.runs.append(list(argv))
        self._then()
        return self._problem


def recovery_of(board: Any, switch: Switch | None = None, patient: bool = False, **more: Any) -> Recovery:
    power = ("hub", "--cycle", "{port}") if switch is not None else ()
    device = DeviceConfig(
        **{"name": "bench", "chip": "esp32c3", "port": "virtual:", "reset": "instant", "power": power, **more}
    )
    return Recovery(device, Surroundings(FLASH, board.now_s, board.now_s(), switch or Switch(), patient))


def tried(recovery: Recovery) -> list[tuple[Remedy, RemedyResult]]:
    return [(attempt.remedy, attempt.result) for attempt in recovery.attempts]


def climbed(recovery: Recovery, port: Any) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        recovery.climb(port, SILENT)
    return caught.value


# --- what helps ---------------------------------------------------------------------------------


def test_a_healthy_board_never_comes_here(board: Opener) -> None:
    def never(port: Any, error: Exception) -> Any:
        raise AssertionError(error)

    assert connecting.connect(board(), "esp32c3", "", FLASH, "instant", never).reasons == ()


def test_the_warm_path_imports_none_of_it(tmp_path: Path) -> None:
    import subprocess

    program = (
        "import sys; import pipeline.run.device_service, pipeline.device.session\n"
        "print([name for name in sys.modules if name.endswith(('.recovery', '.remedies', '.power', '.timed_port'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "[]\n"


def test_it_goes_on_where_esptools_strategies_failed(board: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "STANDARD_TRIES", 1)
    port = board("slow-line:baud=57600")
    recovery = recovery_of(port)
    loader = connecting.connect(port, "esp32c3", "", FLASH, "instant", recovery.climb)
    assert loader.facts.mac == MAC and port.baudrate == 57600
    assert tried(recovery)[0] == (Remedy.LOADER_ENTRY, RemedyResult.FAILED)
    assert recovery.attempts[-1].remedy is Remedy.OTHER_BAUD and recovery.attempts[-1].result is RemedyResult.WORKED
    assert [str(reason) for reason in recovery.reasons][-1].startswith("recovered other-baud: ")


def test_a_line_that_takes_only_a_lower_rate_is_written_at_that_rate(
    board: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "STANDARD_TRIES", 1)
    port = board("slow-line:baud=57600")

    def link() -> PortLink:
        return PortLink(port, "virtual:", "device bench", port.now_s, real_time=False)

    climb = recovery_of(port).climb
    opened = session.connect(port, "esp32c3", "", link, FLASH, "instant", 460800, recover=climb)
    assert opened.write(image(), DATA, (Region(0x10000, 0xA000),), quiet) == len(DATA)
    assert opened.baud == 57600 and port.board.flash.read(0x10000, len(DATA)) == DATA


def test_the_chips_own_usb_behind_a_port_that_does_not_say_so(board: Opener) -> None:
    port = board(usb=True)
    recovery = recovery_of(port)
    assert recovery.climb(port, SILENT).facts.mac == MAC
    assert tried(recovery)[-1] == (Remedy.RESET_LINE, RemedyResult.WORKED)


class DeadLines:
    """A board whose reset does nothing until its firmware was told to restart: `wants` is what this one listens to."""

    def __init__(self, port: VirtualPort, wants: bytes, answer: bytes) -> None:
        self.real = port
        self.sent = b""
        self._wants = wants
        self._answer = answer
        self._waiting = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("timeout", "baudrate"):
            setattr(self.real, name, value)
        else:
            object.__setattr__(self, name, value)

    @property
    def alive(self) -> bool:
        return self._wants in self.sent

    def setDTR(self, value: bool) -> None:
        if self.alive:
            self.real.setDTR(value)

    def setRTS(self, value: bool) -> None:
        if self.alive:
            self.real.setRTS(value)

    def write(self, data: bytes) -> int:
        self.sent += data
        if not data.startswith(b"\xc0"):
            self._waiting += self._answer
            return len(data)
        return self.real.write(data)

    def read(self, size: int) -> bytes:
        if self._waiting:
            taken, self._waiting = self._waiting[:size], self._waiting[size:]
            return taken
        return self.real.read(size)


def test_firmware_that_answers_is_asked_to_restart(board: Opener) -> None:
    port = DeadLines(board(), b'"reboot"', b'{"jsonrpc":"2.0","id":"hotplate-recover","result":true}\n')
    recovery = recovery_of(port)
    assert recovery.climb(port, SILENT).facts.mac == MAC
    assert tried(recovery)[1:] == [(Remedy.SOFT_RESET, RemedyResult.WORKED)]
    assert port.sent.startswith(REBOOT) and RESTART_KEYS not in port.sent


def test_a_repl_is_told_by_its_keys(board: Opener) -> None:
    port = DeadLines(board(), RESTART_KEYS, b">>> ")
    recovery = recovery_of(port)
    assert recovery.climb(port, SILENT).facts.mac == MAC
    assert tried(recovery)[1:] == [(Remedy.SOFT_RESET, RemedyResult.WORKED)]


@pytest.mark.parametrize("name", ["same", "new"])
def test_a_port_that_vanished_is_found_again(board: Opener, name: str) -> None:
    port = board()
    port.board.inject(parse_fault(f"vanish:for=1,name={name}"))
    recovery = recovery_of(port)
    assert recovery.climb(port, SILENT).facts.mac == MAC
    skipped = [(remedy, RemedyResult.SKIPPED) for remedy in (Remedy.SOFT_RESET, Remedy.RESET_LINE, Remedy.OTHER_BAUD)]
    assert tried(recovery)[1:] == [*skipped, (Remedy.REENUMERATE, RemedyResult.WORKED)]
    assert port.port.endswith("-2") == (name == "new")


def test_power_is_switched_where_a_command_is_configured(board: Opener) -> None:
    port = board(SILENCE)
    switch = Switch(then=port.board.faults.clear)
    recovery = recovery_of(port, switch)
    assert recovery.climb(port, SILENT).facts.mac == MAC
    assert switch.runs == [["hub", "--cycle", "virtual:"]]
    assert tried(recovery)[-1] == (Remedy.POWER_CYCLE, RemedyResult.WORKED)
    assert [remedy for remedy, _ in tried(recovery)] == ALL


# --- what does not help --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [SILENCE, "garble:to=host,at=0,every=7", "drop:to=board,at=2,every=5"])
@pytest.mark.parametrize("chip", ["esp32", "esp32s3", "esp32c3"])
def test_when_nothing_helps_a_person_is_told_what_to_do(board: Opener, fault: str, chip: str) -> None:
    port = board(fault, chip=chip)
    before = port.board.flash.read(0, FLASH)
    switch = Switch(problem="ended with 1: no such hub")
    recovery = recovery_of(port, switch, chip=chip, port="/dev/ttyUSB7")
    failure = climbed(recovery, port).failure
    assert failure.category is FailureCategory.SYNC_FAILED or not port.is_open
    assert [remedy for remedy, _ in tried(recovery)] == ALL
    assert "tried loader-entry, soft-reset, reset-line, other-baud, reenumerate, power-cycle" in failure.message
    assert len(failure.detail.splitlines()) == len(ALL) and "hub: ended with 1: no such hub" in failure.detail
    assert switch.runs == [["hub", "--cycle", "/dev/ttyUSB7"]]
    for attempt in recovery.attempts[1:]:
        assert attempt.took_s <= LIMIT_S[attempt.remedy] + ONE_CALL_S, attempt
    if not port.is_open:
        port.open()
    assert port.board.flash.read(0, FLASH) == before


def test_the_hint_is_for_this_chip_and_port(board: Opener) -> None:
    port = board(SILENCE)
    failure = climbed(recovery_of(port, port="rfc2217://lab:4000"), port).failure
    assert failure.hint == (
        "hold BOOT (GPIO9 to GND) of the board on rfc2217://lab:4000, press and release EN (RST), let BOOT go, "
        "then run again"
    )
    pins = {"esp32": 0, "esp32s2": 0, "esp32s3": 0, "esp32c5": 28, "esp32p4": 35}
    for chip in CHIPS:
        assert f"GPIO{pins.get(chip, 9)} " in needs_hands(chip, BoardPlace("/dev/ttyACM0", native=True))
    gone = needs_hands("esp32c3", BoardPlace("/dev/ttyACM0", "1-2.3", native=True, vanished=True))
    assert gone == "replug the cable of the board on /dev/ttyACM0 (USB place 1-2.3), or give it power, then run again"


def test_a_port_that_does_not_come_back_is_missing(board: Opener) -> None:
    port = board()
    port.board.inject(parse_fault("vanish:for=60"))
    recovery = recovery_of(port, port="/dev/ttyUSB0")
    failure = climbed(recovery, port).failure
    assert failure.category is FailureCategory.PORT_MISSING and failure.hint.startswith("replug the cable")
    assert tried(recovery)[-1] == (Remedy.POWER_CYCLE, RemedyResult.SKIPPED)
    assert "no `power` command" in recovery.attempts[-1].fact
    assert recovery.attempts[-2].took_s <= LIMIT_S[Remedy.REENUMERATE] + ONE_CALL_S


def test_a_lent_port_is_not_reopened_while_it_is_there(board: Opener) -> None:
    class Lent(DeadLines):
        def rejoin(self) -> None:
            raise AssertionError("the service has it open")

    port = Lent(board(SILENCE), b"never", b"")
    recovery = recovery_of(port)
    climbed(recovery, port)
    by_name = {attempt.remedy: attempt for attempt in recovery.attempts}
    assert by_name[Remedy.REENUMERATE].fact == "the service keeps the port open, and it is there"
    assert port.is_open and by_name[Remedy.RESET_LINE].result is RemedyResult.FAILED


def test_the_chips_own_usb_and_sockets_have_no_rate(board: Opener) -> None:
    for port, recovery in (
        (usb := board(), recovery_of(usb, reset="usb")),
        (socket := board(), recovery_of(socket, port="socket://x:1")),
    ):
        assert "no rate" in recovery._unable(Remedy.OTHER_BAUD, port)


def test_another_chip_and_a_protected_one_are_named_at_once(board: Opener) -> None:
    def never(port: Any, error: Exception) -> Any:
        raise AssertionError(error)

    with pytest.raises(DeviceError) as caught:
        connecting.connect(board(chip="esp32s3"), "esp32c3", "", FLASH, "instant", never)
    assert caught.value.failure.category is FailureCategory.WRONG_DEVICE


def test_another_chip_that_a_remedy_finds_is_the_wrong_device(board: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "STANDARD_TRIES", 1)
    port = board("slow-line:baud=57600", chip="esp32s3")
    with pytest.raises(DeviceError, match="This chip is esp32s3") as caught:
        connecting.connect(port, "esp32c3", "", FLASH, "instant", recovery_of(port).climb)
    assert caught.value.failure.category is FailureCategory.WRONG_DEVICE and not port.is_open


def test_a_protected_board_needs_no_remedy(tmp_path: Path) -> None:
    port = open_virtual("esp32c3", tmp_path / "f", execute=False, security=Security(secure_download=True))
    with pytest.raises(DeviceError) as caught:
        connecting.connect(port, "esp32c3", "", FLASH, "instant", lambda port, error: pytest.fail(str(error)))
    assert caught.value.failure.category is FailureCategory.PROTECTED_DEVICE


def test_an_identity_that_is_not_read_twice_alike_does_not_count(
    board: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, noise = RomLoader.read_reg, iter(range(1, 1000))
    monkeypatch.setattr(RomLoader, "read_reg", lambda self, address: real(self, address) ^ next(noise))
    recovery = recovery_of(port := board())
    climbed(recovery, port)
    assert any("two identities that differ" in attempt.fact for attempt in recovery.attempts)


# --- always within the limits, never a write ------------------------------------------------------

FAULTS = st.sampled_from(
    [
        SILENCE,
        "silence:for=0",
        "silence:for=3",
        "boot-loop:boot=0",
        "boot-loop:boot=0.01",
        "garble:to=host,at=0,every=9",
        "garble:to=board,at=3,every=40",
        "drop:to=host,at=0,every=3",
        "duplicate:to=host,at=0,every=11",
        "slow-line:baud=57600",
        "slow-line:baud=9600",
        "vanish:for=2,name=new",
        "vanish:after=1,for=60",
        "vanish:after=0.3,for=0.2,times=0",
        "power-cut:after=0.5,for=4",
        "watchdog:after=0.1,times=0",
        "brown-out:boot=0,times=0",
    ]
)
WRITES = {0x02, 0x03, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12, 0xD0, 0xD1}
"""Commands that erase, write or start programs (esptool, "Serial Protocol")."""


@settings(max_examples=15, deadline=None)
@given(st.lists(FAULTS, max_size=3), st.booleans(), st.booleans())
def test_it_ends_within_its_limits_and_never_writes(faults: list[str], usb: bool, powered: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        flash = Path(directory) / "flash"
        flash.write_bytes(bytes(range(256)) * (FLASH // 256))
        port = still_board(flash, *faults, usb=usb)
        sent: list[int] = []
        really = port.write

        def write(data: bytes) -> int:
            sent.append(data[2] if data.startswith(b"\xc0\x00") else 0)
            return really(data)

        port.write = write  # type: ignore[method-assign]
        recovery = recovery_of(port, Switch() if powered else None)
        try:
            recovery.climb(port, SILENT)
        except DeviceError as error:
            assert error.failure.category in (FailureCategory.SYNC_FAILED, FailureCategory.PORT_MISSING)
        finally:
            port.close()
        assert set(sent).isdisjoint(WRITES)
        assert flash.read_bytes() == bytes(range(256)) * (FLASH // 256)
        for attempt in recovery.attempts[1:]:
            assert attempt.took_s <= LIMIT_S[attempt.remedy] + ONE_CALL_S, attempt
        names = [attempt.remedy for attempt in recovery.attempts]
        assert names == ALL[: len(names)]


def test_without_a_power_switch_a_deploy_waits_ten_seconds_at_most() -> None:
    assert sum(limit for remedy, limit in LIMIT_S.items() if remedy is not Remedy.POWER_CYCLE) == 10.0


# --- a port that is not there ---------------------------------------------------------------------


def missing(category: FailureCategory = FailureCategory.PORT_MISSING) -> DeviceError:
    return DeviceError(fail(category, stage=Stage.VERIFY_FLASH, where="device bench", message="no such port"))


def opening(*outcomes: Any) -> Callable[[], Any]:
    left = iter(outcomes)

    def open_port() -> Any:
        outcome = next(left)
        if isinstance(outcome, DeviceError):
            raise outcome
        return outcome

    return open_port


def test_a_missing_port_is_brought_back_by_its_power(board: Opener) -> None:
    port, switch = board(), Switch()
    recovery = recovery_of(port, switch)
    assert recovery.open(opening(missing(), port), missing()) is port
    assert tried(recovery) == [(Remedy.POWER_CYCLE, RemedyResult.WORKED)] and len(switch.runs) == 1
    assert recovery._unable(Remedy.POWER_CYCLE, port) == "the power was switched already"


def test_a_missing_port_is_waited_for_only_when_asked(board: Opener) -> None:
    port = board()
    assert recovery_of(port, patient=True).open(opening(port), missing()) is port
    impatient = recovery_of(port)
    with pytest.raises(DeviceError, match="no such port"):
        impatient.open(opening(), missing())
    assert impatient.attempts == []


def test_a_port_that_is_busy_is_not_recovered(board: Opener) -> None:
    switch = Switch()
    with pytest.raises(DeviceError) as caught:
        recovery_of(board(), switch).open(opening(), missing(FailureCategory.PORT_BUSY))
    assert caught.value.failure.category is FailureCategory.PORT_BUSY and switch.runs == []


def test_a_port_that_came_back_busy_is_not_switched_off(board: Opener) -> None:
    switch = Switch()
    recovery = recovery_of(board(), switch, patient=True)
    with pytest.raises(DeviceError) as caught:
        recovery.open(opening(missing(FailureCategory.PORT_BUSY)), missing())
    assert caught.value.failure.category is FailureCategory.PORT_BUSY and switch.runs == []


def test_a_power_command_that_fails_is_said(board: Opener) -> None:
    recovery = recovery_of(board(), Switch(problem="no such program"))
    with pytest.raises(DeviceError) as caught:
        recovery.open(opening(), missing())
    assert "no such port (tried power-cycle)" in caught.value.failure.message
    assert "hub: no such program" in caught.value.failure.detail


def test_the_command_is_a_process_of_this_machine(tmp_path: Path) -> None:
    runner = SystemProcessRunner(SystemClock())
    try:
        switch = power_switch(runner, tmp_path)
        script = tmp_path / "off.py"
        script.write_text("import sys, pathlib\npathlib.Path('was').write_text(sys.argv[1])\n")
        assert switch(["python", "off.py", "/dev/x"], 300.0) == ""
        assert (tmp_path / "was").read_text() == "/dev/x"
        script.write_text("import sys\nsys.exit('no such hub')\n")
        assert switch(["python", "off.py"], 300.0) == "ended with 1: no such hub"
        assert switch(["no-such-program-here"], 300.0) == "no such program"
        script.write_text("import time\ntime.sleep(1000)\n")
        assert switch(["python", "off.py"], 0.01) == "did not end within 0.01 s"
    finally:
        runner.close()
