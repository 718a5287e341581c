"""What somebody means who moves DTR and RTS from afar, one at a time and late.

Pure. A reset circuit has two transistors: RTS alone holds the chip in reset (EN), DTR alone its boot pin (IO0), both
together nothing. A flasher goes from reset over "both" to the boot pin; on a wire that takes a microsecond, over a
network tens of milliseconds, in which the chip would start its application: so there nothing is done until one of the
two is released. Whoever only opens a port asserts DTR, then RTS: that shall press no button, and "both" shall never be
put on the wires, where its end would be a reset. Does not know ports or clocks. Invariant: what comes out is never the
same twice in a row, and BOOT_PIN only after RESET.
"""

from __future__ import annotations

from enum import StrEnum


class LineMeaning(StrEnum):
    """Of two lines together."""

    REST = "rest"
    RESET = "reset"
    BOOT_PIN = "boot-pin"


class LineIntent:
    """Feed it the lines as a client sets them."""

    def __init__(self) -> None:
        self.now = LineMeaning.REST
        self.held = False
        """Were both asserted while the chip was in reset? It stays there until one is released, or `give_up`."""

    def wants(self, dtr: bool, rts: bool) -> LineMeaning | None:
        """What is to be done now; None: nothing."""
        self.held = dtr and rts and self.now is LineMeaning.RESET
        if self.held:
            return None
        if rts and not dtr:
            return self._to(LineMeaning.RESET)
        if dtr and not rts and self.now is not LineMeaning.REST:
            return self._to(LineMeaning.BOOT_PIN)
        return self._to(LineMeaning.REST)

    def give_up(self) -> LineMeaning | None:
        """Nobody released one of them: both means none."""
        if not self.held:
            return None
        self.held = False
        return self._to(LineMeaning.REST)

    def _to(self, meaning: LineMeaning) -> LineMeaning | None:
        if meaning is self.now:
            return None
        self.now = meaning
        return meaning
