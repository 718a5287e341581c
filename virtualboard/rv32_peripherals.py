"""The ESP32-C3's peripherals that firmware needs to boot, talk, wait and restart, as register blocks.

Knows registers and instants; does not know the CPU, flash or any transport. Time comes in as `now` (seconds, any
epoch, never back); nothing here waits. Invariant: a block's state changes only by `write`, by `advance` and by bytes
fed to the UART, so that equal inputs at equal instants give equal outputs.

Addresses and reset values: ESP32-C3 Technical Reference Manual and ESP-IDF's `soc/esp32c3` headers. A register that
is not modelled reads back what was written to it (0 before).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from virtualboard import rom
from virtualboard.rv32_registers import RegisterBlock
from virtualboard.rv32_timers import APB_HZ, WDT_KEY, XTAL_HZ, Watchdog

UART_SOURCE, USB_SOURCE = 21, 26
GROUP_SOURCES = ((32, 33), (34, 35))
SYSTIMER_SOURCES = (37, 38, 39)
FROM_CPU_SOURCES = (50, 51, 52, 53)
"""Interrupt sources: index of their mapping register in the interrupt matrix."""

SWD_KEY = 0x8F1D312A
SLOW_HZ = 136_000.0
"""The RC oscillator of the RTC."""


class Uart(RegisterBlock):
    """UART0. The receive side holds whatever was fed: the line's pace is the board's affair, and bytes that do not
    fit the FIFO wait on the line. Transmission takes no time here."""

    FIFO_SIZE = 128
    LINE_LIMIT = 1 << 16
    """Bytes that may wait; firmware that never reads loses more, as one whose FIFO overflows."""
    FIFO, INT_RAW, INT_ST, INT_ENA, INT_CLR, STATUS, CONF0, CONF1 = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x1C, 0x20, 0x24
    RXFIFO_FULL, TXFIFO_EMPTY, RXFIFO_TOUT, TX_DONE = 1 << 0, 1 << 1, 1 << 8, 1 << 14
    RXFIFO_RST = 1 << 17

    def __init__(self) -> None:
        super().__init__()
        self.received = bytearray()
        self.sent = bytearray()
        self._latched = 0
        self.stored[self.CONF1] = 0x60

    def feed(self, data: bytes) -> None:
        self.received += data[: self.LINE_LIMIT - len(self.received)]
        self._latched |= self.RXFIFO_TOUT  # the line falls silent after every piece

    def _raw(self) -> int:
        threshold = max(self.stored.get(self.CONF1, 0) & 0x1FF, 1)
        full = self.RXFIFO_FULL if len(self.received) >= threshold else 0
        return self._latched | full | self.TXFIFO_EMPTY | self.TX_DONE

    @property
    def interrupting(self) -> bool:
        return bool(self._raw() & self.stored.get(self.INT_ENA, 0))

    def read(self, offset: int) -> int:
        if offset == self.STATUS:
            return min(len(self.received), self.FIFO_SIZE)
        if offset == self.FIFO:
            return self.received.pop(0) if self.received else 0
        if offset == self.INT_RAW:
            return self._raw()
        if offset == self.INT_ST:
            return self._raw() & self.stored.get(self.INT_ENA, 0)
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == self.FIFO:
            self.sent.append(value & 0xFF)
        elif offset == self.INT_CLR:
            self._latched &= ~value
        elif offset == self.CONF0 and value & self.RXFIFO_RST:
            self.received.clear()
            super().write(offset, value)
        else:
            super().write(offset, value)


class UsbSerial(RegisterBlock):
    """The serial port of USB_SERIAL_JTAG (0x60043000). The host takes at once what is sent, and is always there."""

    LINE_LIMIT = 1 << 16
    FIFO, CONF, INT_RAW, INT_ST, INT_ENA, INT_CLR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14
    ROOM, AVAILABLE = 1 << 1, 1 << 2
    START_OF_FRAME, RECEIVED, EMPTY = 1 << 1, 1 << 2, 1 << 3

    def __init__(self) -> None:
        super().__init__()
        self.received = bytearray()
        self.sent = bytearray()
        self.used = False
        """Whether firmware has sent here since the reset."""
        self._latched = self.EMPTY

    def feed(self, data: bytes) -> None:
        self.received += data[: self.LINE_LIMIT - len(self.received)]
        self._latched |= self.RECEIVED

    @property
    def interrupting(self) -> bool:
        return bool(self._latched & self.stored.get(self.INT_ENA, 0))

    def read(self, offset: int) -> int:
        if offset == self.FIFO:
            return self.received.pop(0) if self.received else 0
        if offset == self.CONF:
            return self.ROOM | (self.AVAILABLE if self.received else 0)
        if offset == self.INT_RAW:
            return self._latched | self.START_OF_FRAME
        if offset == self.INT_ST:
            return self._latched & self.stored.get(self.INT_ENA, 0)
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == self.FIFO:
            self.sent.append(value & 0xFF)
            self.used = True
        elif offset == self.CONF:
            self._latched |= self.EMPTY if value & 1 else 0
        elif offset == self.INT_CLR:
            self._latched &= ~value
            if self.received:  # more packets wait
                self._latched |= self.RECEIVED
        else:
            super().write(offset, value)


class RtcControl(RegisterBlock):
    """RTC controller and, in the same page, the efuse block (from 0x800). Software resets, the reset cause, the RTC
    watchdog. The super watchdog is taken as fed: its register keeps what is written."""

    OPTIONS0, RESET_STATE = 0x00, 0x38
    TIME_UPDATE, TIME_LOW, TIME_HIGH = 0x0C, 0x10, 0x14
    EFUSE_CMD = 0x9D4
    SW_SYS_RST, SW_CPU_RST = 1 << 31, 1 << 5
    STORES = (0x50, 0x54, 0x58, 0x5C, 0xB8, 0xBC, 0xC0, 0xC4)
    """Scratch registers that survive every reset but power-on."""

    def __init__(self, now: Callable[[], float], efuse: Mapping[int, int], cause: int, kept: Mapping[int, int]) -> None:
        super().__init__()
        self._efuse = efuse
        self._now, self._zero = now, now()
        self.requested_reset: int | None = None
        self.stored.update({offset: kept.get(offset, 0) for offset in self.STORES})
        self.stored[self.RESET_STATE] = cause
        self.watchdog = Watchdog(
            now,
            stages=(28, 25, 22, 19),
            width=3,
            causes={2: rom.RTCWDT_CPU, 3: rom.RTCWDT_SYS, 4: rom.RTCWDT_RTC},
            boot_bit=1 << 12,
            boot_cause=rom.RTCWDT_RTC,
            boot_mode=True,
            hold=200_000,
            hz=SLOW_HZ,
            unlocked=False,
        )

    def read(self, offset: int) -> int:
        if offset >= 0x800:
            return 0 if offset == self.EFUSE_CMD else self._efuse.get(0x60008000 + offset, 0)
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == self.RESET_STATE or offset >= 0x800:
            return  # read-only
        if offset == self.OPTIONS0:
            if value & self.SW_SYS_RST:
                self.requested_reset = rom.SW_SYS
            elif value & self.SW_CPU_RST:
                self.requested_reset = rom.SW_CPU
            value &= ~(self.SW_SYS_RST | self.SW_CPU_RST)
        elif offset == 0xA8:
            self.watchdog.unlocked = value == WDT_KEY
        elif offset == 0x90:
            self.watchdog.configure(value)
        elif 0x94 <= offset <= 0xA0:
            self.watchdog.hold((offset - 0x94) // 4, value)
        elif offset == 0xA4 and value & 1 << 31:
            self.watchdog.feed()
        elif offset == self.TIME_UPDATE and value & 1 << 31:
            ticks = int((self._now() - self._zero) * SLOW_HZ)
            self.stored[self.TIME_LOW], self.stored[self.TIME_HIGH] = ticks & 0xFFFFFFFF, ticks >> 32
        elif offset == 0xAC and self.stored.get(0xB0) != SWD_KEY:
            return
        super().write(offset, value)


class System(RegisterBlock):
    """System registers. Modelled are the interrupts that the CPU raises itself (SYSTEM_CPU_INTR_FROM_CPU), and which
    clock the bus has."""

    FROM_CPU = (0x28, 0x2C, 0x30, 0x34)
    CLOCK = 0x58

    def __init__(self) -> None:
        super().__init__()
        self.stored[self.CLOCK] = 40 << 12 | 1

    def apb_hz(self) -> float:
        """80 MHz from the PLL; from the crystal, as the ROM leaves it, 40."""
        return APB_HZ if self.stored.get(self.CLOCK, 0) >> 10 & 3 == 1 else XTAL_HZ

    @property
    def interrupting(self) -> list[int]:
        """Active sources."""
        return [s for s, at in zip(FROM_CPU_SOURCES, self.FROM_CPU, strict=True) if self.stored.get(at, 0) & 1]


class InterruptMatrix(RegisterBlock):
    """Routes interrupt sources to the 31 lines of the CPU. A line of level type is pending while a source is active,
    one of edge type from the moment when a source becomes active until it is cleared."""

    ENABLE, TYPE, CLEAR, PENDING, PRIORITY, THRESHOLD = 0x104, 0x108, 0x10C, 0x110, 0x114, 0x194

    def __init__(self) -> None:
        super().__init__()
        self._active: frozenset[int] = frozenset()
        self._edges = 0

    def read(self, offset: int) -> int:
        return self._pending() if offset == self.PENDING else super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == self.CLEAR:
            self._edges &= ~value
        elif offset != self.PENDING:
            super().write(offset, value)

    def _line(self, source: int) -> int:
        return self.stored.get(4 * source, 0) & 0x1F

    def _pending(self) -> int:
        types = self.stored.get(self.TYPE, 0)
        levels = 0
        for source in self._active:
            levels |= 1 << self._line(source)
        return (levels & ~types | self._edges & types) & ~1

    def raise_sources(self, sources: Iterable[int]) -> None:
        """These sources are active now, and no other."""
        active = frozenset(sources)
        if active == self._active:
            return
        for source in active - self._active:
            self._edges |= 1 << self._line(source)
        self._active = active

    def line(self) -> int | None:
        """The line with the highest priority that is raised, the lowest of several; None when all are masked. A
        priority below the threshold is masked, and 0 always."""
        if not self._active and not self._edges:
            return None
        waiting = self._pending() & self.stored.get(self.ENABLE, 0)
        if not waiting:
            return None
        threshold = max(self.stored.get(self.THRESHOLD, 0), 1)
        best = None
        while waiting:
            number = (waiting & -waiting).bit_length() - 1
            waiting &= waiting - 1
            priority = self.stored.get(self.PRIORITY + 4 * number, 0) & 0xF
            if priority >= threshold:
                best, threshold = number, priority + 1
        return best


class MmuTable(RegisterBlock):
    """128 entries of the flash mapping: flash page number, bit 8 set when invalid."""

    ENTRIES = 128
    INVALID = 1 << 8

    def __init__(self) -> None:
        super().__init__()
        self.stored.update({4 * index: self.INVALID for index in range(self.ENTRIES)})
        self.changed = False
        """Since the owner looked last."""

    def write(self, offset: int, value: int) -> None:
        if offset < 4 * self.ENTRIES:
            value &= self.INVALID | 0xFF
            self.changed = self.changed or self.stored[offset] != value
            super().write(offset, value)

    def flash_page(self, index: int) -> int | None:
        entry = self.stored[4 * index]
        return None if entry & self.INVALID else entry & 0xFF


class CacheControl(RegisterBlock):
    """The external memory controller: the bus gates (ICACHE_CTRL1), and operations, which are done at once."""

    CTRL1, LOCK, SYNC, PRELOAD, AUTOLOAD, STATE, FREEZE = 0x04, 0x1C, 0x28, 0x34, 0x40, 0xB0, 0xCC
    DONE: Mapping[int, int] = {LOCK: 1 << 2, SYNC: 1 << 1, PRELOAD: 1 << 1, AUTOLOAD: 1 << 3, STATE: 1}

    def __init__(self) -> None:
        super().__init__()
        self.stored[self.CTRL1] = 3
        self.invalidated = False
        """Since the owner looked last."""

    def read(self, offset: int) -> int:
        value = super().read(offset)
        if offset == self.FREEZE:
            return value & ~(1 << 2) | (value & 1) << 2
        return value | self.DONE.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if offset == self.SYNC and value & 1:
            self.invalidated = True
            value &= ~1
        super().write(offset, value)

    @property
    def shut(self) -> bool:
        """Is the instruction bus (bit 0) or the data bus (bit 1) closed?"""
        return bool(self.stored[self.CTRL1] & 3)
