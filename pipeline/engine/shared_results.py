"""Results of other machines: what the store here lacks is asked of a shared cache, and what was made here is offered.

Knows keys, the store and how long things took. Does not know transports, nor how a result is put in place: what is
fetched lies in the store here like a result of another project, and is found there by the same decision. Invariants: an
entry is taken over only for an action that missed, under a key that was made here from the content of its inputs, with
exactly the outputs that it declares, and after its blobs; nothing is fetched that is measured to cost more than making
it; asking for any number of actions is a fixed number of rounds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cache.actions import MAX_ENTRY_BYTES, ActionResult
from cache.digest import ActionKey, Digest
from cache.named_tuple import NamedTuple
from pipeline.engine.candidates import CandidateSet
from pipeline.engine.decision import Keyed, keys_that_fit, stored_paths
from pipeline.engine.observation import Observer
from pipeline.engine.results import SharedCounts
from pipeline.engine.workspace import Workspace

if TYPE_CHECKING:
    from cache.remote import Remote, RemoteSpeed

PROBE_BYTES = 1 << 17
"""So much is fetched before the rate is known."""
LEAST_PATIENCE_S = 0.25
MOST_PATIENCE_S = 30.0
_SETS_S = 2.0
_PER_QUESTION = 1 / 64
"""Of a latency: questions are asked many at once."""
_SHORT_S = 0.1
"""Beyond this latency a function of this program is quicker than the question whether somebody has its result."""


class FoundElsewhere(NamedTuple):
    """A result that the other side has. `missing`: its blobs that are not here."""

    keyed: Keyed
    key: ActionKey
    result: ActionResult
    missing: tuple[Digest, ...]

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(digest.size for digest in self.missing)

    def worth(self) -> float:
        """Milliseconds of work that a byte saves."""
        return self.result.duration_ms / (self.size + 1)


class SharedResults:
    """For one `run` of the engine."""

    def __init__(self, workspace: Workspace, remote: Remote) -> None:
        self._remote = remote
        self._store = workspace.store
        self._jobs = max(1, workspace.host.jobs)
        self._before = remote.counts()

    def counts(self) -> SharedCounts:
        """Since this was made, but for `restored`."""
        now = self._remote.counts()
        fetched = now.fetched_bytes - self._before.fetched_bytes
        return SharedCounts(True, 0, fetched, now.rounds - self._before.rounds)

    def may_have(self, keyed: Keyed) -> bool:
        """Is it worth asking for this one?"""
        action = keyed.action
        if not action.cacheable or keyed.lacks:
            return False
        return not action.builtin or self._remote.speed().latency_s <= _SHORT_S

    def bring(self, missed: Sequence[Keyed], observer: Observer) -> frozenset[ActionKey]:
        """Ask for these at once, and put into the store here what is there and worth fetching. The base keys of those
        that can be restored now."""
        self._bring_sets([keyed.base for keyed in missed if keyed.action.depfile])
        fitting = {keyed.base: (keyed, keys_that_fit(keyed, observer)) for keyed in missed}
        entries = self._remote.find([key for _, keys in fitting.values() for key in keys], self._store.blobs)
        found = [one for keyed, keys in fitting.values() if (one := self._first(keyed, keys, entries)) is not None]
        return frozenset(one.keyed.base for one in self._fetch(found))

    def offer(self, key: ActionKey, base: ActionKey | None) -> None:
        """A result that was stored here just now; `base` where its candidate sets moved, too: those that are here."""
        blobs = self._store.blobs
        result = self._store.results.entry(key)
        if result is not None:
            self._remote.offer(key, result, blobs)
        sets = None if base is None else self._store.results.entry(base)
        if base is not None and sets is not None:
            here = tuple([file for file in sets.outputs if blobs.has(file.digest)])
            self._remote.offer(base, sets._replace(outputs=here), blobs)

    # --- what is there --------------------------------------------------------------------------

    def _bring_sets(self, bases: Sequence[ActionKey]) -> None:
        """The candidate sets of others, into the entries of their base keys here."""
        entries = self._remote.find(bases, self._store.blobs)
        sets = {base: _sets(result) for base, result in entries.items()}
        missing = _unique(digest for digests in sets.values() for digest in digests)
        missing = [digest for digest in missing if not self._store.blobs.has(digest)]
        if missing:
            self._remote.fetch(missing, self._store.blobs, _SETS_S)
        sound = {digest for digest in _unique(d for ds in sets.values() for d in ds) if self._is_set(digest)}
        for base, digests in sets.items():
            with contextlib.suppress(OSError):
                self._store.results.take_candidates(base, [digest for digest in digests if digest in sound])

    def _is_set(self, digest: Digest) -> bool:
        data = self._store.blobs.read(digest)
        return data is not None and CandidateSet.decode(data) is not None

    def _first(
        self, keyed: Keyed, keys: Sequence[ActionKey], entries: dict[ActionKey, ActionResult]
    ) -> FoundElsewhere | None:
        """What fits first, if its outputs are those of the action."""
        for key in keys:
            result = entries.get(key)
            if result is not None and tuple([file.path for file in result.outputs]) == stored_paths(keyed.action):
                missing = _unique(digest for digest in result.blobs() if not self._store.blobs.has(digest))
                return FoundElsewhere(keyed, key, result, tuple(missing))
        return None

    # --- what is fetched ------------------------------------------------------------------------

    def _fetch(self, found: Sequence[FoundElsewhere]) -> list[FoundElsewhere]:
        """Those whose blobs are here afterwards, and whose entries are then, too."""
        here = [one for one in found if not one.missing]
        wanted = sorted((one for one in found if one.missing), key=FoundElsewhere.worth, reverse=True)
        while wanted:
            now, later = _divide(wanted, self._remote.speed(), self._jobs)
            if not now:
                # That a function of this program is quicker than the network is no news.
                self._remote.decline(sum(not one.keyed.action.builtin for one in later))
                break
            came = self._fetch_all(now)
            here += came
            if not came:
                break
            wanted = later
        return [one for one in here if self._record(one)]

    def _fetch_all(self, now: Sequence[FoundElsewhere]) -> list[FoundElsewhere]:
        patience_s = sum(one.result.duration_ms for one in now) / 1000 / self._jobs
        patience_s = min(max(patience_s, LEAST_PATIENCE_S), MOST_PATIENCE_S)
        wanted = _unique(digest for one in now for digest in one.missing)
        there = self._remote.fetch(wanted, self._store.blobs, patience_s)
        return [one for one in now if there.issuperset(one.missing)]

    def _record(self, one: FoundElsewhere) -> bool:
        try:
            self._store.results.record(one.key, one.result)
        except OSError:
            return False  # then it is made here, where the same is said of its own result
        return True


def _divide(
    wanted: Sequence[FoundElsewhere], speed: RemoteSpeed, jobs: int
) -> tuple[list[FoundElsewhere], list[FoundElsewhere]]:
    """What is to be fetched now and what after that, of what is sorted by worth: while no rate is known a first part,
    then what takes less time to fetch than to make."""
    now: list[FoundElsewhere] = []
    size = 0
    if not speed.bytes_per_s:
        while len(now) < len(wanted) and size < PROBE_BYTES:
            size += wanted[len(now)].size
            now.append(wanted[len(now)])
        return now, list(wanted[len(now) :])
    for one in wanted:
        fetch_s = one.size / speed.bytes_per_s + len(one.missing) * speed.latency_s * _PER_QUESTION
        if fetch_s <= one.result.duration_ms / 1000 / jobs:
            now.append(one)
    chosen = {one.key for one in now}
    return now, [one for one in wanted if one.key not in chosen]


def _sets(result: ActionResult) -> list[Digest]:
    return [file.digest for file in result.outputs if file.digest.size <= MAX_ENTRY_BYTES]


def _unique(digests: Iterable[Digest]) -> list[Digest]:
    return list(dict.fromkeys(digests))
