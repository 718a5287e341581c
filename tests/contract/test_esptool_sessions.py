"""Unmodified esptool 5.6 over more than one command: reset modes, resident stubs, programs in RAM, large flash."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.esptool_commands import MAC, NOISE, RAM, TEXT
from tests.unit.test_rom_boot import make_image
from virtualboard.board import Board, Mode
from virtualboard.chips import CHIPS, VIRGIN, Security, burnt
from virtualboard.nor import NorFlash
from virtualboard.port import BoardClock, VirtualPort

esptool = pytest.importorskip("esptool")

Open = Callable[..., VirtualPort]


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Makes ports whose clock only esptool's sleeps and reads move, so that nothing depends on the host's speed."""
    clock = BoardClock(lambda: 0.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.advance_to(clock.now() + seconds))
    esptool.log.set_verbosity("silent")
    made: list[VirtualPort] = []

    def make(
        chip: str, size: int = 0x400000, *, execute: bool = False, usb: bool = False, security: Security = VIRGIN
    ) -> VirtualPort:
        board = Board(burnt(CHIPS[chip], security), NorFlash(size), MAC, clock.now, execute, usb=usb)
        made.append(VirtualPort(board, clock))
        return made[-1]

    yield make
    for port in made:
        port.close()
        port.board.flash.close()


