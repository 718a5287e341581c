"""Whose board is it now? One test at a time talks to a board, whatever process it is in.

A file lock per board: in the user's own state, since boards are shared between projects, but for virtual ones, which
belong to theirs. Does not know what is done with a board. Invariant: a lease ends with its process, however that ends;
whoever waits is told who has it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cache.durable import FileLock, read_text, write_atomic
from cache.location import user_state_dir
from pipeline.config.schema import DeviceConfig
from pipeline.device.ports import flash_file
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import FailureCategory
from pipeline.run.project import Project

LEASE_S = 600.0
"""How long a test waits for its board: others may have a whole suite to go."""


class BoardLease:
    """The lease of one board; take it, and give it back with `release`."""

    def __init__(self, project: Project, device: DeviceConfig) -> None:
        shared = None if device.is_virtual else user_state_dir(os.environ, sys.platform)
        base = Path(shared) if shared is not None else project.state_dir
        name = hashlib.sha256(board_key(project.root, device).encode()).hexdigest()[:24]
        self._where = device.where
        self._lock = FileLock(base / "leases.v1" / name)
        self._mark = base / "leases.v1" / f"{name}.last"

    def try_take(self, why: str) -> str | None:
        """Take it now; who has it if somebody has, None when it is ours. Raises DeviceError."""
        try:
            busy = self._lock.try_acquire(f"pid {os.getpid()} ({why})")
        except OSError as error:
            message = f"the board cannot be leased: {error.strerror}"
            raise DeviceError(
                fail(FailureCategory.PORT_PERMISSION, stage=None, where=self._where, message=message)
            ) from None
        return None if busy is None else busy.holder

    def take(self, why: str, timeout_s: float = LEASE_S, pause: Callable[[float], None] = time.sleep) -> None:
        """Take it when it is free. Raises DeviceError(port_busy)."""
        deadline_s = time.monotonic() + timeout_s
        while (holder := self.try_take(why)) is not None:
            if time.monotonic() >= deadline_s:
                message = f"the board has been in use for {timeout_s:g} s: {holder}"
                hint = "wait for it, end it, or name another board with --device"
                raise DeviceError(
                    fail(FailureCategory.PORT_BUSY, stage=None, where=self._where, message=message, hint=hint)
                )
            pause(0.02)

    def release(self) -> None:
        """Give it back; without one, nothing happens."""
        self._lock.release()

    @property
    def last_user(self) -> str:
        """What the last one who left a mark called itself; `""`: nobody did."""
        try:
            return read_text(self._mark).strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def leave_mark(self, user: str) -> None:
        """Say who used the board last: whoever finds another name must look at the board again. Only while leased."""
        write_atomic(self._mark, f"{user}\n".encode(), durable=False)


def board_key(root: Path, device: DeviceConfig) -> str:
    """One text per board, whatever a project calls it: its MAC where that is known, else what its port leads to."""
    if device.is_virtual:
        return f"virtual {flash_file(device.name, device, root).resolve()}"
    if device.mac:
        return f"mac {device.mac}"
    return f"port {device.port.partition('?')[0] if '://' in device.port else os.path.realpath(device.port)}"
