"""SPI1, through which ESP32-C3 firmware sends commands to its flash chip.

Knows the controller's registers; what the commands do is `spi.FlashPart`'s. Does not know a CPU. Invariant: a command
is complete when the register that starts it has been written, so the controller is never seen busy.

Registers: ESP32-C3 Technical Reference Manual, chapter 25 (the memory SPI has the same layout), ESP-IDF
`soc/esp32c3/spi_mem_reg.h`. Not modelled: suspend, wrap, the DTR modes and the MISO and MOSI high parts.
"""

from __future__ import annotations

import struct

from virtualboard.rv32_registers import RegisterBlock
from virtualboard.spi import FlashPart

_W_BYTES = 64
_COMMANDS = {
    31: 0x03,  # read
    30: 0x06,
    29: 0x04,
    28: 0x9F,
    27: 0x05,
    26: 0x01,
    25: 0x02,  # page program
    24: 0x20,
    23: 0xD8,
    22: 0xC7,
    21: 0xB9,
    20: 0xAB,
}
"""Bit of CMD -> what goes over the wire."""


class FlashController(RegisterBlock):
    """One memory SPI controller with `part` at its first chip select."""

    CMD, ADDR, CTRL, USER, USER1, USER2, MOSI_LENGTH, MISO_LENGTH, STATUS, W0 = (
        *(0x00, 0x04, 0x08, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2C, 0x58),
    )
    USR, USR_ADDR, USR_MISO, USR_MOSI = 1 << 18, 1 << 30, 1 << 28, 1 << 27

    def __init__(self, part: FlashPart) -> None:
        super().__init__()
        self._part = part

    def write(self, offset: int, value: int) -> None:
        if offset != self.CMD:
            super().write(offset, value)
        elif value & self.USR:
            self._user()
        else:
            for bit, opcode in _COMMANDS.items():
                if value >> bit & 1:
                    self._command(opcode)
                    break

    def _word(self, offset: int) -> int:
        return self.stored.get(offset, 0)

    def _buffer(self, n: int) -> bytes:
        return struct.pack("<16I", *(self._word(self.W0 + 4 * i) for i in range(16)))[:n]

    def _fill(self, data: bytes) -> None:
        kept = data[:_W_BYTES]
        whole = kept + self._buffer(_W_BYTES)[len(kept) :]
        for index, (word,) in enumerate(struct.iter_unpack("<I", whole)):
            self.stored[self.W0 + 4 * index] = word

    def _length(self, register: int) -> int:
        return min(((self._word(register) & 0x3FF) + 8) // 8, _W_BYTES)

    def _user(self) -> None:
        user = self._word(self.USER)
        bits = (self._word(self.USER1) >> 26) + 1 if user & self.USR_ADDR else 0
        mosi = self._buffer(self._length(self.MOSI_LENGTH)) if user & self.USR_MOSI else b""
        miso = self._length(self.MISO_LENGTH) if user & self.USR_MISO else 0
        opcode = self._word(self.USER2) & 0xFF
        address = self._word(self.ADDR) & (1 << min(bits, 32)) - 1
        # In the I/O modes eight mode bits follow the address as part of it (ESP-IDF, `spi_flash_hal`).
        if bits in (40, 32) and not self._part.takes_four_bytes(opcode):
            address = self._word(self.ADDR) >> 8 if bits == 32 else self._word(self.ADDR)
        answer = self._part.command(opcode, address, mosi, miso)
        if miso:
            self._fill(answer)

    def _command(self, opcode: int) -> None:
        """One of the commands with a bit of their own."""
        address = self._word(self.ADDR) & 0xFFFFFF
        if opcode == 0x05:
            self.stored[self.STATUS] = self._part.command(opcode, 0, b"", 1)[0]
        elif opcode == 0x01:
            self._part.command(opcode, 0, (self._word(self.STATUS) & 0xFFFF).to_bytes(2, "little"), 0)
        elif opcode == 0x02:
            n = self._word(self.ADDR) >> 24 or self._length(self.MOSI_LENGTH)
            self._part.command(opcode, address, self._buffer(min(n, _W_BYTES)), 0)
        elif opcode in (0x9F, 0xAB):
            self._fill(self._part.command(opcode, address, b"", 3))
        elif opcode == 0x03:
            self._fill(self._part.command(opcode, address, b"", self._length(self.MISO_LENGTH)))
        else:
            self._part.command(opcode, address, b"", 0)
