"""How often a newer save may cancel the build before it: so that saves without end still let a build end.

Values in, values out; the caller has the clock. Invariant: `exhausted` stays false for a person who saves now and then,
and is true after MOST_CANCELS in a row that took CANCELS_FOR_S together, whatever the builds last.
"""

from __future__ import annotations

MOST_CANCELS = 3
"""A long build may be given up this often: the work of somebody who saves three times in a row is seldom wanted."""
CANCELS_FOR_S = 5.0
"""Short builds may be given up for this long: programs that write many files save faster than any build ends."""


class CancelPolicy:
    """The cancels in a row."""

    def __init__(self) -> None:
        self._cancels = 0
        self._since_s = 0.0

    def cancelled(self, began_s: float) -> None:
        """A build that began then was cancelled."""
        if self._cancels == 0:
            self._since_s = began_s
        self._cancels += 1

    def ended(self) -> None:
        """A build came to its end, good or bad."""
        self._cancels = 0

    def exhausted(self, now_s: float) -> bool:
        """Must a build that begins now be let finish?"""
        return self._cancels >= MOST_CANCELS and now_s - self._since_s >= CANCELS_FOR_S
