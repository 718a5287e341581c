"""Ask the resident service for a verdict before looking at the disk: it has watched the files, and stats none.

Knows the frames of a verdict as bytes, which both sides take from here; not how the service decides. Invariants: what
`request` puts together, `asked` takes apart; what is not a whole answer within DEADLINE_S is none, and the caller looks
for itself; nothing is said to a person. Part of the warm path: `_socket`, because `socket` makes enumerations for five
milliseconds, and only where it is needed.

    question   verdict 1 NUL root NUL version NUL prefix NUL count NUL word NUL ... NAME=value NUL ...
               root, version, prefix: who asks, as `fastpath.identity` has it; `count` words of the command line; then
               the whole environment of the caller, since only the state knows which names matter
    answer     yes, body: what to print            or            look NUL why [NUL stamp NUL moved]
               why: a few words for people; the caller looks at the disk, unless it is told what a look would find: the
               stamp of the state file that is meant, and the places in its listing of all that moved, as decimals
"""

import os
import sys

from pipeline.client.endpoint import SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROTOCOL = 1
"""Of all frames. Both sides must have the same one: a client of another works alone, and says so."""

VERDICT_FRAME = 2
PREFIX_BYTES = 9
MAX_HEADER = 1 << 20
"""Bytes; the environment of a caller is the largest header."""
MAX_BODY = 1 << 20

DEADLINE_S = 0.05
"""For all of it. A service that is busy for longer costs more than the disk does."""

QUESTION = b"verdict %d" % PROTOCOL
YES = b"yes"
LOOK = b"look"


def prefix(kind: int, header_size: int, body_size: int) -> bytes:
    """The nine bytes before a frame."""
    return bytes([kind]) + header_size.to_bytes(4, "big") + body_size.to_bytes(4, "big")


def request(who: "Sequence[bytes]", words: "Sequence[bytes]", environment: "Mapping[bytes, bytes]") -> bytes:
    """The whole frame. `who`: root, version and prefix; no part holds a NUL."""
    pairs = [name + b"=" + value for name, value in environment.items()]
    header = b"\0".join([QUESTION, *who, b"%d" % len(words), *words, *pairs])
    return prefix(VERDICT_FRAME, len(header), 0) + header


def asked(fields: "Sequence[bytes]") -> "tuple[Sequence[bytes], Sequence[bytes], Mapping[bytes, bytes]] | None":
    """What was given to `request`; None for what is no such question."""
    if len(fields) < 5 or fields[0] != QUESTION or not fields[4].isdigit() or len(fields[4]) > 6:
        return None
    end = 5 + int(fields[4])
    if len(fields) < end:
        return None
    return fields[1:4], fields[5:end], variables(fields[end:])


def variables(pairs: "Sequence[bytes]") -> "dict[bytes, bytes]":
    """What Python's `os.environb` holds in a process that was given these."""
    found: dict[bytes, bytes] = {}
    for pair in pairs:
        name, equals, value = pair.partition(b"=")
        if equals:
            found.setdefault(name, value)
    return found


def service_says(directory: str, argv: "Sequence[str]") -> "str | tuple[tuple[int, ...], list[int]] | None":
    """What `doit` would print, else the stamp of the state file and what moved of its listing; None when the caller has
    to look. `directory`: where the service listens."""
    who = (os.getcwdb(), sys.version.encode(), os.fsencode(sys.prefix))  # noqa: PTH109
    try:
        question = request(who, [os.fsencode(word) for word in argv], os.environb)
        # A header of that size would be refused, and end the connection.
        answer = _answer(f"{directory}/{SOCKET}", question) if len(question) < MAX_HEADER else None
        if not isinstance(answer, list):
            return None if answer is None else answer.decode()
        stamp, moved = ([int(number) for number in field.split(b" ")] for field in answer[2:])
        return tuple(stamp), moved
    except (OSError, ValueError):
        return None


def _answer(path: str, question: bytes) -> "bytes | list[bytes] | None":
    """The text of a "yes", or the fields of a "look" that tells what moved. Raises OSError."""
    from _socket import AF_UNIX, SOCK_STREAM, socket
    from time import monotonic

    end_s = monotonic() + DEADLINE_S
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(DEADLINE_S)
        connection.connect(path)
        connection.sendall(question)
        data, whole = b"", PREFIX_BYTES
        while len(data) < whole:
            left_s = end_s - monotonic()
            if left_s <= 0:
                return None
            connection.settimeout(left_s)
            more = connection.recv(1 << 16)
            if not more:
                return None
            data += more
            if whole == PREFIX_BYTES <= len(data):
                header, body = int.from_bytes(data[1:5], "big"), int.from_bytes(data[5:9], "big")
                if data[0] != VERDICT_FRAME or header > MAX_HEADER or body > MAX_BODY:
                    return None
                whole += header + body
    finally:
        connection.close()
    fields = data[PREFIX_BYTES : PREFIX_BYTES + header].split(b"\0")
    if fields == [YES]:
        return data[PREFIX_BYTES + header :]
    return fields if fields[0] == LOOK and len(fields) == 4 else None
