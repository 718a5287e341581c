"""The ESP32-C3's peripherals that firmware needs to boot, talk, wait and restart, as register blocks.

Knows registers and instants; does not know the CPU, flash or any transport. Time comes in as `now` (seconds, any
epoch, never back); nothing here waits. Invariant: a block's state changes only by `write`, by `advance` and by bytes
fed to the UART, so that equal inputs at equal instants give equal outputs.

Addresses and reset values: ESP32-C3 Technical Reference Manual and ESP-IDF's `soc/esp32c3` headers. A register that
is not modelled reads back what was written to it (0 before).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from virtualboard import rom

UART_SOURCE = 21
SYSTIMER_SOURCES = (37, 38, 39)
FROM_CPU_SOURCES = (50, 51, 52, 53)
"""Interrupt sources: index of their mapping register in the interrupt matrix."""

WDT_KEY = 0x50D83AA1
SWD_KEY = 0x8F1D312A


class RegisterBlock:
    """One 4 KiB page of registers. Offsets are within the page and word aligned; values are 32 bits."""

    def __init__(self) -> None:
        self.stored: dict[int, int] = {}

    def read(self, offset: int) -> int:
        return self.stored.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self.stored[offset] = value


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


class Systimer(RegisterBlock):
    """The 16 MHz system timer with its three alarms. Both counters are one: firmware that sets them apart is not
    modelled."""

    HZ = 16_000_000
    CONF, UNIT_OP, INT_ENA, INT_RAW, INT_CLR, INT_ST = 0x00, (0x04, 0x08), 0x64, 0x68, 0x6C, 0x70
    VALUE_HI, VALUE_LO = (0x40, 0x48), (0x44, 0x4C)
    VALID = 1 << 29
    UPDATE = 1 << 30
    PERIODIC = 1 << 30

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self._zero = now()
        self._raw = 0
        # An alarm that was never loaded compares with 0: it goes off as soon as it is switched on.
        self._alarms: list[int | None] = [0, 0, 0]
        self.stored[self.CONF] = 0x46000000

    def _ticks(self) -> int:
        return int((self._now() - self._zero) * self.HZ)

    def read(self, offset: int) -> int:
        if offset in self.UNIT_OP:
            return self.VALID
        if offset == self.INT_RAW:
            return self._raw
        if offset == self.INT_ST:
            return self._raw & self.stored.get(self.INT_ENA, 0)
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset in self.UNIT_OP and value & self.UPDATE:
            unit = self.UNIT_OP.index(offset)
            ticks = self._ticks()
            self.stored[self.VALUE_HI[unit]] = ticks >> 32 & 0xFFFFF
            self.stored[self.VALUE_LO[unit]] = ticks & 0xFFFFFFFF
        elif offset == self.INT_CLR:
            self._raw &= ~value
        else:
            super().write(offset, value)
            if offset in (0x50, 0x54, 0x58):
                self._load((offset - 0x50) // 4)

    def _period(self, alarm: int) -> int:
        conf = self.stored.get(0x34 + 4 * alarm, 0)
        return conf & 0x3FFFFFF if conf & self.PERIODIC else 0

    def _load(self, alarm: int) -> None:
        period = self._period(alarm)
        target = self.stored.get(0x1C + 8 * alarm, 0) << 32 | self.stored.get(0x20 + 8 * alarm, 0)
        self._alarms[alarm] = self._ticks() + period if period else target

    def _running(self, alarm: int) -> bool:
        return bool(self.stored.get(self.CONF, 0) >> (24 - alarm) & 1)

    def advance(self) -> None:
        """Raise the alarms whose time has come."""
        ticks = self._ticks()
        for alarm, due in enumerate(self._alarms):
            if due is not None and self._running(alarm) and ticks >= due:
                self._raw |= 1 << alarm
                period = self._period(alarm)
                self._alarms[alarm] = due + period * ((ticks - due) // period + 1) if period else None

    def interrupting(self, alarm: int) -> bool:
        return bool(self._raw & self.stored.get(self.INT_ENA, 0) & 1 << alarm)

    @property
    def next_at(self) -> float | None:
        """When the next alarm with an enabled interrupt goes off."""
        enabled = self.stored.get(self.INT_ENA, 0)
        due = [
            ticks
            for alarm, ticks in enumerate(self._alarms)
            if ticks is not None and self._running(alarm) and enabled >> alarm & 1
        ]
        return self._zero + (min(due) + 1) / self.HZ if due else None


class Watchdog:
    """A four-stage watchdog behind a write-protection key. `stages` are (shift, width) of the action fields in
    config0, `causes` the reset cause of each action. In flash boot mode, which the ROM leaves on, stage 0 resets
    with `boot_cause`."""

    ENABLE = 1 << 31

    def __init__(
        self,
        now: Callable[[], float],
        *,
        stages: tuple[int, ...],
        width: int,
        causes: Mapping[int, int],
        boot_bit: int,
        boot_cause: int,
        boot_mode: bool,
        hold: int,
        hz: float,
        unlocked: bool,
    ) -> None:
        self._now = now
        self._stages, self._mask, self._causes = stages, (1 << width) - 1, causes
        self._boot_bit, self._boot_cause = boot_bit, boot_cause
        self.config = boot_bit if boot_mode else 0
        self.holds = [hold, 0, 0, 0]
        self.hz = hz
        self.unlocked = unlocked
        self._fed_at = now()

    def configure(self, value: int) -> None:
        if self.unlocked:
            if value & self.ENABLE and not self.config & self.ENABLE:
                self._fed_at = self._now()
            self.config = value

    def hold(self, stage: int, ticks: int) -> None:
        if self.unlocked:
            self.holds[stage] = ticks

    def feed(self) -> None:
        if self.unlocked:
            self._fed_at = self._now()

    @property
    def bite(self) -> tuple[float, int] | None:
        """(instant, reset cause) of the reset that comes unless it is fed; None when there is none to come."""
        if not self.config & self.ENABLE:
            if self.config & self._boot_bit:
                return self._fed_at + self.holds[0] / self.hz, self._boot_cause
            return None
        ticks = 0
        for shift, hold in zip(self._stages, self.holds, strict=True):
            ticks += hold
            cause = self._causes.get(self.config >> shift & self._mask)
            if cause is not None:
                return self._fed_at + ticks / self.hz, cause
        return None


class TimerGroup(RegisterBlock):
    """A timer group, of which only the watchdog is modelled."""

    def __init__(self, now: Callable[[], float], group: int) -> None:
        super().__init__()
        system, cpu = ((rom.TG0WDT_SYS, rom.TG0WDT_CPU), (rom.TG1WDT_SYS, rom.TG1WDT_CPU))[group]
        self.watchdog = Watchdog(
            now,
            stages=(29, 27, 25, 23),
            width=2,
            causes={2: cpu, 3: system},
            boot_bit=1 << 14,
            boot_cause=system,
            boot_mode=group == 0,
            hold=26_000_000,
            hz=40_000_000.0,
            unlocked=True,
        )

    def write(self, offset: int, value: int) -> None:
        super().write(offset, value)
        if offset == 0x64:
            self.watchdog.unlocked = value == WDT_KEY
        elif offset == 0x48:
            self.watchdog.configure(value)
        elif offset == 0x4C and self.watchdog.unlocked:
            self.watchdog.hz = 40_000_000.0 / max(value >> 16, 1)
        elif 0x50 <= offset <= 0x5C:
            self.watchdog.hold((offset - 0x50) // 4, value)
        elif offset == 0x60:
            self.watchdog.feed()


class RtcControl(RegisterBlock):
    """RTC controller and, in the same page, the efuse block (from 0x800). Software resets, the reset cause, the RTC
    watchdog. The super watchdog is taken as fed: its register keeps what is written."""

    OPTIONS0, RESET_STATE = 0x00, 0x38
    SW_SYS_RST, SW_CPU_RST = 1 << 31, 1 << 5
    STORES = (0x50, 0x54, 0x58, 0x5C, 0xB8, 0xBC, 0xC0, 0xC4)
    """Scratch registers that survive every reset but power-on."""

    def __init__(self, now: Callable[[], float], efuse: Mapping[int, int], cause: int, kept: Mapping[int, int]) -> None:
        super().__init__()
        self._efuse = efuse
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
            hz=136_000.0,
            unlocked=False,
        )

    def read(self, offset: int) -> int:
        if offset >= 0x800:
            return self._efuse.get(0x60008000 + offset, 0)
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
        elif offset == 0xAC and self.stored.get(0xB0) != SWD_KEY:
            return
        super().write(offset, value)


class System(RegisterBlock):
    """System registers. Modelled are the interrupts that the CPU raises itself (SYSTEM_CPU_INTR_FROM_CPU)."""

    FROM_CPU = (0x28, 0x2C, 0x30, 0x34)

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

    def pending_line(self, sources: list[int]) -> int | None:
        """The line with the highest priority that one of the active `sources` raises, the lowest of several; None when
        all are masked. A priority below the threshold is masked, and 0 always."""
        active = frozenset(sources)
        for source in active - self._active:
            self._edges |= 1 << self._line(source)
        self._active = active
        waiting = self._pending() & self.stored.get(self.ENABLE, 0)
        if not waiting:
            return None
        threshold = max(self.stored.get(self.THRESHOLD, 0), 1)
        priorities = {n: self.stored.get(self.PRIORITY + 4 * n, 0) & 0xF for n in range(1, 32) if waiting >> n & 1}
        best = max(priorities, key=lambda n: (priorities[n], -n))
        return best if priorities[best] >= threshold else None


class MmuTable(RegisterBlock):
    """128 entries of the flash mapping: flash page number, bit 8 set when invalid."""

    ENTRIES = 128
    INVALID = 1 << 8

    def __init__(self) -> None:
        super().__init__()
        self.stored.update({4 * index: self.INVALID for index in range(self.ENTRIES)})

    def flash_page(self, index: int) -> int | None:
        entry = self.stored[4 * index]
        return None if entry & self.INVALID else entry & 0xFF


class CacheControl(RegisterBlock):
    """The external memory controller, of which the bus gates are modelled (ICACHE_CTRL1)."""

    CTRL1 = 4

    def __init__(self) -> None:
        super().__init__()
        self.stored[self.CTRL1] = 3

    @property
    def shut(self) -> bool:
        """Is the instruction bus (bit 0) or the data bus (bit 1) closed?"""
        return bool(self.stored[self.CTRL1] & 3)
