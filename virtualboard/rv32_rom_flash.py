"""The mask ROM's functions for flash, cache and MMU, done by the host.

Does not know a CPU, nor flash commands: what a function means is done to the flash itself. Invariant: every operation
is complete when its function returns.

Meanings: ESP-IDF, `esp32c3/rom/spi_flash.h` and `rom/cache.h`. Encrypted writes are not here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from virtualboard.rv32_caller import Caller, RomFunction

_OK, _ERROR = 0, 1
_SECTOR, _BLOCK, _PAGE, _MMU_PAGE = 0x1000, 0x10000, 0x100, 0x10000
_MMU_ENTRIES = 128
_WINDOWS = (0x42000000, 0x3C000000)
LEGACY_DATA_POINTER, LEGACY_DATA = 0x3FCDFFF0, 0x3FCDF700
"""`rom_spiflash_legacy_data`, and where the structure is that it points to."""


_UNTOLD_SIZE = 0x200000
"""Of the flash, until the program has said more."""


def legacy_data(flash_id: int) -> bytes:
    """`spiflash_legacy_data_t`: the ROM's idea of its flash (id, sizes, status mask), dummy cycles, signal matrix."""
    return struct.pack("<6I4B", flash_id, _UNTOLD_SIZE, _BLOCK, _SECTOR, _PAGE, 0xFFFF, 0, 0, 0, 0)


def swapped_id(jedec: int) -> int:
    """RDID as the ROM keeps it: the manufacturer on top."""
    return (jedec & 0xFF) << 16 | jedec & 0xFF00 | jedec >> 16 & 0xFF


class RomFlashCalls:
    """The functions; the cache's bus gates are registers."""

    GATES = 0x600C4004

    @property
    def table(self) -> Mapping[str, RomFunction]:
        """By the name of the ROM function."""
        return {**self._flash(), **self._cache()}

    def _flash(self) -> Mapping[str, RomFunction]:
        # What sets up pins, clocks and modes of a controller that needs none.
        needless = (
            *("esp_rom_spiflash_wait_idle", "esp_rom_spiflash_unlock", "esp_rom_spiflash_select_qio_pins"),
            *("esp_rom_spiflash_config_clk", "esp_rom_spiflash_config_readmode", "esp_rom_spiflash_attach"),
            *("esp_rom_spi_flash_auto_sus_res", "esp_rom_spi_flash_send_resume", "spi_flash_guard_set"),
            *("spi_common_set_dummy_output", "spi_common_set_flash_cs_timing", "spi_dummy_len_fix", "Wait_SPI_Idle"),
            *("SelectSpiFunction", "SetSpiDrvs", "SPI_init", "SPILock", "esp_rom_spiflash_write_disable"),
        )
        return {
            **dict.fromkeys(needless, lambda _c: _OK),
            "esp_rom_spiflash_read": _read,
            "esp_rom_spiflash_write": _write,
            "esp_rom_spiflash_erase_sector": lambda c: _erase(c, c.argument(0) * _SECTOR, _SECTOR),
            "esp_rom_spiflash_erase_block": lambda c: _erase(c, c.argument(0) * _BLOCK, _BLOCK),
            "esp_rom_spiflash_erase_chip": lambda c: _erase(c, 0, c.flash_size),
            "esp_rom_spiflash_config_param": _configure,
            "esp_rom_spi_flash_update_id": _update_id,
            "esp_rom_spiflash_read_status": _status,
            "esp_rom_spiflash_read_statushigh": _status,
            "esp_rom_spiflash_write_status": lambda _c: _OK,
            "spi_flash_get_chip_size": lambda c: c.word(LEGACY_DATA + 4),
        }

    def _cache(self) -> Mapping[str, RomFunction]:
        # Auto-load, pre-load, locks and their like only make a cache faster.
        needless = (
            *("Cache_Suspend_ICache_Autoload", "Cache_Resume_ICache_Autoload", "Cache_Start_ICache_Preload"),
            *("Cache_End_ICache_Preload", "Cache_Config_ICache_Autoload", "Cache_Enable_ICache_Autoload"),
            *("Cache_Disable_ICache_Autoload", "Cache_Enable_ICache_PreLock", "Cache_Disable_ICache_PreLock"),
            *("Cache_Lock_ICache_Items", "Cache_Unlock_ICache_Items", "Cache_Lock_Addr", "Cache_Unlock_Addr"),
            *("Cache_Freeze_ICache_Enable", "Cache_Freeze_ICache_Disable", "Cache_Owner_Init"),
            *("Cache_Occupy_ICache_MEMORY", "Cache_Set_Default_Mode", "Cache_Enable_Defalut_ICache_Mode"),
            *("Cache_Set_IDROM_MMU_Size", "Cache_Pms_Lock"),
        )
        return {
            **dict.fromkeys(needless, lambda _c: 0),
            "Cache_ICache_Preload_Done": lambda _c: 1,
            "Cache_Get_ICache_Line_Size": lambda _c: 32,
            "Cache_Address_Through_IBus": lambda c: int(0 <= c.argument(0) - _WINDOWS[0] < _MMU_ENTRIES * _MMU_PAGE),
            "Cache_Address_Through_DBus": lambda c: int(0 <= c.argument(0) - _WINDOWS[1] < _MMU_ENTRIES * _MMU_PAGE),
            "Cache_Invalidate_ICache_All": _invalidate,
            "Cache_Invalidate_ICache_Items": _invalidate,
            "Cache_Invalidate_Addr": _invalidate,
            "Cache_Disable_ICache": _disable,
            "Cache_Suspend_ICache": _disable,
            "Cache_Enable_ICache": _enable,
            "Cache_Resume_ICache": _enable,
            "Cache_Mask_All": lambda c: self._gate(c, 3),
            "Cache_UnMask_Dram0": lambda c: self._gate(c, 0),
            "Cache_MMU_Init": _clear_mmu,
            "ROM_Boot_Cache_Init": _clear_mmu,
            "Cache_Ibus_MMU_Set": lambda c: _set_mmu(c, _WINDOWS[0]),
            "Cache_Dbus_MMU_Set": lambda c: _set_mmu(c, _WINDOWS[1]),
        }

    def _gate(self, c: Caller, shut: int) -> int:
        c.set_register(self.GATES, shut)
        return 0


