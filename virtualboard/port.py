"""A virtual board as a pyserial-like object in this process: no thread, no descriptor, and waiting costs no time.

The chip runs inside `read`, `write`, `in_waiting` and the line changes, where it first does what was due since the last
call, each at its own instant. When a read finds that nothing will come for a while, the clock's skew moves forward
instead of waiting, so modelled waits count in `now()` but are not waited for.
Does not know the loader or the CPU. Invariant: a read with a timeout ends at its deadline on the board's clock, even
when the firmware computes for ever, because executing takes clock time too.

A port that vanishes raises as pyserial does; `close` it, and `open` it once it is back. Where it came back under
another name, `current_name` tells what looking for its serial number would, and `port` must be set to it first.

esptool accepts the object as its `port=`; its name begins with `rfc2217:` so that esptool changes one line after the
other (ClassicReset) and does not ask for a descriptor.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from virtualboard.active_faults import ActiveFaults
from virtualboard.board import DEFAULT_BAUD, Board, Mode
from virtualboard.cable import Cable
from virtualboard.chip_table import chip_named
from virtualboard.chips import VIRGIN, Security, burnt, parse_mac
from virtualboard.faults import Fault, parse_fault
from virtualboard.machine import executing
from virtualboard.nor import NorFlash
from virtualboard.rom_elf import RomElf
from virtualboard.timing import Timing, parse_timing

DEFAULT_MAC = "7c:df:a1:00:11:22"
DEFAULT_FLASH_SIZE = 0x400000


# What the chip may catch up with in one call: instants at which something was due, and slices of code. The host runs
# code slower than the chip, so that a firmware which never rests is not caught up but taken for slower.
_MAX_STEPS = 2000
_MAX_BUSY = 20


class PortClosed(OSError):
    """The port is not open, or a read could never end."""


def _gone(message: str) -> OSError:
    """What pyserial raises when a port is unplugged; a PortClosed where pyserial is not installed."""
    try:
        from serial import SerialException
    except ImportError:
        return PortClosed(message)
    gone: OSError = SerialException(message)
    return gone


class BoardClock:
    """Host time plus a skew that only grows. `host` must be monotonic seconds."""

    def __init__(self, host: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._skew = 0.0
        self._pinned: float | None = None

    def now(self) -> float:
        """Seconds on the board's clock."""
        return self._host() + self._skew if self._pinned is None else self._pinned

    def pin(self, instant: float | None) -> None:
        """Stand at an instant that has passed, until None lets the clock go on."""
        self._pinned = instant

    @property
    def skew_s(self) -> float:
        """Seconds that this clock is ahead of the host's: the waits that were modelled instead of slept."""
        return self._skew

    def wait(self, seconds: float) -> None:
        """Let time pass while no port is open to wait on."""
        self.advance_to(self.now() + seconds)

    def advance_to(self, instant: float) -> None:
        """Move forward to `instant`; an instant that has passed changes nothing."""
        self._skew += max(0.0, instant - self.now())
        while self.now() < instant:  # the sum was rounded down
            self._skew = math.nextafter(self._skew, math.inf)


