"""The ESP32-C3's timers: the system timer with its alarms, watchdogs, timer groups.

Knows registers and instants; does not know the CPU or who is interrupted. Time comes in as `now` (seconds, any epoch,
never back); nothing here waits. Invariant: a block's state changes only by `write` and by `advance`, so that equal
inputs at equal instants give equal outputs.

Addresses and reset values: ESP32-C3 Technical Reference Manual, chapters 10 to 13, and ESP-IDF's `soc/esp32c3` headers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from virtualboard import rom
from virtualboard.rv32_registers import RegisterBlock

WDT_KEY = 0x50D83AA1
XTAL_HZ = 40_000_000.0
APB_HZ = 80_000_000.0


class _Unit:
    """One counter of the system timer."""

    def __init__(self, now: Callable[[], float], *, running: bool) -> None:
        self._now = now
        self._base = 0
        self._since: float | None = now() if running else None

    @property
    def running(self) -> bool:
        return self._since is not None

    @property
    def ticks(self) -> int:
        passed = 0.0 if self._since is None else self._now() - self._since
        return self._base + int(passed * Systimer.HZ) & (1 << 52) - 1

    def reaches(self, ticks: int) -> float | None:
        """Before it can have reached `ticks`; None while it stands."""
        return None if self._since is None else self._since + (ticks - self._base - 1) / Systimer.HZ

    def instant(self, ticks: int) -> float | None:
        """When it will have reached `ticks` for sure; None while it stands."""
        return None if self._since is None else self._since + (ticks - self._base + 1) / Systimer.HZ

    def switch(self, *, on: bool) -> None:
        if on != self.running:
            self.load(self.ticks, running=on)

    def load(self, ticks: int, *, running: bool | None = None) -> None:
        self._base = ticks
        self._since = self._now() if (self.running if running is None else running) else None


class Systimer(RegisterBlock):
    """The 16 MHz system timer: two counters, three alarms. The first counts from reset, the second when switched on."""

    HZ = 16_000_000
    CONF, UNIT_OP, INT_ENA, INT_RAW, INT_CLR, INT_ST = 0x00, (0x04, 0x08), 0x64, 0x68, 0x6C, 0x70
    VALUE_HI, VALUE_LO = (0x40, 0x48), (0x44, 0x4C)
    LOAD_HI, LOAD_LO, LOAD = (0x0C, 0x14), (0x10, 0x18), (0x5C, 0x60)
    ALARM_LOAD = (0x50, 0x54, 0x58)
    VALID = 1 << 29
    UPDATE = 1 << 30
    PERIODIC = 1 << 30

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self._raw = 0
        self._look_at = math.inf  # when the next alarm may be due
        self._units = (_Unit(now, running=True), _Unit(now, running=False))
        # An alarm that was never loaded compares with 0: it goes off as soon as it is switched on.
        self._alarms: list[int | None] = [0, 0, 0]
        self.stored[self.CONF] = 0x46000000

    def read(self, offset: int) -> int:
        if offset in self.UNIT_OP:
            return self.VALID
        if offset == self.INT_RAW:
            return self._raw
        if offset == self.INT_ST:
            return self._raw & self.stored.get(self.INT_ENA, 0)
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset in self.UNIT_OP:
            if value & self.UPDATE:
                unit = self.UNIT_OP.index(offset)
                ticks = self._units[unit].ticks
                self.stored[self.VALUE_HI[unit]] = ticks >> 32 & 0xFFFFF
                self.stored[self.VALUE_LO[unit]] = ticks & 0xFFFFFFFF
        elif offset == self.INT_CLR:
            self._raw &= ~value
        else:
            super().write(offset, value)
            self._configure(offset, value)
            self._plan()

    def _configure(self, offset: int, value: int) -> None:
        if offset in self.ALARM_LOAD:
            self._load_alarm(self.ALARM_LOAD.index(offset))
        elif offset in self.LOAD:
            unit = self.LOAD.index(offset)
            self._units[unit].load(self._word(self.LOAD_HI[unit]) << 32 | self._word(self.LOAD_LO[unit]))
        elif offset == self.CONF:
            for unit, bit in enumerate((30, 29)):
                self._units[unit].switch(on=bool(value >> bit & 1))

    def _word(self, offset: int) -> int:
        return self.stored.get(offset, 0)

    def _unit_of(self, alarm: int) -> _Unit:
        return self._units[self._word(0x34 + 4 * alarm) >> 31]

    def _period(self, alarm: int) -> int:
        conf = self._word(0x34 + 4 * alarm)
        return conf & 0x3FFFFFF if conf & self.PERIODIC else 0

    def _load_alarm(self, alarm: int) -> None:
        period = self._period(alarm)
        target = self._word(0x1C + 8 * alarm) << 32 | self._word(0x20 + 8 * alarm)
        self._alarms[alarm] = self._unit_of(alarm).ticks + period if period else target

    def _running(self, alarm: int) -> bool:
        return bool(self._word(self.CONF) >> (24 - alarm) & 1) and self._unit_of(alarm).running

    def advance(self) -> None:
        """Raise the alarms whose time has come."""
        if self._now() < self._look_at:
            return
        for alarm, due in enumerate(self._alarms):
            if due is None or not self._running(alarm):
                continue
            ticks = self._unit_of(alarm).ticks
            if ticks >= due:
                self._raw |= 1 << alarm
                period = self._period(alarm)
                self._alarms[alarm] = due + period * ((ticks - due) // period + 1) if period else None
        self._plan()

    def _plan(self) -> None:
        instants = [
            self._unit_of(alarm).reaches(ticks)
            for alarm, ticks in enumerate(self._alarms)
            if ticks is not None and self._running(alarm)
        ]
        self._look_at = min((at for at in instants if at is not None), default=math.inf)

    def interrupting(self, alarm: int) -> bool:
        return bool(self._raw & self.stored.get(self.INT_ENA, 0) & 1 << alarm)

    @property
    def next_at(self) -> float | None:
        """When the next alarm with an enabled interrupt goes off."""
        enabled = self.stored.get(self.INT_ENA, 0)
        instants = [
            self._unit_of(alarm).instant(ticks)
            for alarm, ticks in enumerate(self._alarms)
            if ticks is not None and self._running(alarm) and enabled >> alarm & 1
        ]
        return min((at for at in instants if at is not None), default=None)


class Watchdog:
    """A four-stage watchdog behind a write-protection key. `stages` are (shift, width) of the action fields in
    config0, `causes` the reset cause of each action. In flash boot mode, which the ROM leaves on, stage 0 resets
    with `boot_cause`."""

    ENABLE = 1 << 31
    INTERRUPT = 1

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
        self._holds = [hold, 0, 0, 0]
        self._hz = hz
        self.unlocked = unlocked
        self._fed_at = now()
        self.bite: tuple[float, int] | None = None
        """(instant, reset cause) of the reset that comes unless it is fed; None when there is none to come."""
        self.warning_at: float | None = None
        """When its first stage that interrupts ends; None when there is none before a reset."""
        self._plan()

    def configure(self, value: int) -> None:
        if self.unlocked:
            if value & self.ENABLE and not self.config & self.ENABLE:
                self._fed_at = self._now()
            self.config = value
            self._plan()

    def stop(self) -> None:
        """Neither enabled nor in flash boot mode, whatever the key."""
        self.config = 0
        self._plan()

    def hold(self, stage: int, ticks: int) -> None:
        if self.unlocked:
            self._holds[stage] = ticks
            self._plan()

    def feed(self) -> None:
        if self.unlocked:
            self._fed_at = self._now()
            self._plan()

    def clock(self, hz: float) -> None:
        """What it counts with."""
        if hz != self._hz:
            self._hz = hz
            self._plan()

    def _plan(self) -> None:
        self.bite, self.warning_at = None, None
        if not self.config & self.ENABLE:
            if self.config & self._boot_bit:
                self.bite = self._fed_at + self._holds[0] / self._hz, self._boot_cause
            return
        for at, action in self._ends():
            if action in self._causes:
                self.bite = at, self._causes[action]
                return
            if action == self.INTERRUPT and self.warning_at is None:
                self.warning_at = at

    def _ends(self) -> list[tuple[float, int]]:
        """When each stage ends, and what it does then."""
        ends, ticks = [], 0
        for shift, hold in zip(self._stages, self._holds, strict=True):
            ticks += hold
            ends.append((self._fed_at + ticks / self._hz, self.config >> shift & self._mask))
        return ends


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
