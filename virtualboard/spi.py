"""The SPI flash controller's "user command" registers, and the flash chip that answers them.

esptool sends flash commands by hand through these registers: RDID, SFDP, status registers, reset and power-down.
Does not know the loader. Invariant: a started command is complete when the next register is read, so the busy bit is
never seen set; commands that the part does not know change nothing and read as all ones.
"""

from __future__ import annotations

import struct
from typing import Protocol, runtime_checkable

from virtualboard.chips import SpiLayout
from virtualboard.nor import NorFlash

_CMD = 0x00
_ADDR = 0x04
_CMD_USR = 1 << 18
_USR_ADDR = 1 << 30
_USR_MISO = 1 << 28
_USR_MOSI = 1 << 27
_WINDOW = 0x100  # bytes of register space that belong to the controller
_W_BYTES = 64


class CommandedFlash(Protocol):
    """What the part needs of its array."""

    size: int

    def read(self, offset: int, n: int) -> bytes: ...


@runtime_checkable
class ChangeableFlash(Protocol):
    """An array that can be programmed and erased; without this the part ignores such commands."""

    def program(self, offset: int, data: bytes) -> None: ...
    def erase(self, offset: int, n: int) -> None: ...


class SpiController:
    """Registers at `layout.base`. Until `attach` the pins are not connected and every answer is all ones."""

    def __init__(self, layout: SpiLayout, flash: NorFlash) -> None:
        self._layout = layout
        self._part = FlashPart(flash, flash.jedec)
        self._words: dict[int, int] = {}
        self._attached = False

    def attach(self) -> None:
        """Connect the pins, as SPI_ATTACH or a starting stub does."""
        self._attached = True

    def owns(self, address: int) -> bool:
        """Whether `address` is one of this controller's registers."""
        return 0 <= address - self._layout.base < _WINDOW

    def read(self, address: int) -> int:
        """The register's word."""
        return self._words.get(address - self._layout.base, 0)

    def write(self, address: int, value: int) -> None:
        """Set the register; writing CMD with the USR bit runs the command that the others describe."""
        offset = address - self._layout.base
        self._words[offset] = value
        if offset == _CMD:
            if value & _CMD_USR:
                self._run()
            self._words[_CMD] = 0

    def _run(self) -> None:
        layout, word = self._layout, self._words.get
        usr = word(layout.usr, 0)
        address = 0
        if usr & _USR_ADDR:
            bits = (word(layout.usr1, 0) >> 26 & 0x3F) + 1
            address = word(_ADDR, 0)
            address = address >> (32 - min(bits, 32)) if layout.addr_left_aligned else address & ((1 << bits) - 1)
        mosi = b""
        if usr & _USR_MOSI:
            count = min((word(layout.mosi_dlen, 0) & 0x3FF) // 8 + 1, _W_BYTES)
            mosi = b"".join(struct.pack("<I", word(layout.w0 + 4 * i, 0)) for i in range(_W_BYTES // 4))[:count]
        miso = min((word(layout.miso_dlen, 0) & 0x3FF) // 8 + 1, _W_BYTES) if usr & _USR_MISO else 0
        opcode = word(layout.usr2, 0) & 0xFF
        answer = self._part.command(opcode, address, mosi, miso) if self._attached else b"\xff" * miso
        padded = answer + bytes(-len(answer) % 4)
        for index, (value,) in enumerate(struct.iter_unpack("<I", padded)):
            self._words[layout.w0 + 4 * index] = value


class FlashPart:
    """The command decoder of a JESD216 serial flash."""

    def __init__(self, flash: CommandedFlash, jedec: int) -> None:
        self._flash = flash
        self._jedec = jedec.to_bytes(3, "little")
        self._sfdp = sfdp_table(flash.size)
        self._status = bytearray(3)
        self._write_enabled = False

    @staticmethod
    def takes_four_bytes(opcode: int) -> bool:
        """Whether the command's address has 32 bits."""
        return opcode in _FOUR_BYTES

    def command(self, opcode: int, address: int, mosi: bytes, miso: int) -> bytes:
        """Run one command; returns `miso` bytes, all ones where the part drives nothing."""
        answer = b""
        if opcode == 0x9F:  # RDID
            answer = self._jedec
        elif opcode == 0x5A:  # RDSFDP
            answer = self._sfdp[address : address + miso]
        elif opcode in _READ:
            answer = self._read(address, miso)
        elif opcode in _PROGRAM or opcode in _ERASE:
            self._change(opcode, address, mosi)
        elif opcode in _READ_STATUS:
            answer = bytes([self._status_byte(_READ_STATUS[opcode])]) * miso
        elif opcode in _WRITE_STATUS:
            self._write_status(_WRITE_STATUS[opcode], mosi)
        elif opcode in (0x06, 0x50):  # WREN, and WREN for the volatile bits
            self._write_enabled = True
        elif opcode in (0x04, 0x99):  # WRDI, RESET
            self._write_enabled = False
        return (answer + b"\xff" * miso)[:miso]

    def _status_byte(self, register: int) -> int:
        return self._status[register] | (self._write_enabled << 1 if register == 0 else 0)

    def _read(self, address: int, n: int) -> bytes:
        size = self._flash.size
        at = address % size
        return (self._flash.read(at, min(n, size - at)) + self._flash.read(0, max(0, n - (size - at))))[:n]

    def _change(self, opcode: int, address: int, mosi: bytes) -> None:
        """Program within a page, whose end it wraps at, or erase; nothing without WREN before."""
        if not self._write_enabled or not isinstance(self._flash, ChangeableFlash):
            return
        self._write_enabled = False
        size = self._flash.size
        if opcode in _PROGRAM:
            page = address % size // _PAGE * _PAGE
            at = address % _PAGE
            head = mosi[: _PAGE - at]
            self._flash.program(page + at, head)
            if len(mosi) > len(head):
                self._flash.program(page, mosi[len(head) :])
        else:
            unit = _ERASE[opcode] or size
            self._flash.erase(address % size // unit * unit, unit)

    def _write_status(self, register: int, values: bytes) -> None:
        if self._write_enabled:
            for index, value in enumerate(values[: 3 - register]):
                # Bits 0 and 1 of the first register (busy, write enable) are not writable.
                self._status[register + index] = value & (0xFC if register + index == 0 else 0xFF)
        self._write_enabled = False


_PAGE = 0x100
_READ = frozenset({0x03, 0x0B, 0x3B, 0x6B, 0xBB, 0xEB, 0x13, 0x0C, 0x3C, 0x6C, 0xBC, 0xEC})
_PROGRAM = frozenset({0x02, 0x32, 0x38, 0x12, 0x34})
_ERASE = {0x20: 0x1000, 0x21: 0x1000, 0x52: 0x8000, 0x5C: 0x8000, 0xD8: 0x10000, 0xDC: 0x10000, 0xC7: 0, 0x60: 0}
"""Opcode -> bytes that it erases; 0 for all."""
_FOUR_BYTES = frozenset({0x13, 0x0C, 0x3C, 0x6C, 0xBC, 0xEC, 0x12, 0x34, 0x21, 0x5C, 0xDC})
_READ_STATUS = {0x05: 0, 0x35: 1, 0x15: 2}
_WRITE_STATUS = {0x01: 0, 0x31: 1, 0x11: 2}


_THREE_BYTES = 1 << 24  # what a 3-byte address reaches


def sfdp_table(size: int) -> bytes:
    """Serial Flash Discoverable Parameters (JESD216B): header, one parameter header, the basic flash table at 0x30."""
    basic = [0xFFFFFFFF] * 16
    basic[0] = 0xFFF120E5  # 4 KiB erase with 0x20, 3-byte addresses, 1-1-2, 1-2-2, 1-4-4, 1-1-4 reads
    if size > _THREE_BYTES:
        basic[0] |= 1 << 17  # 3- or 4-byte addresses
    basic[1] = size * 8 - 1  # density in bits, less one
    basic[2] = 0x6B08EB44  # fast read opcodes and their wait states
    basic[3] = 0xBB423B08
    basic[7] = 0x520F200C  # erase types: 4 KiB 0x20, 32 KiB 0x52
    basic[8] = 0xFF00D810  # 64 KiB 0xD8
    header = b"SFDP" + bytes([0x06, 0x01, 0x00, 0xFF])
    parameter = bytes([0x00, 0x06, 0x01, len(basic), 0x30, 0x00, 0x00, 0xFF])
    return (header + parameter).ljust(0x30, b"\xff") + struct.pack("<16I", *basic)
