"""Whether a client of the runner is a process like those that it forks: only then would its run be the same there.

Knows interpreters, versions and places of code, namespaces. Does not know what a run is, nor how one is handed over.
Invariant: of two that may behave otherwise one is refused; what a run is told of each time (arguments, environment,
streams) is not asked here.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from pipeline.client.handoff import interpreter
from pipeline.client.run_frame import COMPILED

NAMESPACES = ("mnt", "net", "pid", "user", "ipc", "uts")


def identity() -> tuple[str, ...]:
    """As a client describes itself."""
    import pipeline

    return (pipeline.__version__, os.path.dirname(pipeline.__file__ or ""), sys.version, sys.prefix, *interpreter())  # noqa: PTH120


def is_alike(who: Sequence[str], path: Sequence[str]) -> bool:
    """Is this client's interpreter as this one? For the compiled client: would its script's be?"""
    mine = identity()
    if list(who) == list(mine):
        return True
    _, encoding, *_ = interpreter()
    as_compiled = [*mine[:4], os.fsdecode(COMPILED), *mine[8:]]
    if list(who) != as_compiled or encoding != "utf-8" or sys.flags.utf8_mode or len(path) != 1:
        return False
    try:
        return len(os.listdir(path[0])) == 1  # noqa: PTH208 - else a module may lie beside the script
    except OSError:
        return False


def is_compiled(who: Sequence[bytes]) -> bool:
    """Is it the compiled client?"""
    return COMPILED in who[4:5]


def namespaces(pid: str) -> tuple[str, ...] | None:
    """Those of a process (a number, or `self`), with its root; None when it is gone."""
    try:
        links = (*(f"ns/{name}" for name in NAMESPACES), "root")
        return tuple(os.readlink(f"/proc/{pid}/{link}") for link in links)  # noqa: PTH115
    except OSError:
        return None


def peer(connection: socket.socket) -> int | None:
    """The process at the other end, None where that is another user's."""
    import struct

    try:
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError:
        return None
    return pid if uid == os.getuid() else None
