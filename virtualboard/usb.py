"""The chip's own USB port (USB-Serial/JTAG): what its DTR and RTS do, and a port that leaves and comes back.

Does not know boards, transports or bytes. Invariant: a port that is gone comes back at a known instant, and each time
it does `generation` has grown, so that whoever held it can tell.
"""

from __future__ import annotations


class Plug:
    """Whether the host sees the port. `generation` counts enumerations; `names` how often it took a new name."""

    def __init__(self) -> None:
        self.generation = 0
        self.names = 0
        self._back_at: float | None = None

    def vanish(self, now: float, for_s: float, *, renamed: bool = False) -> None:
        """The port goes away and comes back after `for_s`. Gone already: it stays away as long as the later asks."""
        self.generation += 1
        self.names += renamed
        self._back_at = max(now + for_s, self._back_at or 0.0)

    def present(self, now: float) -> bool:
        """Whether the port is there."""
        if self._back_at is not None and self._back_at <= now:
            self._back_at = None
        return self._back_at is None

    @property
    def back_at(self) -> float | None:
        """When a port that was gone at the last look comes back."""
        return self._back_at


class JtagLines:
    """DTR and RTS of USB-Serial/JTAG as the technical reference manuals of ESP32-C3 and -S3 tabulate them:
    RTS alone resets the chip, DTR alone makes the next reset end in download mode, none takes that back, both
    together do nothing. There is no capacitor and no level: the reset is a pulse."""

    def __init__(self) -> None:
        self.download = False
        self._resetting = False

    def change(self, dtr: bool, rts: bool) -> bool:
        """The lines are now so; answers whether the chip is reset."""
        was, self._resetting = self._resetting, rts and not dtr
        if not rts:
            self.download = dtr
        return self._resetting and not was
