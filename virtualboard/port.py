"""A virtual board as a pyserial-like object in this process: no thread, no descriptor, and silence costs no time.

The chip runs inside `read`, `write`, `in_waiting` and the line changes. When a read finds that nothing will come for a
while, the clock's skew moves forward instead of waiting, so modelled waits count in `now()` but are not waited for.
Does not know the loader or the CPU. Invariant: a read with a timeout ends at its deadline on the board's clock, even
when the firmware computes for ever, because executing takes clock time too.

esptool accepts the object as its `port=`; its name begins with `rfc2217:` so that esptool changes one line after the
other (ClassicReset) and does not ask for a descriptor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from virtualboard.board import DEFAULT_BAUD, Board, Mode
from virtualboard.chips import CHIPS, parse_mac
from virtualboard.nor import NorFlash

DEFAULT_MAC = "7c:df:a1:00:11:22"
DEFAULT_FLASH_SIZE = 0x400000


class PortClosed(OSError):
    """The port is not open, or a read could never end."""


class BoardClock:
    """Host time plus a skew that only grows. `host` must be monotonic seconds."""

    def __init__(self, host: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._skew = 0.0

    def now(self) -> float:
        """Seconds on the board's clock."""
        return self._host() + self._skew

    @property
    def skew_s(self) -> float:
        """Seconds that this clock is ahead of the host's: the waits that were modelled instead of slept."""
        return self._skew

    def advance_to(self, instant: float) -> None:
        """Move forward to `instant`; an instant that has passed changes nothing."""
        self._skew += max(0.0, instant - self.now())


class VirtualPort:
    """pyserial's surface over `board`. Opens at once, with both lines asserted, and powers the board if it is off.

    `opener`, when given, makes a new powered board at each later `open`; `closer` releases what the board holds.
    """

    def __init__(
        self,
        board: Board,
        clock: BoardClock,
        *,
        opener: Callable[[], Board] | None = None,
        closer: Callable[[Board], None] | None = None,
    ) -> None:
        self.board = board
        self.clock = clock
        self.timeout: float | None = None
        self.write_timeout: float | None = None
        self.name = self.port = self.portstr = f"rfc2217:virtual-{board.chip.name}"
        self.is_open = False
        self._opener = opener
        self._closer = closer
        self._fresh = True  # the board given to the constructor has not been opened yet
        self._baud = DEFAULT_BAUD
        self._received = bytearray()
        self._dtr = self._rts = True
        self.open()

    # --- open and close ---------------------------------------------------------------------------

    def open(self) -> None:
        """Open; asserts DTR and RTS together, which does not reset the chip."""
        if self.is_open:
            raise PortClosed("the virtual port is already open")
        if self._opener is not None and not self._fresh:
            self.board = self._opener()
        self._fresh = False
        if self.board.mode is Mode.OFF:
            self.board.power_on()
        self.is_open = True
        self._received.clear()
        self._dtr = self._rts = True
        self.board.set_baud(self._baud)
        self.board.set_lines(True, True)

    def close(self) -> None:
        """Drop both lines at once, as a closed tty does, and release the board. Idempotent."""
        if self.is_open:
            self.is_open = False
            self.board.set_lines(False, False)
            if self._closer is not None:
                self._closer(self.board)

    def isOpen(self) -> bool:
        """pyserial's old name of `is_open`."""
        return self.is_open

    def __enter__(self) -> VirtualPort:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # --- bytes --------------------------------------------------------------------------------------

    def read(self, size: int = 1) -> bytes:
        """Up to `size` bytes; fewer only when `timeout` seconds of board time have passed.

        Raises PortClosed instead of waiting for ever: without a timeout, when the board will never send again.
        """
        deadline = None if self.timeout is None else self.clock.now() + self.timeout
        self._pump()
        while len(self._received) < size:
            now = self.clock.now()
            if deadline is not None and now >= deadline:
                break
            wake = self.board.wake_at()
            if wake is None and deadline is None:
                raise PortClosed("the virtual board waits for input and this read has no timeout: it would never end")
            instants = [t for t in (wake, deadline) if t is not None]
            self.clock.advance_to(min(instants))
            self._pump()
        out = bytes(self._received[:size])
        del self._received[:size]
        return out

    def write(self, data: bytes) -> int:
        """Send; returns the number of bytes. The chip handles them before this returns."""
        self._require_open()
        self.board.receive(bytes(data))
        self._pump()
        return len(data)

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read at once."""
        self._pump()
        return len(self._received)

    def inWaiting(self) -> int:
        """pyserial's old name of `in_waiting`."""
        return self.in_waiting

    def reset_input_buffer(self) -> None:
        """Forget what has arrived."""
        self._pump()
        self._received.clear()

    def reset_output_buffer(self) -> None:
        """Nothing is ever waiting to be sent."""
        self._require_open()

    flushInput = reset_input_buffer
    flushOutput = reset_output_buffer

    def flush(self) -> None:
        """Everything written has been sent already."""
        self._require_open()

    # --- lines and rate -----------------------------------------------------------------------------

    @property
    def dtr(self) -> bool:
        """Data Terminal Ready as set."""
        return self._dtr

    @dtr.setter
    def dtr(self, value: bool) -> None:
        self._set_lines(bool(value), self._rts)

    @property
    def rts(self) -> bool:
        """Request To Send as set."""
        return self._rts

    @rts.setter
    def rts(self, value: bool) -> None:
        self._set_lines(self._dtr, bool(value))

    def setDTR(self, value: bool = True) -> None:
        """pyserial's old name of setting `dtr`."""
        self.dtr = value

    def setRTS(self, value: bool = True) -> None:
        """pyserial's old name of setting `rts`."""
        self.rts = value

    @property
    def baudrate(self) -> int:
        """Bits per second."""
        return self._baud

    @baudrate.setter
    def baudrate(self, value: int) -> None:
        if self.is_open:
            self._pump()
            self.board.set_baud(value)
        self._baud = value

    def now_s(self) -> float:
        """The board's clock, for stamping what was read."""
        return self.clock.now()

    def _set_lines(self, dtr: bool, rts: bool) -> None:
        self._require_open()
        self._pump()
        self._dtr, self._rts = dtr, rts
        self.board.set_lines(dtr, rts)

    def _pump(self) -> None:
        """Let the chip do what is due; executing moves the clock by at least the chip's own time for it."""
        self._require_open()
        started, before = self.clock.now(), self.board.executed
        self.board.advance()
        self._received += self.board.transmit()
        executed = self.board.executed - before
        if executed:
            self.clock.advance_to(started + executed / self.board.chip.cpu_hz)

    def _require_open(self) -> None:
        if not self.is_open:
            raise PortClosed("the virtual port is not open")


def open_virtual(
    chip: str, flash: Path, mac: str = DEFAULT_MAC, flash_size: int = DEFAULT_FLASH_SIZE, *, execute: bool = True
) -> VirtualPort:
    """A board of its own behind an open port: powered on at each open, flash in (and locked by) the file `flash`.

    Raises KeyError for an unknown chip, `nor.BoardBusy` when another board holds the file, `nor.FlashError` when the
    file does not fit, `chips.UnknownMac`.
    """
    clock = BoardClock()
    parse_mac(mac)  # before the file is created or locked
    model = CHIPS[chip]

    def make() -> Board:
        return Board(model, NorFlash(flash_size, flash), mac, clock.now, execute)

    return VirtualPort(make(), clock, opener=make, closer=lambda board: board.flash.close())
