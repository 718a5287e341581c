"""The ROMs of ESP32 and ESP32-S3 at reset: golden logs, refusals, the watchdog's retry, and the line that says that
nothing is executed."""

from __future__ import annotations

import hashlib
import struct

import pytest

from tests.unit.test_rom_boot import make_image
from tests.unit.test_vb_loader import MAC
from virtualboard import rom
from virtualboard.board import Board, Mode
from virtualboard.chips import CHIPS
from virtualboard.nor import NorFlash
from virtualboard.rom_only import RomOnly

SEGMENTS = [(0x3FFF0030, b"\1\2\3\4" * 8), (0x40078000, b"\5" * 12)]
ESP32_LOG = (
    b"ets Jul 29 2019 12:21:46\r\n"
    b"\r\n"
    b"rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    b"configsip: 0, SPIWP:0xee\r\n"
    b"clk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00\r\n"
    b"mode:DIO, clock div:2\r\n"
    b"load:0x3fff0030,len:32\r\n"
    b"load:0x40078000,len:12\r\n"
    b"entry 0x400805e4\r\n"
)
S3_LOG = (
    b"ESP-ROM:esp32s3-20210327\r\n"
    b"Build:Mar 27 2021\r\n"
    b"rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)\r\n"
    b"SPIWP:0xee\r\n"
    b"mode:DIO, clock div:2\r\n"
    b"load:0x3fff0030,len:0x20\r\n"
    b"load:0x40078000,len:0xc\r\n"
    b"entry 0x400805e4\r\n"
)


def image(chip: str, **fields: int) -> bytearray:
    made = make_image(SEGMENTS, entry=0x400805E4, speed=0x20, chip_id=CHIPS[chip].chip_id)
    for name, value in fields.items():
        made = made[: int(name[3:], 16)] + bytes([value]) + made[int(name[3:], 16) + 1 :]
    return bytearray(made)


class RomBench:
    """The ROM of a chip on a clock that the test moves."""

    def __init__(self, chip: str, content: bytes | bytearray) -> None:
        self.now = 100.0
        self.flash = NorFlash(0x10000)
        self.flash.program(CHIPS[chip].bootloader_offset, bytes(content))
        self.rom = RomOnly(CHIPS[chip], self.flash, lambda: self.now, "because")

    def reset(self, cause: int = rom.POWERON) -> bytes:
        self.rom.reset(cause)
        return self.rom.transmit()

    def retry(self) -> int:
        """Let the watchdog bite; the cause of the reset that it wants."""
        assert self.rom.wake_at is not None
        self.now = self.rom.wake_at - 0.001
        self.rom.run(1000)
        assert self.rom.pending_reset is None
        self.now += 0.002
        assert self.rom.run(1000) == 0
        assert self.rom.pending_reset is not None
        return self.rom.pending_reset


@pytest.mark.parametrize(("chip", "log"), [("esp32", ESP32_LOG), ("esp32s3", S3_LOG)])
def test_a_good_image_gives_the_log_and_the_line_that_nothing_runs(chip: str, log: bytes) -> None:
    bench = RomBench(chip, image(chip))
    assert bench.reset() == log
    assert not bench.rom.idle, "a boot takes time from here on, and may be cut off"
    bench.rom.run(1)
    assert bench.rom.transmit() == b"virtualboard: firmware is not executed: because\r\n"
    assert bench.rom.idle and bench.rom.wake_at is None


def test_the_older_loader_prints_pins_and_signed_lengths() -> None:
    content = image("esp32", at_08=0x03, at_09=0x21, at_0a=0x43, at_0b=0x65)
    log = RomBench("esp32", content).reset()
    assert b"configsip: 0, SPIWP:0x03\r\nclk_drv:0x01,q_drv:0x02,d_drv:0x03,cs0_drv:0x04,hd_drv:0x05,wp_drv:0x06" in log
    content[28:32] = b"\xff\xff\xff\xff"
    log = RomBench("esp32", content).reset()
    assert log.endswith(b"mode:DIO, clock div:2\r\nload:0x3fff0030,len:-1\r\n")


RETRIES = {"esp32": (0.4, rom.RTCWDT_RTC), "esp32s3": (0.65, rom.TG0WDT_SYS)}


