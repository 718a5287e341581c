"""The mask ROM's functions that firmware calls at fixed addresses, done by the host.

Collects what the modules `rv32_rom_*` do, by the addresses of `rv32_rom_names`; does not know unicorn, flash pages or
registers. Invariant: an address that is not in the table is not a function: the machine traps there, so that a missing
model shows itself with its address instead of doing nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from virtualboard.rv32_caller import Caller, RomFunction
from virtualboard.rv32_rom_chip import RomChipCalls
from virtualboard.rv32_rom_flash import LEGACY_DATA, LEGACY_DATA_POINTER, RomFlashCalls, legacy_data, swapped_id
from virtualboard.rv32_rom_hashes import RomHashes
from virtualboard.rv32_rom_libc import LIBC
from virtualboard.rv32_rom_math import MATH
from virtualboard.rv32_rom_names import ADDRESSES


class RomCalls:
    """The functions with their state, since the last reset."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.table: dict[int, Callable[[], int]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what the program has told."""
        functions: dict[str, RomFunction] = {
            **LIBC,
            **MATH,
            **RomHashes().table,
            **RomFlashCalls().table,
            **RomChipCalls().table,
            "ets_delay_us": lambda _c: 0,  # the machine lets the time pass
        }
        self.table = {ADDRESSES[name]: self._bound(function) for name, function in functions.items()}

    def fill_data(self) -> None:
        """The ROM's variables that programs read."""
        c = self._caller
        c.store_word(LEGACY_DATA_POINTER, LEGACY_DATA)
        c.store(LEGACY_DATA, legacy_data(swapped_id(c.flash_id)))

    def _bound(self, function: RomFunction) -> Callable[[], int]:
        return lambda: function(self._caller) & 0xFFFFFFFF
