"""A program that shares a console's port: told what the board says, and may write and reset while nobody has a lease.

Knows consoles, leases and owners; not who the program is or how it is reached. Everything happens in the event loop.
Invariants: what is asked is done in the order in which it was asked, or not at all while somebody else has the port
for himself; a terminal that puts the chip into its loader has an exclusive lease from then until the chip is reset into
its application, or until the terminal ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pipeline.client.protocol import Channel, Holder
from pipeline.model import Failure
from pipeline.service.console import Console
from pipeline.service.leases import PortLease
from pipeline.service.line_intent import LineMeaning
from pipeline.service.port_owner import PortBytes, PortOwner

SYNC = b"\xc0\x00\x08\x24\x00"
"""How a flasher's first command begins: SLIP, a request, SYNC of 36 bytes (esptool's docs, "Serial Protocol")."""

USB_STEP_S = 0.1
"""What esptool waits between the steps of its reset of a chip on its own USB."""

Then = Callable[[], None]


class _OwnLease:
    """Of a terminal that flashes. The terminal hears the board already."""

    def __init__(self, lost: Then) -> None:
        self._lost = lost

    def data(self, chunk: PortBytes) -> None:
        del chunk

    def gone(self) -> None: ...

    def back(self, name: str, ms: int) -> None:
        del name, ms

    def turn(self) -> None: ...

    def taken(self, failure: Failure) -> None:
        del failure
        self._lost()


class SharedTerminal:
    """`open` it, then ask; `close` is the end. `sink` takes what the board says, and must not block."""

    def __init__(
        self,
        console: Console,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], tuple[float, str]],
        holder: Holder,
        sink: Callable[[bytes], None],
    ) -> None:
        """`clock`: monotonic seconds and UTC text. `holder`: how notes name the program."""
        self._console = console
        self._loop = loop
        self._clock = clock
        self._holder = holder
        self._sink = sink
        self._shared: PortLease | None = None
        self._own: PortLease | None = None
        self._own_since_s = 0.0
        self._baud = 0
        self._purging = 0
        self._lines = LineMeaning.REST
        self.refused = 0
        """Bytes that could not be written, since somebody else had the port."""

    async def open(self) -> Failure | None:
        """Be told from now on; None, or why there is no port."""
        failure = await self._console.opened()
        if failure is None:
            self._shared = self._console.leases.ask(self._console.key, self._holder._replace(exclusive=False))
            self._console.lent(self._shared, self)
        return failure

    def close(self) -> None:
        """Idempotent. A board in its loader is reset."""
        shared, self._shared = self._shared, None
        self._end_own()
        if shared is not None:
            self._console.lessees.pop(shared.number, None)
            self._console.left(shared)

    # --- a lessee ---------------------------------------------------------------------------------

    def data(self, chunk: PortBytes) -> None:
        if not self._purging:
            self._sink(chunk.data)

    def gone(self) -> None:
        """The program sees a port that is silent."""

    def back(self, name: str, ms: int) -> None:
        """And speaks again."""

    # --- what is asked ----------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Bytes that wait for the port."""
        owner = self._console.owner
        return 0 if owner is None else owner.queued

    @property
    def flashing(self) -> bool:
        """Has it the port for itself?"""
        return self._own is not None

    def write(self, data: bytes, then: Then) -> None:
        """To the board, or counted."""
        owner = self._usable()
        if owner is None:
            self.refused += len(data)
            self._loop.call_soon(then)
            return
        if data.startswith(SYNC) and self._own is None:
            self._begin_own()  # a board that somebody has put into its loader by hand
            self._set_baud(owner)
        owner.write(data, self._through(then))

    def set_baud(self, baud: int, then: Then) -> None:
        """The rate is the console's while the port is shared: this one counts when the terminal has it for itself."""
        self._baud = baud
        owner = self._console.owner
        if self._own is not None and owner is not None:
            owner.set_baud(baud, self._through(then))
        else:
            self._loop.call_soon(then)

    def purge(self, then: Then) -> None:
        """What is pending is not for this terminal."""
        owner = self._console.owner
        if owner is None:
            self._loop.call_soon(then)
            return
        self._purging += 1

        def done() -> None:
            self._purging -= 1
            then()

        owner.barrier(self._through(done))

    def set_lines(self, meaning: LineMeaning, then: Then) -> None:
        """See `line_intent.py`."""
        before, self._lines = self._lines, meaning
        owner = self._usable()
        if owner is None:
            self._loop.call_soon(then)
        elif meaning is LineMeaning.RESET:
            owner.set_lines(False, True, self._through(then))
        elif meaning is LineMeaning.REST and before is LineMeaning.BOOT_PIN:
            owner.set_lines(False, False, self._through(then))  # the chip has seen the pin, and is in its loader
        elif meaning is LineMeaning.REST or not self._begin_own():
            self._into_application(owner, then)
        elif _own_usb(self._console, owner):
            self._set_baud(owner)
            owner.set_channel(Channel.LOADER)
            self._usb_steps(owner, then)
        else:
            self._set_baud(owner)
            self._say_channel(owner, Channel.LOADER)
            owner.set_lines(True, False, self._through(then))

    def _into_application(self, owner: PortOwner, then: Then) -> None:
        if self._own is not None:
            self._say_channel(owner, Channel.CONSOLE)

        def released() -> None:
            self._end_own()
            then()

        owner.set_lines(False, False, self._through(released))

    @staticmethod
    def _say_channel(owner: PortOwner, channel: Channel) -> None:
        """The chip is in reset, and it is known only now for what: RTS is asserted again, which changes nothing."""
        owner.set_channel(channel)
        owner.set_lines(None, True)

    def _usb_steps(self, owner: PortOwner, then: Then) -> None:
        """A chip's own USB takes DTR for the wish to be in the loader, and RTS alone for a reset."""
        owner.set_lines(None, False)
        owner.set_lines(True, None)

        def reset() -> None:
            owner.set_lines(None, True)
            owner.set_lines(False, None)
            owner.set_lines(None, True)
            self._loop.call_later(USB_STEP_S, release)

        def release() -> None:
            owner.set_lines(False, False, self._through(then))

        self._loop.call_later(USB_STEP_S, reset)

    # --- the port for itself ------------------------------------------------------------------------

    def _usable(self) -> PortOwner | None:
        """The port, if this terminal may write now."""
        lease = self._own or self._shared
        if lease is None or not self._console.leases.may_write(lease) or self._console.state != "open":
            return None
        return self._console.owner

    def _begin_own(self) -> bool:
        """From now on nobody else writes. False: somebody else has it."""
        if self._own is not None:
            return True
        self._own_since_s, since_at = self._clock()
        leases = self._console.leases
        lease = leases.ask(self._console.key, self._holder._replace(exclusive=True, since_at=since_at))
        if not leases.granted(lease):
            leases.leave(lease.number)
            return False
        self._own = lease
        quiet = _OwnLease(self._lost)
        self._console.waiting[lease.number] = quiet
        self._console.lent(lease, quiet)
        return True

    def _set_baud(self, owner: PortOwner) -> None:
        if self._own is not None and self._baud:
            owner.set_baud(self._baud)

    def _lost(self) -> None:
        """Somebody took the port."""
        own, self._own = self._own, None
        if own is not None:
            self._console.waiting.pop(own.number, None)
            self._console.lessees.pop(own.number, None)

    def _end_own(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            self._console.waiting.pop(own.number, None)
            self._console.give_back(own, self._own_since_s, lambda: self._console.left(own))

    def _through(self, then: Then) -> Callable[[OSError | None], None]:
        """`then` in the event loop; what went wrong with a command, the program finds out by itself."""

        def done(error: OSError | None) -> None:
            del error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(then)

        return done


def _own_usb(console: Console, owner: PortOwner) -> bool:
    from pipeline.device.ports import reset_of

    return reset_of(console.device.config, owner) == "usb"
