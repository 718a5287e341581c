"""The serial ports of this machine as they are: whose, whether this user may open them, and who has them open.

Asks the operating system and opens nothing. Does not know deploy.toml. Invariant: what cannot be found out is taken to
be well, since opening would tell.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cache.named_tuple import NamedTuple
from pipeline.device.ports import BRIDGE_VIDS, describe_holders


class PortState(NamedTuple):
    """`board`: it looks like an ESP32 board's; `group`: the one that may open it, where the user may not; `member`: the
    user is in that group by the system's list, but this session is not."""

    port: str
    text: str = ""
    board: bool = False
    exists: bool = True
    allowed: bool = True
    group: str = ""
    member: bool = False
    holder: str = ""


def present_ports() -> list[PortState]:
    """Those of this machine that are serial ports of something: USB devices, and what the system calls one."""
    from serial.tools import list_ports

    try:
        found = sorted(list_ports.comports(), key=lambda port: str(port.device))
    except OSError:
        return []
    return [
        state_of(str(port.device))._replace(text=str(port.description or ""), board=port.vid in BRIDGE_VIDS)
        for port in found
        if port.vid is not None or not sys.platform.startswith("linux")
    ]


def state_of(port: str) -> PortState:
    """One port by its path."""
    if sys.platform == "win32":
        return PortState(port)
    path = Path(port)
    try:
        status = path.stat()
    except OSError as error:
        return PortState(port, exists=not isinstance(error, FileNotFoundError), allowed=False)
    state = PortState(port, holder=describe_holders(port))
    if os.access(path, os.R_OK | os.W_OK):
        return state
    group, member = _group(status.st_gid)
    return state._replace(allowed=False, group=group, member=member)


def _group(number: int) -> tuple[str, bool]:
    """Name of a group, and whether the user is a member by the system's list."""
    import grp
    import pwd

    try:
        group = grp.getgrgid(number)
        return group.gr_name, pwd.getpwuid(os.getuid()).pw_name in group.gr_mem
    except KeyError:
        return str(number), False
