"""What files were when a run looked at them, each stat once per run, and which sets of discovered inputs apply.

Knows stamps and candidate sets. Does not know actions' commands or results. Invariant: what is answered about a file
was true at some instant of this run; what an action of the run makes is asked for anew each time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cache.digest import ActionKey
from cache.named_tuple import NamedTuple
from cache.stamps import Entry
from pipeline.engine.build_log import Observed
from pipeline.engine.keys import set_key

if TYPE_CHECKING:
    from pipeline.engine.engine import Engine


class CandidateSet(NamedTuple):
    """Which files an action read beside its declared inputs, and which it would have read had they existed."""

    discovered: tuple[str, ...]
    absent: tuple[str, ...]

    def encode(self) -> bytes:
        value = {"absent": self.absent, "discovered": self.discovered}
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    @staticmethod
    def decode(data: bytes) -> CandidateSet | None:
        """None for anything that `encode` could not have made: others may write to the store as well."""
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
    """A candidate set with the content of its files; `newest_ns` is the latest ctime of them, `seen_ns` an instant
    (of time.monotonic_ns) not later than the first look at one."""

    key: ActionKey
    discovered: Observed
    absent: tuple[str, ...]
    entries: tuple[Entry, ...]
    newest_ns: int
    seen_ns: int


class Observer:
    """The files of one `run`. Safe to use from several threads: at worst two of them look at one file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._table = engine.table
        self._seen: dict[str, Entry | None] = {}
        self._present: dict[str, bool] = {}
        self._sets: dict[CandidateSet, IdentifiedSet | None] = {}
        self._set_keys: dict[object, ActionKey] = {}

    def forget(self, paths: Iterable[str], candidate: CandidateSet | None) -> None:
        """Look at these, and judge this set, anew."""
        for path in paths:
            self._seen.pop(path, None)
        if candidate is not None:
            self._sets.pop(candidate, None)

    def look(self, path: str) -> Entry | None:
        """What a file is, by one stat per run if no action makes it. Raises OSError."""
        if path not in self._seen:
            if path in self._engine.graph.producer or self._engine.links.product(path):
                return self._table.current(path)
            self._seen[path] = self._table.current(path)
        return self._seen[path]

    def identify(self, candidate: CandidateSet) -> IdentifiedSet | None:
        """The candidate set with the content of its files, None when it cannot apply: one is missing, or there is
        something in the place of an absent one. Remembered, since many actions share a set."""
        fixed = self._engine.graph.producer.keys().isdisjoint((*candidate.discovered, *candidate.absent))
        if fixed and candidate in self._sets:
            return self._sets[candidate]
        identified, seen_ns = None, time.monotonic_ns()
        try:
            entries = [(path, self.look(path)) for path in candidate.discovered]
        except OSError:
            entries = [("", None)]
        found = [(path, entry) for path, entry in entries if entry is not None]
        if len(found) == len(entries) and not any(map(self.is_present, candidate.absent)):
            observed = self._engine.records.shared(tuple([(path, entry.sha256) for path, entry in found]))
            what = (observed, candidate.absent)
            if what not in self._set_keys:
                self._set_keys[what] = set_key([(path, entry.digest) for path, entry in found], candidate.absent)
            seen = tuple([entry for _, entry in found])
            newest_ns = max([entry.stamp.ctime_ns for entry in seen], default=0)
            identified = IdentifiedSet(self._set_keys[what], observed, candidate.absent, seen, newest_ns, seen_ns)
        if fixed:
            self._sets[candidate] = identified
        return identified

    def identify_anew(self, candidate: CandidateSet) -> IdentifiedSet | None:
        """As `identify`, from a stat of every file now."""
        known = self._sets.get(candidate)
        if known is not None and all(map(self._table.is_still, candidate.discovered, known.entries)):
            return known
        self.forget(candidate.discovered, candidate)
        return self.identify(candidate)

    def is_present(self, path: str) -> bool:
        """Is there a file? By one stat per run if no action makes it."""
        if path not in self._present:
            if path in self._engine.graph.producer or self._engine.links.product(path):
                return self.exists(path)
            self._present[path] = self.exists(path)
        return self._present[path]

    def exists(self, path: str) -> bool:
        try:
            return self._table.stamp(path) is not None
        except OSError:
            return False
