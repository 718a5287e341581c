"""One console: what a port says, numbered, remembered and shown to everybody who watches, while it is lent and not.

Knows entries, viewers, who borrows the port, and what a boot's lines mean; not sockets, and not how a port is read
(`port_owner.py`). Everything happens in the event loop. Invariants: entries are numbered without a gap, and each viewer
and each lessee is told of each once, in order; a viewer that raises has left, and disturbs nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Protocol

from pipeline.boot.console_events import ConsoleEventKind, ConsoleListener
from pipeline.boot.log_patterns import PATTERNS, LineKind
from pipeline.client.protocol import (
    Channel,
    ConsoleChunk,
    ConsoleEntry,
    ConsoleNote,
    DeviceRef,
    Holder,
    NoteKind,
)
from pipeline.formats.jsonrpc import reported_sha256
from pipeline.model import Failure, FailureCategory
from pipeline.service import refusals
from pipeline.service.hub import ConsoleState, Since, Sink
from pipeline.service.leases import Leases, PortLease
from pipeline.service.port_owner import (
    PortBytes,
    PortClock,
    PortEvent,
    PortGone,
    PortLetGo,
    PortOpened,
    PortOwner,
)
from pipeline.service.ring import EntryRing

GONE_S = 3.0
"""How long whoever asks for a port that vanished waits for it: USB is back within a second."""

RETRY_FIRST_S, RETRY_MOST_S = 0.5, 10.0
"""A port that cannot be opened is tried again this often, while somebody watches."""


ELF_ID = re.compile(r"[0-9a-fA-F]{8,64}")
"""What firmware may say that it is; anything else is a line like others."""


class Lessee(Protocol):
    """Who borrows the port: told what it says and what happens to it. Must not block or raise."""

    def data(self, chunk: PortBytes) -> None: ...
    def gone(self) -> None: ...
    def back(self, name: str, ms: int) -> None: ...


class Asking(Lessee, Protocol):
    """Who asked for a lease."""

    def turn(self) -> None:
        """It is granted."""
        ...

    def taken(self, failure: Failure) -> None:
        """It holds no more."""
        ...


class ConsoleRecord(Protocol):
    """What keeps a console beyond the service. Must not block or raise."""

    def line(self, at: str, text: str) -> None: ...
    def note(self, note: ConsoleNote) -> None: ...


class _Viewer:
    """A `Subscription`."""

    def __init__(self, console: Console, sink: Sink) -> None:
        self._console = console
        self.sink = sink

    def close(self) -> None:
        self._console.unsubscribe(self)


class Console:
    """Of the devices in `devices`, which all name one port. `make_owner` gives an owner that tells `deliver`, not yet
    opened; None for a board that lives in the runs themselves, of which they tell."""

    def __init__(
        self,
        key: str,
        loop: asyncio.AbstractEventLoop,
        clock: PortClock,
        make_owner: Callable[[DeviceRef, Callable[[PortEvent], None]], PortOwner] | None,
    ) -> None:
        self.key = key
        self.devices: dict[tuple[str, str], DeviceRef] = {}
        self.records: dict[tuple[str, str], ConsoleRecord] = {}
        self.leases = Leases()
        self.waiting: dict[int, Asking] = {}
        """Who asked for a lease and has not left, by its number."""
        self.lessees: dict[int, Lessee] = {}
        self.owner: PortOwner | None = None
        self.state = "closed"
        self.failure: Failure | None = None
        self.elf = ""
        self.bytes_seen = 0
        self._loop = loop
        self._clock = clock
        self._make_owner = make_owner
        self._ring = EntryRing()
        self._listener = ConsoleListener()
        self._viewers: list[_Viewer] = []
        self._channel = Channel.CONSOLE
        self._telling = 0
        self._banner = False
        """The last line of a boot so far is its banner."""
        self._opened: list[asyncio.Future[Failure | None]] = []
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = RETRY_FIRST_S
        self.bytes_dropped = 0
        self.former: DeviceRef | None = None
        """The last device that named this port, when none does any more, and somebody still has it."""

    # --- what it is ---------------------------------------------------------------------------------

    @property
    def device(self) -> DeviceRef:
        """One of those that name this port: the one that named it last."""
        device = next(reversed(self.devices.values()), self.former)
        assert device is not None
        return device

    @property
    def names(self) -> set[str]:
        """By which the port is known now."""
        return {self.key} | ({self.owner.name} if self.owner is not None and self.owner.name else set())

    @property
    def told(self) -> bool:
        """Does its board live in the runs themselves?"""
        return self._make_owner is None

    @property
    def watched(self) -> bool:
        return bool(self._viewers or self.lessees)

    def states(self) -> list[ConsoleState]:
        """One per device."""
        port = self.owner.name if self.owner is not None and self.state == "open" else ""
        return [
            ConsoleState(
                device,
                port or device.port,
                self.state,
                self.failure,
                self.leases.exclusive(self.key),
                self.elf,
                self.bytes_seen,
                self.bytes_dropped,
                len(self._viewers),
            )
            for device in self.devices.values()
        ]

    # --- the port -----------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to own the port, if it is not owned."""
        self._stop_retrying()
        if self._make_owner is None or self.owner is not None:
            return

        def deliver(event: PortEvent) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to be told
                self._loop.call_soon_threadsafe(self._happened, owner, event)

        self.state = "opening"
        self.owner = owner = self._make_owner(self.device, deliver)
        self._be_patient()
        owner.open()

    async def opened(self) -> Failure | None:
        """Own the port; None, or why it cannot be opened."""
        if self._make_owner is None:
            return refusals.lives_in_runs(self.device.where, "lend")
        if self.state == "open":
            return None
        waiting: asyncio.Future[Failure | None] = self._loop.create_future()
        self._opened.append(waiting)
        if self.owner is None:
            self.open()
        elif self.state == "gone":
            self.owner.want(True, now=True)
            timer = self._loop.call_later(GONE_S, self._answer_opened, refusals.still_gone(self.device.where))
            waiting.add_done_callback(lambda _: timer.cancel())
        return await waiting

    def close(self, text: str) -> PortOwner | None:
        """Let go of the port; its owner, which may take a moment."""
        self._stop_retrying()
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.close()
            self._closed(None, NoteKind.CLOSED, text)
        return owner

    def _happened(self, owner: PortOwner, event: PortEvent) -> None:
        if owner is not self.owner:
            return  # of an owner that was closed before
        if isinstance(event, PortBytes):
            self._heard(event)
        elif isinstance(event, PortOpened):
            self._is_open(event)
        elif isinstance(event, PortGone):
            self.state = "gone"
            self._listener.interrupted()
            self.note(NoteKind.GONE, f"the port vanished: {event.text}")
            for lessee in list(self.lessees.values()):
                lessee.gone()
        elif isinstance(event, PortLetGo):
            self.owner = None
            self._could_not_open(event.failure)

    def _is_open(self, event: PortOpened) -> None:
        self.state, failed_before = "open", self.failure
        self.failure, self._retry_s = None, RETRY_FIRST_S
        if event.again_ms is not None:
            self.note(NoteKind.BACK, f"the port is back as {event.name} after {event.again_ms} ms")
            for lessee in list(self.lessees.values()):
                lessee.back(event.name, event.again_ms)
            self._answer_opened(None)
            return
        assert self.owner is not None
        if self.device.monitor_baud != self.owner.state[0]:
            self.owner.set_baud(self.device.monitor_baud)
        if failed_before is not None or self._ring.last:
            self.note(NoteKind.OPENED, f"the port is open: {event.name}")
        self._answer_opened(None)

    def _could_not_open(self, failure: Failure | None) -> None:
        failure = failure or refusals.not_open(self.device.where)
        kind = NoteKind.BUSY if failure.category is FailureCategory.PORT_BUSY else NoteKind.CLOSED
        news = self.failure is None or self.failure.message != failure.message
        self._closed(failure, kind, failure.line() if news else "")
        self._answer_opened(failure)
        if self.watched:
            self._retry = self._loop.call_later(self._retry_s, self.open)
            self._retry_s = min(self._retry_s * 2, RETRY_MOST_S)

    def _closed(self, failure: Failure | None, kind: NoteKind, text: str) -> None:
        self.state, self.failure = "closed", failure
        self._listener.interrupted()
        if text:
            self.note(kind, text)
        for lessee in list(self.lessees.values()):
            lessee.gone()

    def _answer_opened(self, failure: Failure | None) -> None:
        waiting, self._opened = self._opened, []
        for one in waiting:
            if not one.done():
                one.set_result(failure)

    def _stop_retrying(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _be_patient(self) -> None:
        if self.owner is not None:
            self.owner.want(self.watched, now=self.watched and self.state == "gone")

    # --- what it says -------------------------------------------------------------------------------

    def _heard(self, chunk: PortBytes) -> None:
        for lessee in list(self.lessees.values()):
            lessee.data(chunk)
        self.take(chunk.at, chunk.at_s, chunk.channel, chunk.data)

    def take(self, at: str, at_s: float, channel: Channel, data: bytes) -> None:
        """An entry of these bytes, for everybody who watches."""
        entry = ConsoleChunk(self._ring.last + 1, at, at_s, self.bytes_seen, channel, data)
        self.bytes_seen += len(data)
        if channel is Channel.CONSOLE is not self._channel:
            self._listener.interrupted()
            self._ring.boot = entry.number
        self._channel = channel
        self._show(entry)
        if channel is Channel.CONSOLE:
            self._understand(entry)

    def _understand(self, chunk: ConsoleChunk) -> None:
        """Boots and firmware, in the console's own words."""
        for seen in self._listener.feed(chunk.at_s, chunk.data):
            if seen.kind in (ConsoleEventKind.LINE, ConsoleEventKind.MESSAGE):
                for record in self.records.values():
                    record.line(chunk.at, seen.text)
                if re.search(PATTERNS[LineKind.BANNER], seen.text):
                    self._ring.boot, self._banner = self._ring.number_at(seen.at_s), True
            elif seen.kind is ConsoleEventKind.RESET:
                if not self._banner:  # the ROMs that have one say it first
                    self._ring.boot = self._ring.number_at(seen.at_s)
                self.elf, self._banner = "", False
                self.note(NoteKind.RESET, f"the board was reset: {seen.text}")
            said = reported_sha256(seen.message) if seen.message is not None else None
            if said is not None and said != self.elf and ELF_ID.fullmatch(said):
                self.elf = said
                self.note(NoteKind.BOOT, f"firmware {self.elf[:16]} says that it runs", elf=self.elf)

    def note(self, kind: NoteKind, text: str, *, tx: str = "", elf: str = "") -> ConsoleNote:
        """Something happened."""
        note = ConsoleNote(self._ring.last + 1, self._clock.utc(), self._clock.now_s(), kind, text, tx, elf)
        self._show(note)
        for record in self.records.values():
            record.note(note)
        return note

    def _show(self, entry: ConsoleEntry) -> None:
        self._ring.push(entry)
        for viewer in list(self._viewers):
            try:
                viewer.sink(entry)
            except Exception:
                viewer.close()

    def begin_telling(self, holder: Holder) -> None:
        """A run has the board in its process, and will tell what it says."""
        self._telling += 1
        self.state = "open"
        self._listener.interrupted()
        self._channel = Channel.CONSOLE
        note = self.note(NoteKind.OPENED, f"the board runs in {holder.text}", tx=holder.tx)
        self._ring.deploy = self._ring.boot = note.number

    def end_telling(self) -> None:
        """And its end."""
        self._telling -= 1
        if not self._telling:
            self.state = "closed"
        self.note(NoteKind.CLOSED, "the run has ended, and its board is off")

    # --- viewers ------------------------------------------------------------------------------------

    def subscribe(self, since: Since, sink: Sink) -> _Viewer:
        """See `hub.Consoles.subscribe`."""
        viewer = _Viewer(self, sink)
        number = self._ring.first_after(since.what, since.number)
        try:
            if missing := self._ring.missing(number):
                sink(self._not_held(number, missing))
            for entry in self._ring.after(number):
                sink(entry)
        except Exception:
            return viewer
        self._viewers.append(viewer)
        self._be_patient()
        if self.owner is None:
            self.open()
        return viewer

    def _not_held(self, number: int, missing: int) -> ConsoleNote:
        text = f"{missing} older entries are held no more: see the console's file"
        return ConsoleNote(number + missing, self._clock.utc(), self._clock.now_s(), NoteKind.DROPPED, text)

    def unsubscribe(self, viewer: _Viewer) -> None:
        """Idempotent."""
        if viewer in self._viewers:
            self._viewers.remove(viewer)
        self._be_patient()

    # --- lending ------------------------------------------------------------------------------------

    def lent(self, lease: PortLease, lessee: Lessee) -> None:
        """From now on it is told, and may write."""
        self.lessees[lease.number] = lessee
        self._be_patient()
        if lease.holder.exclusive:
            note = self.note(NoteKind.PREEMPTED, f"preempted by {lease.holder.text}", tx=lease.holder.tx)
            self._ring.deploy = note.number

    def left(self, lease: PortLease) -> None:
        """A lease, or a wait for one, has ended: the next one has its turn."""
        granted = self.leases.leave(lease.number)
        if granted is not None and (asking := self.waiting.get(granted.number)) is not None:
            asking.turn()

    def taken(self, lease: PortLease, by: Holder) -> None:
        """Somebody took it."""
        self.note(NoteKind.TAKEN, f"{by.text} took the port from {lease.holder.text}", tx=by.tx)
        if (asking := self.waiting.get(lease.number)) is not None:
            asking.taken(refusals.taken_by(self.device.where, by))

    def give_back(self, lease: PortLease, since_s: float, then: Callable[[], None]) -> None:
        """The lessee is gone: the board shall run, at the monitor's rate. `then` is called when that is so."""
        del self.lessees[lease.number]
        self._be_patient()
        owner = self.owner
        if not lease.holder.exclusive or owner is None:
            then()
            return
        if owner.in_loader:
            self.note(
                NoteKind.RESET, f"{lease.holder.text} left the board in its loader: it is reset", tx=lease.holder.tx
            )
            owner.reset()

        def done(error: OSError | None) -> None:
            del error
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(returned)

        def returned() -> None:
            took_ms = round((self._clock.now_s() - since_s) * 1000)
            self.note(NoteKind.REATTACHED, f"reattached after {took_ms} ms", tx=lease.holder.tx)
            then()

        owner.set_baud(self.device.monitor_baud, done)

    def refusal(self, what: str) -> Failure | None:
        """Why nobody but the lessee may `what` now."""
        if self._make_owner is None:
            return refusals.lives_in_runs(self.device.where, what)
        holder: Holder | None = self.leases.exclusive(self.key)
        if holder is not None:
            return self.busy(holder)
        if self.owner is None or self.state != "open":
            return self.gone_failure()
        return None

    def busy(self, holder: Holder) -> Failure:
        """It is lent to that one."""
        return refusals.lent_to(self.device.where, holder)

    def gone_failure(self) -> Failure:
        """Why there is no port."""
        return self.failure or refusals.not_open(self.device.where)
