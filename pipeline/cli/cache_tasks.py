"""What `doit cache:stats|gc|verify|clear` do: each returns what it found or did, and a table of it.

Knows the store and how to show its numbers. Does not know doit or the configuration. Never on the warm path.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cache.store import Removed, Stats, Store


def stats(root: Path, max_bytes: int) -> tuple[Stats, str]:
    """Counts and sizes of the store at `root`."""
    from pipeline.fastpath.native_build import describe

    found = Store(root, max_bytes).stats()
    rows = [
        ("place", str(root)),
        ("results", found.entries),
        ("blobs", found.blobs),
        ("size", size_text(found.bytes)),
        ("bound", f"{size_text(found.max_bytes)} ({100 * found.bytes / max(found.max_bytes, 1):.0f} % full)"),
        ("used longest ago", _instant(found.oldest_s)),
        ("used last", _instant(found.newest_s)),
        ("compiled fast path", describe()),
    ]
    return found, _table(rows)


def gc(root: Path, max_bytes: int) -> tuple[Removed, str]:
    """Remove what was not used for longest, down to the bound, and what nothing refers to."""
    removed = Store(root, max_bytes).gc()
    return removed, _removed(root, removed)


def verify(root: Path, max_bytes: int) -> tuple[Removed, str]:
    """Read everything, remove what is damaged."""
    removed = Store(root, max_bytes).verify()
    return removed, _removed(root, removed)


def clear(root: Path, max_bytes: int) -> tuple[Removed, str]:
    """Remove everything."""
    removed = Store(root, max_bytes).clear()
    return removed, _removed(root, removed)


def spared(name: str, words: Sequence[str]) -> bool:
    """Is `cache:NAME` one that removes results, run only because doit runs all of a group? Who says `doit cache` wants
    to look, and not to lose what all projects share."""
    if name not in ("gc", "clear"):
        return False
    return any(word == "cache" or ("*" in word and fnmatchcase(f"cache:{name}", word)) for word in words)


def size_text(size: int) -> str:
    """Bytes as people read them; decimal units, as `[cache] max_size` has them."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _removed(root: Path, removed: Removed) -> str:
    if removed.busy:
        return f"{root} is in use by a build, or cannot be written; nothing was removed"
    return _table(
        [
            ("place", str(root)),
            ("results removed", removed.entries),
            ("blobs removed", removed.blobs),
            ("freed", size_text(removed.bytes)),
            ("left", size_text(removed.left_bytes)),
        ]
    )


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC") if seconds else "never"


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    from tabulate import tabulate

    return str(tabulate(rows, tablefmt="plain", disable_numparse=True))
