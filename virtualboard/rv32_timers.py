"""The ESP32-C3's system timer with its alarms, and what a watchdog is.

Knows registers and instants; does not know the CPU or who is interrupted. Time comes in as `now` (seconds, any epoch,
never back); nothing here waits. Invariant: a block's state changes only by `write` and by `advance`, so that equal
inputs at equal instants give equal outputs.

Addresses and reset values: ESP32-C3 Technical Reference Manual, chapters 10 to 13, and ESP-IDF's `soc/esp32c3` headers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

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
