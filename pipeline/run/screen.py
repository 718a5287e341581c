"""What people see of a run while it is under way: whoever has a screen puts it here.

Holds two callables and shows nothing itself. Invariant: without a screen everything that is said is dropped.
"""

from __future__ import annotations

from collections.abc import Callable


class Screen:
    """Shared by all parts of one run."""

    def __init__(self) -> None:
        self.on_progress: Callable[[str, int, int], None] = lambda label, done, total: None
        self.on_notice: Callable[[str], None] = lambda text: None

    def progress(self, label: str, done: int, total: int) -> None:
        """`done` of `total` (0: unknown) in units of the caller's."""
        self.on_progress(label, done, total)

    def notice(self, text: str) -> None:
        """Lines for the user, such as a compiler's warnings."""
        self.on_notice(text)
