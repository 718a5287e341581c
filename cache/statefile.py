"""One plain Python value in one file, checked by length and checksum: the form of every compact state file.

Knows files; `statebytes` knows the format. Does not know what the value means. Invariant: `load` returns what `save`
was given, or nothing with a sentence that says why; it never raises for a damaged file and never returns part of one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cache.durable import read_file, write_atomic
from cache.statebytes import decode, encode

__all__ = ["decode", "encode", "load", "save"]


def load(path: Path, kind: str) -> tuple[Any, str]:
    """The value of `path` and `""`; None and `""` when there is no file; None and one line for the user otherwise."""
    try:
        data = read_file(str(path))
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path.name} cannot be read ({error.strerror}); starting over"
    value, trouble = decode(kind, data)
    return value, f"{path.name} {trouble}; starting over" if trouble else ""


def save(path: Path, kind: str, value: Any) -> None:
    """Replace `path`, even a directory there. Raises OSError; then the old file is still there. Not synced: losing it
    costs work only."""
    write_atomic(path, encode(kind, value), durable=False, own=True)
