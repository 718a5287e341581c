"""The frames of a verdict as bytes: what both sides write the same way, and the fast path can afford to load.

Pure; imports nothing. Does not know what is up to date. Invariant: what `request` puts together, `asked` takes apart.

    question   verdict 1 NUL root NUL version NUL prefix NUL count NUL word NUL ... NAME=value NUL ...
               root, version, prefix: who asks, as `fastpath.identity` has it; `count` words of the command line; then
               the whole environment of the caller, since only the state knows which names matter
    answer     yes, body: what to print            or            look NUL why
               why: a few words for people; the caller looks at the disk
"""

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
    pairs = (field.partition(b"=") for field in fields[end:])
    return fields[1:4], fields[5:end], {name: value for name, _, value in pairs}