class VirtualPort:
    """pyserial's surface over `board`. Opens at once, with both lines asserted.

    A board that is off has its power from then on. What it does is found out when somebody first looks: one that is
    held in reset before that, as a deploy does, need not execute a boot that nobody sees.

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
        self.on_sent: Callable[[bytes], object] = lambda data: None
        """Told what goes to the host, as it is sent."""
        self.cable = Cable(board, clock.now, self._sent)
        self.clock = clock
        self.timeout: float | None = None
        self.write_timeout: float | None = None
        self.port = self.current_name
        self.is_open = False
        self._opener = opener
        self._closer = closer
        self._fresh = True  # the board given to the constructor has not been opened yet
        self._waits_for_power = False
        self._baud = DEFAULT_BAUD
        self._received = bytearray()
        self._generation = 0
        self._reached = clock.now()  # how far the board has come
        self._dtr = self._rts = True
        self.open()

    # --- open and close ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name under which the port is opened."""
        return self.port

    @property
    def portstr(self) -> str:
        """pyserial's old name of `name`."""
        return self.port

    @property
    def current_name(self) -> str:
        """The name under which the board is there, or will be when it is back."""
        names = self.board.plug.names
        return f"rfc2217:virtual-{self.board.chip.name}" + (f"-{names + 1}" if names else "")

    def open(self) -> None:
        """Open; asserts DTR and RTS together, which does not reset the chip.

        Raises pyserial's SerialException (an OSError) while the port is gone or has another name.
        """
        if self.is_open:
            raise PortClosed("the virtual port is already open")
        plug = self.board.plug
        if not plug.present(self.clock.now()):
            raise _gone(f"could not open port {self.port}: the board is unplugged")
        if self.port != self.current_name:
            raise _gone(f"could not open port {self.port}: the board is {self.current_name} now")
        if self._opener is not None and not self._fresh:
            self.board = self._opener()
            self.board.plug = plug
            self.cable = Cable(self.board, self.clock.now, self._sent)
        self._fresh = False
        self._waits_for_power = self.board.mode is Mode.OFF
        self.is_open = True
        self._generation = plug.generation
        self._reached = self.clock.now()
        self._received.clear()
        self._dtr = self._rts = True
        self.cable.set_baud(self._baud)
        self.cable.set_lines(True, True)
        if self._waits_for_power and self.board.faults.texts:
            # A fault may wait for the boot that a reset would spare.
            self._waits_for_power = False
            self.board.power_on()

    def close(self) -> None:
        """Drop both lines at once, as a closed tty does, and release the board. Idempotent."""
        if self.is_open:
            self.is_open = False
            self.cable.unplug()
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
        if len(self._received) < size:
            self._pump()
        else:
            self._require_open()
        while len(self._received) < size:
            now = self.clock.now()
            if deadline is not None and now >= deadline:
                break
            wake = self.cable.wake_at()
            if wake is None and deadline is None:
                raise PortClosed("the virtual board waits for input and this read has no timeout: it would never end")
            instants = [t for t in (wake, deadline) if t is not None]
            self.clock.advance_to(min(instants))
            self._pump()
        out = bytes(self._received[:size])
        del self._received[:size]
        return out

    def write(self, data: bytes) -> int:
        """Send; returns the number of bytes. Where the line takes time, returns when the driver's buffer has room."""
        self._require_open()
        self.cable.receive(bytes(data))
        self._pump()
        while self.cable.full:
            self._wait_until(self.cable.wake_at())
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
        if self._waits_for_power:
            self._require_open()
            return
        self._pump()
        self._received.clear()

    def reset_output_buffer(self) -> None:
        """Nothing is ever waiting to be sent."""
        self._require_open()

    flushInput = reset_input_buffer
    flushOutput = reset_output_buffer

    def flush(self) -> None:
        """Wait until everything written is on the other side."""
        self._require_open()
        while (drained_at := self.cable.drained_at()) is not None:
            self._wait_until(min(drained_at, self.cable.wake_at() or drained_at))

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
            if not self._waits_for_power:
                self._pump()
            self.cable.set_baud(value)
        self._baud = value

    def now_s(self) -> float:
        """The board's clock, for stamping what was read."""
        return self.clock.now()

    def _set_lines(self, dtr: bool, rts: bool) -> None:
        self._require_open()
        if self._waits_for_power and rts and not dtr:  # whatever it did is lost
            self.cable.set_lines(dtr, rts)
        self._pump()
        self._dtr, self._rts = dtr, rts
        # At the one instant that the board has come to: a host that is kept waiting inside this call would find the
        # strap sampled, and the boot begun, before whoever changed the lines can do anything else.
        self.clock.pin(self._reached)
        try:
            self.cable.set_lines(dtr, rts)
        finally:
            self.clock.pin(None)

    def _wait_until(self, instant: float | None) -> None:
        if instant is not None:
            self.clock.advance_to(instant)
        self._pump()

    def _pump(self) -> None:
        """Let the chip do what was due up to now; executing moves the clock by at least the chip's own time for it."""
        self._require_open()
        end = self.clock.now()
        at = min(self._reached, end)
        try:
            if self._waits_for_power:
                self._waits_for_power = False
                self.clock.pin(at)  # it has had its power since the port was opened
                if self.board.mode is Mode.OFF:  # else a supply that was gone has come back, and it has booted
                    self.board.power_on()
            at = self._catch_up(at, end)
        finally:
            self.clock.pin(None)
        self.clock.advance_to(at)
        self._reached = max(at, end)

    def _catch_up(self, at: float, end: float) -> float:
        busy = steps = 0
        while True:
            self.clock.pin(at)
            wake = self.cable.wake_at()
            if wake is None or max(at, wake) > end:
                break
            if steps == _MAX_STEPS or busy == _MAX_BUSY:
                self.board.lag(end - at)
                break
            steps += 1
            at = max(at, wake)
            at += self._step(at)
            busy += wake <= at
        return max(at, end) + self._step(max(at, end))

    def _step(self, at: float) -> float:
        """Let the board be at `at`; seconds that it took to execute."""
        self.clock.pin(at)
        before = self.board.executed
        self.cable.advance()
        self._received += self.cable.transmit()
        return (self.board.executed - before) / self.board.chip.cpu_hz

    def _sent(self, data: bytes) -> None:
        self.on_sent(data)

    def _require_open(self) -> None:
        if not self.is_open:
            raise PortClosed("the virtual port is not open")
        plug = self.board.plug
        if plug.generation != self._generation or not plug.present(self.clock.now()):
            raise _gone("device reports readiness to read but returned no data: the board was unplugged")


def open_virtual(
    chip: str,
    flash: Path,
    mac: str = DEFAULT_MAC,
    flash_size: int = DEFAULT_FLASH_SIZE,
    *,
    execute: bool = True,
    timing: str | Timing = "instant",
    usb: bool = False,
    faults: Iterable[str | Fault] = (),
    security: Security = VIRGIN,
    rom_elf: RomElf | None = None,
) -> VirtualPort:
    """A board of its own behind an open port: powered on at each open, flash in (and locked by) the file `flash`.

    `timing` is a profile, its overrides after commas (`timing.parse_timing`); `usb` makes the port the chip's own
    USB-Serial/JTAG; `faults` are in the grammar of `faults.parse_fault`, and one that has struck is spent for good;
    `security` is what is burnt into the chip's efuses; `rom_elf` (`rom_elf.rom_elf_of`) is the mask ROM that firmware
    finds, where the chip executes.
    Raises KeyError for an unknown chip, `nor.BoardBusy` when another board holds the file, `nor.FlashError` when the
    file does not fit, `chips.UnknownMac`, `chips.UnknownSecurity`, `timing.BadTiming`,
    `faults.BadFault`.
    """
    clock = BoardClock()
    parse_mac(mac)  # before the file is created or locked
    model = burnt(chip_named(chip), security)
    times = parse_timing(timing) if isinstance(timing, str) else timing
    active = ActiveFaults(parse_fault(fault) if isinstance(fault, str) else fault for fault in faults)

    def make() -> Board:
        return Board(
            model,
            NorFlash(flash_size, flash),
            mac,
            clock.now,
            execute,
            machine_factory=executing(rom_elf),
            timing=times,
            usb=usb,
            faults=active,
        )

    return VirtualPort(make(), clock, opener=make, closer=lambda board: board.flash.close())
