"""The consoles of every device that somebody has named: which of them are one port, and what `hub.Consoles` promises.

Knows names of ports and the table of consoles; what a console does, `console.py` does. Everything happens in the event
loop, and nothing blocks it but a look at this machine's USB ports where a device's port is `auto`. Invariant: two
devices that name one port share one owner, whatever they call it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.client.protocol import DeviceRef
from pipeline.device import ports
from pipeline.effects.clock import SystemClock
from pipeline.errors import DeviceError
from pipeline.model import Failure
from pipeline.service.console import Console, ConsoleRecord
from pipeline.service.hub import ConsoleState, Since, Sink, Subscription
from pipeline.service.port_owner import PortClock, PortEvent, PortOwner

Deliver = Callable[[PortEvent], None]


class OwnedConsoles:
    """`hub.Consoles` over owned ports. `record` gives what keeps a device's console beyond the service."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: PortClock | None = None,
        record: Callable[[DeviceRef], ConsoleRecord | None] = lambda device: None,
        make_owner: Callable[[DeviceRef, Deliver, PortClock], PortOwner] | None = None,
    ) -> None:
        system = SystemClock()
        self._loop = loop
        self._clock = clock or PortClock(system.now_s, system.utc)
        self._record = record
        self._make_owner = make_owner or owner_of
        self._consoles: list[Console] = []
        self.leaving: Callable[[Console], None] = lambda console: None
        """Told of a console that no device names any more, before it is closed."""

    # --- hub.Consoles -------------------------------------------------------------------------------

    def states(self) -> Sequence[ConsoleState]:
        return [state for console in self._consoles for state in console.states()]

    def know(self, device: DeviceRef) -> None:
        self.of(device).open()

    def subscribe(self, device: DeviceRef, since: Since, sink: Sink) -> Subscription | Failure:
        return self.of(device).subscribe(since, sink)

    def send(self, device: DeviceRef, data: bytes) -> Failure | None:
        console = self.of(device)
        refusal = console.refusal("write to")
        if refusal is None:
            assert console.owner is not None
            console.owner.write(data)
        return refusal

    def reset(self, device: DeviceRef) -> Failure | None:
        console = self.of(device)
        refusal = console.refusal("reset")
        if refusal is None:
            assert console.owner is not None
            console.owner.reset()
        return refusal

    def release(self, device: DeviceRef) -> Failure | None:
        console = self.of(device)
        if (holder := console.leases.exclusive(console.key)) is not None:
            return console.busy(holder)
        console.close("the port was released, and is left to others until somebody names the device again")
        return None

    # --- the table ----------------------------------------------------------------------------------

    def of(self, device: DeviceRef) -> Console:
        """The console of this device, which it may have named for the first time, or with another port than before."""
        name = (device.root, device.name)
        key = _key(device)
        for console in [one for one in self._consoles if not one.devices and not one.lessees]:
            self._drop(console)
        named = next((console for console in self._consoles if name in console.devices), None)
        found = next((console for console in self._consoles if key in console.names), None)
        if named is not None and (named is found or (key == ports.AUTO and named.owner is not None)):
            named.devices[name] = device
            return named
        if named is not None:
            self._forget(named, name)
        if found is None:
            found = Console(key, self._loop, self._clock, self._opener_of(device))
            self._consoles.append(found)
        found.devices[name] = device
        if (record := self._record(device)) is not None:
            found.records[name] = record
        return found

    def _opener_of(self, device: DeviceRef) -> Callable[[DeviceRef, Deliver], PortOwner] | None:
        """Who opens its port; None: the service never does. A place of a farm is held by whoever uses it."""
        return None if device.config.is_virtual or device.config.is_in_farm else self._owner

    def _owner(self, device: DeviceRef, deliver: Deliver) -> PortOwner:
        return self._make_owner(device, deliver, self._clock)

    def _forget(self, console: Console, name: tuple[str, str]) -> None:
        """The device has another port now."""
        console.former = console.devices[name]
        if len(console.devices) == 1:
            self.leaving(console)
        if len(console.devices) > 1 or console.lessees:
            del console.devices[name]
            console.records.pop(name, None)
            return
        self._drop(console)

    def _drop(self, console: Console) -> None:
        console.close("no device of deploy.toml has this port any more")
        self._consoles.remove(console)

    @property
    def writing(self) -> bool:
        """Is any port lent to one writer?"""
        return any(console.leases.any_exclusive for console in self._consoles)

    def close(self, timeout_s: float) -> None:
        """Let go of every port; waits that long for those that take their time."""
        owners = [owner for console in self._consoles if (owner := console.close("the service ends")) is not None]
        for owner in owners:
            owner.join(timeout_s)


def _key(device: DeviceRef) -> str:
    """By which devices that name one port are recognised."""
    if device.config.is_virtual:
        return f"{device.root}:{device.name}"
    if "://" in device.port:
        return device.port
    if device.port != ports.AUTO:
        return os.path.realpath(device.port)
    try:
        return os.path.realpath(ports.pick(device.name))
    except DeviceError:
        return ports.AUTO  # whoever opens it says what is wrong


def owner_of(device: DeviceRef, deliver: Deliver, clock: PortClock) -> PortOwner:
    """Of a real port, or of an RFC 2217 server's."""
    config = device.config

    def opener() -> Any:
        return ports.open_port(device.name, config, Path(device.root), SystemClock(), 0)

    def pulse(port: Any) -> bool:
        return ports.reset_of(config, port) == "usb"

    return PortOwner(opener, ports.reopen, device.where, clock, deliver, pulse=pulse)
