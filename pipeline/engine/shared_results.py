"""Results of other machines: what the store here lacks is asked of a shared cache, and what was made here is offered.

Knows keys, the store and how long things took. Does not know transports, nor how a result is put in place: what is
fetched lies in the store here like a result of another project, and is found there by the same decision. Invariants: an
entry is taken over only for an action that missed, under a key that was made here from the content of its inputs, with
exactly the outputs that it declares, and after its blobs; nothing is fetched that is measured to cost more than making
it; asking for any number of actions is a fixed number of rounds. What is made here meanwhile, since answers come too
slowly (`inquiry`), is not asked for any more, and not taken over if it comes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cache.action_result import MOST_INLINED
from cache.actions import MAX_ENTRY_BYTES, ActionResult
from cache.digest import ActionKey, Digest
from cache.named_tuple import NamedTuple
from cache.remote import RemoteSpeed
from pipeline.engine.candidates import CandidateSet
from pipeline.engine.decision import keys_that_fit, stored_paths
from pipeline.engine.inquiry import LIKELY_BLOB, LIKELY_ENTRY, PER_ANSWER, Costs, Inquiry, Pace
from pipeline.engine.keys import Keyed
from pipeline.engine.observation import Observer
from pipeline.engine.results import SharedCounts
from pipeline.engine.workspace import Workspace
from pipeline.model import Action

if TYPE_CHECKING:
    from cache.remote import Remote

PROBE_BYTES = 1 << 17
"""So much is fetched before the rate is known."""
LEAST_PATIENCE_S = 0.25
MOST_PATIENCE_S = 30.0
_SETS_S = 2.0
_PER_QUESTION = 1 / 64
"""Of a latency: questions are asked many at once."""
_SHORT_S = 0.01
"""Beyond this latency a function of this program is quicker than the question whether somebody has its result."""
_SET = 2500
"""Bytes of an answer with a set of headers."""
_ENTRY_AND_BLOB = LIKELY_ENTRY + LIKELY_BLOB + 2 * PER_ANSWER


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
        self._costs = Costs()
        self._pace = Pace(RemoteSpeed())

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
        latency_s, _, silent_s = self._remote.speed()
        return not action.builtin or max(latency_s, silent_s) <= _SHORT_S

    # --- for the thread that decides what runs ----------------------------------------------------

    def took(self, action: Action, duration_s: float) -> None:
        """It was made here, in this time."""
        if not action.builtin:
            self._costs.took(action.name, duration_s)

    def inquiry(self, missed: Sequence[Keyed], told: Callable[[Keyed, bool], None]) -> Inquiry:
        """For `bring`; one at a time."""
        self._pace = Pace(self._remote.speed(), busyness())
        return Inquiry(missed, told)

    def spare(self, inquiry: Inquiry, now_s: float, *, is_idle: bool) -> Keyed | None:
        """One that is to be made here, as it is likely to be so before it comes. To be called every LOOK_S."""
        return inquiry.spare(self._pace, now_s, self._costs, self._jobs, is_idle=is_idle)

    def end(self, inquiry: Inquiry) -> None:
        """All that it asked for is here, or is being made."""
        inquiry.cut()
        if inquiry.taken:
            self._remote.decline(inquiry.declined())

    # --- for the thread that asks -----------------------------------------------------------------

    def bring(self, inquiry: Inquiry, observer: Observer) -> None:
        """Ask for these at once, and put into the store here what is there and worth fetching. Each is told of as soon
        as that is known."""
        self._bring_sets(inquiry)
        fitting = {keyed.base: (keyed, keys_that_fit(keyed, observer)) for keyed in inquiry.waiting()}
        users: dict[str, list[ActionKey]] = {}
        for base, (_, keys) in fitting.items():
            for key in keys:
                users.setdefault(key, []).append(base)
        inquiry.expect(users, LIKELY_ENTRY, after=LIKELY_BLOB + PER_ANSWER, rounds=1)
        entries = self._find(inquiry, [key for _, keys in fitting.values() for key in keys])
        found = []
        for keyed, keys in fitting.values():
            one = self._first(keyed, keys, entries)
            if one is None:
                inquiry.settle(keyed, is_here=False)
            else:
                found.append(one)
                self._costs.said(keyed.action.name, one.result.duration_ms)
        self._fetch(inquiry, found)

    def _find(self, inquiry: Inquiry, keys: Sequence[ActionKey]) -> dict[ActionKey, ActionResult]:
        return {} if inquiry.is_cut else self._remote.find(keys, self._store.blobs, inquiry)

    def offer(self, key: ActionKey, base: ActionKey | None) -> None:
        """A result that was stored here just now; `base` where its candidate sets moved, too: those that are here."""
        blobs = self._store.blobs
        result = self._store.results.entry(key)
        if result is not None:
            self._remote.offer(key, result, blobs)
        sets = None if base is None else self._store.results.entry(base)
        if base is not None and sets is not None:
            here = tuple([file for file in sets.outputs if blobs.has(file.digest)])
            duration_ms = 0 if result is None else result.duration_ms
            self._remote.offer(base, sets._replace(outputs=here, duration_ms=duration_ms), blobs)

    # --- what is there --------------------------------------------------------------------------

    def _bring_sets(self, inquiry: Inquiry) -> None:
        """The candidate sets of others, into the entries of their base keys here."""
        names = {keyed.base: keyed.action.name for keyed in inquiry.waiting() if keyed.action.depfile}
        bases = [*names]
        inquiry.expect({base: [base] for base in bases}, _SET, after=_ENTRY_AND_BLOB, rounds=2)
        entries = self._find(inquiry, bases) if bases else {}
        for base, result in entries.items():
            self._costs.said(names[base], result.duration_ms)
        sets = {base: _sets(result) for base, result in entries.items()}
        missing = _unique(digest for digests in sets.values() for digest in digests)
        missing = [digest for digest in missing if not self._store.blobs.has(digest)]
        if missing and not inquiry.is_cut:
            users: dict[str, list[ActionKey]] = {}
            for base, digests in sets.items():
                for digest in digests:
                    users.setdefault(digest.hex, []).append(base)
            inquiry.expect(users, 2 * MOST_INLINED, after=_ENTRY_AND_BLOB, rounds=2)
            self._remote.fetch(missing, self._store.blobs, _SETS_S, inquiry)
        sound = {digest for digest in _unique(d for ds in sets.values() for d in ds) if self._is_set(digest)}
        wanted = {keyed.base for keyed in inquiry.waiting()}
        for base, digests in sets.items():
            if base not in wanted:
                continue  # whoever makes it here says what it read
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

    def _fetch(self, inquiry: Inquiry, found: Sequence[FoundElsewhere]) -> None:
        """Those whose blobs are here are recorded, and told of."""
        for one in found:
            if not one.missing:
                self._came(inquiry, one)
        wanted = sorted((one for one in found if one.missing), key=FoundElsewhere.worth, reverse=True)
        inquiry.order([one.keyed.base for one in wanted])
        while wanted and not inquiry.is_cut:
            now, later = _divide(wanted, self._remote.speed(), self._jobs)
            if now:
                came = self._fetch_all(inquiry, now)
            if not now or not came:
                # That a function of this program is quicker than the network is no news.
                self._remote.decline(0 if now else sum(not one.keyed.action.builtin for one in later))
                break
            waiting = {keyed.base for keyed in inquiry.waiting()}
            wanted = [one for one in later if one.keyed.base in waiting]

    def _fetch_all(self, inquiry: Inquiry, now: Sequence[FoundElsewhere]) -> bool:
        """Did anything come?"""
        patience_s = sum(one.result.duration_ms for one in now) / 1000 / self._jobs
        patience_s = min(max(patience_s, LEAST_PATIENCE_S), MOST_PATIENCE_S)
        arrivals = _Arrivals(now, partial(self._came, inquiry))
        wanted = _unique(digest for one in now for digest in one.missing)
        each = sum(digest.size for digest in wanted) / len(wanted)
        inquiry.expect(arrivals.users(), each, after=0, rounds=0, came=arrivals.came)
        there = self._remote.fetch(wanted, self._store.blobs, patience_s, inquiry)
        for digest in there:
            arrivals.came(digest.hex)
        for one in now:
            inquiry.settle(one.keyed, is_here=False)
        return bool(there)

    def _came(self, inquiry: Inquiry, one: FoundElsewhere) -> None:
        inquiry.settle(one.keyed, is_here=True, record=partial(self._record, one))

    def _record(self, one: FoundElsewhere) -> bool:
        try:
            self._store.results.record(one.key, one.result)
        except OSError:
            return False  # then it is made here, where the same is said of its own result
        return True


class _Arrivals:
    """Whose blobs are here by now, one after the other; from several threads. `complete` is called once for each of
    `found` of which nothing is missing any more."""

    def __init__(self, found: Sequence[FoundElsewhere], complete: Callable[[FoundElsewhere], None]) -> None:
        self._complete = complete
        self._lock = threading.Lock()
        self._lacks = {one.keyed.base: {digest.hex for digest in one.missing} for one in found}
        self._users: dict[str, list[FoundElsewhere]] = {}
        for one in found:
            for digest in one.missing:
                self._users.setdefault(digest.hex, []).append(one)

    def users(self) -> dict[str, list[ActionKey]]:
        """By the digits of each blob, who needs it."""
        return {name: [one.keyed.base for one in users] for name, users in self._users.items()}

    def came(self, name: str) -> None:
        with self._lock:
            complete = []
            for one in self._users.pop(name, ()):
                lacks = self._lacks[one.keyed.base]
                lacks.discard(name)
                if not lacks:
                    complete.append(one)
        for one in complete:
            self._complete(one)


def busyness() -> float:
    """How many processes want to run on each core of this machine; 0.0 where that is not known."""
    with contextlib.suppress(AttributeError, OSError):
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    return 0.0


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
    together = min(jobs, len(wanted))
    for one in wanted:
        fetch_s = one.size / speed.bytes_per_s + len(one.missing) * speed.latency_s * _PER_QUESTION
        if fetch_s <= one.result.duration_ms / 1000 / together:
            now.append(one)
    chosen = {one.key for one in now}
    return now, [one for one in wanted if one.key not in chosen]


def _sets(result: ActionResult) -> list[Digest]:
    return [file.digest for file in result.outputs if file.digest.size <= MAX_ENTRY_BYTES]


def _unique(digests: Iterable[Digest]) -> list[Digest]:
    return list(dict.fromkeys(digests))
