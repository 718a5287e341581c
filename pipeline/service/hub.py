"""What the parts of the service see of its consoles: the page, the socket server, the port servers for others.

Holds no code but values. Does not know sockets, HTTP or serial ports. Invariant: everything here is called in the
service's event loop, and nothing here blocks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from cache.named_tuple import NamedTuple
from pipeline.client.protocol import ConsoleEntry, DeviceRef, Holder
from pipeline.model import Failure


class ConsoleState(NamedTuple):
    """How a device is now. `port`: the name that it has now; `state`: `open`, `gone` (waited for) or `closed`;
    `failure`: why it could not be opened; `elf`: of the firmware that announced itself since the last boot;
    `bytes_seen` and `bytes_dropped` since the console was opened; `viewers`: how many."""

    device: DeviceRef
    port: str
    state: str
    failure: Failure | None
    holder: Holder | None
    elf: str
    bytes_seen: int
    bytes_dropped: int
    viewers: int


class Since(NamedTuple):
    """From where a viewer wants to see: `boot`, `deploy` (the last one), `now`, `all` (what memory holds), or `number`:
    the entries after that one."""

    what: str = "boot"
    number: int = 0


Sink = Callable[[ConsoleEntry], None]
"""Takes an entry in order; must not block. One that raises is a viewer that left."""


class Subscription(Protocol):
    """A viewer's place; `close` is idempotent."""

    def close(self) -> None: ...


class Consoles(Protocol):
    """The consoles of all devices that somebody has named since the service began."""

    def states(self) -> Sequence[ConsoleState]:
        """In the order in which they were named."""
        ...

    def know(self, device: DeviceRef) -> None:
        """Open this device's port if it is not open, and keep it."""
        ...

    def subscribe(self, device: DeviceRef, since: Since, sink: Sink) -> Subscription | Failure:
        """First what was, then what comes, without a gap and without an entry twice. `sink` is called before this
        returns for what was."""
        ...

    def send(self, device: DeviceRef, data: bytes) -> Failure | None:
        """To the board; refused while an exclusive lease is held by somebody else."""
        ...

    def reset(self, device: DeviceRef) -> Failure | None:
        """Into its application; refused while an exclusive lease is held."""
        ...

    def release(self, device: DeviceRef) -> Failure | None:
        """Close the port and leave it to others until somebody names the device again."""
        ...
