"""`hotplate cc --stats`: how many calls were answered, compiled, or left to the compiler, and why.

Reads the sizes of files (see `call.count`). Does not know what a reason means. Invariant: it changes nothing unless it
is asked to count from zero.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

HEADS = (
    ("hit-direct", "hits, by stamps or digests alone"),
    ("hit", "hits, by key"),
    ("miss", "misses: compiled and stored"),
)
_KINDS = (("unstored-", "compiled, not stored"), ("passed-", "left to the compiler"))


def counts(cache: str) -> dict[str, int]:
    """Name -> how often."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(f"{cache}/cc.v1/counts") as entries:
        found = {entry.name: entry.stat().st_size for entry in entries}
    return found


def rows(cache: str) -> list[tuple[str, int]]:
    """(what, how often) for a person, hits and misses first."""
    found = counts(cache)
    table = [(text, found.get(name, 0)) for name, text in HEADS]
    for start, text in _KINDS:
        table += [
            (f"{text}: {name.removeprefix(start).replace('-', ' ')}", number)
            for name, number in sorted(found.items())
            if name.startswith(start)
        ]
    return table


def show(cache: str) -> int:
    """Print them; the exit code."""
    table = [("place", cache or "none: no home directory is known"), *rows(cache)]
    width = max(len(text) for text, _ in table)
    try:
        sys.stdout.write("".join(f"{text.ljust(width)}  {value}\n" for text, value in table))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer goes there at the end
        if not isinstance(error, BrokenPipeError):  # `| head` has seen enough
            print(f"stdout: error: cannot be written: {error.strerror}\nhint: free disk space", file=sys.stderr)
            return 1
    return 0


def zero(cache: str) -> int:
    """Count from zero; the exit code."""
    for name in counts(cache):
        with contextlib.suppress(OSError):
            Path(cache, "cc.v1", "counts", name).unlink()
    return 0
