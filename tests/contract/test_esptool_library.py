"""Unmodified esptool 5.6 as a library on the in-process port: every chip, with the stub and with the ROM alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.virtual_time import port_on, still_clock
from virtualboard.board import Mode
from virtualboard.chips import CHIPS
from virtualboard.port import VirtualPort, open_virtual

esptool = pytest.importorskip("esptool")

MAC = "7c:df:a1:0a:0b:0c"
# Compressible and not, without a repeating sector.
TEXT = b"".join(b"line %d of the image\n" % i for i in range(4000))
NOISE = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(1000))

Connect = Callable[..., Any]


@pytest.fixture(autouse=True)
def quiet() -> None:
    esptool.log.set_verbosity("silent")


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Callable[..., VirtualPort]]:
    made: list[VirtualPort] = []

    def make(chip: str = "esp32c3", size: int = 0x400000) -> VirtualPort:
        made.append(open_virtual(chip, tmp_path / "flash.bin", MAC, size, execute=False))
        return made[-1]

    yield make
    for port in made:
        port.close()


def connected(port: VirtualPort, *, stub: bool = True) -> Any:
    esp = esptool.detect_chip(port)
    if stub:
        esp = esptool.run_stub(esp)
    esptool.attach_flash(esp)
    return esp


def flash_of(esp: Any) -> Any:
    return esp._port.board.flash


@pytest.mark.parametrize("stub", [True, False], ids=["stub", "rom"])
@pytest.mark.parametrize("chip", CHIPS)
def test_identity_write_verify_read(chip: str, stub: bool, ports: Callable[..., VirtualPort]) -> None:
    esp = connected(ports(chip), stub=stub)
    assert CHIPS[chip].title == esp.CHIP_NAME
    assert ":".join(f"{octet:02x}" for octet in esp.read_mac("BASE_MAC")) == MAC
    assert esp.flash_id() == 0x1640C8
    assert stub is bool(esp.IS_STUB)
    flash = flash_of(esp)
    flash.program(0, bytes(0x40000))
    images = [(0x1000, TEXT), (0x20000, NOISE)]
    esptool.write_flash(esp, images, no_progress=True)
    for offset, image in images:
        assert flash.read(offset, len(image)) == image
        end = offset + len(image)
        assert flash.read(end, -end % 0x1000) == b"\xff" * (-end % 0x1000)
        assert flash.read(end + -end % 0x1000, 4) == bytes(4)
        assert esp.flash_md5sum(offset, len(image)) == hashlib.md5(image).hexdigest()
    esptool.verify_flash(esp, images)
    flash.program(0x20010, b"\x00")
    with pytest.raises(esptool.FatalError, match="Verification failed"):
        esptool.verify_flash(esp, images)
    assert esptool.read_flash(esp, 0x1003, 5000, no_progress=True) == TEXT[3:5003]


@pytest.mark.parametrize("stub", [True, False], ids=["stub", "rom"])
def test_uncompressed_and_unaligned_writes(stub: bool, ports: Callable[..., VirtualPort]) -> None:
    esp = connected(ports(), stub=stub)
    flash = flash_of(esp)
    flash.program(0x10000, bytes(0x4000))
    esptool.write_flash(esp, [(0x11234, TEXT[:0x1001])], no_compress=True, no_progress=True)
    written = flash.read(0x11234, 0x1001)
    assert written == TEXT[:0x1001]
    assert flash.read(0x10000, 0x1000) == bytes(0x1000)
    assert flash.read(0x11000, 0x234) == b"\xff" * 0x234
    assert flash.read(0x13000, 4) == bytes(4)


def test_erase(ports: Callable[..., VirtualPort]) -> None:
    esp = connected(ports())
    flash = flash_of(esp)
    flash.program(0, bytes(0x400000))
    esptool.erase_region(esp, 0x2000, 0x3000)
    assert flash.read(0x1000, 0x5000) == bytes(0x1000) + b"\xff" * 0x3000 + bytes(0x1000)
    esptool.erase_flash(esp)
    assert flash.md5(0, flash.size) == hashlib.md5(b"\xff" * flash.size).digest()


def test_erase_region_without_stub(ports: Callable[..., VirtualPort]) -> None:
    esp = connected(ports(), stub=False)
    flash = flash_of(esp)
    flash.program(0, bytes(0x8000))
    esptool.erase_region(esp, 0x2000, 0x3000)
    assert flash.read(0x1000, 0x5000) == bytes(0x1000) + b"\xff" * 0x3000 + bytes(0x1000)


def test_skip_flashed_and_diff(ports: Callable[..., VirtualPort]) -> None:
    esp = connected(ports())
    flash = flash_of(esp)
    esptool.write_flash(esp, [(0x10000, TEXT)], no_progress=True)
    flash.program(0x30000, b"mark")
    esptool.write_flash(esp, [(0x10000, TEXT)], skip_flashed=True, no_progress=True)
    changed = bytearray(TEXT)
    changed[0x3000:0x3004] = b"new!"
    esptool.write_flash(esp, [(0x10000, bytes(changed))], diff_with=[TEXT], no_progress=True)
    assert flash.read(0x10000, len(TEXT)) == changed
    # A wrong reference: the MD5 at the end differs and esptool writes the whole image.
    esptool.write_flash(esp, [(0x10000, TEXT)], diff_with=[TEXT[:-4] + b"wron"], no_progress=True)
    assert flash.read(0x10000, len(TEXT)) == TEXT
    assert flash.read(0x30000, 4) == b"mark"


@pytest.mark.parametrize("stub", [True, False], ids=["stub", "rom"])
@pytest.mark.parametrize("chip", CHIPS)
def test_baud_changes(chip: str, stub: bool, ports: Callable[..., VirtualPort]) -> None:
    port = ports(chip)
    esp = esptool.detect_chip(port)
    assert esp.get_crystal_freq() == 40
    esp.change_baud(921_600)
    assert port.baudrate == 921_600
    if stub:
        esp = esptool.run_stub(esp)
        esp.change_baud(460_800)
    assert esp.flash_md5sum(0, 16) == hashlib.md5(b"\xff" * 16).hexdigest()
    port.baudrate = 115_200
    if stub:
        with pytest.raises(esptool.FatalError):
            esp.flash_md5sum(0, 16)


def test_memory_status_and_sfdp(ports: Callable[..., VirtualPort]) -> None:
    esp = connected(ports())
    for address in (0x50000000, 0x3FC90000):
        esp.write_reg(address, 0x12345678)
        esp.write_reg(address, 0xFFFF, mask=0xFF)
        assert esp.read_reg(address) == 0x123456FF
    esptool.write_flash_status(esp, 0x2054, 3)
    assert esp.read_status(3) == 0x2054
    assert esp.read_spiflash_sfdp(0, 32) == int.from_bytes(b"SFDP", "little")
    assert esptool.dump_mem(esp, 0x50000000, 8) == struct.pack("<II", 0x123456FF, 0)


def ram_image() -> bytes:
    """An ESP32-C3 image of one RAM segment at 0x40380000 that is no stub."""
    body = b"\x6f\x00\x00\x00" * 64
    header = struct.pack("<BBBBI", 0xE9, 1, 2, 0x20, 0x40380000)
    extended = struct.pack("<B3sHBHH4sB", 0xEE, bytes(3), 5, 0, 0, 99, bytes(4), 0)
    image = header + extended + struct.pack("<II", 0x40380000, len(body)) + body
    image += bytes(15 - len(image) % 16)
    check = 0xEF
    for byte in body:
        check ^= byte
    return image + bytes([check])


def test_load_ram_leaves_the_loader() -> None:
    # On a clock that stands while the host computes: else a slow host's esptool reads what the program says itself.
    port = port_on(still_clock(), "esp32c3", "instant")
    esp = esptool.detect_chip(port)
    esptool.load_ram(esp, ram_image())
    port.timeout = 1
    assert b"the program at 0x40380000 in RAM is not executed" in port.read(200)
    assert port.board.mode is Mode.RAM


@pytest.mark.parametrize("chip", ["esp32c3", "esp32s3"])
@pytest.mark.parametrize("mode", ["hard-reset", "watchdog-reset"])
def test_resets_run_the_firmware(chip: str, mode: str, ports: Callable[..., VirtualPort]) -> None:
    port = ports(chip)
    esp = esptool.run_stub(esptool.detect_chip(port)) if mode == "hard-reset" else esptool.detect_chip(port)
    esptool.reset_chip(esp, mode)
    port.timeout = 1
    assert b"SPI_FAST_FLASH_BOOT" in port.read(1000)
    assert port.board.mode is Mode.RUN


def test_run_and_soft_reset_from_the_rom(ports: Callable[..., VirtualPort]) -> None:
    port = ports()
    for leave in (esptool.run, lambda esp: esptool.reset_chip(esp, "soft-reset")):
        port.timeout = None
        leave(esptool.detect_chip(port))
        port.timeout = 1
        assert b"SPI_FAST_FLASH_BOOT" in port.read(1000)
        assert port.board.mode is Mode.RUN


def test_a_resident_stub_is_found_again_without_a_reset(ports: Callable[..., VirtualPort]) -> None:
    port = ports()
    esp = esptool.run_stub(esptool.detect_chip(port))
    esptool.reset_chip(esp, "no-reset")
    again = esptool.detect_chip(port, connect_mode="no-reset")
    assert again.IS_STUB and again.sync_stub_detected
    assert esptool.run_stub(again).flash_md5sum(0, 4) == hashlib.md5(b"\xff" * 4).hexdigest()


def test_the_wrong_chip_is_refused(ports: Callable[..., VirtualPort]) -> None:
    esp = esptool.CHIP_DEFS["esp32s3"](ports("esp32c3"))
    with pytest.raises(esptool.FatalError, match="This chip is ESP32-C3, not ESP32-S3"):
        esp.connect()


@pytest.mark.parametrize("size", [0x200000, 0x1000000])
def test_other_flash_sizes(size: int, ports: Callable[..., VirtualPort]) -> None:
    esp = connected(ports(size=size))
    assert esptool.detect_flash_size(esp) == f"{size >> 20}MB"
    esptool.write_flash(esp, [(size - 0x2000, NOISE[:0x2000])], no_progress=True)
    assert flash_of(esp).read(size - 0x2000, 0x2000) == NOISE[:0x2000]
    with pytest.raises(esptool.FatalError, match="will not fit"):
        esptool.write_flash(esp, [(size - 0x1000, NOISE[:0x2000])], no_progress=True)


def test_security_info_of_a_virgin_chip(ports: Callable[..., VirtualPort]) -> None:
    esp = esptool.detect_chip(ports())
    info = esp.get_security_info()
    assert (info["flags"], info["flash_crypt_cnt"], info["chip_id"]) == (0, 0, 5)
    assert not esp.get_secure_boot_enabled() and not esp.get_flash_encryption_enabled()


def test_the_file_holds_what_esptool_wrote(ports: Callable[..., VirtualPort], tmp_path: Path) -> None:
    esp = connected(ports())
    esptool.write_flash(esp, [(0x8000, NOISE)], no_progress=True)
    assert (tmp_path / "flash.bin").read_bytes()[0x8000 : 0x8000 + len(NOISE)] == NOISE
    assert (tmp_path / "flash.bin").stat().st_size == 0x400000
