"""The frames between a client and the runner: lists of byte strings, so that a client loads no JSON.

Pure. Does not know what a run is. Invariant: what `pack` puts together, `unpack` takes apart, or it is None.

    run       run 2, then groups, each its count and its strings: who, place, argv, sys.path, streams, groups,
              environment, look (what the client knows to have moved: `fastpath.FirstLook.told`); with descriptors
              0, 1, 2 and the reading end of a pipe: the run begins at the first byte that comes through it, and never
              if it is closed before
    started   started, pid            refused   refused, why            ended   ended, code (negative: a signal)
    signal    signal, number          detach    detach: go on without a terminal
"""

from pipeline.client.verdict import VERDICT_FRAME, prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RUN = b"run 2"
COMPILED = b"compiled"
"""In the place of how the interpreter was started: who asks is the compiled client, in the place of a script of an
interpreter without options, and path is that script's directory alone. The rest is as the runner has it, whose
interpreter was started without options, too."""
STARTED, REFUSED, ENDED, SIGNAL, DETACH = b"started", b"refused", b"ended", b"signal", b"detach"
GROUPS = 8


def frame(*fields: bytes) -> bytes:
    """A frame without a body. No field holds a NUL."""
    header = b"\0".join(fields)
    return prefix(VERDICT_FRAME, len(header), 0) + header


def pack(*groups: "Sequence[bytes]") -> bytes:
    """The frame of a `run`."""
    return frame(RUN, *(field for group in groups for field in (b"%d" % len(group), *group)))


def unpack(fields: "Sequence[bytes]") -> "list[Sequence[bytes]] | None":
    """What was given to `pack`; None for what is no such frame."""
    if not fields or fields[0] != RUN:
        return None
    groups: list[Sequence[bytes]] = []
    at = 1
    while at < len(fields):
        count = int(fields[at]) if fields[at].isdigit() and len(fields[at]) < 7 else len(fields)
        if at + count >= len(fields):
            return None
        groups.append(fields[at + 1 : at + 1 + count])
        at += 1 + count
    return groups if len(groups) == GROUPS else None
