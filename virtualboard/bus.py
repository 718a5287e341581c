"""The chip's address space as the loader's READ_REG, WRITE_REG and MEM_DATA see it.

ROM words are read-only, the efuse and the SPI controller and the RTC watchdog react, everything else is memory.
Does not know frames. Invariant: memory is bounded (`_MAX_PAGES`) whatever a client writes; reads never fail.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable

from virtualboard.chips import MAGIC_ADDRESS, ChipModel, efuse_words
from virtualboard.efuse import CLASSIC, EfuseController
from virtualboard.nor import NorFlash
from virtualboard.spi import SpiController

_PAGE = 0x1000
_MAX_PAGES = 4096  # 16 MiB: more than the RAM of any chip; a write beyond it is lost like one to unmapped space
_WATCHDOG_ENABLE = 1 << 31


class Bus:
    """Memory and registers. `baud` is what the UART divider shows (esptool estimates the crystal from it)."""

    def __init__(
        self,
        chip: ChipModel,
        flash: NorFlash,
        mac: str,
        efuses: dict[int, int] | None = None,
        burnt: Callable[[], None] = lambda: None,
    ) -> None:
        """`efuses` are the board's words by address, which burning changes; the factory's when left out. `burnt` is
        called after each burn."""
        self.spi = SpiController(chip.spi, flash)
        self.baud = 115_200
        self._chip = chip
        self._fixed = {MAGIC_ADDRESS: chip.magic, **chip.constants}
        words = efuse_words(chip, mac) if efuses is None else efuses
        self._efuses = EfuseController(chip.efuse_layout, chip.efuse_base, words, burnt)
        self._pages: dict[int, bytearray] = {}
        self._watchdog_s: float | None = None

    def _real(self, address: int) -> int:
        """Where a register is that is seen twice."""
        there, size, here = self._chip.alias
        return address - there + here if 0 <= address - there < size else address

    def read32(self, address: int) -> int:
        """The little-endian word at `address`; unwritten memory is 0."""
        address = self._real(address)
        if address in self._fixed:
            return self._fixed[address]
        if self._efuses.owns(address):
            return self._efuses.read(address)
        if self.spi.owns(address):
            return self.spi.read(address)
        if address == self._chip.uart_clkdiv:
            return self._chip.xtal_hz // self.baud & 0xFFFFF
        word: int = struct.unpack("<I", self.load(address, 4))[0]
        return word

    def write32(self, address: int, value: int, mask: int = 0xFFFFFFFF) -> None:
        """Replace the bits in `mask`."""
        address = self._real(address)
        if address in self._fixed:
            return
        value = self.read32(address) & ~mask | value & mask
        if self._efuses.owns(address):
            self._efuses.write(address, value)
            return
        if self.spi.owns(address):
            self.spi.write(address, value)
            return
        self.store(address, struct.pack("<I", value))
        self._watch(address, value)

    def load(self, address: int, n: int) -> bytes:
        """`n` bytes of memory; addresses wrap at 4 GiB."""
        out = bytearray()
        while len(out) < n:
            at = (address + len(out)) & 0xFFFFFFFF
            start = at % _PAGE
            take = min(n - len(out), _PAGE - start)
            page = self._pages.get(at // _PAGE)
            out += page[start : start + take] if page else bytes(take)
        return bytes(out)

    def store(self, address: int, data: bytes) -> None:
        """Write bytes to memory; addresses wrap at 4 GiB."""
        done = 0
        while done < len(data):
            at = (address + done) & 0xFFFFFFFF
            start = at % _PAGE
            take = min(len(data) - done, _PAGE - start)
            page = self._pages.get(at // _PAGE)
            if page is None and len(self._pages) < _MAX_PAGES:
                page = self._pages[at // _PAGE] = bytearray(_PAGE)
            if page is not None:
                page[start : start + take] = data[done : done + take]
            done += take

    def encryption(self) -> Callable[[bytes], bytes] | None:
        """How the chip encrypts what is written to flash; None where that is not modelled: an ESP32 with
        FLASH_CRYPT_CONFIG 0 (BLOCK0, word 5) does, with the key in BLOCK1."""
        if self._chip.efuse_layout is not CLASSIC or self._efuses.burnt(0x14) >> 28:
            return None
        key = b"".join(struct.pack("<I", self._efuses.burnt(0x38 + 4 * n)) for n in range(8))
        cipher: Callable[[bytes], bytes] | None = importlib.import_module("virtualboard.flash_encryption").cipher_of(
            key
        )
        return cipher

    def take_watchdog(self) -> float | None:
        """Seconds until the RTC watchdog that has just been armed resets the chip; None when it was not. Once."""
        due, self._watchdog_s = self._watchdog_s, None
        return due

    def _watch(self, address: int, value: int) -> None:
        layout = self._chip.watchdog
        if layout is None or address != layout.config0 or not value & _WATCHDOG_ENABLE:
            return
        if self.read32(layout.write_protect) == layout.key:
            self._watchdog_s = self.read32(layout.config1) / layout.slow_hz
