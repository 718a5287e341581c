"""A serial port in monitor use, and the reader that stamps what arrives on it.

Knows bytes, lines DTR/RTS and time; not JSON-RPC, not firmware. Works on any pyserial-like object: a real port, an
RFC 2217 client, an in-process virtual board.
Invariant: between `release_reset` and `close` no byte is lost but those that `gaps` (the port was gone) and `dropped`
(nobody took them) tell of, and a stamp is taken when `read` returned the byte.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.boot.ring import Ring
from pipeline.device.rom_loader import set_timeout
from pipeline.effects.api import Gap, SerialLink
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import FailureCategory, Stage

EN_LOW_S = 0.005
"""How long EN is held low: the ROM's reset circuit needs less, esp-idf-monitor uses the same 5 ms."""

NO_LINES = "the port has no modem lines (DTR, RTS), by which a board is reset"
NO_LINES_HINT = "name the board's serial port, or an rfc2217:// one: a pseudo-terminal has no lines"

LOADER_BAUD = 115200
LOADER_TIMEOUT_S = 3
"""What the ROM speaks after a reset, and what esptool waits for an answer."""

POLL_S = 0.05
"""The reader's read timeout: bounds how long `stop` waits."""

PATIENCE_S = 3.0
"""How long a port that vanished is waited for. USB takes 0.2 s (Linux) to 1 s (Windows) to enumerate."""

REOPEN_EVERY_S = 0.05

MAX_UNTAKEN = 1 << 20
"""Bytes that wait for a consumer; what is older is dropped, and counted."""


class PortLink:
    """`SerialLink` over a pyserial-like `port`; `now` is the clock of its stamps."""

    def __init__(
        self,
        port: Any,
        name: str,
        where: str,
        now: Callable[[], float],
        *,
        real_time: bool,
        reopen: Callable[[], None] | None = None,
        pause: Callable[[float], None] = time.sleep,
        usb_lines: bool = False,
    ) -> None:
        """`reopen` opens the same board's port again, or raises OSError; without it a port that vanished is an error at
        once. `pause` waits on the link's clock. `usb_lines`: DTR and RTS are messages to the reset logic of a chip's
        own USB-Serial/JTAG, where the reset is a pulse when RTS rises alone."""
        self._port = port
        self._reopen = reopen
        self._pause = pause
        self._usb_lines = usb_lines
        self._closed = False
        self.patience_s = PATIENCE_S
        self.gaps: list[Gap] = []
        self._name = name
        self._where = where
        self._now = now
        self.real_time = real_time
        """Bytes arrive while nobody reads: a thread must stamp them. False for an in-process board, whose time only
        advances inside `read`."""

    @property
    def name(self) -> str:
        return self._name

    def now_s(self) -> float:
        return self._now()

    def read(self, timeout_s: float) -> bytes:
        try:
            set_timeout(self._port, timeout_s)
            data: bytes = self._port.read(1)
            if data and (waiting := self._port.in_waiting):
                data += self._port.read(waiting)
            return data
        except OSError as error:  # SerialException is one
            self._wait_for_port(error)
            return b""

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except OSError as error:
            if self._reopen is None:
                raise self._vanished(str(error)) from None

    def _wait_for_port(self, error: OSError) -> None:
        """Open the port again when it is back. Raises DeviceError when it does not come back."""
        if self._reopen is None:
            raise self._vanished(str(error)) from None
        gone_s = self._now()
        while not self._closed and self._now() < gone_s + self.patience_s:
            try:
                self._reopen()
            except OSError:
                self._pause(REOPEN_EVERY_S)
                continue
            self.gaps.append(Gap(gone_s, self._now()))
            return
        raise self._vanished(f"{error} (waited {self.patience_s:g} s for it to come back)") from None

    def set_baud(self, baud: int) -> None:
        if self._port.baudrate == baud:
            return
        try:
            self._port.baudrate = baud
        except OSError as error:
            self._wait_for_port(error)
            self._port.baudrate = baud

    def release_reset(self) -> float:
        try:
            return self._reset()
        except OSError as error:
            if error.errno == errno.ENOTTY:
                raise self._failed(FailureCategory.SYNC_FAILED, NO_LINES, NO_LINES_HINT) from None
            self._wait_for_port(error)
        try:
            return self._reset()
        except OSError as error:
            raise self._vanished(str(error)) from None

    def _reset(self) -> float:
        # RTS first, and both free before the reset: over a network each line is a message of its own, and on a chip's
        # own USB, RTS alone is a reset, and DTR alone makes the next one end in download mode until both were free.
        self._port.setRTS(False)
        self._port.setDTR(False)
        say_channel(self._port, "console")
        self._port.reset_input_buffer()  # what an earlier life sent
        released = self._now()  # before the calls: over a network the edge comes while they wait for the answer
        self._port.setRTS(True)
        if self.real_time:
            time.sleep(EN_LOW_S)
        if not self._usb_lines:
            self._port.reset_input_buffer()  # EN was high until now
            released = self._now()
        self._port.setRTS(False)
        return released

    def give_port(self) -> Any:
        """Hand the open port back to a loader session, as `ports.open_port` would have opened it."""
        set_timeout(self._port, LOADER_TIMEOUT_S)
        self.set_baud(LOADER_BAUD)
        return self._port

    def close(self) -> None:
        self._closed = True
        self._port.close()

    def _vanished(self, error: str) -> DeviceError:
        return self._failed(FailureCategory.PORT_MISSING, f"the port vanished while it was being read: {error}")

    def _failed(self, category: FailureCategory, message: str, hint: str | None = None) -> DeviceError:
        return DeviceError(fail(category, stage=Stage.TTFB, where=self._where, message=message, hint=hint))


