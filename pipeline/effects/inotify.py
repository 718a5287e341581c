"""The kernel's own notifications, read when we ask: what happened to watched inodes, mounts and this machine's sleep.

Raw inotify by ctypes, because an answer needs what happened *before* it: the kernel queues an event within the system
call that causes it, so that one read, without waiting, sees everything that was finished when the question came. A
library that reads in a thread of its own is late by whatever that thread is. Linux only: elsewhere `Inotify` raises
OSError, and the fast path looks for itself. Knows nothing of projects. Invariant: what it cannot tell is said (an
OVERFLOW, a file system that is not local), never left out.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import time
from collections.abc import Iterator

from cache.named_tuple import NamedTuple

# inotify(7), <sys/inotify.h>
MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
UNMOUNT, OVERFLOW, IGNORED = 0x2000, 0x4000, 0x8000
ONLYDIR = 0x1000000
ISDIR = 0x40000000

ENTRIES = MOVED_FROM | MOVED_TO | CREATE | DELETE
OF_DIRECTORY = ENTRIES | ATTRIB | DELETE_SELF | MOVE_SELF | ONLYDIR
OF_FILE = MODIFY | ATTRIB | CLOSE_WRITE | DELETE_SELF | MOVE_SELF
"""`CLOSE_WRITE` for who writes through a mapping: the last reference to the file ends with the mapping."""

_EVENT = struct.Struct("iIII")
_READ_BYTES = 1 << 18
MOST_BYTES = 16 << 20
"""More than the kernel's queue holds: somebody writes faster than we read, and that is as good as an overflow."""

LOCAL = {
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # xfs
    0x9123683E,  # btrfs
    0xF2F52010,  # f2fs
    0x2FC12FC1,  # zfs
    0xCA451A4E,  # bcachefs
    0x01021994,  # tmpfs
    0x858458F6,  # ramfs
    0x794C7630,  # overlayfs
    0x73717368,  # squashfs
    0xE0F5E1E2,  # erofs
    0x9660,  # iso9660
}
"""File systems that nobody changes but through this kernel (statfs(2)). On all others (NFS, SMB, 9p, FUSE, what a host
shares with its virtual machine) somebody else may write, of whom inotify does not hear."""


class InotifyEvent(NamedTuple):
    """`watch`: the number of the inode's watch, -1 for OVERFLOW; `name`: of the entry, empty for the inode itself."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One instance. Raises OSError where there is none: another system, or the limit of instances."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise OSError("inotify is Linux's")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._add = self._libc.inotify_add_watch
        self._remove = self._libc.inotify_rm_watch
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            raise _error("inotify")

    def add(self, path: bytes, mask: int) -> int:
        """Watch the inode that `path` leads to; its number, the same for the same inode. Raises OSError: there is no
        such path, it may not be read, or the limit of watches is reached."""
        number = int(self._add(self._handle, path, mask))
        if number < 0:
            raise _error(os.fsdecode(path))
        return number

    def remove(self, number: int) -> None:
        """Watch that inode no more; what happened to it until now is still told. No error where it is gone."""
        self._remove(self._handle, number)

    def drain(self) -> list[InotifyEvent]:
        """All that happened until now. Never waits."""
        found: list[InotifyEvent] = []
        size = 0
        while size < MOST_BYTES:
            try:
                data = os.read(self._handle, _READ_BYTES)
            except BlockingIOError:
                return found
            size += len(data)
            found += _events(data)
        return [*found, InotifyEvent(-1, OVERFLOW, b"")]

    def fileno(self) -> int:
        """Readable when something happened."""
        handle: int = self._handle
        return handle

    def close(self) -> None:
        """Idempotent. Takes the kernel some milliseconds."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _events(data: bytes) -> Iterator[InotifyEvent]:
    at = 0
    while at < len(data):
        watch, mask, _, size = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield InotifyEvent(watch, mask, data[at : at + size].rstrip(b"\0"))
        at += size


def _error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def is_local(path: bytes) -> bool:
    """Does `path` lie on a file system that only this kernel writes to? Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(512)
    if libc.statfs(path, room) != 0:
        raise _error(os.fsdecode(path))
    # The first field, a long; the numbers are 32 bits, signed where a long is no longer than that.
    return (ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF) in LOCAL


class MountTable:
    """Tells that something was mounted or unmounted, of which inotify says nothing. Raises OSError without /proc."""

    def __init__(self) -> None:
        # proc(5): the file is "readable with priority" once after each change, from mount(2) on.
        self._handle = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._handle, select.POLLPRI)
        self._mounts = self._read()

    def changed(self) -> frozenset[bytes]:
        """Where something was mounted, unmounted or mounted otherwise since the last question (at first: since this
        was made)."""
        if not any(events & (select.POLLPRI | select.POLLERR) for _, events in self._poll.poll(0)):
            return frozenset()
        before, self._mounts = self._mounts, self._read()
        return frozenset(point for _, point in before ^ self._mounts)

    def _read(self) -> frozenset[tuple[bytes, bytes]]:
        """What is mounted, and where: the whole line, and its mount point."""
        data, at = b"", 0
        while more := os.pread(self._handle, 1 << 16, at):
            data, at = data + more, at + len(more)
        return frozenset((line, _unescaped(line.split(b" ", 5)[4])) for line in data.splitlines())

    def close(self) -> None:
        """Idempotent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _unescaped(name: bytes) -> bytes:
    """As the kernel writes space, tab, newline and backslash there: in three octal digits."""
    head, *rest = name.split(b"\\")
    return head + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def slept_s() -> float:
    """How long this machine has been suspended since it started, to within a millisecond."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return 0.0
    while True:
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        found = time.clock_gettime(boottime)
        if time.clock_gettime(time.CLOCK_MONOTONIC) - before < 0.001:  # nobody else ran in between
            return found - before
