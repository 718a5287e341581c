"""SPI NOR flash: program only clears bits, erase sets whole 4 KiB sectors, and every change is durable at once.

Does not know chips, protocols or time. Invariant: a byte of the file is a byte of the flash; nothing is cached beside
it, so killing the process at any moment leaves exactly what had been programmed. One `NorFlash` per file at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import stat
from pathlib import Path
from typing import Protocol

SECTOR_SIZE = 0x1000
PAGE_SIZE = 0x100
_FILL = b"\xff" * 0x100000
_ERASED = 0xFF
_IMAGE_MAGIC = 0xE9
_VENDOR_GIGADEVICE = 0xC8
_DEVICE_TYPE = 0x40


class FlashError(Exception):
    """The flash file cannot be used. The text is for a person: a fact, then a hint on its own line."""


class BoardBusy(FlashError):
    """The flash file is held by another board."""


class Wear(Protocol):
    """Decides what a change really does to the cells: parts as (offset, bytes) or (offset, size)."""

    def programmed(self, offset: int, data: bytes) -> list[tuple[int, bytes]]: ...
    def erased(self, offset: int, n: int) -> list[tuple[int, int]]: ...


class NorFlash:
    """`size` bytes of flash, erased (FF) when new.

    `path` None keeps it in memory; else the file is created full of FF, or extended with FF when shorter, and locked
    until `close`. `jedec` is the answer to RDID as a little-endian number: manufacturer, type, log2(size); the default
    is a GigaDevice part of this size. Raises `BoardBusy` when another board holds the file, `FlashError` when the file
    is larger than the flash, is shorter and no flash's content, or cannot be opened.
    """

    def __init__(self, size: int, path: Path | None = None, *, jedec: int | None = None) -> None:
        if size < SECTOR_SIZE or size & (size - 1):
            raise FlashError(f"flash: error: size {size} is not a power of two of at least {SECTOR_SIZE} bytes")
        self.size = size
        self.path = path
        self.jedec = default_jedec(size) if jedec is None else jedec
        self.wear: Wear | None = None  # None: every change is done whole
        self._fd = -1
        if path is None:
            self._map = mmap.mmap(-1, size)
            for start in range(0, size, len(_FILL)):
                self._map[start : min(start + len(_FILL), size)] = _FILL[: min(len(_FILL), size - start)]
        else:
            self._fd = _open_locked(path)
            try:
                _extend(self._fd, path, size)
                self._map = mmap.mmap(self._fd, size)
            except BaseException:
                os.close(self._fd)
                raise

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes at `offset`. Raises ValueError outside the flash."""
        self._check(offset, n)
        return self._map[offset : offset + n]

    def program(self, offset: int, data: bytes) -> None:
        """Clear the bits that are 0 in `data`; bits that are already 0 stay so. Raises ValueError outside."""
        self._check(offset, len(data))
        for at, part in self.wear.programmed(offset, data) if self.wear else ((offset, data),):
            self._program(at, part)

    def _program(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        old = self._map[offset:end]
        if old.count(0xFF) == len(old):
            self._map[offset:end] = data
        else:
            merged = int.from_bytes(old, "little") & int.from_bytes(data, "little")
            self._map[offset:end] = merged.to_bytes(len(data), "little")

    def erase(self, offset: int, n: int) -> None:
        """Set `n` bytes to FF; both values must be whole sectors. Raises ValueError otherwise or outside."""
        self._check(offset, n)
        if offset % SECTOR_SIZE or n % SECTOR_SIZE:
            raise ValueError(f"erase of {n:#x} bytes at {offset:#x} is not aligned to sectors of {SECTOR_SIZE:#x}")
        for at, size in self.wear.erased(offset, n) if self.wear else ((offset, n),):
            for start in range(at, at + size, len(_FILL)):
                end = min(start + len(_FILL), at + size)
                self._map[start:end] = _FILL[: end - start]

    def md5(self, offset: int, n: int) -> bytes:
        """MD5 (16 bytes) over `n` bytes at `offset`, without a copy. Raises ValueError outside the flash."""
        self._check(offset, n)
        with memoryview(self._map) as whole, whole[offset : offset + n] as part:
            return hashlib.md5(part, usedforsecurity=False).digest()

    def close(self) -> None:
        """Release the file and its lock. Idempotent."""
        if not self._map.closed:
            self._map.close()
            if self._fd >= 0:
                os.close(self._fd)

    def _check(self, offset: int, n: int) -> None:
        if offset < 0 or n < 0 or offset + n > self.size:
            raise ValueError(f"{n:#x} bytes at {offset:#x} leave the flash of {self.size:#x} bytes")


def default_jedec(size: int) -> int:
    """RDID of a GigaDevice part of `size` bytes, first byte on the wire lowest (JEP106 vendor C8, type 40)."""
    return (size.bit_length() - 1) << 16 | _DEVICE_TYPE << 8 | _VENDOR_GIGADEVICE


def _open_locked(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError as exc:
        raise FlashError(
            f"{path}: error: cannot open the flash file: {exc.strerror}\nGive the path of a file that can be written."
        ) from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FlashError(f"{path}: error: the flash file is no regular file\nGive the path of a file, or of none yet.")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        holder = _holder(os.fstat(fd).st_ino)
        os.close(fd)
        by = f" (pid {holder})" if holder else ""
        raise BoardBusy(
            f"{path}: error: the flash file is in use by another virtual board{by}\n"
            "Stop that board, or give this one a flash file of its own."
        ) from exc
    return fd


def _extend(fd: int, path: Path, size: int) -> None:
    # A short file is either a creation that was killed or a merged image without padding: both continue with FF, and
    # begin erased or with an image. Anything else is a file of somebody who mistyped, and would be lost.
    have = os.fstat(fd).st_size
    if have > size:
        raise FlashError(
            f"{path}: error: the file holds {have} bytes, the flash only {size}\n"
            "Give the size that the file was made with, or another file."
        )
    first = os.pread(fd, 1, 0)[0] if 0 < have < size else _ERASED
    if first not in (_ERASED, _IMAGE_MAGIC):
        raise FlashError(
            f"{path}: error: the file is not a flash's: it holds {have} bytes of {size}, and begins with "
            f"0x{first:02x}, not with an image (0x{_IMAGE_MAGIC:02x}) or erased (0x{_ERASED:02x})\n"
            "Name another file, or one that does not exist yet."
        )
    try:
        while have < size:
            have += os.pwrite(fd, _FILL[: size - have], have)
    except OSError as exc:
        raise FlashError(f"{path}: error: cannot fill the flash file: {exc.strerror}\nFree some disk space.") from exc


def _holder(inode: int) -> int | None:
    """Pid that holds a flock on `inode`, where the kernel says so (Linux: /proc/locks, proc_locks(5))."""
    try:
        table = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}") and int(fields[4]) > 0:
            return int(fields[4])
    return None
