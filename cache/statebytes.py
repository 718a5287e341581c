"""The bytes of a state file: one plain Python value with length and checksum in front.

    state file = b"hotplate-state " kind " " crc32 (8 hex digits) " " length (decimal) "\n" body
    length     = that of the body; of one that was written in parts with zeros in front, twelve digits
    body       = marshal, up to format 4, of tuples, lists, dicts, strings, integers, booleans and None
    History: `kind` names content and version ("stamps 1"); a file of another kind is not read.

Does not know where files lie or what the value means. Invariant: `decode` returns what `encode` was given, or nothing
with a sentence that says why; it never raises for damaged bytes and never returns part of a value.

marshal, because these bytes are read on every warm run: it loads 10,000 rows in about 1 ms where JSON takes ten. It
must only see bytes that we wrote, which the checksum in front of it sees to. Apart from `statefile` because the fast
path reads one in a process whose whole budget is 12 ms: nothing is imported here that the interpreter has not loaded.
"""

import gc
import marshal
import os
import sys
from binascii import crc32

TYPE_CHECKING = False  # importing `typing` takes longer than all of this; type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_MARSHAL_FORMAT = 4
_MAGIC = "hotplate-state"


def open_file(path: str, flags: int) -> int:
    """As the `opener` of `open`: keeps nobody waiting where a FIFO lies, and opens nothing but files, which end."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if os.fstat(handle).st_mode & 0o170000 != 0o100000:
        os.close(handle)
        raise OSError
    return handle


def beginning(kind: str) -> bytes:
    """What a state file of this kind begins with."""
    return f"{_MAGIC} {kind} ".encode()


def encode(kind: str, value: "Any") -> bytes:
    """The bytes of a state file."""
    return b"".join(encoded_parts(kind, value))


def encoded_parts(kind: str, value: "Any") -> "tuple[bytes, bytes]":
    """The same in two parts, to be written one after the other: that of a large project is megabytes long."""
    body = marshal.dumps(value, _MARSHAL_FORMAT)
    return beginning(kind) + f"{crc32(body):08x} {len(body)}\n".encode(), body


def parts_of_pair(rows: "Mapping[str, bytes]", beside: "Any", other: "Any") -> "Iterator[bytes]":
    """The body of ((rows, beside), other) piece by piece: of a large project the whole is tens of megabytes. The rows
    are in format 2, which refers to nothing, so that what `other` refers to is found where its own encoding says."""
    yield _PAIR + _PAIR + b"{"
    piece: dict[str, bytes] = {}
    for name in list(rows):
        if (row := rows.get(name)) is not None:
            piece[name] = row
        if len(piece) == _PIECE:
            yield marshal.dumps(piece, 2)[1:-1]  # without its "{" and the "0" at the end of a dictionary
            piece.clear()
    yield marshal.dumps(piece, 2)[1:] + marshal.dumps(beside, 2)
    yield marshal.dumps(other, _MARSHAL_FORMAT)


def parts_of_bytes(name: str, data: "bytes | bytearray") -> "Iterator[bytes | bytearray]":
    """The body of (name, data), which needs no second room for the data."""
    yield _PAIR + marshal.dumps(name, 2) + b"s" + len(data).to_bytes(4, "little")
    yield data


_PAIR = b"(\2\0\0\0"
"""How marshal begins a tuple of two."""
_PIECE = 4096


def told_beginning(kind: str, checksum: int, length: int) -> bytes:
    """The first line of a file that is written in parts: as long for each length."""
    return beginning(kind) + f"{checksum:08x} {length:012d}\n".encode()


def decode(kind: str, data: bytes) -> "tuple[Any, str]":
    """The value and `""`, or None and what is wrong."""
    ahead = sys.modules.get("cache.ahead")
    if ahead is not None and (value := ahead.values().decoded(data)) is not None and data.startswith(beginning(kind)):
        return value, ""
    end = data.find(b"\n")
    wanted = beginning(kind)
    if end < 0 or not data.startswith(wanted):
        return None, f"is not a {kind!r} state file"
    body = memoryview(data)[end + 1 :]
    checksum, length, said = crc32(body), len(body), data[len(wanted) : end + 1]
    if said not in (f"{checksum:08x} {length}\n".encode(), f"{checksum:08x} {length:012d}\n".encode()):
        return None, "is damaged (length or checksum)"
    # Loading allocates many small tuples and frees none: the collector would walk them again and again for nothing.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return marshal.loads(body), ""
    except (ValueError, EOFError, TypeError, MemoryError):
        return None, "is damaged (content)"
    finally:
        if collecting:
            gc.enable()
