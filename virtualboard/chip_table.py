"""Every chip that a board may have, by name.

Does not know what a chip is like (`chips`, `chips_more`); the second table is read when one of its chips is asked for,
because a warm run needs none of it. Invariant: `NAMES` are the keys of both tables.
"""

from __future__ import annotations

import importlib

from virtualboard.chips import CHIPS, ChipModel

NAMES = (
    *("esp32", "esp32c3", "esp32s3"),
    *("esp32s2", "esp32c2", "esp32c5", "esp32c6", "esp32c61", "esp32h2", "esp32p4"),
)
"""Those whose ROM's answers are known from the wire come first."""


def chip_named(name: str) -> ChipModel:
    """The chip of a name of NAMES; KeyError for another."""
    if name in CHIPS:
        return CHIPS[name]
    chip: ChipModel = importlib.import_module("virtualboard.chips_more").MORE_CHIPS[name]
    return chip
