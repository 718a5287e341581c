"""Start the flasher stub at the fastest rate that the line takes.

Not every cable, bridge and hub carries every rate, and none says so: what is sent too fast arrives as something else.
The upload of the stub is several blocks with checksums, so it proves a rate before anything is written. Knows esptool's
loader objects; does not know how the loader is entered. Invariant: flash is not written here, and the last attempt is
at the ROM's own rate unless a lower one was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.effects.api import SLOWER_BAUD
from pipeline.model import Reason

ROM_BAUD = 115200
LADDER = (921600, 460800, ROM_BAUD)


class Started(NamedTuple):
    """The stub's loader object, the rate at which it answers, and why that is not the one that was asked for."""

    esp: Any
    baud: int
    reasons: tuple[Reason, ...]


def rates(baud: int) -> tuple[int, ...]:
    """`baud`, then the steps of the ladder below it."""
    return (baud, *(step for step in LADDER if step < baud))


def start_stub(esp: Any, baud: int, enter_again: Callable[[], object]) -> Started:
    """Change the rate, which the stub's upload profits from, and upload it. `enter_again` resets the chip into its ROM
    loader at ROM_BAUD and syncs. Raises esptool.FatalError when no rate does, OSError when the port is gone."""
    import esptool

    reasons: list[Reason] = []
    steps = rates(baud)
    for step, slower in zip(steps, (*steps[1:], None), strict=True):
        try:
            if step != ROM_BAUD:
                esp.change_baud(step)
            return Started(esp.run_stub(), step, tuple(reasons))
        except esptool.FatalError:
            if slower is None:
                raise
        reasons.append(Reason(SLOWER_BAUD, "loader", str(step), str(slower)))
        esp._port.baudrate = ROM_BAUD
        enter_again()
    raise AssertionError("there is always a last step [this is a bug]")
