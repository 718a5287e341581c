"""All peripherals of one ESP32-C3 as the CPU sees them: one window of registers, and the interrupts that come out.

Knows which page belongs to which block, and which source a block interrupts with; does not know instructions, memory
or flash. Invariant: a reset makes new blocks, and only what survives on the chip survives: the RTC's scratch registers,
and the system timer where the CPU alone restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from virtualboard import rom
from virtualboard import rv32_peripherals as p
from virtualboard.rv32_accelerators import Dma, Sha, SystemControl
from virtualboard.rv32_flash_controller import FlashController
from virtualboard.rv32_registers import READY, ReadyRegisters, RegisterBlock
from virtualboard.rv32_timer_groups import TimerGroup
from virtualboard.rv32_timers import Systimer
from virtualboard.spi import CommandedFlash, FlashPart

BASE, SIZE = 0x60000000, 0xD1000
_READ_BITS = (24, 20, 23, 14, 13)
"""QIO, QOUT, DIO, DOUT, fast read: bit of the memory SPI's CTRL (ESP-IDF, `spi_mem_reg.h`)."""


class Io:
    """The blocks since the last reset. `efuse`: words by address; `load` reads the CPU's memory."""

    def __init__(
        self,
        now: Callable[[], float],
        efuse: Mapping[int, int],
        flash: CommandedFlash,
        load: Callable[[int, int], bytes],
        jedec: int,
    ) -> None:
        self._now, self._efuse, self._load = now, efuse, load
        self.jedec = jedec
        self._part = FlashPart(flash, jedec)
        self._seed = sum(efuse.values())
        self.cause = rom.POWERON
        self.rtc: p.RtcControl
        self.systimer: Systimer
        self._make({}, None)

    def reset(self, cause: int) -> None:
        """As this reset cause leaves the registers."""
        self.cause = cause
        kept = {} if cause == rom.POWERON else self.rtc.stored
        self._make(kept, self.systimer if cause in rom.CPU_RESETS else None)

    def _make(self, kept: Mapping[int, int], systimer: Systimer | None) -> None:
        now = self._now
        self.uart, self.usb = p.Uart(), p.UsbSerial()
        self.rtc = p.RtcControl(now, self._efuse, self.cause, kept)
        self.system = p.System()
        self.groups = [TimerGroup(now, group, self.system.apb_hz) for group in (0, 1)]
        self.systimer = systimer or Systimer(now)
        self.matrix = p.InterruptMatrix()
        self.mmu, self.gates = p.MmuTable(), p.CacheControl()
        self._seed += 1
        self.cache_spi = RegisterBlock()
        dma = Dma(self._load)
        sha = Sha(dma.take)
        self.quick = {0x3B000 + offset: sha.stored for offset in range(Sha.MESSAGE, Sha.MESSAGE + 64, 4)}
        """Registers of which only the value counts, by offset from BASE, with where it is kept: a hash writes sixteen
        of them for each 64 bytes."""
        self._interrupters: tuple[RegisterBlock, ...] = (
            *(self.uart, self.usb, self.systimer, self.system),
            *self.groups,
        )
        self._blocks: dict[int, RegisterBlock] = {
            0x00: self.uart,
            0x02: FlashController(self._part),
            0x03: self.cache_spi,
            0x08: self.rtc,
            0x1F: self.groups[0],
            0x20: self.groups[1],
            0x23: self.systimer,
            0x26: SystemControl(self._seed),
            0x3B: sha,
            0x3F: dma,
            0x43: self.usb,
            0xC0: self.system,
            0xC2: self.matrix,
            0xC4: self.gates,
            0xC5: self.mmu,
            **{page: ReadyRegisters(*bits) for page, bits in READY.items()},
        }

    def read_as(self, mode: int) -> None:
        """The ROM sets the controller behind the cache to the mode byte of the image's header, and programs look there
        for it."""
        if mode < len(_READ_BITS):
            self.cache_spi.write(FlashController.CTRL, 1 << _READ_BITS[mode] | 1 << 13)

    def _block(self, offset: int) -> RegisterBlock:
        block = self._blocks.get(offset >> 12)
        if block is None:
            block = self._blocks[offset >> 12] = RegisterBlock()
        return block

    def read(self, offset: int, size: int) -> int:
        """`size` bytes at `offset` from BASE."""
        block = self._block(offset)
        if block is self.matrix:
            self.advance()
        return block.read(offset & 0xFFC) >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def write(self, offset: int, value: int) -> bool:
        """Write; returns whether an interrupt may have begun or ended by that."""
        block = self._block(offset)
        block.write(offset & 0xFFC, value << 8 * (offset & 3) & 0xFFFFFFFF)
        if block is self.matrix:
            return True
        if block not in self._interrupters or (not offset & 0xFFC and block in (self.uart, self.usb)):
            return False
        self.advance()
        return True

    def advance(self) -> None:
        """Let timers raise what is due, and look at what interrupts."""
        self.systimer.advance()
        self.groups[0].advance()
        self.groups[1].advance()
        sources = [s for i, s in enumerate(p.SYSTIMER_SOURCES) if self.systimer.interrupting(i)]
        sources += self.system.interrupting
        for group, numbers in zip(self.groups, p.GROUP_SOURCES, strict=True):
            if group.active:
                sources += [s for s, active in zip(numbers, group.interrupting, strict=True) if active]
        if self.usb.interrupting:
            sources.append(p.USB_SOURCE)
        if self.uart.interrupting:
            sources.append(p.UART_SOURCE)
        self.matrix.raise_sources(sources)

    def line(self) -> int | None:
        """The interrupt line of the CPU that is raised, by the rules of the matrix, as of the last `advance`."""
        return self.matrix.line()

    def bites(self) -> list[tuple[float, int]]:
        """(instant, cause) of the resets that watchdogs will do unless they are fed."""
        dogs = (self.rtc.watchdog, *(group.watchdog for group in self.groups))
        return [bite for dog in dogs if (bite := dog.bite) is not None]

    @property
    def next_at(self) -> float | None:
        """When something here will interrupt by itself."""
        due = [self.systimer.next_at, *(group.next_at for group in self.groups)]
        return min((at for at in due if at is not None), default=None)
