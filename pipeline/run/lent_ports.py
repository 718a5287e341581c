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

from pipeline.events import PhasePart

if TYPE_CHECKING:
    from pipeline.client.protocol import DeviceRef, Holder
    from pipeline.client.served_port import ServedPort
    from pipeline.client.told_console import ToldConsole
    from pipeline.config.schema import DeviceConfig

WAIT_S = 60.0
"""As long as a run waits for the project's lock."""


class LentPorts:
    """`notice` shows a line to the user; `measured` takes what a device's loan cost; `autostart`: begin the
    service when it is not there."""

    def __init__(
        self,
        root: Path,
        notice: Callable[[str], None],
        measured: Callable[[str, PhasePart], None] = lambda device, part: None,
        *,
        autostart: bool = False,
    ) -> None:
        self._root = root
        self._notice = notice
        self._measured = measured
        self._autostart = autostart
        self._ports: list[tuple[str, ServedPort]] = []
        self._alone = False
        self._told: list[ToldConsole] = []

    def borrow(self, device: DeviceConfig, mac: str, holder: Holder, *, take: bool) -> Any:
        """The device's port, lent to `holder`; None: open it yourself. `take`: from whoever has it. Raises DeviceError
        when the service says why it cannot be had."""
        if self._alone or device.is_virtual or device.is_in_farm or not (_there() or self._autostart):
            return None
        from pipeline.client.connection import NoService
        from pipeline.client.served_port import borrow

        if not _there() and (problem := self._start()) is not None:
            self._alone = True
            if problem:
                self._notice(f"note: working without the service: {problem}")
            return None
        try:
            port, cost = borrow(
                device_ref(device, self._root, mac), holder, take=take, wait_s=WAIT_S, usb_of=_usb, waiting=self._waits
            )
        except NoService as error:
            self._alone = True
            if not error.silent:
                self._notice(f"note: working without the service: {error}")
            return None
        self._ports.append((device.name, port))
        for name, phase, ms in (
            ("service handshake", "startup", cost.handshake_ms),
            ("wait for the port", "dispatch", cost.wait_ms),
            ("port lent", "verify-flash", cost.lend_ms),
        ):
            self._measured(device.name, PhasePart(name, phase, ms / 1000))
        return port

    def _start(self) -> str | None:
        """Begin it; None when it is there, else why not ("": nobody wants it, or it cannot be here)."""
        from pipeline.client import endpoint
        from pipeline.client.start import start_service

        if endpoint.runtime_dir(create=True) is None:
            return ""
        return start_service() or None

    def tell_of(self, device: DeviceConfig, port: Any, holder: Holder) -> None:
        """Have others hear what an in-process board says, from now until `close`. Nobody hears of trouble
        with that."""
        if self._alone or not _there():
            return
        from pipeline.client.connection import Connection, NoService
        from pipeline.client.told_console import ToldConsole
        from pipeline.effects.clock import SystemClock

        try:
            connection = Connection.open()
            wanted = device_ref(device, self._root)
            told = ToldConsole(connection, wanted, holder, port.clock.now, SystemClock().utc)
        except NoService:
            return
        port.on_sent = told.heard
        port.channel = told.channel
        self._told.append(told)

    def returned(self, device: str) -> None:
        """The run has let go of this board, and goes on with others."""
        for lent in [lent for lent in self._ports if lent[0] == device]:
            self._ports.remove(lent)
            if lent[1].returned_ms is not None:
                self._measured(device, PhasePart("port returned", "reattach", lent[1].returned_ms / 1000))

    def close(self) -> None:
        """The run has let go of its boards. Idempotent."""
        while self._told:
            self._told.pop().close()
        for device in {device for device, _ in self._ports}:
            self.returned(device)

    def _waits(self, holder: str) -> None:
        self._notice(f"note: waiting for the port: {holder}")


def device_ref(device: DeviceConfig, root: Path, mac: str = "") -> DeviceRef:
    """What the service needs to know of it."""
    from pipeline.client.protocol import DeviceRef

    own = str(root.resolve())
    return DeviceRef(own, device.name, device.chip, device.port, mac, device.monitor_baud, device.reset)


def _usb(fields: Mapping[str, Any]) -> Any:
    from pipeline.device.ports import UsbId

    return UsbId(**{name: fields[name] for name in UsbId._fields if name in fields})


def _there() -> bool:
    """Is there a socket? Asked without loading what talks to it."""
    from pipeline.client import endpoint

    directory = endpoint.runtime_dir()
    return directory is not None and os.path.exists(f"{directory}/{endpoint.SOCKET}")  # noqa: PTH110
