"""Which files are option headers: by their names, so that a project without any loads nothing more.

Values only. Does not know what stands in them (`option_uses`). Invariant: the answer follows from the path alone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from fnmatch import fnmatchcase


class OptionNames:
    """`patterns`: one without a slash is a name in any directory."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._known: dict[str, bool] = {}

    def matches(self, path: str) -> bool:
        """Is it the name of an option header?"""
        known = self._known.get(path)
        if known is None:
            name = posixpath.basename(path)
            known = self._known[path] = any(
                fnmatchcase(path, pattern) or fnmatchcase(path, f"*/{pattern}")
                if "/" in pattern
                else fnmatchcase(name, pattern)
                for pattern in self._patterns
            )
        return known
