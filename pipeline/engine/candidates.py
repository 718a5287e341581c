"""Sets of discovered inputs: which files an action may have read, and with what content.

Values only. Does not know files or where the sets are kept. Invariant: `decode` gives what `encode` was given, or None.
"""

from __future__ import annotations

from typing import Any

from cache.digest import ActionKey
from cache.named_tuple import NamedTuple
from cache.stamps import Entry
from pipeline.engine.record_rows import Observed


class CandidateSet(NamedTuple):
    """Which files an action read beside its declared inputs, and which it would have read had they existed."""

    discovered: tuple[str, ...]
    absent: tuple[str, ...]

    def encode(self) -> bytes:
        import json

        value = {"absent": self.absent, "discovered": self.discovered}
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    @staticmethod
    def decode(data: bytes) -> CandidateSet | None:
        """None for anything that `encode` could not have made: others may write to the store as well."""
        import json

        try:
            value = json.loads(data)
            return CandidateSet(_paths(value["discovered"]), _paths(value["absent"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


def _paths(value: Any) -> tuple[str, ...]:
    """Raises ValueError for what is no list of names that files can have."""
    if value.__class__ is not list or any(path.__class__ is not str or not path or "\0" in path for path in value):
        raise ValueError("no list of paths")
    return tuple(value)


class IdentifiedSet(NamedTuple):
    """A candidate set with the content of its files, and its key. `entries`, where they were stamped: what was seen of
    each; `newest_ns` is the latest ctime of them, `seen_ns` an instant (of time.monotonic_ns) not later than the first
    look at one. `options`: those of the files that are option headers; their content is not in the key, since what
    counts of it depends on who reads it."""

    key: ActionKey
    discovered: Observed
    absent: tuple[str, ...]
    entries: tuple[Entry, ...] = ()
    newest_ns: int = 0
    seen_ns: int = 0
    options: tuple[tuple[str, Entry], ...] = ()
