"""The two windows through which the ESP32-C3 sees its flash: MMU table, cache, bus gates.

Knows pages and the CPU's memory map through `Mapper`; does not know instructions, traps or the ROM. Invariant: a page
shows flash as it was when it came in, through both windows alike, until it is invalidated; a page that cannot come in
is no memory at all, so that touching it traps.

Facts: both windows share one table of 64 KiB pages, indexed by address bits 22:16 (ESP-IDF, `soc/ext_mem_defs.h`).
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Protocol, runtime_checkable

from virtualboard.rv32_peripherals import CacheControl, MmuTable

PAGE = 0x10000
IROM, DROM, WINDOW_SIZE = 0x42000000, 0x3C000000, 0x800000
READ, EXECUTE = 1, 4
"""Permissions as unicorn counts them."""


class Flash(Protocol):
    """What is needed of the flash chip (`nor.NorFlash`)."""

    size: int

    def read(self, offset: int, n: int) -> bytes: ...


@runtime_checkable
class WritableFlash(Protocol):
    """A flash that firmware may change; without this its writes fail."""

    def program(self, offset: int, data: bytes) -> None: ...
    def erase(self, offset: int, n: int) -> None: ...


class Mapper(Protocol):
    """Host memory in and out of the CPU's address space (`rv32_cpu.Rv32Cpu`)."""

    def mem_map_ptr(self, address: int, size: int, perms: int, ptr: int) -> None: ...
    def mem_unmap(self, address: int, size: int) -> None: ...


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping lies in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class FlashWindows:
    """Pages come in when first touched."""

    def __init__(self, cpu: Mapper, flash: Flash) -> None:
        self._cpu, self._flash = cpu, flash
        self._pages: dict[int, tuple[int | None, mmap.mmap]] = {}
        self._seen: set[tuple[int, int]] = set()
        """(window, index) where a page is in the CPU's sight: each window gets it when it is touched there."""
        self.reset(MmuTable(), CacheControl())

    def reset(self, mmu: MmuTable, gates: CacheControl) -> None:
        """Begin with these registers, cache on, nothing mapped."""
        self._mmu, self._gates, self.cache_on = mmu, gates, True
        for index in list(self._pages):
            self._drop(index)

    def touch(self, address: int) -> bool:
        """Bring in the page of `address`; False when there is nothing to bring in or it is there already."""
        index = (address & (WINDOW_SIZE - 1)) // PAGE
        if not contains(address):
            return False
        base = address - address % WINDOW_SIZE
        if index in self._pages:
            return self._show(base, index)
        if not self.cache_on or self._gates.shut:
            return False
        page = self._mmu.flash_page(index)
        content = self._content(page)
        if content is None:
            return False
        memory = mmap.mmap(-1, PAGE)
        memory[:] = content
        self._pages[index] = page, memory
        return self._show(base, index)

    def _show(self, base: int, index: int) -> bool:
        """Show a page that is in through a window; False where it is seen already."""
        if (base, index) in self._seen:
            return False
        self._seen.add((base, index))
        permissions = READ | EXECUTE if base == IROM else READ
        self._cpu.mem_map_ptr(base + index * PAGE, PAGE, permissions, address_of(self._pages[index][1]))
        return True

    @property
    def stale(self) -> bool:
        """Does a page that is in show what the registers no longer say? Until then `follow` has nothing to do: what
        comes in later is looked up then."""
        flash_page = self._mmu.flash_page
        outdated = (flash_page(index) not in (page, None) for index, (page, _) in self._pages.items())
        return self._gates.invalidated or any(outdated)

    def follow(self) -> None:
        """Do what the registers were told: a page that is mapped to another one shows it at once, and the cache forgets
        when it was asked to. Not from within a callback of the CPU: memory goes."""
        if self._gates.invalidated:
            self.invalidate()
        else:
            for index, (page, _) in list(self._pages.items()):
                if self._mmu.flash_page(index) not in (page, None):
                    self._drop(index)
        self._mmu.changed = self._gates.invalidated = False

    def invalidate(self) -> None:
        """Forget what is cached. Pages that would come back as they are stay: dropping code means translating it
        again, and nobody could tell the difference."""
        for index, (page, memory) in list(self._pages.items()):
            if self._mmu.flash_page(index) != page or self._content(page) != memory[:]:
                self._drop(index)

    def _content(self, page: int | None) -> bytes | None:
        if page is None or (page + 1) * PAGE > self._flash.size:
            return None
        return self._flash.read(page * PAGE, PAGE)

    def _drop(self, index: int) -> None:
        # Out of the CPU's sight first: the memory goes with its last reference.
        for base in (IROM, DROM):
            if (base, index) in self._seen:
                self._seen.remove((base, index))
                self._cpu.mem_unmap(base + index * PAGE, PAGE)
        del self._pages[index]


def contains(address: int) -> bool:
    """Is `address` in one of the windows?"""
    return IROM <= address < IROM + WINDOW_SIZE or DROM <= address < DROM + WINDOW_SIZE
