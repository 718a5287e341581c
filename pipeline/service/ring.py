"""What a console holds in memory: its last entries, bounded in bytes, with the places from which viewers want to see.

Pure. Does not know viewers or ports. Invariant: entries are consecutive by number, and their cost is at most the limit.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.boot.ring import Ring
from pipeline.client.protocol import ConsoleChunk, ConsoleEntry

LIMIT = 1 << 20
"""Bytes per console."""

ENTRY_COST = 400
"""What an entry costs beside its bytes."""


class EntryRing:
    """`boot` and `deploy`: number of the entry with which the last one begins; 0 when there was none."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._ring: Ring[ConsoleEntry] = Ring(limit)
        self.boot = 0
        self.deploy = 0
        self.last = 0
        """Number of the newest entry."""

    def push(self, entry: ConsoleEntry) -> None:
        size = len(entry.data) if isinstance(entry, ConsoleChunk) else len(entry.text)
        self._ring.push(entry, size + ENTRY_COST)
        self.last = entry.number

    def after(self, number: int) -> Iterator[ConsoleEntry]:
        """Those after that one, oldest first, as far as they are held."""
        return (entry for entry in self._ring.items() if entry.number > number)

    def first_after(self, what: str, number: int) -> int:
        """The number after which a viewer begins that asks for `what`, as in `hub.Since`."""
        if what == "now":
            return self.last
        if what == "number":
            return number
        if what in ("boot", "deploy"):
            return max(0, (self.boot if what == "boot" else self.deploy) - 1)
        return 0

    def missing(self, number: int) -> int:
        """How many entries after that one are held no more."""
        held = self._ring.items()
        oldest = held[0].number if held else self.last + 1
        return max(0, oldest - number - 1)

    def number_at(self, at_s: float) -> int:
        """Of the first entry of that instant; the newest where there is none."""
        found = self.last
        for entry in reversed(self._ring.items()):
            if entry.at_s < at_s:
                break
            if entry.at_s == at_s:
                found = entry.number
        return found
