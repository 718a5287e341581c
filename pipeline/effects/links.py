"""A serial port in monitor use, and the reader that stamps what arrives on it.

Knows bytes, lines DTR/RTS and time; not JSON-RPC, not firmware. Works on any pyserial-like object: a real port, an
RFC 2217 client, an in-process virtual board.
Invariant: no byte after `release_reset` is lost before `close`, and a stamp is taken when `read` returned the byte.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.core.failures import fail
from pipeline.core.model import FailureCategory, Stage
from pipeline.effects.api import SerialLink
from pipeline.errors import DeviceError

EN_LOW_S = 0.005
"""How long EN is held low: the ROM's reset circuit needs less, esp-idf-monitor uses the same 5 ms."""

POLL_S = 0.05
"""The reader's read timeout: bounds how long `stop` waits."""


class PortLink:
    """`SerialLink` over a pyserial-like `port`; `now` is the clock of its stamps."""

    def __init__(self, port: Any, name: str, where: str, now: Callable[[], float], *, real_time: bool) -> None:
        self._port = port
        self._name = name
        self._where = where
        self._now = now
        self.real_time = real_time
        """Bytes arrive while nobody reads: a thread must stamp them. False for an in-process board, whose time only
        advances inside `read`."""
        self._rfc2217 = name.startswith("rfc2217:")

    @property
    def name(self) -> str:
        return self._name

    def now_s(self) -> float:
        return self._now()

    def read(self, timeout_s: float) -> bytes:
        try:
            if self._rfc2217:
                # the public setter renegotiates the whole line (>= 100 ms) for what is a client-side value
                self._port._timeout = timeout_s
            elif self._port.timeout != timeout_s:
                self._port.timeout = timeout_s
            data: bytes = self._port.read(1)
            if data and (waiting := self._port.in_waiting):
                data += self._port.read(waiting)
            return data
        except OSError as error:  # SerialException is one
            raise self._vanished(error) from None

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except OSError as error:
            raise self._vanished(error) from None

    def set_baud(self, baud: int) -> None:
        if self._port.baudrate != baud:
            self._port.baudrate = baud

    def release_reset(self) -> float:
        try:
            self._port.setDTR(False)
            self._port.setRTS(True)
            self._port.reset_input_buffer()  # what an earlier life sent
            if self.real_time:
                time.sleep(EN_LOW_S)
            released = self._now()  # before the call: over a network the edge comes while it waits for the answer
            self._port.setRTS(False)
        except OSError as error:
            raise self._vanished(error) from None
        return released

    def close(self) -> None:
        self._port.close()

    def _vanished(self, error: OSError) -> DeviceError:
        return DeviceError(
            fail(
                FailureCategory.PORT_MISSING,
                stage=Stage.TTFB,
                where=self._where,
                message=f"the port vanished while it was being read: {error}",
            )
        )


class DirectReader:
    """Reads when asked. For in-process boards: their time stands still in between, so nothing is late."""

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

    def __init__(self, link: SerialLink) -> None:
        self._link = link
        self._chunks: queue.SimpleQueue[tuple[float, bytes] | DeviceError] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hotplate-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                data = self._link.read(POLL_S)
            except DeviceError as error:
                self._chunks.put(error)
                return
            if data:
                self._chunks.put((self._link.now_s(), data))

    def poll(self, timeout_s: float) -> tuple[float, bytes]:
        """As `DirectReader.poll`. Raises DeviceError when the port vanished."""
        try:
            chunk = self._chunks.get(timeout=timeout_s)
        except queue.Empty:
            return self._link.now_s(), b""
        if isinstance(chunk, DeviceError):
            raise chunk
        return chunk

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=4 * POLL_S + 3)


Reader = DirectReader | ThreadReader


def reader_for(link: PortLink) -> Reader:
    """The reader that this link needs."""
    return ThreadReader(link) if link.real_time else DirectReader(link)
