"""What a connection to the service becomes: a lent port, a view of a console, or a run that tells what it hears.

Knows frames, consoles and leases; not sockets. Everything happens in the event loop. Invariants: a lease ends with its
connection; a viewer that is too slow loses entries and is told how many, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.client.protocol import (
    Channel,
    ConsoleChunk,
    ConsoleEntry,
    ConsoleNote,
    Holder,
    Message,
    NoteKind,
    ProtocolError,
    ServiceFrame,
    decode_entry,
    encode,
    encode_entry,
    encode_failure,
    read_fields,
)
from pipeline.model import Failure
from pipeline.service.hub import Since, Subscription
from pipeline.service.port_owner import PortBytes, PortOwner
from pipeline.service.server import Client, Role, device_of

if TYPE_CHECKING:
    from pipeline.service.console import Console
    from pipeline.service.leases import PortLease

MAX_NOTES = 2 << 20
"""Bytes that wait for a viewer, with which notes are dropped too, and not only what the board says."""

MAX_UNWRITTEN = 1 << 18
"""Bytes of a lessee that wait for the port; then nothing is taken from it for a while."""

MAX_WAIT_S = 3600.0


class PortRole:
    """A port, lent. Waits for its turn, for the port to be open, then passes bytes on."""

    def __init__(self, client: Client, frame: ServiceFrame) -> None:
        header = frame.header
        self._client = client
        self._device = device_of(header)
        holder = header.get("holder")
        if not isinstance(holder, dict):
            raise ProtocolError("a port is asked for without a holder")
        self._holder: Holder = read_fields(Holder, holder)
        wait_s = header.get("wait_s", 0)
        if type(wait_s) not in (int, float) or not 0 <= wait_s <= MAX_WAIT_S:
            raise ProtocolError(f"wait_s is {wait_s!r:.40}")
        self._console: Console = client.service.consoles.of(self._device)
        self._asked_s = self._turn_s = client.service.now_s()
        self._granted = False
        self._over = False
        self._held = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.lease: PortLease = self._console.leases.ask(self._console.key, self._holder)
        self._console.waiting[self.lease.number] = self
        self._begin(float(wait_s), take=bool(header.get("take")))

    # --- getting it -------------------------------------------------------------------------------

    def _begin(self, wait_s: float, *, take: bool) -> None:
        leases = self._console.leases
        if leases.granted(self.lease):
            self.turn()
            return
        other = leases.exclusive(self.lease.port)
        if take:
            taken = leases.take(self.lease)
            if taken is not None:
                self._console.taken(taken, self._holder)
            self.turn()
            return
        self._client.send(encode(Message.WAITING, holder=None if other is None else other._asdict()))
        self._timer = self._client.loop.call_later(wait_s, self._too_late)

    def _too_late(self) -> None:
        other = self._console.leases.exclusive(self.lease.port)
        if other is not None and not self._over:
            self._fail(self._console.busy(other))

    def turn(self) -> None:
        """The lease is granted."""
        if self._timer is not None:
            self._timer.cancel()
        self._turn_s = self._client.service.now_s()
        self._task = self._client.loop.create_task(self._get())

    async def _get(self) -> None:
        failure = await self._console.opened()
        if self._over:
            return
        owner = self._console.owner
        if failure is not None or owner is None:
            self._fail(failure or self._console.gone_failure())
            return
        self._granted = True
        self._console.lent(self.lease, self)
        baud, dtr, rts = owner.state
        usb = owner.usb
        waited_s = self._turn_s - self._asked_s
        self._client.send(
            encode(
                Message.GRANTED,
                lease=self.lease.number,
                waited_ms=round(waited_s * 1000, 3),
                name=owner.name,
                baud=baud,
                dtr=dtr,
                rts=rts,
                usb=None if usb is None else usb._asdict(),
            )
        )
        if self._console.state == "gone":
            self.gone()

    def _fail(self, failure: Failure) -> None:
        self._client.send(encode_failure(failure))
        self.ended()

    # --- a lessee ---------------------------------------------------------------------------------

    def data(self, chunk: PortBytes) -> None:
        self._client.send(encode(Message.DATA, chunk.data, at_s=chunk.at_s))

    def gone(self) -> None:
        self._client.send(encode(Message.GONE))

    def back(self, name: str, ms: int) -> None:
        self._client.send(encode(Message.BACK, name=name, ms=ms))

    def taken(self, failure: Failure) -> None:
        """Somebody else has it now."""
        self._fail(failure)

    # --- a role -----------------------------------------------------------------------------------

    def frame(self, frame: ServiceFrame) -> None:
        if self._over:
            return
        if not self._granted:
            raise ProtocolError(f"{frame.message!r:.40} before the port was granted")
        owner = self._console.owner
        if frame.message == Message.WRITE:
            self._write(owner, frame.body)
            return
        n = frame.header.get("n")
        if type(n) is not int:
            raise ProtocolError(f"{frame.message!r:.40} without a number")
        if owner is None or not self._console.leases.may_write(self.lease):
            self._client.send(encode_failure(self._console.refusal("change") or self._console.gone_failure()))
            return
        self._command(owner, frame, self._answers(n))

    def _command(self, owner: PortOwner, frame: ServiceFrame, done: Callable[[OSError | None], None]) -> None:
        header = frame.header
        match frame.message:
            case Message.DRAIN:
                owner.barrier(done)
            case Message.LINES:
                owner.set_lines(_line(header, "dtr"), _line(header, "rts"), done)
            case Message.BAUD:
                baud = header.get("baud")
                if type(baud) is not int or not 0 < baud < 1 << 32:
                    raise ProtocolError(f"no rate is {baud!r:.40}")
                owner.set_baud(baud, done)
            case Message.CHANNEL:
                try:
                    owner.set_channel(Channel(str(header.get("channel"))), done)
                except ValueError:
                    raise ProtocolError(f"no channel is {header.get('channel')!r:.40}") from None
            case name:
                raise ProtocolError(f"{name!r:.40} is nothing that a lessee can ask")

    def _answers(self, n: int) -> Callable[[OSError | None], None]:
        loop = self._client.loop

        def answer(error: OSError | None) -> None:
            if error is None:
                self._client.done(n=n)
            else:
                self._client.done(n=n, error=str(error), errno=error.errno)

        return lambda error: _in_loop(loop, answer, error)

    def _write(self, owner: PortOwner | None, data: bytes) -> None:
        if owner is None or not self._console.leases.may_write(self.lease):
            self._client.service.counts["writes_refused"] += 1
            return
        loop = self._client.loop
        owner.write(data, lambda error: _in_loop(loop, self._written))
        if owner.queued > MAX_UNWRITTEN and not self._held:
            self._held = True
            self._client.hold(True)

    def _written(self) -> None:
        owner = self._console.owner
        if self._held and (owner is None or owner.queued <= MAX_UNWRITTEN):
            self._held = False
            self._client.hold(False)

    def caught_up(self) -> None:
        """A lessee that stays behind loses its connection."""

    def ended(self) -> None:
        if self._over:
            return
        self._over = True
        for pending in (self._timer, self._task):
            if pending is not None:
                pending.cancel()
        self._console.waiting.pop(self.lease.number, None)
        if self._granted:
            self._console.give_back(self.lease, self._asked_s, self._client.end)
        else:
            self._client.end()
        self._console.left(self.lease)


class WatchRole:
    """A view of a console."""

    def __init__(self, client: Client, frame: ServiceFrame) -> None:
        since = frame.header.get("since") or {}
        if not isinstance(since, dict):
            raise ProtocolError(f"since is {since!r:.40}")
        self._client = client
        self._dropped = self._dropped_bytes = 0
        self._last = 0
        client.done()
        console = client.service.consoles.of(device_of(frame.header))
        self._console = console
        self._subscription: Subscription = console.subscribe(read_fields(Since, since), self._show)

    def _show(self, entry: ConsoleEntry) -> None:
        client = self._client
        if client.behind and (isinstance(entry, ConsoleChunk) or client.unsent > MAX_NOTES):
            self._dropped += 1
            client.service.counts["entries_dropped"] += 1
            self._dropped_bytes += len(entry.data) if isinstance(entry, ConsoleChunk) else 0
            self._last = entry.number
            return
        self._tell_dropped()
        client.send(encode_entry(entry))

    def caught_up(self) -> None:
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        if not self._dropped:
            return
        text = f"{self._dropped} entries ({self._dropped_bytes} bytes) were dropped: this viewer was too slow"
        self._console.bytes_dropped += self._dropped_bytes
        self._dropped = self._dropped_bytes = 0
        service = self._client.service
        note = ConsoleNote(self._last, service.utc(), service.now_s(), NoteKind.DROPPED, text)
        self._client.send(encode_entry(note))

    def frame(self, frame: ServiceFrame) -> None:
        raise ProtocolError(f"{frame.message!r:.40} from a viewer")

    def ended(self) -> None:
        self._subscription.close()
        self._client.end()


class TellRole:
    """A run tells what a board says that lives in its own process."""

    def __init__(self, client: Client, frame: ServiceFrame) -> None:
        self._client = client
        self._console: Console = client.service.consoles.of(device_of(frame.header))
        holder = frame.header.get("holder")
        if not isinstance(holder, dict) or not self._console.told:
            raise ProtocolError("only a run can tell, and only of a board that lives in it")
        self._console.begin_telling(read_fields(Holder, holder))
        client.done()

    def frame(self, frame: ServiceFrame) -> None:
        entry = decode_entry(frame)
        if isinstance(entry, ConsoleChunk):
            self._console.take(entry.at, entry.at_s, entry.channel, entry.data)
        else:
            self._console.note(entry.kind, entry.text, tx=entry.tx, elf=entry.elf)

    def caught_up(self) -> None:
        """It is told nothing."""

    def ended(self) -> None:
        self._console.end_telling()
        self._client.end()


ROLES: dict[str, Callable[[Client, ServiceFrame], Role]] = {
    Message.PORT: PortRole,
    Message.WATCH: WatchRole,
    Message.TELL: TellRole,
}


def _line(header: Any, name: str) -> bool | None:
    value = header.get(name)
    if value is not None and type(value) is not bool:
        raise ProtocolError(f"{name} is {value!r:.40}")
    return value


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        return  # the loop has ended, and so has the client
