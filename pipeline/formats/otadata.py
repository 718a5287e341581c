"""otadata: two flash sectors that tell the bootloader which OTA slot to start.

Rules as in ESP-IDF's bootloader (`bootloader_common_loader.c`, `bootloader_utility.c`). Does not know where otadata
lies, which slots exist, or what is in them. Invariant: `select(encode(slot, slots), slots) == slot`, and whatever
`select` does not understand selects nothing.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum

from cache.named_tuple import NamedTuple
from pipeline.chips import SECTOR

SIZE = 2 * SECTOR
NO_SEQUENCE = 0xFFFFFFFF

_ENTRY = struct.Struct("<I20sII")


class OtaState(IntEnum):
    """The life of an OTA image, in an entry's `state`. With roll-back enabled the bootloader turns NEW into
    PENDING_VERIFY when it first starts it, and PENDING_VERIFY into ABORTED when the app did not confirm itself by then.
    """

    NEW = 0
    PENDING_VERIFY = 1
    VALID = 2
    INVALID = 3
    ABORTED = 4
    UNDEFINED = 0xFFFFFFFF


LASTING = (OtaState.VALID, OtaState.UNDEFINED)
"""States in which a selected image is started again and again; in any other one a bootloader with roll-back may start
another image at the next reset."""


class OtaEntry(NamedTuple):
    """One sector's entry. `state` is the raw number (see OtaState; others count as usable, as for the bootloader)."""

    sequence: int
    state: int
    crc_ok: bool

    @property
    def usable(self) -> bool:
        """May the bootloader follow this entry?"""
        return self.names_one and self.state not in (OtaState.INVALID, OtaState.ABORTED)

    @property
    def names_one(self) -> bool:
        """Was it ever a choice?"""
        return self.crc_ok and self.sequence != NO_SEQUENCE

    def slot(self, slots: int) -> int:
        """The slot that it names, of `slots`. Unsigned 32-bit arithmetic, as in the bootloader: sequence 0 is legal
        there and wraps."""
        return ((self.sequence - 1) & 0xFFFFFFFF) % slots


def sequence_crc(sequence: int) -> int:
    """CRC-32 (little endian, seeded with all ones) of the sequence number alone: label and state are not covered."""
    return zlib.crc32(struct.pack("<I", sequence), 0xFFFFFFFF)


def encode(slot: int, slots: int) -> bytes:
    """SIZE bytes that select `slot` (from 0) of `slots`: the entry in the first sector, the second one erased.
    The state is UNDEFINED, that is "no roll-back for this image", as in the images that ESP-IDF and Arduino ship."""
    if not 0 <= slot < slots:
        raise ValueError(f"slot {slot} of {slots}")
    sequence = slot + 1
    entry = _ENTRY.pack(sequence, b"\xff" * 20, OtaState.UNDEFINED, sequence_crc(sequence))
    return entry.ljust(SIZE, b"\xff")


def erased() -> bytes:
    """SIZE bytes that select nothing: the factory app is started, or ota_0 where there is none."""
    return b"\xff" * SIZE


def entries(data: bytes) -> tuple[OtaEntry, ...]:
    """The entries of both sectors; fewer when `data` ends before them."""
    found = []
    for at in (0, SECTOR):
        if at + _ENTRY.size <= len(data):
            sequence, _label, state, crc = _ENTRY.unpack_from(data, at)
            found.append(OtaEntry(sequence, state, crc == sequence_crc(sequence)))
    return tuple(found)


def active_entry(data: bytes) -> OtaEntry | None:
    """The usable entry with the larger sequence number, the first of two equal ones."""
    usable = [entry for entry in entries(data) if entry.usable]
    return max(usable, key=lambda entry: entry.sequence) if usable else None


def select(data: bytes, slots: int) -> int | None:
    """The slot that the bootloader would start, of `slots`. None: nothing is selected, and it starts the factory app,
    or ota_0 where there is none."""
    active = active_entry(data)
    if active is None or slots < 1:
        return None
    return active.slot(slots)
