"""A serial port that nobody waits at beyond an instant.

Knows the calls of a pyserial-like port that can wait; the rest goes through. Invariant: after the instant every call
that reaches the board raises TimeIsUp, and a read that is under way then ends at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.device.rom_loader import set_timeout


class TimeIsUp(RuntimeError):
    """The instant has passed."""


class TimedPort:
    """`real` until `until_s` on the clock `now`."""

    def __init__(self, port: Any, now: Callable[[], float], until_s: float) -> None:
        self.real = port
        self.timeout: float | None = None
        self._now = now
        self._until_s = until_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    @property
    def left_s(self) -> float:
        """Until the limit; never negative."""
        return max(0.0, self._until_s - self._now())

    def _in_time(self) -> Any:
        if not self.left_s:
            raise TimeIsUp("not done when the time was up")
        return self.real

    def read(self, size: int = 1) -> bytes:
        """As the port's, within `timeout` and the time that is left."""
        real = self._in_time()
        set_timeout(real, self.left_s if self.timeout is None else min(self.timeout, self.left_s))
        data: bytes = real.read(size)
        return data

    def close(self) -> None:
        """Not for whoever only uses it: esptool closes a port whose chip does not answer."""

    def write(self, data: bytes) -> Any:
        return self._in_time().write(data)

    def reset_input_buffer(self) -> None:
        self._in_time().reset_input_buffer()

    flushInput = reset_input_buffer

    def setDTR(self, value: bool = True) -> None:
        self._in_time().setDTR(value)

    def setRTS(self, value: bool = True) -> None:
        self._in_time().setRTS(value)

    @property
    def baudrate(self) -> int:
        return int(self.real.baudrate)

    @baudrate.setter
    def baudrate(self, baud: int) -> None:
        if self.real.baudrate != baud:
            self._in_time().baudrate = baud
