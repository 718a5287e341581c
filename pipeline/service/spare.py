"""A child of the runner that was forked before its run came, and has decoded what that will need: one for a project.

The fork, the pages that are copied after it, and the state of the last run of ten thousand units take as long as a
compile; here that happens after a run, while nobody waits. Knows processes, sockets and whom to tell; not what a run
is. Invariants: a spare becomes the run of one client or none, and begins nothing before; it is asked only when it has
said that it is ready; one that does not take a run whole, at once, is killed, and then has begun nothing, since the
client's word to begin (`client/handoff.py`) is given to whom the runner names.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from pipeline.effects.spawned import make_group_ahead
from pipeline.run.ahead import decode_ahead

READY, TAKEN = b"r", b"t"
TAKE_S = 0.25
"""How long a spare may take to read what it is handed, and to say so."""
_SIZE_BYTES = 8
_DESCRIPTORS = 4
_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE of linux/mman.h."""
MOST_SPARES = 2
"""Projects that have one: those in which there were runs last."""


class Spare:
    """In the runner: the child, and how to reach it."""

    def __init__(self, root: str, pid: int, link: socket.socket, born_s: float) -> None:
        self.root, self.pid, self.born_s = root, pid, born_s
        self._link = link
        link.setblocking(False)

    def hand(self, fields: Sequence[bytes], descriptors: Sequence[int]) -> bool:
        """Let it be this run. False where it is not ready, or gone; it is of no use then, and was killed."""
        sent = False
        with contextlib.suppress(OSError):
            if self._link.recv(1) == READY:
                data, sent = b"\0".join(fields), True
                self._link.settimeout(TAKE_S)
                socket.send_fds(self._link, [len(data).to_bytes(_SIZE_BYTES, "big")], descriptors)
                self._link.sendall(data)
                if self._link.recv(1) == TAKEN:
                    return True
        self.end()
        if sent:  # until it is gone, the client's word to begin may be taken by it
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        return False

    def keep(self) -> int:
        """Once it was handed a run: what it says its end by, a handle that does not block."""
        return self._link.detach()

    def end(self) -> None:
        """Kill it. It is reaped with all others."""
        self._link.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def forget(self) -> None:
        """It has ended."""
        self._link.close()


def own_pages() -> None:
    """Have all pages that this process shares with its parent copied now, which each would else be when it is written
    to first: objects are written to when they are looked at. Where the kernel cannot (before 5.14), that is left to
    the run."""
    import ctypes

    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        area, rights, _, _, inode, *name = line.split()
        if rights == b"rw-p" and inode == b"0" and name != [b"[stack]"]:
            first, end = (int(number, 16) for number in area.split(b"-"))
            madvise(first, end - first, _POPULATE_WRITE)


def wait_as_spare(root: str, link: socket.socket) -> tuple[list[bytes], list[int]] | None:
    """In the child: get ready, and wait for a run: its fields and descriptors, None where there will be none."""
    decode_ahead(root)
    make_group_ahead()
    own_pages()
    try:
        link.sendall(READY)
        head, descriptors, _, _ = socket.recv_fds(link, _SIZE_BYTES, _DESCRIPTORS)
        while head and len(head) < _SIZE_BYTES:
            more = link.recv(_SIZE_BYTES - len(head))
            head += more
            if not more:
                return None
        size, data = int.from_bytes(head, "big"), bytearray()
        while head and len(data) < size:
            more = link.recv(min(size - len(data), 1 << 16))
            if not more:
                return None
            data += more
        if not head or len(descriptors) != _DESCRIPTORS:
            return None
        link.sendall(TAKEN)
    except OSError:
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return bytes(data).split(b"\0"), descriptors
