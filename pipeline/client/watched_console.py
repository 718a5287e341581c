"""A device's console through the service, for a monitor: a link and its reader in one.

Knows the messages of a viewer, and how to find a service again that went away; not what the bytes mean or how they are
shown. Invariants: entries come in order, each once, also over a new connection to the same service; what happened
beside bytes stands in `notes` before the bytes that came after it; nothing here resets a board or keeps a port.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from cache.named_tuple import NamedTuple
from pipeline.client.caller import caller_environment
from pipeline.client.connection import Connection, NoService
from pipeline.client.protocol import (
    Channel,
    ConsoleChunk,
    ConsoleNote,
    DeviceRef,
    Message,
    NoteKind,
    ProtocolError,
    decode_entry,
    decode_failure,
)
from pipeline.effects.api import Gap
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import FailureCategory

RETRY_S = 0.2
"""How often a service that went away is looked for."""

ASK_S = 5.0


class ConsoleTold(NamedTuple):
    """What happened to the console, in a sentence. `kind` None: to the connection, and not to the board."""

    kind: NoteKind | None
    text: str


class WatchedConsole:
    """Raises NoService when there is none at first. One thread at a time."""

    gaps: Sequence[Gap] = ()
    """The service tells of them in notes."""
    real_time = True
    dropped = 0
    """The service tells."""

    def __init__(self, device: DeviceRef, since: str) -> None:
        """`since`: `boot`, `deploy`, `now` or `all`."""
        self._device = device
        self._last = 0
        self._since = since
        self._control: Connection | None = None
        self._began = ""
        """When the service began that we know: another one counts its entries anew."""
        self._retry_at_s = self._gone_s = 0.0
        self.at = ""
        """Instant (UTC) of the last bytes."""
        self.elf = ""
        """`app_elf_sha256` of the firmware that runs, as far as the service heard it say so."""
        self.notes: deque[ConsoleTold] = deque()
        self._watch: Connection | None = self._connect()

    # --- a link -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._device.port

    def now_s(self) -> float:
        return time.monotonic()

    def read(self, timeout_s: float) -> bytes:
        return self.poll(timeout_s)[1]

    def write(self, data: bytes) -> None:
        """To the board. Raises DeviceError where somebody else writes now, or nobody can."""
        self._ask(Message.SEND, data)

    def release_reset(self) -> float:
        """Reset the board into its application. Raises DeviceError."""
        self._ask(Message.RESET)
        return self.now_s()

    def set_baud(self, baud: int) -> None:
        """The service has set the monitor's rate."""

    def close(self) -> None:
        """Idempotent."""
        for connection in (self._watch, self._control):
            if connection is not None:
                connection.close()
        self._watch = self._control = None

    # --- a reader ---------------------------------------------------------------------------------

    def start(self) -> None:
        """It is connected already."""

    def stop(self) -> None:
        """See `close`."""

    def poll(self, timeout_s: float) -> tuple[float, bytes]:
        """The next entry: its stamp and bytes, empty when there was none or a note. Raises DeviceError when the service
        that came back is one that this program cannot talk to."""
        if self._watch is None:
            self._look_again(timeout_s)
        if self._watch is None:
            return self.now_s(), b""
        try:
            entry = decode_entry(self._watch.receive(timeout_s))
        except TimeoutError:
            return self.now_s(), b""
        except (NoService, ProtocolError) as error:
            self._lost(str(error))
            return self.now_s(), b""
        self._last = max(self._last, entry.number)
        if isinstance(entry, ConsoleChunk):
            self.at = entry.at
            return entry.at_s, entry.data if entry.channel is Channel.CONSOLE else b""
        self._note(entry)
        return entry.at_s, b""

    def _note(self, note: ConsoleNote) -> None:
        if note.kind is NoteKind.BOOT:
            self.elf = note.elf
        elif note.kind in (NoteKind.RESET, NoteKind.PREEMPTED, NoteKind.GONE):
            self.elf = ""
        self.notes.append(ConsoleTold(note.kind, note.text))

    # --- the service ------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        """Watch, from where we were if it is the service that we knew."""
        connection = Connection.open()
        began = str(connection.welcome.header.get("started_at"))
        if self._last and began == self._began:
            since = {"what": "number", "number": self._last}
        else:  # one that began meanwhile has nothing that was shown here
            since = {"what": "all" if self._last else self._since, "number": 0}
            self._last = 0
        try:
            answer = connection.request(
                Message.WATCH, device=self._device._asdict(), since=since, env=caller_environment()
            )
            if answer.message == Message.FAILURE:
                raise DeviceError(decode_failure(answer))
            if answer.message != Message.DONE:
                raise NoService(f"the service answered `{answer.message[:40]}` to a viewer")
        except BaseException:
            connection.close()
            raise
        self._began = began
        return connection

    def _look_again(self, timeout_s: float) -> None:
        """Is the service back? Looks at most every RETRY_S, and waits no longer than that."""
        wait_s = min(timeout_s, self._retry_at_s - self.now_s())
        if wait_s > 0:
            time.sleep(wait_s)
        if self.now_s() < self._retry_at_s:
            return
        self._retry_at_s = self.now_s() + RETRY_S
        try:
            self._watch = self._connect()
        except NoService as error:
            if not error.silent and "went away" not in str(error):
                raise self._failed(str(error), "start `doit monitor` again") from None
            return
        away_ms = round((self.now_s() - self._gone_s) * 1000)
        self.notes.append(ConsoleTold(None, f"the service is back after {away_ms} ms; attached again"))

    def _lost(self, why: str) -> None:
        assert self._watch is not None
        self._watch.close()
        self._watch = None
        self.elf = ""
        self._gone_s = self.now_s()
        self.notes.append(ConsoleTold(None, f"{why}; waiting for it (start it with `doit serve`, or end with Ctrl-C)"))

    def _ask(self, message: Message, body: bytes = b"") -> None:
        """Raises DeviceError with the service's reason, or because there is no service now."""
        for fresh in (False, True):
            if self._control is None or fresh:
                if self._control is not None:
                    self._control.close()
                    self._control = None
                try:
                    self._control = Connection.open()
                except NoService as error:
                    raise self._failed(str(error), "start it with `doit serve`") from None
            try:
                self._control.send(message, body, device=self._device._asdict())
                answer = self._control.receive(ASK_S)
            except (NoService, TimeoutError):
                continue  # one that has been idle over a restart of the service
            if answer.message == Message.FAILURE:
                raise DeviceError(decode_failure(answer))
            return
        raise self._failed("the service did not answer", "restart it with `doit serve`")

    def _failed(self, message: str, hint: str) -> DeviceError:
        return DeviceError(
            fail(FailureCategory.PORT_MISSING, stage=None, where=self._device.where, message=message, hint=hint)
        )
