"""Bytes by digest: the content-addressed store.

    cas.v1/ab/abcd...   one blob, named by the SHA-256 of its bytes (check it with `sha256sum`), read-only

Does not know actions or what blobs mean. Invariants: `read` and `materialize` hand out bytes whose SHA-256 is the name
they were asked by, or nothing; a blob that fails the check is removed, so that the work is done again. What is put is
there afterwards, whatever lay in its place. A digest that is none (see `is_sound`) is of no blob, and nothing is looked
for under its name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import IO

from cache.digest import MAX_BLOB_BYTES, Digest, digest_bytes, is_sound
from cache.durable import NEW_FILE, open_regular, temp_beside, write_all
from cache.hexfiles import HexFiles

_FICLONE = 0x40049409
"""ioctl of linux/fs.h: share the extents of another file (btrfs, XFS, bcachefs)."""
_CLONE_FROM = 1 << 16
"""Below this a copy is as cheap as sharing."""
_CHUNK = 1 << 20
_HASHED_FIRST = 1 << 26
"""Beyond this many bytes a blob is read into memory only after it was found to be whole."""


class BlobStore:
    """The blobs below one directory. Many processes and threads may use it at once: a blob appears whole, by rename,
    and two writers of one blob write the same bytes. Every method may raise OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root / "cas.v1"
        self.files = HexFiles(self.root)
        self.bytes_written = 0
        """By this object; a sum that a race between threads makes a little too small is good enough to decide when the
        store is to be counted."""
        self.damaged = 0
        """How many blobs this object read, found damaged and removed; for people."""

    def path(self, digest: Digest) -> Path:
        """Where a blob lies if it is here. Raises OSError for what is no digest."""
        return Path(self.files.place(digest.hex))

    def has(self, digest: Digest) -> bool:
        """Is the blob here with its size? Its bytes are checked when they are used."""
        try:
            status = self.files.status(digest.hex)
        except OSError:
            return False
        return status.st_size == digest.size and stat.S_ISREG(status.st_mode)

    def put_bytes(self, data: bytes) -> Digest:
        """Store `data` before its digest is given out. Raises OSError also for more than a blob may have."""
        digest = digest_bytes(data)
        self.put_hashed(digest, data)
        return digest

    def put_hashed(self, digest: Digest, data: bytes) -> None:
        """As `put_bytes`. Precondition: `digest` is that of `data`, from a caller who has computed it."""
        # To compare costs a tenth of hashing what is there, and less than the entry that will be written.
        if not (self.has(digest) and self._holds(digest, data)):
            _check_size(digest.size)
            self.files.write(digest.hex, data, 0o444)
            self.bytes_written += digest.size

    def put_file(self, path: str) -> Digest:
        """Store what `path` holds now. The digest is of the bytes that were copied, even if the file changes."""
        handle, _ = open_regular(path)
        with os.fdopen(handle, "rb", buffering=0) as source:
            first = source.read(_CHUNK)
            if len(first) < _CHUNK:
                # Only an empty read is the end.
                return self.put_bytes(first + (source.read() if first else b""))
            with self.files.incoming(0o444) as new:
                digest = _copy(first, source, new.handle)
                if not (self.has(digest) and self._is_equal(digest, new.handle)):
                    new.keep(digest.hex)
                    self.bytes_written += digest.size
        return digest

    def _holds(self, digest: Digest, data: bytes) -> bool:
        """Is what lies there `data`? It may have been damaged, with its size kept."""
        try:
            return self.files.read(digest.hex, digest.size, most=digest.size) == data
        except OSError:
            return False

    def _is_equal(self, digest: Digest, handle: int) -> bool:
        """Is what lies there what was written to `handle`?"""
        try:
            there, _ = open_regular(self.files.place(digest.hex), follow=False)
        except OSError:
            return False
        with os.fdopen(there, "rb", buffering=0) as one, open(handle, "rb", buffering=0, closefd=False) as other:
            one.seek(0)
            other.seek(0)
            while (block := other.read(_CHUNK)) == one.read(_CHUNK):
                if not block:
                    return True
        return False

    def read(self, digest: Digest) -> bytes | None:
        """The blob, verified; None when it is not here, cannot be read, or was damaged (then it is removed)."""
        if not is_sound(digest):
            return None
        try:
            if digest.size > _HASHED_FIRST and not self._is_whole(digest):
                self._discard(digest)
                return None
            data = self.files.read(digest.hex, digest.size, most=digest.size)
        except OSError:
            return None
        if len(data) == digest.size and hashlib.sha256(data).hexdigest() == digest.hex:
            return data
        self._discard(digest)
        return None

    def _discard(self, digest: Digest) -> None:
        self.damaged += 1
        self.files.remove(digest.hex)

    def remove_damaged(self, name: str) -> bool:
        """Remove the blob of that name if its bytes are not those that it names. One that is gone, or that we may not
        read, is not damaged."""
        try:
            handle, _ = open_regular(self.files.place(name), follow=False)
        except OSError:
            return False
        sha256 = hashlib.sha256()
        with os.fdopen(handle, "rb", buffering=0) as stream:
            try:
                while block := stream.read(_CHUNK):
                    sha256.update(block)
            except OSError:
                return False
        return sha256.hexdigest() != name and self.files.remove(name)

    def _is_whole(self, digest: Digest) -> bool:
        """Has it its size and digest? In little memory: what says to be gigabytes long may be one block on the disk."""
        handle, status = open_regular(self.files.place(digest.hex), follow=False)
        with os.fdopen(handle, "rb", buffering=0) as stream:
            return status.st_size == digest.size and hashlib.file_digest(stream, "sha256").hexdigest() == digest.hex

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

            handle, _ = open_regular(self.files.place(digest.hex), follow=False)
            with os.fdopen(handle, "rb", buffering=0):
                fcntl.ioctl(target, _FICLONE, handle)
        except (ImportError, OSError):
            return False
        return True


def _check_size(size: int) -> None:
    if size > MAX_BLOB_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _copy(first: bytes, source: IO[bytes], target: int) -> Digest:
    """Write `first` and the rest of `source` to `target`, hashing what is written."""
    sha256, size = hashlib.sha256(), 0
    block = first
    while block:
        size += len(block)
        _check_size(size)
        write_all(target, block)
        sha256.update(block)
        block = source.read(_CHUNK)
    return Digest(sha256.hexdigest(), size)
