"""Values that were decoded before anybody asked for them: of a process that waits for its run.

The one place of a process that holds such values, filled by `pipeline/run/ahead.py` and empty in every process that
begins its work at once. Knows bytes and functions; not files, so that nothing here can be stale: a value is given for
the very bytes that it was decoded from, compared byte by byte, or for the very object that it was made of. Invariant:
each is given once, so that whoever gets it may change it, as if it had been decoded then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_HEAD = 128
"""The line in front of a state file holds its kind, its length and its checksum, and is shorter."""


class ValuesAhead:
    """Safe to use from several threads: what one takes, another one does not get."""

    def __init__(self) -> None:
        self._decoded: dict[bytes, tuple[bytes, Any]] = {}
        self._made: dict[tuple[Callable[..., Any], int], tuple[Any, tuple[Any, ...], Any]] = {}
        self.given = 0
        """How often somebody was spared the work."""
        self.began_ns = 0
        """On our own clock of file stamps, of a process that waited: before this instant it read nothing but what is
        held here, and all code was as it has it loaded. 0 of one that did not wait."""

    def put(self, data: bytes, value: Any) -> None:
        """`value` is what `data` decodes to."""
        self._decoded[data[:_HEAD]] = (data, value)

    def decoded(self, data: bytes) -> Any:
        """What exactly these bytes decode to, None where that was not put here (any more)."""
        known = self._decoded.pop(data[:_HEAD], None) if self._decoded else None
        if known is None or known[0] != data:
            return None
        self.given += 1
        return known[1]

    def make(self, how: Callable[..., _T], source: Any, *more: Any) -> _T:
        """Do `how(source, ...)`, a function of its arguments alone, for whoever asks for it with this very object."""
        value = how(source, *more)
        self._made[how, id(source)] = (source, more, value)
        return value

    def made(self, how: Callable[..., _T], source: Any, *more: Any) -> _T:
        """`how(source, ...)`."""
        known = self._made.pop((how, id(source)), None) if self._made else None
        if known is None or known[0] is not source or known[1] != more:
            return how(source, *more)
        self.given += 1
        value: _T = known[2]
        return value


@functools.cache
def values() -> ValuesAhead:
    """Those of this process."""
    return ValuesAhead()
