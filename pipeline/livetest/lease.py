"""Whose board is it now? The leases of `device/leases.py`, as tests need them: one test has a board at a time.

Does not know what is done with a board. Invariant: while it is held, everything of this process and of its children
works under this one lease, which ends with the process, however that ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from cache.durable import read_text, write_atomic
from cache.location import user_state_dir
from pipeline.client.protocol import Holder
from pipeline.config.schema import DeviceConfig
from pipeline.device.leases import LEASE_VARIABLE, board_name
from pipeline.model import Failure
from pipeline.run.device_service import own_command
from pipeline.run.held_boards import HeldBoard, hold_board
from pipeline.run.project import Project


class LeasedBoard:
    """One board, while a test has it. `environment` tells the rest of this process, and its children, of the lease."""

    def __init__(self, project: Project, device: DeviceConfig, environment: MutableMapping[str, str]) -> None:
        self._project, self._device, self._environment = project, device, environment
        self._board = board_name(device, project.root)
        self._mark = (
            Path(user_state_dir(environment, sys.platform) or project.state_dir) / f"leases/{self._board}.tested"
        )
        self._lease: HeldBoard | None = None
        self._before = ""

    def try_take(self, why: str) -> Failure | None:
        """Take it now, or who has it."""
        root, state_dir = self._project.root, self._project.state_dir
        holder = Holder(os.getpid(), own_command(), why)
        got = hold_board(self._device, root, state_dir, holder, environment=self._environment)
        if isinstance(got, Failure):
            return got
        self._lease, self._before = got, self._environment.get(LEASE_VARIABLE, "")
        tokens = [token for token in self._before.split(",") if token]
        if not any(token.startswith(f"{self._board}:") for token in tokens):
            self._environment[LEASE_VARIABLE] = ",".join([*tokens, got.token])
        return None

    def release(self) -> None:
        """Give it back; without it, nothing happens."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        if self._before:
            self._environment[LEASE_VARIABLE] = self._before
        else:
            self._environment.pop(LEASE_VARIABLE, None)
        lease.release()

    @property
    def last_user(self) -> str:
        """What the last one who left a mark called itself; `""`: nobody did."""
        try:
            return read_text(self._mark).strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def leave_mark(self, user: str) -> None:
        """Say who tests on the board: whoever finds another name must look at the board again. Only while leased."""
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._mark, f"{user}\n".encode(), durable=False)
