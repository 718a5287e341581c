"""Locks between processes on an open file: flock where there is one, byte-range locks on Windows.

Knows descriptors. Does not know what is locked or who holds it. Invariant: a lock ends with its descriptor, so with
its process at the latest, however that ends.
"""

from __future__ import annotations

import os
import sys

OPEN = (
    os.O_RDWR
    | os.O_CREAT
    | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_BINARY", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY"))
)
"""How a lock file is opened; it is never unlinked, or two processes would lock two files of one name. A link in its
place is not followed, since who holds a lock writes who they are into it; a FIFO keeps nobody waiting."""

_FAR = 1 << 30
"""On Windows a locked range cannot be read by others, so the one that is locked lies behind all content."""


def try_lock(handle: int, *, shared: bool = False) -> bool:
    """Lock the open file now, or say that somebody else has it. `shared` locks go together and exclude only exclusive
    ones (on Windows, which has no such lock here, they exclude each other). Raises OSError when the file system knows
    no locks."""
    if sys.platform == "win32":
        import msvcrt

        place = os.lseek(handle, 0, os.SEEK_CUR)
        os.lseek(handle, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(handle, place, os.SEEK_SET)
        return True
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(handle: int) -> None:
    """Give the lock back and keep the file open. Raises OSError."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, _FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
        return
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_UN)
