"""Does a line of a device match the expression of a user? Answered in bounded time, whatever the two are.

Uses the library `regex`, whose searches can be given a time to end in, since a backtracking search may take longer
than the universe. Does not know where the expression comes from; `config/until.py` bounds its size. Invariant: one
search takes at most `SEARCH_S`, and after `MAX_SLOW` searches that did not end, none is begun.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SEARCH_S = 0.1
"""Of real time, for one line."""

MAX_SLOW = 10
MAX_MATCH = 4096
"""Characters of a line that the expression sees."""


class LinePattern:
    """One expression, which `re` accepts, and the lines that it met."""

    def __init__(self, expression: str) -> None:
        import regex

        self.expression = expression
        self.slow = 0
        """Searches that did not end in time; such a line counts as one that does not match."""
        self._pattern: Any = None
        try:
            self._pattern = regex.compile(expression)
        except regex.error:
            # The library refuses what `re` takes: rare, and such an expression has no time limit.
            self._pattern = None
            self._plain = re.compile(expression)

    @property
    def exhausted(self) -> bool:
        """Is it of no use to search on?"""
        return self.slow >= MAX_SLOW

    def search(self, text: str) -> bool:
        """Does it match somewhere in `text` (without colours)?"""
        return self._search(text) is not None

    def groups(self, text: str) -> Mapping[str, str] | None:
        """The named groups of the first match that took part in it; None where nothing matches."""
        found = self._search(text)
        return None if found is None else {k: v for k, v in found.groupdict().items() if v is not None}

    def _search(self, text: str) -> Any:
        if self.exhausted:
            return None
        if self._pattern is None:
            return self._plain.search(text[:MAX_MATCH])
        try:
            return self._pattern.search(text[:MAX_MATCH], timeout=SEARCH_S)
        except TimeoutError:
            self.slow += 1
            return None
