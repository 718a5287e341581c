"""What a board says that lives in the run's own process, told to the service, so that others can watch it.

Knows the protocol, not boards. Invariant: whatever becomes of the service, the run goes on: at the first trouble it is
told no more.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.client.caller import caller_environment
from pipeline.client.connection import Connection, NoService
from pipeline.client.protocol import Channel, ConsoleChunk, DeviceRef, Holder, Message, encode_entry

AT_ONCE = 1 << 10
"""Bytes after which what was heard is told; or when `PAUSE_S` have passed."""

PAUSE_S = 0.05


class ToldConsole:
    """Give it what is heard; `channel` says whose bytes come from now on. `now_s` is the board's clock."""

    def __init__(
        self,
        connection: Connection,
        device: DeviceRef,
        holder: Holder,
        now_s: Callable[[], float],
        utc: Callable[[], str],
    ) -> None:
        """Raises NoService."""
        self._connection: Connection | None = connection
        self._now_s = now_s
        self._utc = utc
        self._channel = Channel.CONSOLE
        self._heard = bytearray()
        self._since_s = 0.0
        answer = connection.request(
            Message.TELL, device=device._asdict(), holder=holder._asdict(), env=caller_environment()
        )
        if answer.message != Message.DONE:
            raise NoService(f"the service answers {answer.message[:40]!r} where a board is told of")

    def heard(self, data: bytes) -> None:
        """The board sent this."""
        if self._connection is None:
            return
        now_s = self._now_s()
        if not self._heard:
            self._since_s = now_s
        self._heard += data
        if len(self._heard) >= AT_ONCE or now_s > self._since_s + PAUSE_S:
            self._tell()

    def channel(self, channel: str) -> None:
        """As `ServedPort.channel`."""
        self._tell()
        self._channel = Channel(channel)

    def close(self) -> None:
        """The run has let go of the board. Idempotent."""
        self._tell()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _tell(self) -> None:
        data, self._heard = bytes(self._heard), bytearray()
        if self._connection is None or not data:
            return
        # Number and offset are the service's to give.
        entry = ConsoleChunk(0, self._utc(), self._since_s, 0, self._channel, data)
        try:
            self._connection.send_bytes(encode_entry(entry))
        except NoService:
            self._connection.close()
            self._connection = None
