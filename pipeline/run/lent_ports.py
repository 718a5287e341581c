"""Ports that the resident service lends to this run, where there is one.

Knows when to ask and what to say when it cannot be used; what a lent port is, `client/served_port.py` knows. Invariant:
without a service, or with one that cannot be used, nothing is lent, the run opens the port itself, and a person reads
why at most once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.client.protocol import Holder
    from pipeline.client.served_port import Borrowed
    from pipeline.config.schema import DeviceConfig

WAIT_S = 60.0
"""As long as a run waits for the project's lock."""


class LentPorts:
    """`notice` shows a line to the user; `tell` takes what a loan cost."""

    def __init__(
        self,
        root: Path,
        notice: Callable[[str], None],
        tell: Callable[[str, Borrowed], None] = lambda device, cost: None,
    ) -> None:
        self._root = root
        self._notice = notice
        self._tell = tell
        self._alone = False

    def borrow(self, device: DeviceConfig, mac: str, holder: Holder, *, take: bool) -> Any:
        """The device's port, lent to `holder`; None: open it yourself. `take`: from whoever has it. Raises DeviceError
        when the service says why it cannot be had."""
        if self._alone or device.is_virtual or not _there():
            return None
        from pipeline.client.connection import NoService
        from pipeline.client.protocol import DeviceRef
        from pipeline.client.served_port import borrow

        root = str(self._root.resolve())
        wanted = DeviceRef(root, device.name, device.chip, device.port, mac, device.monitor_baud, device.reset)
        try:
            port, cost = borrow(wanted, holder, take=take, wait_s=WAIT_S, usb_of=_usb, waiting=self._waits)
        except NoService as error:
            self._alone = True
            if not error.silent:
                self._notice(f"note: working without the service: {error}")
            return None
        self._tell(device.name, cost)
        return port

    def _waits(self, holder: str) -> None:
        self._notice(f"note: waiting for the port: {holder}")


def _usb(fields: Mapping[str, Any]) -> Any:
    from pipeline.device.ports import UsbId

    return UsbId(**{name: fields[name] for name in UsbId._fields if name in fields})


def _there() -> bool:
    """Is there a socket? Asked without loading what talks to it."""
    from pipeline.client import endpoint

    directory = endpoint.runtime_dir()
    return directory is not None and os.path.exists(f"{directory}/{endpoint.SOCKET}")  # noqa: PTH110
