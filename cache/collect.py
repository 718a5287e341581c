"""What leaves a store, and how: the choice of a gc, and the removal of it while builds may want in.

Knows a census and a turn; not how either came to be. Invariants: entries leave before the blobs that they need, so that
whenever this ends, or is killed, no entry that stays refers to what is gone. Where the turn is `unlocked`, only what
was not written for SPARE_S leaves.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from cache.census import Census
from cache.hexfiles import HexFiles
from cache.named_tuple import NamedTuple
from cache.turns import Turn

try:
    from resource import RUSAGE_SELF, getrusage
except ImportError:  # Windows
    getrusage = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

KEEP = 0.8
"""How full a gc leaves the store: collecting down to the limit would mean collecting after every build."""
SPARE_S = 86400.0
"""Longer than any build, where the file system cannot say whether one is under way."""
_DIGITS = 64
ROUND_S = 0.01
"""Of removing, before it is asked again whether a build wants in."""
_FIRST, _LEAST, _MOST = 32, 16, 2048
_WORKERS = 16
"""On ext4 with `discard` and no journal, to remove a file that has reached the disk is one discard that is waited for:
0.5 to 2 ms alone, 0.13 to 0.24 ms among sixteen, hardly less among 64. The order of the files changes nothing, and
`find -delete` waits as well."""
_EACH = 8
"""Files of one directory that a worker is given: to hand over one costs more than to remove it, and who removes others
from the same directory at the same time only waits."""
_SLOW_S = 1e-4
"""To remove a file takes 10 to 50 us of computing."""
_TRIAL, _GAIN = 4, 0.7
"""Rounds of many at once, and what they may need of the time that one alone needs, to go on so."""

ByGroup = dict[str, list[str]]
"""Names of files, by the directory that they lie in."""


class Choice(NamedTuple):
    """What leaves: `entries` and `blobs` by directory, and the bytes of each by name."""

    entries: ByGroup
    blobs: ByGroup
    sizes: dict[str, int]


class Swept(NamedTuple):
    """What is gone. `whole`: all that was to leave was tried."""

    entries: int
    blobs: int
    bytes: int
    whole: bool


def choose(census: Census, bound: int, spare_s: float | None = None) -> Choice:
    """What was not used for longest, if there is more than `bound`, until `KEEP` of that is left; and whatever no entry
    refers to. `spare_s`: an entry used since then stays."""
    sizes: dict[str, int] = {}
    for group in census.blobs.values():
        sizes.update(group.sizes)
    facts = [(fact[1], name, fact) for group in census.entries.values() for name, fact in group.facts.items()]
    total, dropped, kept = census.total(), list[str](), set[str]()
    room = bound if total <= bound else int(bound * KEEP)
    if total > bound:
        facts.sort(reverse=True)
    for mtime_ns, name, fact in facts:
        if total > bound and (spare_s is None or mtime_ns < spare_s * 1e9):
            new = _names(fact[3]) - kept
            cost = fact[0] + sum(sizes.get(name, 0) for name in new)
            if cost > room:
                # From here on everything is older: keeping a smaller one would not be "least recently used".
                room = -1
                dropped.append(name)
                continue
            room -= cost
            kept |= new
        else:
            kept.update(_names(fact[3]))
    waste = sizes.keys() - kept
    sizes.update((name, fact[0]) for _, name, fact in facts)
    entries, blobs = _grouped(dropped), _grouped(waste)
    for found, into in ((census.entry_waste, entries), (census.blob_waste, blobs)):
        for one in found:
            into.setdefault(one.group, []).append(one.name)
            sizes[one.name] = one.size
    return Choice(entries, blobs, sizes)


def sweep(turn: Turn, choice: Choice, entries: HexFiles, blobs: HexFiles) -> Swept:
    """Remove it, or as much of it as there is time for before a build wants in."""
    spare_s = time.time() - SPARE_S if turn.unlocked else None
    gone = [list[str](), list[str]()]
    whole = True
    with _Removal(turn, spare_s) as removal:
        for files, by_group, into in ((entries, choice.entries, gone[0]), (blobs, choice.blobs, gone[1])):
            whole = whole and removal.remove(files, by_group, into)
    freed = sum(map(choice.sizes.__getitem__, (*gone[0], *gone[1])))
    return Swept(len(gone[0]), len(gone[1]), freed, whole)


class Rhythm:
    """How many files a round removes, and whether many are removed at once: where the disk makes us wait (one that is
    told of each freed block, or is on the network), and as long as that is quicker. On a busy machine everything takes
    longer, which is no waiting. Pure."""

    def __init__(self) -> None:
        self.size = _FIRST
        self.together = False
        self._alone_s = 0.0
        self._may_try = True
        self._tried, self._files, self._took_s = 0, 0, 0.0

    def learn(self, count: int, took_s: float, waits: int) -> None:
        """A round of `count` files took so long, and gave the processor back `waits` times."""
        if self.together:
            self._tried, self._files, self._took_s = self._tried + 1, self._files + count, self._took_s + took_s
            if self._tried == _TRIAL:
                self.together = self._may_try = self._took_s < _GAIN * self._alone_s * self._files
        else:
            self._alone_s = took_s / count
            self.together = self._may_try and 2 * waits >= count and self._alone_s > _SLOW_S
        least = _EACH * _WORKERS if self.together else _LEAST
        self.size = min(_MOST, max(least, min(int(count * ROUND_S / max(took_s, 1e-6)), 2 * self.size)))


class _Removal:
    """Removes in rounds of so many files as take ROUND_S."""

    def __init__(self, turn: Turn, spare_s: float | None) -> None:
        self._turn, self._spare_s = turn, spare_s
        self._rhythm = Rhythm()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> _Removal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def remove(self, files: HexFiles, by_group: ByGroup, gone: list[str]) -> bool:
        """Into `gone` go the names of what is; False when a build came."""
        names = _in_turn(by_group)
        at = 0
        while at < len(names):
            if not self._turn.goes_on():
                return False
            some = names[at : at + self._rhythm.size]
            at += len(some)
            began_s, waits = time.perf_counter(), _waits()
            gone += self._round(files, some)
            self._rhythm.learn(len(some), time.perf_counter() - began_s, _waits() - waits)
        return True

    def _round(self, files: HexFiles, some: list[tuple[str, str]]) -> list[str]:
        if not self._rhythm.together:
            return _discard(files, some, self._spare_s)
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(_WORKERS)
        parts = [[*members] for _, members in groupby(some, itemgetter(0))]
        return list(chain(*self._pool.map(lambda part: _discard(files, part, self._spare_s), parts)))


def _in_turn(by_group: ByGroup) -> list[tuple[str, str]]:
    """(directory, name) of all: a few of one directory, then a few of the next."""
    most = max(map(len, by_group.values()), default=0)
    starts = range(0, most, _EACH)
    return [
        (group, name)
        for start in starts
        for group, members in by_group.items()
        for name in members[start : start + _EACH]
    ]


def _waits() -> int:
    """How often this process gave the processor back by itself; 0 on systems that do not say."""
    return 0 if getrusage is None else getrusage(RUSAGE_SELF).ru_nvcsw


def _discard(files: HexFiles, some: list[tuple[str, str]], spare_s: float | None) -> list[str]:
    gone: list[str] = []
    for group, members in groupby(some, itemgetter(0)):
        gone += files.discard(group, [name for _, name in members], spare_s)
    return gone


def _names(needs: str | None) -> set[str]:
    text = needs or ""
    return {text[at : at + _DIGITS] for at in range(0, len(text), _DIGITS)}


def _grouped(names: Iterable[str]) -> ByGroup:
    grouped: ByGroup = {}
    for name in names:
        grouped.setdefault(name[:2], []).append(name)
    return grouped
