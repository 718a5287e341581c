"""Who is in a store: builds together, and a gc alone, in short turns that end when a build wants in.

    lock    held shared by builds, exclusively by gc. Its first bytes are the mark of who took it last: 16 random bytes

Knows the lock's file; not what is done under it. Invariants: a `Turn` is held by one process, and while no build is
under way; `again` is True only if nobody was in the store since `leave`, since whoever comes in leaves a mark of
their own, both before waiting and after. A lock ends with its process.

On a file system that knows no locks (some of NFS and FUSE) nobody waits for anybody: a turn is `unlocked` then, and who
has it must leave alone what somebody may be using.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from cache.lock import OPEN, try_lock, unlock
from cache.sharing import Sharing

PATIENCE_S = 10.0
"""A gc leaves within a few hundredths of a second; one on another machine, whose file system tells it late, may not."""
POLL_S = 0.003
HOLD_S = 0.05
"""A turn of removing, before others may come in: machines that share a directory see a mark late, a lock at once."""
LEAVE_S = 2 * POLL_S
_MARK = 16


class Turn:
    """The store for oneself. `unlocked`: only as far as one knows."""

    def __init__(self, handle: int, *, unlocked: bool) -> None:
        self.unlocked = unlocked
        self._handle = handle
        self._mark = _leave_mark(handle)
        self._until_s = time.monotonic() + HOLD_S

    def leave(self) -> None:
        """Let others in, for as long as it takes."""
        if not self.unlocked:
            unlock(self._handle)

    def again(self) -> bool:
        """Come in once more: False when somebody is there, or was since `leave`."""
        if not self.unlocked and (not try_lock(self._handle) or _mark(self._handle) != self._mark):
            return False
        self._until_s = time.monotonic() + HOLD_S
        return True

    def goes_on(self) -> bool:
        """May one go on? To be asked every few files; lets others in now and then."""
        if self.unlocked:
            return True
        if _mark(self._handle) != self._mark:
            return False
        if time.monotonic() < self._until_s:
            return True
        self.leave()
        time.sleep(LEAVE_S)
        return self.again()


class StoreLock:
    """The lock of the store at `root`. Methods do not raise OSError: a store that cannot be locked is used without."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Be in the store with others. Waits for a gc to leave, PATIENCE_S at most."""
        handle = self._open()
        try:
            if handle is not None:
                with contextlib.suppress(OSError):
                    _come_in(handle)
            yield
        finally:
            if handle is not None:
                os.close(handle)

    @contextlib.contextmanager
    def alone(self) -> Iterator[Turn | None]:
        """Is nobody else here? None when somebody is, or the store cannot be written."""
        handle = self._open()
        if handle is None:
            yield None
            return
        try:
            yield _turn(handle)
        finally:
            os.close(handle)

    def _open(self) -> int | None:
        path, sharing = self._root / "lock", None
        for flags in (OPEN & ~os.O_CREAT, OPEN, OPEN & ~os.O_CREAT & ~os.O_RDWR):
            # First without O_CREAT, which Linux refuses for the file of another user in a sticky directory; last for
            # who may only read: a shared lock does not need more.
            try:
                if flags & os.O_CREAT:
                    self._root.mkdir(parents=True, exist_ok=True)
                    sharing = Sharing.of(str(self._root))
                handle = os.open(path, flags, 0o644)
            except OSError:
                continue
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                os.close(handle)  # damage, which cannot carry a mark
                return None
            if sharing is not None:
                sharing.share(handle)
            return handle
        return None


def _turn(handle: int) -> Turn | None:
    try:
        locked = try_lock(handle)
    except OSError:
        return Turn(handle, unlocked=True)
    return Turn(handle, unlocked=False) if locked else None


def _come_in(handle: int) -> None:
    if not try_lock(handle, shared=True):
        _leave_mark(handle)
        deadline_s = time.monotonic() + PATIENCE_S
        while not try_lock(handle, shared=True) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
    _leave_mark(handle)


def _leave_mark(handle: int) -> bytes:
    mark = os.urandom(_MARK)
    with contextlib.suppress(OSError):  # who may only read changes nothing that a mark would tell of
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, mark)
    return mark


def _mark(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, _MARK)
