"""A program that calls a ROM function, without a CPU: registers, one piece of memory, a flash, plain registers."""

from __future__ import annotations

import functools
import struct

from virtualboard.nor import NorFlash, default_jedec
from virtualboard.rv32_caller import LIMIT
from virtualboard.rv32_rom_calls import RomCalls
from virtualboard.rv32_rom_names import ADDRESSES

RAM = 0x3FC80000


class FakeProgram:
    """`call(name, ...)` does the ROM function with these arguments and gives a0; `high` is then a1."""

    def __init__(self, size: int = 0x60000) -> None:
        self.memory = bytearray(size)
        self.arguments: list[int] = []
        self.high = 0
        self.sent = bytearray()
        self.received = bytearray()
        self.registers: dict[int, int] = {}
        self.resets: list[int] = []
        self.broke = 0
        self.mapped: dict[int, int | None] = {}
        self.cache: list[str] = []
        self.flash_size, self.flash_id, self.reset_cause = 0x40000, default_jedec(0x40000), 12
        self._calls = RomCalls(self)

    @functools.cached_property
    def flash(self) -> NorFlash:
        return NorFlash(self.flash_size)

    def call(self, name: str, *arguments: int | bytes) -> int:
        """Bytes are put into memory, each behind the other from RAM on, and their address is passed."""
        at, self.arguments = RAM, []
        for argument in arguments:
            if isinstance(argument, bytes):
                self.store(at, argument)
                self.arguments.append(at)
                at += len(argument) + 15 & ~15
            else:
                self.arguments.append(argument & 0xFFFFFFFF)
        return self._calls.table[ADDRESSES[name]]()

    def at(self, address: int, n: int) -> bytes:
        return bytes(self.memory[address - RAM : address - RAM + n])

    # --- Caller -----------------------------------------------------------------------------------

    def argument(self, index: int) -> int:
        return self.arguments[index] if index < len(self.arguments) else 0

    def set_high(self, value: int) -> None:
        self.high = value

    def load(self, address: int, size: int) -> bytes:
        return self.at(address, size).ljust(size, b"\0") if address >= RAM else bytes(size)

    def text(self, address: int, limit: int = LIMIT) -> bytes:
        end = self.memory.find(0, address - RAM)
        return self.at(address, end - (address - RAM))[:limit]

    def word(self, address: int) -> int:
        return int.from_bytes(self.load(address, 4), "little")

    def store(self, address: int, data: bytes) -> None:
        assert address >= RAM and address - RAM + len(data) <= len(self.memory), f"a store outside: {address:#x}"
        self.memory[address - RAM : address - RAM + len(data)] = data

    def store_word(self, address: int, value: int) -> None:
        self.store(address, struct.pack("<I", value & 0xFFFFFFFF))

    def read_flash(self, offset: int, size: int) -> bytes:
        return self.flash.read(offset, size) if offset + size <= self.flash.size else b""

    def erase_flash(self, offset: int, size: int) -> bool:
        if offset + size > self.flash.size:
            return False
        self.flash.erase(offset, size)
        return True

    def program_flash(self, offset: int, data: bytes) -> bool:
        if offset + len(data) > self.flash.size:
            return False
        self.flash.program(offset, data)
        return True

    def map_flash(self, entry: int, page: int | None) -> None:
        self.mapped[entry] = page

    def cache_disable(self) -> None:
        self.cache.append("off")

    def cache_enable(self) -> None:
        self.cache.append("on")

    def cache_invalidate(self) -> None:
        self.cache.append("empty")

    def register(self, address: int) -> int:
        return self.registers.get(address, 0)

    def set_register(self, address: int, value: int) -> None:
        self.registers[address] = value & 0xFFFFFFFF

    def breakpoint(self) -> None:
        self.broke += 1

    def request_reset(self, cause: int) -> None:
        self.resets.append(cause)

    def uart_send(self, byte: int) -> None:
        self.sent.append(byte)

    def uart_receive(self) -> int | None:
        return self.received.pop(0) if self.received else None
