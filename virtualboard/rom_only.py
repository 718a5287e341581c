"""A chip whose firmware is not executed: its ROM reads and judges the image, prints its log, and that is all.

Stands in the CPU's place (`machine.Machine`) for chips without a CPU model, for boards started without one, and where
the CPU's package is missing. Does not know reset lines, the loader or transports; time is only what `now` says.
Invariant: an image that the ROM would refuse is refused, with the ROM's words, and tried again by the watchdog; one
that it would start ends in one line that says that nothing runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from virtualboard import rom
from virtualboard.chips import ChipModel
from virtualboard.nor import NorFlash


class RomOnly:
    """The ROM of `chip`. `reason` completes the line that follows where firmware would run."""

    usb = False
    """Which line is listened to: the ROM's log is on both."""

    def __init__(self, chip: ChipModel, flash: NorFlash, now: Callable[[], float], reason: str) -> None:
        self._chip, self._flash, self._now, self._reason = chip, flash, now, reason
        self._sent = bytearray()
        self._retry_at: float | None = None
        self._pending: int | None = None
        self._instead = ""

    @property
    def idle(self) -> bool:
        """There is nothing to do, unless an image has been loaded and would run now."""
        return not self._instead

    @property
    def wake_at(self) -> float | None:
        """When the watchdog ends a boot that hangs in the ROM."""
        return self._retry_at

    @property
    def pending_reset(self) -> int | None:
        """Cause of the reset that the watchdog has decided."""
        return self._pending

    def reset(self, cause: int) -> None:
        """What the ROM does from here to the entry of the image, or to its watchdog."""
        identity = self._chip.rom
        self._pending = self._retry_at = None
        self._instead = ""
        boot = rom.boot(self._flash.read, self._flash.size, cause, identity.saved_pc, identity)
        self._sent += boot.log
        if boot.entry is not None:
            self._instead = f"firmware is not executed: {self._reason}"
            return
        self._retry_at = self._now() + identity.retry_s

    def start(self, entry: int, _segments: Sequence[rom.RomSegment]) -> None:
        """A program in RAM."""
        self._pending = self._retry_at = None
        self._instead = ""
        self._say(f"the program at {entry:#010x} in RAM is not executed: {self._reason}")

    def feed(self, _data: bytes) -> None:
        """Nobody listens."""

    def run(self, _max_instructions: int) -> int:
        """Say what happens instead of running, and let the watchdog bite when it is due; executes nothing."""
        if self._instead:
            self._say(self._instead)
            self._instead = ""
        if self._retry_at is not None and self._retry_at <= self._now():
            self._retry_at, self._pending = None, self._chip.rom.retry_cause
        return 0

    def transmit(self) -> bytes:
        """Take what UART0 has sent since the last call."""
        sent = bytes(self._sent)
        self._sent.clear()
        return sent

    def _say(self, text: str) -> None:
        self._sent += f"virtualboard: {text}\r\n".encode()
