"""How long the chip takes, as data. Does not know what is timed; invariant: the profile never changes any answer.

The only profile so far is `instant`: everything that the hardware computes takes no time, and only what the electrical
model needs is kept. Profiles of real boards become further rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds per unit of work.

    `strap_delay_s`: from EN rising to the sampling of the boot strap; a board's EN capacitor makes it 2 to 10 ms.
    `strap_timeout_s`: how long EN may rise with DTR and RTS both asserted before the strap is sampled as it is; over
    RFC 2217 one line follows the other by 50 to 100 ms.
    `jump_s`: from the reply of a command that leaves the loader to the first byte of what runs next; a guess of the
    order of the reply's own time on the wire at 115200 baud.
    """

    strap_delay_s: float = 0.002
    strap_timeout_s: float = 0.25
    jump_s: float = 0.002
    erase_sector_s: float = 0.0
    program_page_s: float = 0.0
    md5_byte_s: float = 0.0


INSTANT = Timing()
PROFILES: Mapping[str, Timing] = MappingProxyType({"instant": INSTANT})
