"""A queue of bounded size that drops its oldest items and says how much it dropped.

Pure and not thread-safe: whoever shares it holds a lock. Invariant: `pushed == taken + dropped + held`, in items and in
cost, and the cost that is held is at most `limit` (one item alone may exceed it).
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Ring(Generic[T]):
    """`limit` bounds the sum of the costs (by default: the number of items)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[tuple[T, int]] = deque()
        self._held = 0
        self.dropped = 0
        """Cost of what was dropped so far; never falls."""

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: T, cost: int = 1) -> None:
        """Add at the end; what is oldest makes room."""
        self._items.append((item, cost))
        self._held += cost
        while self._held > self._limit and len(self._items) > 1:
            self.dropped += self._pop()[1]

    def take(self) -> T | None:
        """Remove and return the oldest item; `None` when there is none."""
        return self._pop()[0] if self._items else None

    def items(self) -> list[T]:
        """What is held, oldest first; it stays."""
        return [item for item, _ in self._items]

    def _pop(self) -> tuple[T, int]:
        item, cost = self._items.popleft()
        self._held -= cost
        return item, cost