@pytest.fixture
def generation(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Chooses the stub that esptool uploads."""
    from esptool.loader import StubFlasher

    monkeypatch.setattr(StubFlasher, "STUB_SUBDIRS", ["2", "1"])
    monkeypatch.setattr(StubFlasher, "STUB_VERSION_EXPLICIT", False)
    choose: Callable[[str], None] = StubFlasher.set_stub_subdir
    return choose


def heard(port: VirtualPort, timeout: float = 0.05) -> bytes:
    port.timeout = timeout
    out = port.read(4000)
    port.timeout = None
    return out


def stubbed(port: VirtualPort) -> Any:
    return esptool.run_stub(esptool.detect_chip(port))


# --- reset modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stub", [True, False], ids=["stub", "rom"])
@pytest.mark.parametrize("chip", CHIPS)
def test_hard_reset_leaves_for_the_firmware(chip: str, stub: bool, ports: Open) -> None:
    port = ports(chip)
    esp = stubbed(port) if stub else esptool.detect_chip(port)
    port.read(port.in_waiting)
    esptool.reset_chip(esp, "hard-reset")
    assert b"SPI_FAST_FLASH_BOOT" in heard(port)
    assert port.board.mode is Mode.RUN


@pytest.mark.parametrize("stub", [True, False], ids=["stub", "rom"])
@pytest.mark.parametrize("chip", CHIPS)
def test_watchdog_reset(chip: str, stub: bool, ports: Open) -> None:
    port = ports(chip)
    esp = stubbed(port) if stub else esptool.detect_chip(port)
    esptool.reset_chip(esp, "watchdog-reset")  # an ESP32 has none and falls back to the reset line
    log = heard(port)
    assert (b"rst:0x10 (RTCWDT_RTC_RST)" in log) == (chip != "esp32")
    assert b"SPI_FAST_FLASH_BOOT" in log and port.board.mode is Mode.RUN


@pytest.mark.parametrize("chip", CHIPS)
def test_soft_reset_leaves_the_rom_and_not_the_stub(chip: str, ports: Open) -> None:
    port = ports(chip)
    esptool.reset_chip(esptool.detect_chip(port), "soft-reset")
    assert b"SPI_FAST_FLASH_BOOT" in heard(port)
    esp = stubbed(port)
    with pytest.raises(esptool.FatalError, match="only supported on ESP8266"):
        esptool.reset_chip(esp, "soft-reset")
    assert port.board.mode is Mode.DOWNLOAD


@pytest.mark.parametrize(("version", "stays"), [("1", False), ("2", True)])
@pytest.mark.parametrize("chip", CHIPS)
def test_no_reset_gives_way_to_the_rom_in_generation_1_only(
    chip: str, version: str, stays: bool, ports: Open, generation: Callable[[str], None]
) -> None:
    generation(version)
    port = ports(chip)
    esptool.reset_chip(stubbed(port), "no-reset")
    assert esptool.detect_chip(port, connect_mode="no-reset").IS_STUB is stays


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_resident_stub_is_reused_across_opens(
    chip: str, version: str, ports: Open, generation: Callable[[str], None]
) -> None:
    generation(version)
    port = ports(chip)
    esp = stubbed(port)
    esp.change_baud(460_800)
    esptool.write_flash(esp, [(0x10000, TEXT)], no_progress=True)
    esptool.reset_chip(esp, "no-reset-stub")
    for _ in range(2):
        port.close()
        port.open()
        again = esptool.detect_chip(port, baud=460_800, connect_mode="no-reset")
        assert again.IS_STUB and again.sync_stub_detected
        again = esptool.run_stub(again)
        assert again.flash_md5sum(0x10000, len(TEXT)) == hashlib.md5(TEXT).hexdigest()


@pytest.mark.parametrize("chip", ["esp32c3", "esp32s3"])
def test_usb_reset_enters_download_over_the_chips_own_port(chip: str, ports: Open) -> None:
    port = ports(chip, usb=True)
    esp = esptool.detect_chip(port, connect_mode="usb-reset")
    assert CHIPS[chip].title == esp.CHIP_NAME and port.board.mode is Mode.DOWNLOAD


# --- programs in RAM ----------------------------------------------------------------------------------

# lui a0,0x60000; then li a1,CHAR and sw a1,0(a0) for h, i, newline: UART0's FIFO; then wfi for ever.
HI = struct.pack(
    "<9I", 0x60000537, 0x06800593, 0x00B52023, 0x06900593, 0x00B52023, 0x00A00593, 0x00B52023, 0x10500073, 0xFFDFF06F
)
# lui a0,0x60008; lui a1,0x80000; sw a1,0(a0): the RTC controller's system reset.
RESTART = struct.pack("<3I", 0x60008537, 0x800005B7, 0x00B52023)


@pytest.mark.parametrize("version", ["rom", "1", "2"])
@pytest.mark.parametrize("baud", [115_200, 921_600])
def test_a_program_in_ram_is_executed_on_the_c3_at_the_loaders_rate(
    version: str, baud: int, ports: Open, generation: Callable[[str], None]
) -> None:
    pytest.importorskip("unicorn")
    port = ports("esp32c3", execute=True)
    esp = esptool.detect_chip(port)
    if version != "rom":
        generation(version)
        esp = esptool.run_stub(esp)
    if baud != 115_200:
        esp.change_baud(baud)
    esptool.load_ram(esp, make_image([(0x3FCA0000, b"data"), (RAM["esp32c3"], HI)], entry=RAM["esp32c3"]))
    assert heard(port, 5) == b"hi\n"  # no reset, no log; the watchdogs of a flash boot are off
    assert port.board.mode is Mode.RAM
    port.baudrate = 115_200
    esptool.reset_chip(esp, "hard-reset")
    assert b"invalid header: 0xffffffff" in heard(port)


def test_a_program_in_ram_may_reset_the_chip(ports: Open) -> None:
    pytest.importorskip("unicorn")
    port = ports("esp32c3", execute=True)
    esptool.load_ram(esptool.detect_chip(port), make_image([(RAM["esp32c3"], RESTART)], entry=RAM["esp32c3"]))
    log = heard(port)
    assert b"rst:0x3 (RTC_SW_SYS_RST),boot:0xc (SPI_FAST_FLASH_BOOT)" in log
    assert port.board.mode is Mode.RUN


@pytest.mark.parametrize("chip", ["esp32", "esp32s3"])
def test_elsewhere_a_program_in_ram_is_named_and_not_executed(chip: str, ports: Open) -> None:
    port = ports(chip, execute=True)
    image = make_image([(RAM[chip], bytes(16))], entry=RAM[chip], chip_id=CHIPS[chip].chip_id)
    esptool.load_ram(esptool.detect_chip(port), image)
    title = CHIPS[chip].title
    line = (
        f"virtualboard: the program at {RAM[chip]:#010x} in RAM is not executed: there is no CPU model for {title}\r\n"
    )
    assert heard(port) == line.encode()
    assert port.board.mode is Mode.RAM


# --- large flash --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0x200000 << n for n in range(5)])
@pytest.mark.parametrize("chip", CHIPS)
def test_every_flash_size_is_detected_and_written_to_its_end(chip: str, size: int, ports: Open) -> None:
    port = ports(chip, size)
    esp = stubbed(port)
    esptool.attach_flash(esp)
    assert esptool.detect_flash_size(esp) == f"{size >> 20}MB"
    at = min(size, 0x1000000) - 0x2000
    esptool.write_flash(esp, [(at, NOISE[:0x1800])], no_progress=True)
    assert port.board.flash.read(at, 0x2000) == NOISE[:0x1800] + b"\xff" * 0x800


@pytest.mark.parametrize("compress", [True, False])
def test_the_s3_stub_reaches_beyond_16_mb(compress: bool, ports: Open) -> None:
    port = ports("esp32s3", 0x2000000)
    esp = stubbed(port)
    esptool.attach_flash(esp)
    for at in (0xFFF000, 0x1800000, 0x1FFE000):
        esptool.write_flash(esp, [(at, NOISE[:0x1800])], compress=compress, no_compress=not compress, no_progress=True)
        assert port.board.flash.read(at, 0x1800) == NOISE[:0x1800]
        assert esptool.read_flash(esp, at, 0x1800, no_progress=True) == NOISE[:0x1800]
    assert port.board.flash.read(0, 0x1000) == b"\xff" * 0x1000
    esptool.erase_region(esp, 0x1800000, 0x1000)
    assert port.board.flash.read(0x1800000, 0x1800) == b"\xff" * 0x1000 + NOISE[0x1000:0x1800]


@pytest.mark.parametrize(("chip", "stub"), [("esp32s3", False), ("esp32c3", True), ("esp32", True), ("esp32", False)])
def test_elsewhere_24_bits_of_the_address_arrive(chip: str, stub: bool, ports: Open) -> None:
    """The write lands 16 MB too low, and the digest agrees: what esptool warns of."""
    port = ports(chip, 0x2000000)
    esp = stubbed(port) if stub else esptool.detect_chip(port)
    esptool.attach_flash(esp)
    esptool.write_flash(esp, [(0x1800000, NOISE[:0x1000])], no_progress=True)
    assert port.board.flash.read(0x800000, 0x1000) == NOISE[:0x1000]
    assert port.board.flash.read(0x1800000, 0x1000) == b"\xff" * 0x1000
