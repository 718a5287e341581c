"""Which application does the bootloader start, and will it go on starting it? Otadata by its meaning.

Pure: a table and the bytes of otadata in, a verdict out. Rules of ESP-IDF's bootloader, with and without its roll-back.
Does not know who asks or how the bytes were read. Invariant: `True` is only answered for otadata with which a board
starts the row that is wanted at this reset and at every later one.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.flash_model import Partition
from pipeline.formats.otadata import LASTING, active_entry, entries, select
from pipeline.formats.partitions import boot_row, ota_slots


def starts_wanted(table: Sequence[Partition], found: bytes, wanted: bytes) -> bool:
    """Does a board with otadata `found` start what `wanted` would start, in a state that lasts?

    NEW and PENDING_VERIFY do not last: a bootloader with roll-back turns them into ABORTED unless the application
    confirms itself. An erased otadata does not pass for a choice, though the bootloader falls back to the same slot:
    the choice is part of what is deployed. Nor does a fall back to a slot that an entry names as rejected."""
    slots = ota_slots(table)
    row = boot_row(table, select(found, len(slots)))
    if row != boot_row(table, select(wanted, len(slots))):
        return False
    active = active_entry(found)
    if active is not None:
        return active.state in LASTING
    if active_entry(wanted) is not None:
        return False
    return not any(entry.names_one and slots and slots[entry.slot(len(slots))] == row for entry in entries(found))