def say_channel(port: Any, channel: str) -> None:
    """Whose bytes a lent port's are after the next reset; see `client/protocol.Channel`. Others watch it."""
    if hasattr(port, "channel"):
        port.channel(channel)


class DirectReader:
    """Reads when asked. For in-process boards: their time stands still in between, so nothing is late."""

    dropped = 0

    def __init__(self, link: SerialLink) -> None:
        self._link = link

    def start(self) -> None:
        """Nothing to start."""

    def poll(self, timeout_s: float) -> tuple[float, bytes]:
        """`(stamp, bytes)` of what arrives within `timeout_s` of link time; empty bytes when nothing does."""
        data = self._link.read(timeout_s)
        return self._link.now_s(), data

    def stop(self) -> None:
        """Nothing to stop."""


class ThreadReader:
    """Reads in a thread from `start` on, so that a byte is stamped when it arrives and not when somebody asks."""

    def __init__(self, link: SerialLink, limit: int = MAX_UNTAKEN) -> None:
        self._link = link
        self._chunks: Ring[tuple[float, bytes]] = Ring(limit)
        self._error: DeviceError | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hotplate-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                data = self._link.read(POLL_S)
            except DeviceError as error:
                with self._changed:
                    self._error = error
                    self._changed.notify()
                return
            if data:
                stamp = self._link.now_s()
                with self._changed:
                    self._chunks.push((stamp, data), len(data))
                    self._changed.notify()

    @property
    def dropped(self) -> int:
        """Bytes that nobody took in time."""
        return self._chunks.dropped

    def poll(self, timeout_s: float) -> tuple[float, bytes]:
        """As `DirectReader.poll`. Raises DeviceError when the port vanished, after what came before."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._chunks) > 0 or self._error is not None, timeout_s)
            chunk = self._chunks.take()
            if chunk is not None:
                return chunk
            if self._error is not None:
                raise self._error
        return self._link.now_s(), b""

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=4 * POLL_S + 3)


Reader = DirectReader | ThreadReader


def reader_for(link: PortLink) -> Reader:
    """The reader that this link needs."""
    return ThreadReader(link) if link.real_time else DirectReader(link)
