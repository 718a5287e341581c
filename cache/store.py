"""A store of bounded size that many processes use at once: blobs and entries, their sum, and what to drop.

Knows files of `blobs` and `actions` and when they were used (an entry's mtime is its last use). Does not know projects.
Invariants: nothing is removed while a build uses the store (each holds a shared lock, `gc` an exclusive one), and
nothing is removed that an entry which stays refers to. Losing anything here costs work and never correctness.

    lock    held shared by builds, exclusively by gc, clear and verify
    usage   bytes in the store, as last counted or added up: decimal digits. Wrong at worst until the next gc
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cache.actions import FORMAT, ActionCache, decode_entry
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest
from cache.durable import write_atomic
from cache.lock import OPEN, try_lock
from cache.named_tuple import NamedTuple

KEEP = 0.8
"""How full a gc leaves the store: collecting down to the brim would mean collecting after every build."""
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
                self._bound()

    def _bound(self) -> None:
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
        entries, blobs = self._entries(), self._blob_files()
        used = [used_s for used_s, _, _ in entries]
        size = sum(size for _, _, size in entries) + sum(size for _, size in blobs)
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
        entries, blobs = sorted(self._entries(), reverse=True), dict(self._blob_files())
        total = sum(size for _, _, size in entries) + sum(blobs.values())
        limit = bound if total <= bound else int(bound * KEEP)
        kept: set[Path] = set()
        room, dropped = limit, []
        for _, path, size in entries:
            new = [blob for blob in map(self.blobs.path, self._needs(path)) if blob not in kept]
            cost = size + sum(blobs.get(blob, 0) for blob in dict.fromkeys(new))
            if cost <= room:
                room -= cost
                kept.update(new)
            else:
                # From here on everything is older: keeping a smaller one would not be "least recently used".
                room = -1
                dropped.append((path, size))
        waste = [(path, size) for path, size in blobs.items() if path not in kept]
        freed = _unlink(dropped) + _unlink(waste)
        self._say_usage(total - freed)
        return Removed(len(dropped), len(waste), freed, total - freed)

    def _verify(self) -> Removed:
        blobs = dict(self._blob_files())
        total = sum(blobs.values()) + sum(size for _, _, size in self._entries())
        bad = [(path, size) for path, size in blobs.items() if self.blobs.read(Digest(path.name, size)) is None]
        # `read` has removed what it could not believe; names that are no digest are left to this.
        freed = sum(size for _, size in bad)
        _unlink(bad)
        entries = []
        for _, path, size in self._entries():
            if not self.results.is_complete(ActionKey(path.name)):
                entries.append((path, size))
        freed += _unlink(entries)
        self._say_usage(total - freed)
        return Removed(len(entries), len(bad), freed, total - freed)

    def _needs(self, entry: Path) -> tuple[Digest, ...]:
        try:
            result = decode_entry(ActionKey(entry.name), entry.read_bytes())
        except OSError:
            return ()
        return () if result is None else result.blobs()

    # --- files ----------------------------------------------------------------------------------

    def _entries(self) -> list[tuple[float, Path, int]]:
        """(last use, path, size) of every entry."""
        return [(status.st_mtime, path, status.st_size) for path, status in _files(self.root / FORMAT)]

    def _blob_files(self) -> list[tuple[Path, int]]:
        return [(path, status.st_size) for path, status in _files(self.blobs.root)]

    def _usage(self) -> int:
        try:
            return int((self.root / "usage").read_text())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):
            # Unreadable: count anew.
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


def _files(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file two levels down, left-over temporary ones included."""
    try:
        with os.scandir(top) as scan:
            directories = [Path(entry.path) for entry in scan if entry.is_dir()]
    except OSError:
        return
    for directory in (top, *directories):
        with os.scandir(directory) as scan:
            for entry in scan:
                if entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        yield directory / entry.name, entry.stat(follow_symlinks=False)


def _unlink(files: list[tuple[Path, int]]) -> int:
    """Remove them; the bytes that this freed."""
    freed = 0
    for path, size in files:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            freed += size
    return freed
