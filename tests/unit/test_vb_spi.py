"""The SPI controller, driven register by register as esptool does."""

from __future__ import annotations

import struct

import pytest

from virtualboard.bus import Bus
from virtualboard.chips import CHIPS
from virtualboard.nor import NorFlash
from virtualboard.spi import sfdp_table


class SpiHost:
    """esptool's `run_spiflash_command` for one chip, without the wire."""

    def __init__(self, chip: str, size: int = 0x400000, attach: bool = True) -> None:
        self.layout = CHIPS[chip].spi
        self.bus = Bus(CHIPS[chip], NorFlash(size), "7c:df:a1:00:11:22")
        if attach:
            self.bus.spi.attach()

    def run(self, opcode: int, data: bytes = b"", read_bits: int = 0, addr: int | None = None) -> int:
        layout, write = self.layout, self.bus.write32
        base = layout.base
        flags = 1 << 31
        if read_bits:
            flags |= 1 << 28
            write(base + layout.miso_dlen, read_bits - 1)
        if data:
            flags |= 1 << 27
            write(base + layout.mosi_dlen, len(data) * 8 - 1)
        if addr is not None:
            flags |= 1 << 30 | 1 << 29
            write(base + layout.usr1, 23 << 26 | 7)
            write(base + 4, addr << 8 if layout.addr_left_aligned else addr)
        write(base + layout.usr, flags)
        write(base + layout.usr2, 7 << 28 | opcode)
        words = struct.unpack(f"<{-(-len(data) // 4)}I", data + bytes(-len(data) % 4)) or (0,)
        for index, word in enumerate(words):
            write(base + layout.w0 + 4 * index, word)
        write(base, 1 << 18)
        assert self.bus.read32(base) & 1 << 18 == 0
        return self.bus.read32(base + layout.w0)


@pytest.mark.parametrize("chip", CHIPS)
def test_rdid_and_sfdp(chip: str) -> None:
    host = SpiHost(chip)
    assert host.run(0x9F, read_bits=24) == 0x1640C8
    assert host.run(0x5A, read_bits=32, addr=0) == int.from_bytes(b"SFDP", "little")
    assert host.run(0x5A, read_bits=32, addr=0x34) == 0x400000 * 8 - 1
    assert host.run(0x5A, read_bits=8, addr=0x10) == 0xFF
    assert host.run(0x5A, read_bits=32, addr=0xFFFFFF) == 0xFFFFFFFF


def test_before_attach_everything_reads_as_ones() -> None:
    host = SpiHost("esp32c3", attach=False)
    assert host.run(0x9F, read_bits=24) == 0xFFFFFF
    host.bus.spi.attach()
    assert host.run(0x9F, read_bits=24) == 0x1640C8


def test_status_registers_need_a_write_enable() -> None:
    host = SpiHost("esp32c3")
    host.run(0x01, b"\x54")
    assert host.run(0x05, read_bits=8) == 0
    host.run(0x06)
    host.run(0x01, b"\x57\x02")
    assert host.run(0x05, read_bits=8) == 0x54
    assert host.run(0x35, read_bits=8) == 0x02
    host.run(0x50)
    host.run(0x11, b"\x60")
    host.run(0x11, b"\x00")
    assert host.run(0x15, read_bits=8) == 0x60


@pytest.mark.parametrize("opcode", [0x66, 0x99, 0xB9, 0x79, 0xFF, 0xAB, 0x04, 0x77])
def test_other_commands_complete(opcode: int) -> None:
    host = SpiHost("esp32s3")
    host.run(opcode)
    assert host.run(0x9F, read_bits=24) == 0x1640C8


@pytest.mark.parametrize(("size", "addresses"), [(0x1000000, 0), (0x2000000, 1)])
def test_beyond_16_mb_sfdp_offers_4_byte_addresses(size: int, addresses: int) -> None:
    host = SpiHost("esp32s3", size)
    assert host.run(0x5A, read_bits=32, addr=0x30) >> 17 & 3 == addresses
    assert host.run(0x5A, read_bits=32, addr=0x34) == size * 8 - 1


def test_sfdp_header_is_that_of_jesd216() -> None:
    assert sfdp_table(0x400000)[:16].hex() == "53464450060100ff00060110300000ff"
