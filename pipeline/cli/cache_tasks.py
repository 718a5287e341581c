"""`cache:*` as doit tasks, and what they do: each returns what it found or did, and a table of it.

Knows the store and how to show its numbers. Invariant: declaring the tasks imports nothing of what they run; nothing
else of this is on the warm path.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.exceptions import TaskFailed

from pipeline.run.current import current, told

if TYPE_CHECKING:
    from cache.store import Removed, Stats


def cache() -> Iterator[dict[str, Any]]:
    """The group and its tasks."""
    yield {"basename": "cache", "name": None, "doc": "look after the store that this user's projects share"}
    for name, doc in (
        ("stats", "how much the store holds"),
        ("gc", "remove what was not used for longest, down to [cache] max_size"),
        ("verify", "read everything and remove what is damaged"),
        ("clear", "remove everything; the next build compiles"),
    ):
        yield {"basename": "cache", "name": name, "doc": doc, "actions": [(_cache, [name])], "verbosity": 2}


@told(TaskFailed)
def _cache(name: str) -> None:
    if left_alone(name, sys.argv[1:]):
        print(f"cache:{name}: left alone; name it to run it")
        return
    project = current().project
    _, table = WORK[name](project.cache_dir, project.config.cache.max_bytes)
    print(table)


def stats(root: Path, max_bytes: int) -> tuple[Stats, str]:
    """Counts and sizes of the store at `root`."""
    from cache.store import Store
    from pipeline.fastpath.native_build import describe
    from pipeline.launcher import statistics

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
        *((f"hotplate cc: {text}", number) for text, number in statistics.rows(str(root)) if number),
    ]
    return found, _table(rows)


def gc(root: Path, max_bytes: int) -> tuple[Removed, str]:
    """Remove what was not used for longest, down to the bound, and what nothing refers to."""
    from cache.store import Store

    removed = Store(root, max_bytes).gc()
    return removed, _removed(root, removed)


def verify(root: Path, max_bytes: int) -> tuple[Removed, str]:
    """Read everything, remove what is damaged. A terminal shows how far it is."""
    from cache.store import Store
    from pipeline.report.terminal import Progress, look_of

    progress = Progress(sys.stdout, look_of(sys.stdout))
    try:
        removed = Store(root, max_bytes).verify(lambda done, total: progress("cache:verify", done, max(total, 1)))
    finally:
        progress.finish()
    return removed, _removed(root, removed)


def clear(root: Path, max_bytes: int) -> tuple[Removed, str]:
    """Remove everything."""
    from cache.store import Store

    removed = Store(root, max_bytes).clear()
    return removed, _removed(root, removed)


WORK = {"stats": stats, "gc": gc, "verify": verify, "clear": clear}


def left_alone(name: str, words: Sequence[str]) -> bool:
    """Is `cache:NAME` one that removes results, run only because doit runs all of a group? Who says `doit cache` wants
    to look, and not to lose what all projects share."""
    if name not in ("gc", "clear"):
        return False
    from fnmatch import fnmatchcase

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
    note = ""
    if removed.busy:
        if not removed.bytes:
            return f"{root} is in use by a build, or cannot be written; nothing was removed"
        note = "\na build began meanwhile, so the rest stays; run it again when that has ended"
    table = _table(
        [
            ("place", str(root)),
            ("results removed", removed.entries),
            ("blobs removed", removed.blobs),
            ("freed", size_text(removed.bytes)),
            ("left", size_text(removed.left_bytes)),
        ]
    )
    return table + note


def _instant(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC") if seconds else "never"


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    from tabulate import tabulate

    return str(tabulate(rows, tablefmt="plain", disable_numparse=True))
