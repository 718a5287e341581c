"""The ESP32-C3's timer groups: a general-purpose timer, a watchdog, and the calibration of slow clocks.

Knows registers and instants; does not know the CPU or who is interrupted. Time comes in as `now` (seconds, any epoch,
never back); nothing here waits. Invariant: a block's state changes only by `write` and by `advance`, so that equal
inputs at equal instants give equal outputs.

Addresses and reset values: ESP32-C3 Technical Reference Manual, chapters 11 and 12; ESP-IDF, `soc/esp32c3`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from virtualboard import rom
from virtualboard.rv32_registers import RegisterBlock
from virtualboard.rv32_timers import APB_HZ, WDT_KEY, XTAL_HZ, Watchdog


class _Counter:
    """The general-purpose timer of a group."""

    EN, INCREASE, RELOAD, ALARM, XTAL = 1 << 31, 1 << 30, 1 << 29, 1 << 10, 1 << 9
    MASK = (1 << 54) - 1

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.config = 0x60002000
        self._value, self._since = 0, 0.0

    @property
    def _hz(self) -> float:
        return (XTAL_HZ if self.config & self.XTAL else APB_HZ) / max(self.config >> 13 & 0xFFFF, 2)

    @property
    def value(self) -> int:
        if not self.config & self.EN:
            return self._value
        passed = int((self._now() - self._since) * self._hz)
        return self._value + (passed if self.config & self.INCREASE else -passed) & self.MASK

    def configure(self, value: int) -> None:
        self.load(self.value)
        self.config = value

    def load(self, value: int) -> None:
        self._value, self._since = value, self._now()

    def reaches(self, target: int) -> float | None:
        """When it comes to `target`; None when it does not, or nobody waits for it."""
        if not self.config & self.EN or not self.config & self.ALARM:
            return None
        ticks = target - self._value if self.config & self.INCREASE else self._value - target
        return self._since + max(ticks, 0) / self._hz


class TimerGroup(RegisterBlock):
    """A timer group: the timer T0, the watchdog, and the calibration of slow clocks, which ends at once."""

    CONFIG, VALUE_LO, VALUE_HI, UPDATE, ALARM_LO, ALARM_HI, LOAD_LO, LOAD_HI, LOAD = range(0x00, 0x24, 4)
    WDT, CALIBRATION, CALIBRATED, TIMEOUT = 0x48, 0x68, 0x6C, 0x80
    INT_ENA, INT_RAW, INT_ST, INT_CLR = 0x70, 0x74, 0x78, 0x7C
    T0, DOG = 1 << 0, 1 << 1
    SLOW_HZ = (136_000, 17_500_000 // 256)
    """Of the RC oscillators. There is no 32 kHz crystal: its calibration times out."""

    def __init__(self, now: Callable[[], float], group: int, apb_hz: Callable[[], float]) -> None:
        super().__init__()
        system, cpu = ((rom.TG0WDT_SYS, rom.TG0WDT_CPU), (rom.TG1WDT_SYS, rom.TG1WDT_CPU))[group]
        self._now, self._apb_hz = now, apb_hz
        self._raw = 0
        self._warned = False
        self._look_at = math.inf  # when the next thing is due here
        self._counter = _Counter(now)
        self._prescaler = 1
        self.watchdog = Watchdog(
            now,
            stages=(29, 27, 25, 23),
            width=2,
            causes={2: cpu, 3: system},
            boot_bit=1 << 14,
            boot_cause=system,
            boot_mode=group == 0,
            hold=26_000_000,
            hz=XTAL_HZ,
            unlocked=True,
        )

    def read(self, offset: int) -> int:
        if offset == self.INT_RAW:
            return self._raw
        if offset == self.INT_ST:
            return self._raw & self.stored.get(self.INT_ENA, 0)
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        super().write(offset, value)
        if offset == 0x64:
            self.watchdog.unlocked = value == WDT_KEY
        elif self.WDT <= offset <= 0x60:
            self._write_watchdog(offset, value)
        elif offset <= self.LOAD:
            self._write_counter(offset, value)
        elif offset == self.CALIBRATION and value & (1 << 31 | 1 << 12):
            self._calibrate(value)
        elif offset == self.INT_CLR:
            self._raw &= ~value
            return
        self._plan()

    def _write_watchdog(self, offset: int, value: int) -> None:
        dog = self.watchdog
        if offset == self.WDT:
            dog.configure(value)
        elif offset == 0x4C and dog.unlocked:
            self._prescaler = max(value >> 16, 1)
        elif 0x50 <= offset <= 0x5C:
            dog.hold((offset - 0x50) // 4, value)
        elif offset == 0x60:
            dog.feed()
            self._warned = self._warned and not dog.unlocked
        dog.clock((XTAL_HZ if dog.config >> 21 & 1 else self._apb_hz()) / self._prescaler)

    def _write_counter(self, offset: int, value: int) -> None:
        counter = self._counter
        if offset == self.CONFIG:
            counter.configure(value)
        elif offset == self.UPDATE:
            self.stored[self.VALUE_LO], self.stored[self.VALUE_HI] = counter.value & 0xFFFFFFFF, counter.value >> 32
            self.stored[self.UPDATE] = 0
        elif offset == self.LOAD:
            counter.load(self._pair(self.LOAD_LO))

    def _pair(self, offset: int) -> int:
        return self.stored.get(offset + 4, 0) << 32 | self.stored.get(offset, 0)

    def _calibrate(self, value: int) -> None:
        clock, cycles = value >> 13 & 3, value >> 16 & 0x7FFF
        missing = clock >= len(self.SLOW_HZ)
        self.stored[self.TIMEOUT] = self.stored.get(self.TIMEOUT, 0) & ~1 | missing
        if not missing:
            self.stored[self.CALIBRATED] = int(cycles * XTAL_HZ / self.SLOW_HZ[clock]) << 7 | 1
            self.stored[self.CALIBRATION] = value | 1 << 15

    def advance(self) -> None:
        """Raise what is due."""
        now = self._now()
        if now < self._look_at:
            return
        due = self._counter.reaches(self._pair(self.ALARM_LO))
        if due is not None and due <= now:
            self._raw |= self.T0
            self._counter.configure(self._counter.config & ~_Counter.ALARM)
            if self._counter.config & _Counter.RELOAD:
                self._counter.load(self._pair(self.LOAD_LO))
        warning = self.watchdog.warning_at
        if warning is not None and warning <= now and not self._warned:
            self._warned = True
            self._raw |= self.DOG
        self._plan()

    def _plan(self) -> None:
        due = [self._counter.reaches(self._pair(self.ALARM_LO)), None if self._warned else self.watchdog.warning_at]
        self._look_at = min((at for at in due if at is not None), default=math.inf)

    @property
    def active(self) -> int:
        """Raw bits that are enabled."""
        return self._raw & self.stored.get(self.INT_ENA, 0)

    @property
    def interrupting(self) -> tuple[bool, bool]:
        """The timer, the watchdog."""
        return bool(self.active & self.T0), bool(self.active & self.DOG)

    @property
    def next_at(self) -> float | None:
        """When it will interrupt by itself."""
        enabled = self.stored.get(self.INT_ENA, 0)
        due = [self._counter.reaches(self._pair(self.ALARM_LO))] if enabled & self.T0 else []
        due += [self.watchdog.warning_at] if enabled & self.DOG and not self._warned else []
        return min((at for at in due if at is not None), default=None)
