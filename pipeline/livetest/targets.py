"""What live tests can talk to: a board of deploy.toml, real or virtual, and the firmware as a process of this machine.

Opens ports and starts processes. Does not know scenarios. Invariant: what was opened is closed by `close`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from pipeline.config.schema import DeviceConfig
from pipeline.config.values import HOST
from pipeline.device.process_link import ProcessLink
from pipeline.livetest.conversation import Conversation
from pipeline.run.device_service import DeviceService


class LiveTarget(Protocol):
    """`name` and `chip` as results call it."""

    name: str
    chip: str

    @property
    def lease(self) -> str:
        """What a child process needs to know to use it; `""`: nothing."""
        ...

    def open(self) -> Conversation:
        """A conversation with it; it was not reset. Raises DeviceError."""
        ...

    def close(self) -> None:
        """End it, and let go of what it needed."""
        ...


class BoardTarget:
    """A device of deploy.toml; `boards` holds its lease from the first use on."""

    def __init__(self, boards: DeviceService, device: DeviceConfig) -> None:
        self.name, self.chip = device.name, device.chip
        self._boards, self._device = boards, device
        self._talk: Conversation | None = None

    @property
    def lease(self) -> str:
        return self._boards.lease_token(self._device)

    def open(self) -> Conversation:
        try:
            self._boards.let_go(self._device)  # the deploy before left its port open
            link = self._boards.open_link(self._device, reset=False)
            self._talk = Conversation(link, self._device.where, self._boards.decoded)
        except BaseException:
            self.close()
            raise
        return self._talk

    def close(self) -> None:
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.close()
        self._boards.let_go(self._device)


class HostTarget:
    """The program that `[host]` builds, in a process of its own."""

    name = chip = HOST
    lease = ""

    def __init__(self, root: Path, program: str) -> None:
        self._root, self._program = root, program
        self._link: ProcessLink | None = None
        self._talk: Conversation | None = None

    def open(self) -> Conversation:
        where = f"{HOST} ({self._program})"
        self._link = ProcessLink([str(self._root / self._program)], self._root, os.environ, where)
        self._talk = Conversation(self._link, where)
        return self._talk

    def close(self) -> None:
        talk, self._talk = self._talk, None
        link, self._link = self._link, None
        if talk is not None:
            talk.close()
        if link is not None:
            link.close()
