"""A pyserial-like port for tests of the service: what is fed to it is read, what is asked of it is listed."""

from __future__ import annotations

import errno
import threading
import time


class FakeSerial:
    """`feed` bytes, `vanish`, come back with `present = True`; `log` lists lines, rates and writes in order."""

    def __init__(self, name: str = "/dev/fake0") -> None:
        self.port = name
        self.is_open = True
        self.timeout: float | None = None
        self.present = True
        self.log: list[str] = []
        self.purged = 0
        self._pending = bytearray()
        self._changed = threading.Condition()
        self._woken = False
        self._baud = 115200
        self._dtr = self._rts = True

    # --- the test's side --------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """The board says this."""
        with self._changed:
            self._pending += data
            self._changed.notify_all()

    def vanish(self) -> None:
        with self._changed:
            self.present = False
            self._pending.clear()
            self._changed.notify_all()

    # --- pyserial's -------------------------------------------------------------------------------

    def open(self) -> None:
        if not self.present:
            raise OSError(errno.ENOENT, "no such port")
        self.is_open = True

    def close(self) -> None:
        with self._changed:
            self.is_open = False
            self._changed.notify_all()

    def cancel_read(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def read(self, size: int = 1) -> bytes:
        deadline = time.monotonic() + (self.timeout or 0)
        with self._changed:
            while not self._pending and not self._woken:
                self._check()
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    break
            self._woken = False
            self._check()
            data = bytes(self._pending[:size])
            del self._pending[:size]
            return data

    @property
    def in_waiting(self) -> int:
        self._check()
        return len(self._pending)

    def write(self, data: bytes) -> int:
        self._check()
        self.log.append(f"write {data!r}")
        return len(data)

    def reset_input_buffer(self) -> None:
        self.purged += 1

    def _check(self) -> None:
        if not self.present or not self.is_open:
            raise OSError(errno.ENODEV, "the port is gone")

    @property
    def baudrate(self) -> int:
        return self._baud

    @baudrate.setter
    def baudrate(self, baud: int) -> None:
        self._check()
        self._baud = baud
        self.log.append(f"baud {baud}")

    @property
    def dtr(self) -> bool:
        return self._dtr

    @dtr.setter
    def dtr(self, value: bool) -> None:
        self._check()
        self._dtr = value
        self.log.append(f"dtr {int(value)}")

    @property
    def rts(self) -> bool:
        return self._rts

    @rts.setter
    def rts(self, value: bool) -> None:
        self._check()
        self._rts = value
        self.log.append(f"rts {int(value)}")