@pytest.mark.parametrize("chip", RETRIES)
def test_blank_flash_is_tried_again_for_ever(chip: str) -> None:
    bench = RomBench(chip, b"")
    log = bench.reset()
    assert log.endswith(b"(SPI_FAST_FLASH_BOOT)\r\n" + b"invalid header: 0xffffffff\r\n" * 8)
    for _ in range(3):
        started = bench.now
        cause = bench.retry()
        assert (round(bench.now - started, 1), cause) == (round(RETRIES[chip][0], 1), RETRIES[chip][1])
        log = bench.reset(cause)
    if chip == "esp32":
        assert log.startswith(b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI")
        assert b"Saved PC" not in log
    else:
        assert b"rst:0x7 (TG0WDT_SYS_RST),boot:0x8 (SPI_FAST_FLASH_BOOT)\r\nSaved PC:0x40043ac8\r\ninvalid" in log


@pytest.mark.parametrize(
    ("chip", "text"),
    [
        ("esp32", b"csum err:0xef!=0xee\r\nets_main.c 384 \r\n"),
        ("esp32s3", b"Checksum failure. Calculated 0xef stored 0xee\r\nets_main.c 329 \r\n"),
    ],
)
def test_a_wrong_checksum_ends_the_boot(chip: str, text: bytes) -> None:
    content = image(chip)
    content[-33] ^= 1
    bench = RomBench(chip, content)
    log = bench.reset()
    assert log.endswith(text)
    assert b"entry" not in log
    assert bench.retry() == RETRIES[chip][1]


@pytest.mark.parametrize("chip", RETRIES)
def test_one_wrong_byte_anywhere_in_the_image(chip: str) -> None:
    """Header, segment headers, data, padding, checksum, hash: what the ROM checks stops it, the rest does not."""
    good = image(chip)
    first, second = 24, 24 + 8 + 32
    lengths = {*range(first + 4, first + 8), *range(second + 4, second + 8)}
    addresses = {first + 3, second + 3}  # beyond all memory
    data = {*range(first + 8, second), *range(second + 8, second + 20)}
    for at in range(len(good)):
        content = bytearray(good)
        content[at] ^= 0x80
        log = RomBench(chip, content).reset()
        if at in (0, 1, 2):
            assert b"invalid header: 0x" in log
        elif at in (12, 13):
            assert b"rong chip" in log and b"entry" not in log
        elif at in lengths or (chip == "esp32s3" and at in addresses):
            assert b"entry" not in log
        elif at in data or at == len(good) - 33:
            assert b"ets_main.c" in log and b"entry" not in log
        else:
            assert b"\r\nentry 0x" in log
            assert (b"SHA-256 comparison failed" in log) == (chip == "esp32s3")


def test_a_wrong_hash_is_a_warning_on_the_s3_and_nothing_on_the_esp32() -> None:
    for chip in ("esp32", "esp32s3"):
        content = image(chip)
        content[-1] ^= 1
        log = RomBench(chip, content).reset()
        assert b"\r\nentry 0x400805e4\r\n" in log
        assert (b"SHA-256 comparison failed:" in log) == (chip == "esp32s3")
        if chip == "esp32s3":
            assert hashlib.sha256(content[:-32]).hexdigest().encode() in log


@pytest.mark.parametrize(
    ("chip", "cause", "text"),
    [
        ("esp32", 0x01, b"rst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))"),
        ("esp32", 0x0F, b"rst:0xf (RTCWDT_BROWN_OUT_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))"),
        ("esp32s3", 0x10, b"rst:0x10 (RTCWDT_RTC_RST),boot:0x0 (DOWNLOAD(USB/UART0))"),
        ("esp32c3", 0x15, b"rst:0x15 (USB_UART_CHIP_RESET),boot:0x4 (DOWNLOAD(USB/UART0/1))"),
        ("esp32c3", 0x3F, b"rst:0x3f (UNKNOWN),boot:0x4"),
    ],
)
def test_download_logs(chip: str, cause: int, text: bytes) -> None:
    log = rom.download_log(cause, CHIPS[chip].rom)
    assert text in log and log.endswith(b"\r\nwaiting for download\r\n")


@pytest.mark.parametrize("chip", RETRIES)
def test_every_reset_cause_has_a_name(chip: str) -> None:
    for cause, name in CHIPS[chip].rom.causes.items():
        assert f"rst:{cause:#x} ({name})".encode() in RomBench(chip, image(chip)).reset(cause)


def test_a_program_in_ram_is_named_and_not_executed() -> None:
    bench = RomBench("esp32", b"")
    bench.reset()
    bench.rom.start(0x40080000, [])
    assert bench.rom.transmit() == b"virtualboard: the program at 0x40080000 in RAM is not executed: because\r\n"
    assert bench.rom.wake_at is None


@pytest.mark.parametrize("size", [0x1000, 0x2000])
def test_a_flash_that_ends_before_the_bootloader_is_like_a_blank_one(size: int) -> None:
    flash = NorFlash(size)
    only = RomOnly(CHIPS["esp32"], flash, lambda: 0.0, "because")
    only.reset(rom.POWERON)
    assert b"invalid header: 0xffffffff" in only.transmit()


def test_a_segment_table_that_leaves_the_flash_ends_the_boot() -> None:
    content = image("esp32s3", at_01=16)
    content[24:32] = struct.pack("<II", 0x3FFF0030, 0xEF00)
    log = RomBench("esp32s3", content).reset()
    assert log.endswith(b"load:0x3fff0030,len:0xef00\r\nets_loader.c 78 \r\n")


def test_the_board_tries_again_by_itself() -> None:
    now = [0.0]
    board = Board(CHIPS["esp32s3"], NorFlash(0x4000), MAC, lambda: now[0])
    board.power_on()
    for _ in range(2):
        wake = board.wake_at()
        assert wake is not None
        now[0] = wake
        board.advance()
    log = board.transmit()
    assert log.count(b"rst:0x1 (POWERON)") == 1 and log.count(b"rst:0x7 (TG0WDT_SYS_RST)") == 2
    assert board.mode is Mode.RUN
