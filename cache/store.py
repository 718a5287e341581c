"""A store of bounded size that many processes use at once: blobs and entries, their sum, and what to drop.

Knows files of `blobs` and `actions` and when they were used (an entry's mtime is its last use). Does not know projects.
Invariants: nothing is removed while a build uses the store (each holds a shared lock, `gc` an exclusive one), nothing
is removed that an entry which stays refers to, and nothing that lies elsewhere, whatever links there are. Losing
anything here costs work and never correctness.

    lock    held shared by builds, exclusively by gc, clear and verify
    usage   bytes in the store, as last counted or added up: decimal digits. Wrong at worst until the next gc
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cache.actions import MAX_ENTRY_BYTES, ActionCache, decode_entry
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest
from cache.durable import read_file, write_atomic
from cache.hexfiles import HexFile
from cache.lock import OPEN, try_lock
from cache.named_tuple import NamedTuple

KEEP = 0.8
"""How full a gc leaves the store: collecting down to the limit would mean collecting after every build."""
DEFAULT_MAX_BYTES = 5 << 30
PATIENCE_S = 10.0
"""A gc reads every entry and removes files: less than that for a store of hundreds of thousands."""


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
    """What a gc or verify removed, and how many bytes are left. `busy`: a build uses the store, so nothing was done."""

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

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While a build runs. Then nothing is removed; afterwards, what became too much is. Waits for a gc under way,
        PATIENCE_S at most. A store that cannot be locked (a read-only directory) is used without: what a gc removes
        early costs work only."""
        handle = self._open()
        if handle is not None:
            with contextlib.suppress(OSError):
                deadline_s = time.monotonic() + PATIENCE_S
                while not try_lock(handle, shared=True) and time.monotonic() < deadline_s:
                    time.sleep(0.005)
        try:
            yield
        finally:
            if handle is not None:
                os.close(handle)
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
        entries, blobs = self.results.files.found(), self.blobs.files.found()
        used = [one.status.st_mtime for one in entries]
        size = sum(one.size for one in (*entries, *blobs))
        return Stats(len(entries), len(blobs), size, self.max_bytes, min(used, default=0.0), max(used, default=0.0))

    def gc(self, max_bytes: int | None = None) -> Removed:
        """Remove what was not used for longest until at most `KEEP` of `max_bytes` (default: the store's bound) is
        left, if there is more than that bound; and whatever no entry refers to."""
        bound = self.max_bytes if max_bytes is None else max_bytes
        with self._alone() as alone:
            return self._collect(bound) if alone else Removed(busy=True)

    def clear(self) -> Removed:
        """Remove everything."""
        return self.gc(0)

    def verify(self) -> Removed:
        """Read every blob and entry, and remove what is damaged: blobs that are not what their name says, entries that
        cannot be read or whose blobs are gone."""
        with self._alone() as alone:
            return self._verify() if alone else Removed(busy=True)

    # --- under the exclusive lock ---------------------------------------------------------------

    def _collect(self, bound: int) -> Removed:
        entries, blobs = self.results.files.found(), self.blobs.files.found()
        entries.sort(key=lambda one: (one.is_sound, one.status.st_mtime, one.name), reverse=True)
        sizes = {one.name: one.size for one in blobs if one.is_sound}
        total = sum(one.size for one in (*entries, *blobs))
        limit = bound if total <= bound else int(bound * KEEP)
        kept: set[str] = set()
        room, dropped = limit, []
        for one in entries:
            new = {digest.hex for digest in self._needs(one)} - kept
            cost = one.size + sum(sizes.get(name, 0) for name in new)
            if one.is_sound and cost <= room:
                room -= cost
                kept |= new
            else:
                # From here on everything is older: keeping a smaller one would not be "least recently used".
                room = -1
                dropped.append(one)
        waste = [one for one in blobs if not (one.is_sound and one.name in kept)]
        return self._without(dropped, waste, total)

    def _verify(self) -> Removed:
        entries, blobs = self.results.files.found(), self.blobs.files.found()
        total = sum(one.size for one in (*entries, *blobs))
        # What cannot be believed is removed by reading it; what is of no use otherwise is left to `_without`.
        bad = [one for one in blobs if not one.is_sound or self.blobs.read(Digest(one.name, one.size)) is None]
        broken = [one for one in entries if not one.is_sound or not self.results.is_complete(ActionKey(one.name))]
        return self._without(broken, bad, total)

    def _without(self, entries: list[HexFile], blobs: list[HexFile], total: int) -> Removed:
        freed = self.results.files.discard(entries) + self.blobs.files.discard(blobs)
        self._say_usage(total - freed)
        return Removed(len(entries), len(blobs), freed, total - freed)

    def _needs(self, entry: HexFile) -> tuple[Digest, ...]:
        try:
            data = read_file(self.results.files.place(entry.name), most=MAX_ENTRY_BYTES, follow=False)
        except OSError:
            return ()
        result = decode_entry(ActionKey(entry.name), data)
        return () if result is None else result.blobs()

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
        write_atomic(self.root / "usage", b"%d\n" % max(size, 0), durable=False, own=True)

    def _open(self) -> int | None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return os.open(self.root / "lock", OPEN, 0o644)
        except OSError:
            return None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Is nobody else here?"""
        handle = self._open()
        if handle is None:
            yield False
            return
        try:
            yield try_lock(handle)
        finally:
            os.close(handle)
