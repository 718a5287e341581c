"""What unmodified esptool sees of each fault, and what it leaves in flash; all on the board's own clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.test_esptool_boot import bootable
from tests.contract.virtual_time import follow, port_on, still_clock
from virtualboard.active_faults import ActiveFaults
from virtualboard.board import Board, Mode
from virtualboard.chips import CHIPS
from virtualboard.faults import parse_fault
from virtualboard.nor import NorFlash
from virtualboard.port import VirtualPort
from virtualboard.timing import PROFILES

esptool = pytest.importorskip("esptool")

IMAGE = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(1875))  # 60000 bytes that do not compress
OFFSET = 0x10000
Bench = Callable[..., VirtualPort]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    esptool.log.set_verbosity("silent")

    def make(*faults: str, chip: str = "esp32c3", timing: str = "instant", usb: bool = False) -> VirtualPort:
        clock = still_clock()
        follow(monkeypatch, clock)
        return port_on(clock, chip, timing, usb=usb, faults=ActiveFaults(map(parse_fault, faults)))

    return make


def deploy(port: VirtualPort, *, stub: bool = True, mode: str = "default-reset") -> Any:
    """What a flasher does: connect, upload the stub, write, compare the digest."""
    esp = esptool.detect_chip(port, connect_mode=mode)
    esp = esptool.run_stub(esp) if stub else esp
    esptool.attach_flash(esp)
    esptool.write_flash(esp, [(OFFSET, IMAGE)], no_progress=True)
    return esp


def written(port: VirtualPort) -> int:
    """How many bytes of IMAGE are in flash before the first that is not."""
    held = port.board.flash.read(OFFSET, len(IMAGE))
    return next((i for i in range(len(IMAGE)) if held[i] != IMAGE[i]), len(IMAGE))


@pytest.mark.parametrize(("stub", "block"), [(True, 0x4000), (False, 0x400)], ids=["stub", "rom"])
@pytest.mark.parametrize("kind", ["brown-out", "power-cut", "watchdog"])
def test_a_reset_in_mid_write_is_fatal_and_leaves_a_torn_sector(
    kind: str, stub: bool, block: int, bench: Bench
) -> None:
    port = bench(f"{kind}:write=2")
    with pytest.raises(esptool.FatalError):
        deploy(port, stub=stub)
    assert block < written(port) < 3 * block and written(port) % 0x1000
    # esptool does not try again by itself; the board is whole again, and a second run heals it
    deploy(port, stub=stub)
    assert written(port) == len(IMAGE)


def test_a_port_that_vanishes_and_returns_is_opened_again_by_esptool(bench: Bench) -> None:
    port = bench("vanish:write=2,for=0.2")
    deploy(port)
    assert written(port) == len(IMAGE)


def test_a_port_that_returns_under_another_name_is_lost_to_esptool(bench: Bench) -> None:
    port = bench("vanish:write=2,for=0.2,name=new")
    with pytest.raises(OSError, match=r"unplugged|is rfc2217:virtual-esp32c3-2 now"):
        deploy(port)
    port.close()
    port.port = port.current_name
    port.open()
    deploy(port)
    assert written(port) == len(IMAGE)


def test_a_usb_board_that_loses_power_enumerates_again(bench: Bench) -> None:
    port = bench("power-cut:write=2,for=0.2", timing="esp32c3-usb", usb=True)
    with pytest.raises((esptool.FatalError, OSError)):
        deploy(port, mode="usb-reset")
    assert port.board.plug.generation == 1 and 0 < written(port) < len(IMAGE)


def test_usb_reset_is_needed_on_usb_and_the_classic_one_boots_the_firmware(bench: Bench) -> None:
    deploy(bench(usb=True), mode="usb-reset")
    with pytest.raises(esptool.FatalError, match=r"Wrong boot mode detected \(0xc\)"):
        esptool.detect_chip(bench(usb=True), connect_attempts=2)


def test_a_silent_board_is_given_up_after_its_timeout(bench: Bench) -> None:
    port = bench("silence:write=2")
    started = port.clock.now()
    with pytest.raises(esptool.FatalError, match=r"No more data|No serial data"):
        deploy(port)
    assert 3 < port.clock.now() - started < 10


def test_a_board_that_was_always_silent_cannot_be_connected_to(bench: Bench) -> None:
    with pytest.raises(esptool.FatalError, match="No serial data received"):
        esptool.detect_chip(bench("silence"), connect_attempts=2)


@pytest.mark.parametrize("stub", [True, False], ids=["stub", "rom"])
def test_a_worn_sector_is_found_by_its_digest(stub: bool, bench: Bench) -> None:
    port = bench("worn:sector=0x12000")
    with pytest.raises(esptool.FatalError, match="MD5 of file does not match data in flash"):
        deploy(port, stub=stub)
    assert written(port) == 0x2000


def test_another_chip_or_mac_is_seen_at_once(bench: Bench) -> None:
    assert esptool.detect_chip(bench("wrong-chip:chip=esp32s3")).CHIP_NAME == "ESP32-S3"
    esp = esptool.detect_chip(bench("other-mac:mac=7c:df:a1:ff:ff:ff"))
    assert esp.read_mac("BASE_MAC") == (0x7C, 0xDF, 0xA1, 0xFF, 0xFF, 0xFF)


@pytest.mark.parametrize("kind", ["drop", "garble", "duplicate"])
def test_the_stub_asks_again_for_a_block_that_the_line_spoilt(kind: str, bench: Bench) -> None:
    port = bench()
    esp = esptool.run_stub(esptool.detect_chip(port))
    esptool.attach_flash(esp)
    port.board.inject(parse_fault(f"{kind}:to=board,at=20000"))
    esptool.write_flash(esp, [(OFFSET, IMAGE)], no_progress=True)
    assert written(port) == len(IMAGE)


def test_a_spoilt_answer_kills_the_reader_of_esptool_and_no_byte_of_flash(bench: Bench) -> None:
    port = bench()
    esp = esptool.run_stub(esptool.detect_chip(port))
    port.board.inject(parse_fault("drop:to=host,at=0"))
    with pytest.raises(esptool.FatalError):
        esp.flash_md5sum(0, 0x1000)
    esp.flush_input()
    assert esp.flash_md5sum(0, 0x1000) == hashlib.md5(b"\xff" * 0x1000).hexdigest()


def test_a_late_loader_is_found_all_the_same(bench: Bench) -> None:
    port = bench("boot-loop", "slow-boot:by=2")
    deploy(port)
    assert port.board.mode is Mode.DOWNLOAD and written(port) == len(IMAGE)


# --- faults of a running firmware (the nine instructions that print "hi") -----------------------------


def running(*faults: str, timing: str = "instant") -> VirtualPort:
    pytest.importorskip("unicorn")
    clock = still_clock()
    flash = NorFlash(0x400000)
    flash.program(0, bootable())
    board = Board(
        CHIPS["esp32c3"],
        flash,
        "7c:df:a1:00:11:22",
        clock.now,
        timing=PROFILES[timing],
        faults=ActiveFaults(map(parse_fault, faults)),
    )
    port = VirtualPort(board, clock)
    port.timeout = 5.0
    return port


def test_a_panic_restarts_the_firmware_with_the_cause_that_the_rom_names() -> None:
    port = running("panic:boot=0.5,pc=0x42001234")
    port.timeout = 0.9
    log = port.read(100_000)
    first, _, second = log.partition(b"Guru Meditation Error")
    assert first.endswith(b"hi\n") and b"MEPC    : 0x42001234" in second
    assert b"rst:0xc (RTC_SW_CPU_RST)" in second and second.endswith(b"hi\n")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("watchdog:boot=0.5", b"rst:0x7 (TG0WDT_SYS_RST)"),
        ("brown-out:boot=0.5", b"rst:0xf (BROWN_OUT_RST)"),
        ("power-cut:boot=0.5,for=0.1", b"rst:0x1 (POWERON)"),
    ],
)
def test_a_running_firmware_is_reset_with_its_cause(fault: str, cause: bytes) -> None:
    port = running(fault)
    port.timeout = 0.9  # later the ROM's watchdog bites this firmware, which does not know of it
    log = port.read(100_000)
    assert log.count(b"hi\n") == 2 and cause in log.split(b"hi\n")[1]


def test_a_boot_loop_never_says_hi_and_a_slow_boot_says_it_late() -> None:
    log = running("boot-loop:boot=0.4").read(100_000)
    assert b"hi" not in log and log.count(b"rst:0x7 (TG0WDT_SYS_RST)") >= 10
    port = running("slow-boot:by=3")
    started = port.clock.now()
    assert port.read(1) == b"E" and port.clock.now() - started == pytest.approx(3.0, abs=0.01)


def test_the_first_line_of_an_application_comes_after_the_modelled_boot() -> None:
    """Reference: boot to first message 0.49 s with 20 + 250 + 150 ms, the log's bytes and the reset's capacitor."""
    port = running(timing="esp32s3-uart")
    started = port.clock.now()
    log = b""
    while not log.endswith(b"hi\n"):
        log += port.read(1)
    assert 0.42 < port.clock.now() - started < 0.49
