"""Bytes by digest: the content-addressed store.

    cas.v1/ab/abcd...   one blob, named by the SHA-256 of its bytes (check it with `sha256sum`), read-only

Does not know actions or what blobs mean. Invariant: `read` and `materialize` hand out bytes whose SHA-256 is the name
they were asked by, or nothing; a blob that fails the check is removed, so that the work is done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from typing import IO

from cache.digest import Digest, digest_bytes
from cache.durable import NEW_FILE, put_in_place, read_file, temp_beside, write_all, write_atomic

_FICLONE = 0x40049409
"""ioctl of linux/fs.h: share the extents of another file (btrfs, XFS, bcachefs)."""
_CLONE_FROM = 1 << 16
"""Below this a copy is as cheap as sharing."""
_CHUNK = 1 << 20


class BlobStore:
    """The blobs below one directory. Many processes and threads may use it at once: a blob appears whole, by rename,
    and two writers of one blob write the same bytes. Every method may raise OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root / "cas.v1"
        self._top = str(self.root)
        self.bytes_written = 0
        """By this object; a sum that a race between threads makes a little too small is good enough to decide when the
        store is to be counted."""

    def path(self, digest: Digest) -> Path:
        """Where a blob lies if it is here."""
        return Path(self._place(digest))

    def _place(self, digest: Digest) -> str:
        # A string, since making a `Path` takes longer than asking the file system about it.
        return f"{self._top}/{digest.hex[:2]}/{digest.hex}"

    def has(self, digest: Digest) -> bool:
        """Is the blob here with its size? Its bytes are checked when they are used."""
        try:
            status = os.stat(self._place(digest))  # noqa: PTH116
        except OSError:
            return False
        return status.st_size == digest.size and stat.S_ISREG(status.st_mode)

    def put_bytes(self, data: bytes) -> Digest:
        """Store `data`, durably, before its digest is given out."""
        digest = digest_bytes(data)
        if not self.has(digest):
            write_atomic(self._place(digest), data, durable=True, mode=0o444, own=True)
            self.bytes_written += digest.size
        return digest

    def put_file(self, path: str) -> Digest:
        """Store what `path` holds now. The digest is of the bytes that were copied, even if the file changes."""
        with open(path, "rb", buffering=0) as source:  # noqa: PTH123
            first = source.read(_CHUNK)
            if len(first) < _CHUNK:
                # Only an empty read is the end.
                return self.put_bytes(first + (source.read() if first else b""))
            self.root.mkdir(parents=True, exist_ok=True)
            temp = temp_beside(f"{self._top}/incoming")
            try:
                digest = _copy(first, source, temp)
                if self.has(digest):
                    os.unlink(temp)  # noqa: PTH108
                else:
                    self.path(digest).parent.mkdir(exist_ok=True)
                    put_in_place(temp, self._place(digest), own=True)
                    self.bytes_written += digest.size
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temp)  # noqa: PTH108
                raise
        return digest

    def read(self, digest: Digest) -> bytes | None:
        """The blob, verified; None when it is not here, cannot be read, or was damaged (then it is removed)."""
        try:
            data = read_file(self._place(digest), digest.size)
        except OSError:
            return None
        if len(data) == digest.size and hashlib.sha256(data).hexdigest() == digest.hex:
            return data
        with contextlib.suppress(OSError):
            self.path(digest).unlink()
        return None

    def materialize(self, digest: Digest, path: str, *, executable: bool) -> tuple[bytes, os.stat_result] | None:
        """Put the blob at `path`, making its directory; the bytes that are there now and what the file system says of
        the file, None when `read` gives None. Raises OSError; then nothing has changed.

        The file is a copy or a reflink, never a hard link: a tool that writes into its output in place would otherwise
        write into the store. What exists is replaced at once. What does not is written where it belongs, as a compiler
        does: a process that is killed meanwhile may leave part of a file, which nothing has recorded.
        """
        data = self.read(digest)
        if data is None:
            return None
        place, mode = path, 0o777 if executable else 0o666
        try:
            target = os.open(place, NEW_FILE, mode)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            target = os.open(place, NEW_FILE, mode)
        except FileExistsError:
            place = temp_beside(path)
            target = os.open(place, NEW_FILE, mode)
        try:
            try:
                if len(data) < _CLONE_FROM or not self._clone(digest, target):
                    write_all(target, data)
                status = os.fstat(target)
            finally:
                os.close(target)
            if place is not path:
                os.replace(place, path)  # noqa: PTH105
                status = os.stat(path)  # noqa: PTH116 - the rename moved its ctime
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(place)  # noqa: PTH108
            raise
        return data, status

    def _clone(self, digest: Digest, target: int) -> bool:
        """Share the blob's extents. What was verified just now is what is shared: blobs are never written again."""
        try:
            import fcntl

            with open(self._place(digest), "rb", buffering=0) as source:  # noqa: PTH123
                fcntl.ioctl(target, _FICLONE, source.fileno())
        except (ImportError, OSError):
            return False
        return True


def _copy(first: bytes, source: IO[bytes], target: str) -> Digest:
    """Write `first` and the rest of `source` to `target`, durably, hashing what is written."""
    sha256, size = hashlib.sha256(), 0
    handle = os.open(target, NEW_FILE, 0o444)
    with os.fdopen(handle, "wb") as stream:
        block = first
        while block:
            stream.write(block)
            sha256.update(block)
            size += len(block)
            block = source.read(_CHUNK)
        stream.flush()
        os.fsync(stream.fileno())
    return Digest(sha256.hexdigest(), size)
