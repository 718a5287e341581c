"""What a page of peripheral registers is, and the registers that only have to say "done".

Does not know a CPU. Invariant: a register that nobody models reads back what was written to it (0 before).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class RegisterBlock:
    """One 4 KiB page of registers. Offsets are within the page and word aligned; values are 32 bits."""

    def __init__(self) -> None:
        self.stored: dict[int, int] = {}

    def read(self, offset: int) -> int:
        return self.stored.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self.stored[offset] = value


class ReadyRegisters(RegisterBlock):
    """Registers with bits that read as 1, or as 0, whatever was written: of hardware that is always ready, or that is
    ready at once when it is told to begin."""

    def __init__(self, ones: Mapping[int, int], zeros: Mapping[int, int]) -> None:
        super().__init__()
        self._ones, self._zeros = ones, zeros

    def read(self, offset: int) -> int:
        return super().read(offset) & ~self._zeros.get(offset, 0) | self._ones.get(offset, 0)


READY: Mapping[int, tuple[Mapping[int, int], Mapping[int, int]]] = MappingProxyType(
    {
        # RTC_I2C of the analog blocks: never busy, all status bits of an analog block are 1 (its byte is in 23:16).
        0x0E: ({0x00: 0xFF << 16}, {0x00: 1 << 25}),
        # APB_SARADC: conversions are done; data 0.
        0x40: ({0x44: 3 << 30, 0x4C: 3 << 30}, {}),
    }
)
"""Page -> (bits that are 1, bits that are 0) by offset (ESP-IDF, `soc/esp32c3/register`)."""
