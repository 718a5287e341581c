"""A store of bounded size that many processes use at once: blobs and entries, their sum, and what to drop.

Knows files of `blobs` and `actions` and when they were used (an entry's mtime is its last use). Does not know projects.
Invariants: nothing is removed while a build uses the store (`turns`), nothing is removed that an entry which stays
refers to (`collect`), and nothing that lies elsewhere, whatever links there are. Losing anything here costs work and
never correctness; what cannot be read, written or removed, as another user's file, is left as it is.

    lock      who is in the store: see `turns`
    index.v1  what was found last time: see `census`
    usage     bytes in the store, as last counted or added up: decimal digits. Wrong at worst until the next gc
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cache.actions import ActionCache
from cache.blobs import BlobStore
from cache.census import INDEX, Census, Teller
from cache.collect import SPARE_S, choose, sweep
from cache.digest import ActionKey
from cache.durable import read_file, write_atomic
from cache.named_tuple import NamedTuple
from cache.sharing import Sharing
from cache.turns import StoreLock, Turn

DEFAULT_MAX_BYTES = 5 << 30


class Stats(NamedTuple):
    """`oldest_s`, `newest_s`: seconds since the epoch at which the entry used longest ago, and the last one, were used
    (0.0 in an empty store)."""

    entries: int
    blobs: int
    bytes: int
    max_bytes: int
    oldest_s: float
    newest_s: float


class Removed(NamedTuple):
    """What a gc or verify removed, and how many bytes are left. `busy`: a build uses the store, or came while a gc was
    at work, so no more was done."""

    entries: int = 0
    blobs: int = 0
    bytes: int = 0
    left_bytes: int = 0
    busy: bool = False


class Store:
    """Blobs and entries below `root`. Methods may raise OSError."""

    def __init__(self, root: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.blobs = BlobStore(root)
        self.results = ActionCache(root, self.blobs)
        self._lock = StoreLock(root)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While a build runs. Then nothing is removed; afterwards, what became too much is. A gc under way leaves."""
        try:
            with self._lock.shared(), self.blobs.files.held_open(), self.results.files.held_open():
                yield
        finally:
            with contextlib.suppress(OSError):
                self.bound()

    def bound(self) -> None:
        """Count what was added, and remove what became too much, unless somebody uses the store. Raises OSError."""
        added = self.blobs.bytes_written
        if not added:
            return
        self.blobs.bytes_written = 0
        usage = self._usage() + added
        self._say_usage(usage)
        if usage > self.max_bytes:
            self.gc()

    def stats(self) -> Stats:
        """Count everything. Reads directories, not contents."""
        teller = self._teller()
        census = teller.take(times=True)
        self._remember(teller, census)
        entries, blobs = census.counts()
        used = [fact[1] for group in census.entries.values() for fact in group.facts.values()]
        oldest_s, newest_s = (found / 1e9 for found in (min(used, default=0), max(used, default=0)))
        return Stats(entries, blobs, census.total(), self.max_bytes, oldest_s, newest_s)

    def gc(self, max_bytes: int | None = None) -> Removed:
        """Remove what was not used for longest until at most `KEEP` of `max_bytes` (default: the store's bound) is
        left, if there is more than that bound; and whatever no entry refers to. Nobody waits while it is found out what
        that is; a build that begins before everything is gone ends this."""
        bound = self.max_bytes if max_bytes is None else max_bytes
        with self._lock.alone() as turn:
            return Removed(busy=True) if turn is None else self._collect(bound, turn)

    def clear(self) -> Removed:
        """Remove everything."""
        return self.gc(0)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Removed:
        """Read every blob and entry, and remove what is damaged: blobs that are not what their name says, entries that
        cannot be read or whose blobs are gone. Builds may go on meanwhile: what is damaged is of use to none.
        `progress(done, total)`: bytes read so far, and of all."""
        with self._lock.shared():
            return self._verify(progress)

    # --- removing -------------------------------------------------------------------------------

    def _collect(self, bound: int, turn: Turn) -> Removed:
        turn.leave()
        teller = self._teller()
        census = teller.take(needs=True)
        total = census.total()
        if total > bound:
            teller.with_times(census)
        choice = choose(census, bound, time.time() - SPARE_S if turn.unlocked else None)
        self._remember(teller, census)
        if not turn.again():
            return Removed(left_bytes=total, busy=True)
        swept = sweep(turn, choice, self.results.files, self.blobs.files)
        self._say_usage(total - swept.bytes)
        return Removed(swept.entries, swept.blobs, swept.bytes, total - swept.bytes, not swept.whole)

    def _verify(self, progress: Callable[[int, int], None]) -> Removed:
        teller = self._teller()
        census = teller.take()
        total, done = census.total(), 0
        removed = [0, 0, 0]
        for files, waste, at in (
            (self.results.files, census.entry_waste, 0),
            (self.blobs.files, census.blob_waste, 1),
        ):
            for one in waste:
                # Temporary files may be a build's; a gc takes them when there is none.
                if not one.is_temporary and files.discard(one.group, [one.name]):
                    removed[at] += 1
                    removed[2] += one.size
        whole: dict[str, int] = {}
        for blobs in census.blobs.values():
            for name, size in blobs.sizes.items():
                if self.blobs.remove_damaged(name):
                    removed[1] += 1
                    removed[2] += size
                else:
                    whole[name] = size
                done += size
                progress(done, total)
        for entries in census.entries.values():
            for name, fact in entries.facts.items():
                if not self._is_of_use(ActionKey(name), whole):
                    self.results.files.remove(name)
                    removed[0] += 1
                    removed[2] += fact[0]
                done += fact[0]
            progress(done, total)
        self._say_usage(total - removed[2])
        return Removed(removed[0], removed[1], removed[2], total - removed[2])

    def _is_of_use(self, key: ActionKey, whole: dict[str, int]) -> bool:
        """Can the entry be read, and is each of its blobs here? `whole`: size by name of those that were seen."""
        result = self.results.entry(key)
        return result is not None and all(
            whole.get(digest.hex) == digest.size or self.blobs.has(digest) for digest in result.blobs()
        )

    # --- files ----------------------------------------------------------------------------------

    def _usage(self) -> int:
        try:
            # As many digits as a sum of sizes can have.
            return int(read_file(str(self.root / "usage"), most=20, follow=False))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):
            # Unreadable: count again.
            return self.stats().bytes

    def _say_usage(self, size: int) -> None:
        self._write_own("usage", b"%d\n" % max(size, 0))

    def _teller(self) -> Teller:
        return Teller(self.root, self.blobs.files, self.results.files)

    def _remember(self, teller: Teller, census: Census) -> None:
        if census.moved and self.root.is_dir():
            self._write_own(INDEX, teller.encode(census))

    def _write_own(self, name: str, data: bytes) -> None:
        """Write what may be lost, for all who share the store. Who may not write here does without."""
        sharing = Sharing.of(str(self.root))
        with contextlib.suppress(OSError):
            write_atomic(self.root / name, data, durable=False, own=True, sharing=sharing)
