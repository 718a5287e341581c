"""The mask ROM's functions that firmware calls at fixed addresses, done by the host.

Knows the calling convention through `Caller`; does not know unicorn, flash pages or registers. Addresses are those of
ESP-IDF's `esp32c3.rom.ld`. Invariant: an address that is not in the table is not a function: the machine traps there,
so that a missing model shows itself with its address instead of doing nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from virtualboard import rom


class Caller(Protocol):
    """What a ROM function may touch."""

    def argument(self, index: int) -> int: ...
    def load(self, address: int, size: int) -> bytes: ...
    def store(self, address: int, data: bytes) -> None: ...
    def read_flash(self, offset: int, size: int) -> bytes: ...
    def erase_flash(self, offset: int, size: int) -> bool: ...
    def program_flash(self, offset: int, data: bytes) -> bool: ...
    def cache_disable(self) -> None: ...
    def cache_enable(self) -> None: ...
    def cache_invalidate(self) -> None: ...
    def request_reset(self, cause: int) -> None: ...
    def uart_send(self, byte: int) -> None: ...
    def uart_receive(self) -> int | None: ...
    @property
    def reset_cause(self) -> int: ...


class RomCalls:
    """The functions with their state: hash contexts, by the address of the caller's context."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._hashes: dict[int, Any] = {}
        self.table: dict[int, Callable[[], int]] = {
            0x40000018: lambda: caller.reset_cause,  # rtc_get_reset_reason
            0x40000050: lambda: 0,  # ets_delay_us: time belongs to the board's owner, instructions take none
            0x40000068: self._uart_tx_one_char,
            0x40000070: self._uart_rx_one_char,
            0x40000090: lambda: self._reset(rom.SW_SYS),  # software_reset
            0x40000094: lambda: self._reset(rom.SW_CPU),  # software_reset_cpu
            0x4000010C: lambda: 0,  # esp_rom_spiflash_wait_idle
            0x40000124: lambda: self._spiflash_erase(0x10000),  # esp_rom_spiflash_erase_block
            0x40000128: lambda: self._spiflash_erase(0x1000),  # esp_rom_spiflash_erase_sector
            0x4000012C: self._spiflash_write,
            0x40000130: self._spiflash_read,
            0x40000140: lambda: 0,  # esp_rom_spiflash_unlock
            0x400004D8: lambda: self._cache(caller.cache_invalidate),  # Cache_Invalidate_ICache_All
            0x4000051C: lambda: self._cache(caller.cache_disable),  # Cache_Disable_ICache
            0x40000520: lambda: self._cache(caller.cache_enable),  # Cache_Enable_ICache
            0x40000524: lambda: self._cache(caller.cache_disable),  # Cache_Suspend_ICache
            0x40000528: lambda: self._cache(caller.cache_enable),  # Cache_Resume_ICache
            0x40000614: lambda: self._begin(hashlib.md5(usedforsecurity=False)),  # MD5Init
            0x40000618: self._update,  # MD5Update
            0x4000061C: lambda: self._finish(context=1, digest=0),  # MD5Final
            0x40000644: lambda: 0,  # ets_sha_enable
            0x40000648: lambda: 0,  # ets_sha_disable
            0x40000650: self._sha_init,
            0x40000658: lambda: 0,  # ets_sha_starts: only SHA-512/t has something to do there
            0x4000065C: self._update,  # ets_sha_update
            0x40000660: lambda: self._finish(context=0, digest=1),  # ets_sha_finish
        }

    def _reset(self, cause: int) -> int:
        self._caller.request_reset(cause)
        return 0

    def _cache(self, operation: Callable[[], None]) -> int:
        operation()
        return 0  # the autoload setting, for the functions that return it

    def _uart_tx_one_char(self) -> int:
        self._caller.uart_send(self._caller.argument(0) & 0xFF)
        return 0

    def _uart_rx_one_char(self) -> int:
        byte = self._caller.uart_receive()
        if byte is None:
            return 1
        self._caller.store(self._caller.argument(0), bytes([byte]))
        return 0

    def _spiflash_read(self) -> int:
        data = self._caller.read_flash(self._caller.argument(0), self._caller.argument(2))
        self._caller.store(self._caller.argument(1), data)
        return 0

    def _spiflash_erase(self, size: int) -> int:
        return 0 if self._caller.erase_flash(self._caller.argument(0) * size, size) else 1

    def _spiflash_write(self) -> int:
        data = self._caller.load(self._caller.argument(1), self._caller.argument(2))
        return 0 if self._caller.program_flash(self._caller.argument(0), data) else 1

    def _begin(self, digest: Any) -> int:
        self._hashes[self._caller.argument(0)] = digest
        return 0

    def _sha_init(self) -> int:
        algorithms = (hashlib.sha1, hashlib.sha224, hashlib.sha256)
        kind = self._caller.argument(1)
        if kind >= len(algorithms):
            return 1
        return self._begin(algorithms[kind](usedforsecurity=False))

    def _update(self) -> int:
        digest = self._hashes.get(self._caller.argument(0))
        if digest is not None:
            digest.update(self._caller.load(self._caller.argument(1), self._caller.argument(2)))
        return 0

    def _finish(self, *, context: int, digest: int) -> int:
        done = self._hashes.pop(self._caller.argument(context), None)
        if done is not None:
            self._caller.store(self._caller.argument(digest), done.digest())
        return 0
