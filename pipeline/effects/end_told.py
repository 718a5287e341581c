"""How a process that was started for one run says that the run is over, before it is taken down.

To take apart what a run of ten thousand units has in memory takes the kernel some milliseconds, for which nobody who
waits for the run need wait. Knows handles; not what a run is. Invariant: what is told is true for good: whoever tells
has flushed its streams, which are let go before, and begins nothing any more.
"""

from __future__ import annotations

import contextlib
import os


def let_streams_go() -> None:
    """Whoever reads what this process prints sees the end of it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


def tell_end(handle: int, code: int) -> None:
    """Say the exit code there, and nothing to anybody else from here on."""
    let_streams_go()
    with contextlib.suppress(OSError):  # nobody wants to know
        os.write(handle, b"%d" % code)


def told_end(handle: int) -> int | None:
    """Wait for the code that the process at the other end says; None when that ends without a word. Closes the
    handle."""
    try:
        said = os.read(handle, 16)
    finally:
        os.close(handle)
    return int(said) if said else None
