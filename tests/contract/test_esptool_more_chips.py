"""esptool on the boards whose chips execute nothing and were never compared with a real ROM: found, written, verified,
read, reset, with and without the stub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import esptool
import pytest

from tests.unit.test_rom_boot import make_image
from virtualboard.board import Mode
from virtualboard.chip_table import NAMES, chip_named
from virtualboard.chips import CHIPS, Security
from virtualboard.chips_more import MORE_CHIPS
from virtualboard.port import VirtualPort, open_virtual

DATA = bytes(range(256)) * 40
REVISIONS = {
    "esp32s2": "ESP32-S2 (revision v1.0)",
    "esp32c2": "ESP32-C2 (revision v1.0)",
    "esp32c5": "ESP32-C5N (revision v1.0)",
    "esp32c6": "ESP32-C6 (QFN40) (revision v0.1)",
    "esp32c61": "ESP32-C61N (revision v1.0)",
    "esp32h2": "ESP32-H2 (revision v0.2)",
    "esp32p4": "ESP32-P4 (revision v1.3)",
}


@pytest.fixture(params=MORE_CHIPS)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VirtualPort]:
    with open_virtual(request.param, tmp_path / "flash.bin", flash_size=0x2000000) as port:
        yield port


def test_every_chip_has_its_name_in_one_table() -> None:
    assert sorted(NAMES) == sorted({**CHIPS, **MORE_CHIPS})
    assert all(chip_named(name).name == name for name in NAMES)
    assert all(chip.chip_id == chip.rom.chip_id for chip in map(chip_named, NAMES))
    assert all(chip.bootloader_offset == chip.rom.image_offset for chip in map(chip_named, NAMES))


def test_what_esptool_reads(board: VirtualPort) -> None:
    chip = board.board.chip
    esp = esptool.detect_chip(board)
    assert chip.title == esp.CHIP_NAME and chip.chip_id == esp.IMAGE_CHIP_ID
    assert esp.get_chip_description() == REVISIONS[chip.name]
    assert esp.get_chip_features()
    assert esp.get_crystal_freq() == chip.xtal_hz // 1_000_000
    assert "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}".format(*esp.read_mac("BASE_MAC")) == board.board.mac
    assert chip.bootloader_offset == esp.BOOTLOADER_FLASH_OFFSET
    assert not esp.get_secure_boot_enabled() and not esp.get_flash_encryption_enabled()
    assert not esp.secure_download_mode


@pytest.mark.parametrize("stub", [True, False])
def test_writing_and_reading(board: VirtualPort, stub: bool) -> None:
    esp = esptool.detect_chip(board)
    if stub:
        esp = esptool.run_stub(esp)
        assert esp.IS_STUB
    esp.change_baud(921_600)
    esptool.attach_flash(esp)
    assert esptool.detect_flash_size(esp) == "32MB"
    esptool.write_flash(esp, [(0x20000, DATA)])
    assert board.board.flash.read(0x20000, len(DATA)) == DATA
    assert esp.flash_md5sum(0x20000, len(DATA)) == hashlib.md5(DATA).hexdigest()
    assert esptool.read_flash(esp, 0x20100, 64, output=None) == DATA[0x100:0x140]
    above = 0x1800000
    reaches = stub and board.board.chip.stub_address_bits == 32
    if reaches:
        assert esp.FLASH_32BIT_ADDR_SUPPORTED
        esptool.write_flash(esp, [(above, DATA)])
        assert board.board.flash.read(above, len(DATA)) == DATA
    else:
        assert esp.flash_md5sum(above + 0x20000 - 0x800000, len(DATA)) == hashlib.md5(DATA).hexdigest(), "24 bits"


def test_the_bootloader_is_judged_and_not_executed(board: VirtualPort) -> None:
    chip = board.board.chip
    image = make_image([(0x40810000, b"\x13\0\0\0")], entry=0x40810000, chip_id=chip.chip_id)
    esp = esptool.detect_chip(board)
    esptool.write_flash(esp, [(chip.bootloader_offset, image)], force=True)
    board.reset_input_buffer()
    esp.hard_reset()
    board.timeout = 1.0
    log = board.read(4096).decode()
    prefix = "SPI " if chip.name in ("esp32c5", "esp32c61", "esp32p4") else "SPIWP:0xee\r\n"
    assert log.startswith(
        f"{chip.rom.banner[0]}\r\n{chip.rom.banner[1]}\r\nrst:0x1 (POWERON),boot:{chip.rom.flash_boot}\r\n"
    )
    assert f"\r\n{prefix}mode:DIO, clock div:1\r\nload:0x40810000,len:0x4\r\nentry 0x40810000\r\n" in log
    assert log.endswith(f"virtualboard: firmware is not executed: there is no CPU model for {chip.title}\r\n")
    assert board.board.mode is Mode.RUN
    esptool.write_flash(esptool.detect_chip(board), [(chip.bootloader_offset, make_image([], chip_id=77))], force=True)
    board.board.press_reset(download=False)
    log = board.read(4096).decode()
    assert f"Invalid chip id. Expected {chip.chip_id} read 77. Bootloader for wrong chip?\r\nets_main.c" in log


@pytest.mark.parametrize("name", MORE_CHIPS)
def test_what_is_burnt_is_seen(name: str, tmp_path: Path) -> None:
    with open_virtual(name, tmp_path / "flash.bin", security=Security(flash_encryption=True, secure_boot=True)) as port:
        esp = esptool.detect_chip(port)
        assert esp.get_secure_boot_enabled() and esp.get_flash_encryption_enabled()
        assert not esp.get_encrypted_download_disabled()
    release = Security(flash_encryption=True, encrypted_download_disabled=True)
    with open_virtual(name, tmp_path / "flash.bin", security=release) as port:
        esp = esptool.detect_chip(port)
        assert esp.get_flash_encryption_enabled() and esp.get_encrypted_download_disabled()
    with open_virtual(name, tmp_path / "flash.bin", security=Security(secure_download=True)) as port:
        assert esptool.detect_chip(port).secure_download_mode