def _read(c: Caller) -> int:
    """`esp_rom_spiflash_read(uint32_t src, uint32_t *dest, int32_t len)`"""
    data = c.read_flash(c.argument(0), c.argument(2))
    c.store(c.argument(1), data)
    return _OK if len(data) == c.argument(2) else _ERROR


def _write(c: Caller) -> int:
    """`esp_rom_spiflash_write(uint32_t dest, const uint32_t *src, int32_t len)`"""
    return _OK if c.program_flash(c.argument(0), c.load(c.argument(1), c.argument(2))) else _ERROR


def _erase(c: Caller, offset: int, size: int) -> int:
    return _OK if c.erase_flash(offset, size) else _ERROR


def _configure(c: Caller) -> int:
    """`esp_rom_spiflash_config_param(id, chip_size, block_size, sector_size, page_size, status_mask)`"""
    c.store(LEGACY_DATA, struct.pack("<6I", *(c.argument(index) for index in range(6))))
    return _OK


def _update_id(c: Caller) -> int:
    c.store_word(LEGACY_DATA, swapped_id(c.flash_id))
    return 0


def _status(c: Caller) -> int:
    """`(esp_rom_spiflash_chip_t *chip, uint32_t *status)`: never busy, nothing protected."""
    c.store_word(c.argument(1), 0)
    return _OK


def _invalidate(c: Caller) -> int:
    c.cache_invalidate()
    return 0


def _disable(c: Caller) -> int:
    c.cache_disable()
    return 0  # the auto-load setting


def _enable(c: Caller) -> int:
    c.cache_enable()
    return 0


def _clear_mmu(c: Caller) -> int:
    for entry in range(_MMU_ENTRIES):
        c.map_flash(entry, None)
    return 0


def _set_mmu(c: Caller, window: int) -> int:
    """`Cache_?bus_MMU_Set(ext_ram, vaddr, paddr, psize in KiB, num, fixed)`: 1 for what is not aligned, 2 for another
    page size, 3 for what is outside the window."""
    vaddr, paddr, kib, count, fixed = (c.argument(index) for index in range(1, 6))
    if vaddr % _MMU_PAGE or paddr % _MMU_PAGE:
        return 1
    if kib != _MMU_PAGE >> 10:
        return 2
    first = (vaddr - window) // _MMU_PAGE
    if first < 0 or first + count > _MMU_ENTRIES:
        return 3
    for index in range(count):
        c.map_flash(first + index, paddr // _MMU_PAGE + (0 if fixed else index) & 0xFF)
    return 0
