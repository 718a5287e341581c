"""The program that calls a ROM function, as the host sees it: registers by the CPU, memory, flash, peripherals.

Implements `rv32_caller.Caller`. Does not know the functions, nor when they are called. Invariant: what the CPU could
not do is told to the machine as a trap (`trap`) and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from virtualboard import rv32_cpu as reg
from virtualboard import rv32_windows
from virtualboard.rv32_caller import LIMIT
from virtualboard.rv32_cpu import CpuError, Rv32Cpu
from virtualboard.rv32_io import BASE, SIZE, Io
from virtualboard.rv32_peripherals import MmuTable, Uart
from virtualboard.rv32_windows import Flash, FlashWindows, WritableFlash

_TEXT_PIECE = 256
INSTRUCTION_FAULT, BREAKPOINT, STORE_FAULT = 1, 3, 7


class CallingProgram:
    """`trap(cause, address)`: the CPU cannot go on, for a store to `address`, a jump there, or a breakpoint of the
    function's own."""

    def __init__(
        self,
        cpu: Rv32Cpu,
        flash: Flash,
        windows: FlashWindows,
        trap: Callable[[int, int], None],
        request_reset: Callable[[int], None],
    ) -> None:
        self._cpu, self._flash, self._windows, self._trap = cpu, flash, windows, trap
        self.request_reset = request_reset
        self.io: Io
        """Set by the machine as soon as there is one."""

    # --- registers and memory ---------------------------------------------------------------------

    def argument(self, index: int) -> int:
        if index < 8:
            return self._cpu.reg_read(reg.A0 + index)
        return self.word(self._cpu.reg_read(reg.SP) + 4 * (index - 8))

    def set_high(self, value: int) -> None:
        self._cpu.reg_write(reg.A1, value)

    def load(self, address: int, size: int) -> bytes:
        """Memory as the CPU would read it; where it could not, zeros."""
        out = bytearray()
        size = min(size, max(self._flash.size, LIMIT >> 4))
        while len(out) < size:
            at = address + len(out) & 0xFFFFFFFF
            piece = min(size - len(out), rv32_windows.PAGE - at % rv32_windows.PAGE)
            self._windows.touch(at)
            out += self._peek(at, piece) or bytes(piece)
        return bytes(out)

    def text(self, address: int, limit: int = LIMIT) -> bytes:
        """Bytes up to a zero or to the limit."""
        out = bytearray()
        while len(out) < limit:
            piece = self.load(address + len(out), min(_TEXT_PIECE, limit - len(out)))
            end = piece.find(0)
            if end >= 0:
                return bytes(out + piece[:end])
            out += piece
        return bytes(out)

    def word(self, address: int) -> int:
        return int.from_bytes(self.load(address, 4), "little")

    def store(self, address: int, data: bytes) -> None:
        """Write as the CPU would; where it could not, the CPU traps."""
        try:
            self._cpu.mem_write(address & 0xFFFFFFFF, data)
        except CpuError:
            self._trap(STORE_FAULT, address)

    def store_word(self, address: int, value: int) -> None:
        self.store(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def _peek(self, address: int, size: int) -> bytes:
        try:
            return self._cpu.mem_read(address, size)
        except CpuError:
            return b""

    def breakpoint(self) -> None:
        self._trap(BREAKPOINT, self._cpu.reg_read(reg.PC))

    # --- flash and its windows ----------------------------------------------------------------------

    @property
    def flash_size(self) -> int:
        return self._flash.size

    @property
    def flash_id(self) -> int:
        return self.io.jedec

    def read_flash(self, offset: int, size: int) -> bytes:
        return self._flash.read(offset, size) if offset + size <= self._flash.size else b""

    def erase_flash(self, offset: int, size: int) -> bool:
        if not isinstance(self._flash, WritableFlash) or offset + size > self._flash.size:
            return False
        self._flash.erase(offset, size)
        return True

    def program_flash(self, offset: int, data: bytes) -> bool:
        if not isinstance(self._flash, WritableFlash) or offset + len(data) > self._flash.size:
            return False
        self._flash.program(offset, data)
        return True

    def map_flash(self, entry: int, page: int | None) -> None:
        self.io.mmu.write(4 * entry, MmuTable.INVALID if page is None else page)
        self._windows.follow()

    def cache_disable(self) -> None:
        """The caller must not return into flash: on the chip this hangs, here it traps."""
        self._windows.cache_on = False
        caller = self._cpu.reg_read(reg.RA)
        if rv32_windows.contains(caller):
            self._trap(INSTRUCTION_FAULT, caller)

    def cache_enable(self) -> None:
        self._windows.cache_on = True

    def cache_invalidate(self) -> None:
        self._windows.invalidate()

    # --- peripherals ----------------------------------------------------------------------------------

    def register(self, address: int) -> int:
        return self.io.read(address - BASE, 4) if 0 <= address - BASE < SIZE else 0

    def set_register(self, address: int, value: int) -> None:
        if 0 <= address - BASE < SIZE:
            self.io.write(address - BASE, value & 0xFFFFFFFF)

    @property
    def reset_cause(self) -> int:
        return self.io.cause

    def uart_send(self, byte: int) -> None:
        self.io.uart.write(Uart.FIFO, byte)

    def uart_receive(self) -> int | None:
        return self.io.uart.read(Uart.FIFO) if self.io.uart.received else None
