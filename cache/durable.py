"""Write files so that a reader sees all of them or nothing, and lock across processes.

Knows paths and bytes, not what they mean. Invariant: a path that `write_atomic` was asked to write holds, at every
instant and after any crash, either its old content or all of the new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cache.lock import OPEN, try_lock
from cache.named_tuple import NamedTuple

if TYPE_CHECKING:
    from cache.sharing import Sharing

OLD_FILE = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_BINARY", "O_NONBLOCK", "O_NOCTTY"))
"""How to open what should be a file: what is a FIFO or a terminal instead does not block and becomes no controlling
terminal."""
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
NOT_REGULAR = "Not a regular file"
MOST = 1 << 30
"""Bytes of the largest file that is read into memory as a whole where nobody says less."""
MOST_TEXT = 16 << 20
"""Bytes of a text that people write or read."""
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_BLOCK = 1 << 14


def temp_beside(path: str) -> str:
    """A name in `path`'s directory that no other thread, process or machine uses (rename needs one file system)."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")  # noqa: PTH118


def open_regular(path: str, *, follow: bool = True, at: int | None = None) -> tuple[int, os.stat_result]:
    """An open file and what the file system says of it. `at`: the open directory that `path` is relative to. Raises
    OSError, also for FIFOs, devices and directories, and with `follow` false for a link."""
    handle = os.open(path, OLD_FILE if follow else OLD_FILE | _NO_LINK, dir_fd=at)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise not_regular(path, status.st_mode)
    return handle, status


def not_regular(path: str, mode: int) -> OSError:
    """What to raise for a path where something else than a file lies."""
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return OSError(errno.EINVAL, NOT_REGULAR, path)


def read_file(path: str, size: int = -1, *, most: int = MOST, follow: bool = True, at: int | None = None) -> bytes:
    """All bytes of a regular file, in a third of the time that `Path.read_bytes` takes for a small one. `size`: how
    many they must be; a file that has them is not asked for more. `at`: as of `open_regular`. Raises OSError, also for
    a file of more than `most`."""
    handle, status = open_regular(path, follow=follow, at=at)
    try:
        if status.st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        # Room for one more byte, so that the first read of a file that nobody writes to is known to be all of it.
        blocks = [os.read(handle, status.st_size + 1)]
        total = len(blocks[0])
        while blocks[-1] and total not in (size, status.st_size) and total <= most:
            blocks.append(os.read(handle, max(status.st_size + 1 - total, _BLOCK)))
            total += len(blocks[-1])
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)
    finally:
        os.close(handle)


def read_text(path: Path | str, *, errors: str = "strict") -> str:
    """The text of a regular file in UTF-8, without its byte order mark, with `\\n` after each line. Raises OSError,
    also for more than 16 MB, and UnicodeDecodeError."""
    text = read_file(str(path), most=MOST_TEXT).decode("utf-8-sig", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def write_atomic(
    path: Path | str,
    data: bytes,
    *,
    durable: bool,
    mode: int = 0o644,
    own: bool = False,
    sharing: Sharing | None = None,
    head: bytes = b"",
    tail: Iterable[bytes | bytearray] = (),
    first: Callable[[], bytes] = bytes,
) -> None:
    """Replace `path` by `head`, `data` and `tail`, which is asked for piece by piece, making its directory when that is
    missing. `first` is asked at the end what the file begins with instead. Raises OSError; then nothing has changed.

    `durable` waits for the disk before the rename, so that a power cut cannot leave the name with missing bytes; it
    can still undo the rename, which every user of this must be able to bear. Files that carry their own checksum and
    may be lost do without. `own`: as of `put_in_place`. `sharing`: whom the file is for.
    """
    # Strings all along: making a `Path` costs as much as a system call, and a build writes thousands of files.
    place = str(path)
    temp = temp_beside(place)
    try:
        handle = os.open(temp, NEW_FILE, mode)
    except FileNotFoundError:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temp, NEW_FILE, mode)
    try:
        try:
            if head:
                write_all(handle, head)
            write_all(handle, data)
            for piece in tail:
                write_all(handle, piece)
            if beginning := first():
                os.lseek(handle, 0, os.SEEK_SET)
                write_all(handle, beginning)
            if sharing is not None:
                sharing.share(handle)
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)
        put_in_place(temp, place, own=own)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp)  # noqa: PTH108
        raise


def write_all(handle: int, data: bytes | bytearray) -> None:
    """Write all of `data`: one call of the system may take less."""
    done = os.write(handle, data)
    while done < len(data):
        done += os.write(handle, memoryview(data)[done:])


def put_in_place(temp: str, path: str, *, own: bool) -> None:
    """Rename `temp` to `path`. `own`: that name is this program's alone, so a directory that lies there is damage and
    is removed; otherwise it is somebody's, and OSError is raised."""
    try:
        os.replace(temp, path)  # noqa: PTH105
    except OSError:
        if not own or os.path.islink(path) or not os.path.isdir(path):  # noqa: PTH112, PTH114
            raise
        import shutil

        shutil.rmtree(path)
        os.replace(temp, path)  # noqa: PTH105


class Busy(NamedTuple):
    """Somebody else holds the lock; `holder` is what they said about themselves."""

    holder: str


class FileLock:
    """An exclusive lock between processes. The kernel frees it when its holder ends, however that happens.

    The file stays: unlinking it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def try_acquire(self, note: str) -> Busy | None:
        """Take the lock now or say who has it; None means that it is ours. `note` (one line: pid, command) is what
        others will be told. Raises OSError when the lock file cannot be made."""
        if self._handle is not None:
            raise RuntimeError(f"{self._path} is already locked by this object [this is a bug]")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, OPEN, 0o644)
        try:
            if not try_lock(handle):
                holder = os.read(handle, 4096).decode("utf-8", "replace").strip()
                os.close(handle)
                return Busy(holder or "another process")
        except OSError:
            os.close(handle)
            raise
        os.ftruncate(handle, 0)
        os.write(handle, f"{note}\n".encode())
        self._handle = handle
        return None

    def acquire(
        self, note: str, *, timeout_s: float, now_s: Callable[[], float], pause: Callable[[float], None]
    ) -> Busy | None:
        """As `try_acquire`, trying again every 20 ms until `timeout_s` has passed on the caller's clock."""
        deadline_s = now_s() + timeout_s
        while (busy := self.try_acquire(note)) is not None and now_s() < deadline_s:
            pause(0.02)
        return busy

    def release(self) -> None:
        """Give the lock back; without one, nothing happens."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.ftruncate(handle, 0)
            os.close(handle)
