"""One plain Python value in one file, checked by length and checksum: the form of every compact state file.

Does not know what the value means. Invariant: `load` returns what `save` was given, or nothing with a sentence that
says why; it never raises for a damaged file and never returns part of one.

    state file = b"hotplate-state " kind " " crc32 (8 hex digits) " " length (decimal) "\n" body
    body       = marshal, format 4, of tuples, lists, dicts, strings, integers, booleans and None
    History: `kind` names content and version ("stamps 1"); a file of another kind is not read.

marshal, because this file is read on every warm run: it loads 10,000 rows in about 1 ms where JSON takes ten. It must
only see bytes that we wrote, which the checksum in front of it sees to.
"""

from __future__ import annotations

import gc
import marshal
from binascii import crc32
from pathlib import Path
from typing import Any

from cache.durable import write_atomic

_MARSHAL_FORMAT = 4
_MAGIC = "hotplate-state"


def encode(kind: str, value: Any) -> bytes:
    """The bytes of a state file."""
    body = marshal.dumps(value, _MARSHAL_FORMAT)
    return f"{_MAGIC} {kind} {crc32(body):08x} {len(body)}\n".encode() + body


def decode(kind: str, data: bytes) -> tuple[Any, str]:
    """The value and `""`, or None and what is wrong."""
    head, newline, body = data.partition(b"\n")
    wanted = f"{_MAGIC} {kind} ".encode()
    if not newline or not head.startswith(wanted):
        return None, f"is not a {kind!r} state file"
    if head[len(wanted) :] != f"{crc32(body):08x} {len(body)}".encode():
        return None, "is damaged (length or checksum)"
    # Loading allocates many small tuples and frees none: the collector would walk them again and again for nothing.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return marshal.loads(body), ""
    except (ValueError, EOFError, TypeError):
        return None, "is damaged (content)"
    finally:
        if collecting:
            gc.enable()


def load(path: Path, kind: str) -> tuple[Any, str]:
    """The value of `path` and `""`; None and `""` when there is no file; None and one line for the user otherwise."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path.name} cannot be read ({error.strerror}); starting over"
    value, trouble = decode(kind, data)
    return value, f"{path.name} {trouble}; starting over" if trouble else ""


def save(path: Path, kind: str, value: Any) -> None:
    """Replace `path`. Raises OSError; then the old file is still there. Not synced: losing it costs work only."""
    write_atomic(path, encode(kind, value), durable=False)
