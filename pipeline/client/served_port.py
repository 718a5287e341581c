"""A serial port that the service lends: a pyserial-like object over its connection.

Knows the protocol and what esptool and our own code ask of a port. Does not know who reads it or why. Threads may use
it side by side as they may a real port: whoever waits receives for all. Invariants: every byte that the board sent
since the lease began is read once, in order, but for what `reset_input_buffer` throws away; no wait is without an end
but that of a read without a timeout; what goes wrong is an OSError, as of a port that was unplugged.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.client.caller import caller_environment
from pipeline.client.connection import Connection, NoService
from pipeline.client.protocol import (
    MAX_BODY,
    Channel,
    DeviceRef,
    Holder,
    Message,
    ProtocolError,
    ServiceFrame,
    decode_failure,
    read_fields,
)
from pipeline.errors import DeviceError

LOADER_BAUD, LOADER_TIMEOUT_S = 115200, 3
"""As `device/ports.open_port` gives a port."""

ANSWER_S = 10.0
"""A line change over a network takes its time; a driver that hangs longer is broken."""

REJOIN_S = 0.05
"""`rejoin` is called again and again by whoever has the patience."""

RETURN_S = 2.0
"""What giving the port back may take."""

GRANT_S = 30.0
"""What opening a port may take, beside the wait for its lease."""


class PortLost(OSError):
    """The port or the service went away, or somebody took the port."""


class ServedPort:
    """Get one with `borrow`. The surface of `serial.Serial`, as far as it is used."""

    def __init__(self, connection: Connection, device: DeviceRef, granted: Mapping[str, Any], usb: Any) -> None:
        self._connection = connection
        self.port = str(granted.get("name") or device.port)
        self.usb = usb
        self.timeout: float | None = None
        self.write_timeout: float | None = None
        self.is_open = True
        self._baud = int(granted["baud"])
        self._dtr, self._rts = bool(granted["dtr"]), bool(granted["rts"])
        self._received = bytearray()
        self.returned_ms: float | None = None
        """How long giving it back took."""
        self._later = bytearray()
        self._answers: dict[int, ServiceFrame] = {}
        self._drains: set[int] = set()
        self._number = 0
        self._gone = False
        self._back = ""
        self._lost = ""
        self._changed = threading.Condition()
        self._receiving = False

    # --- what it is called --------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """esptool changes one line after the other on a port whose name begins so, and asks for no descriptor."""
        return f"rfc2217:served-{self.port}"

    portstr = name

    def isOpen(self) -> bool:
        return self.is_open

    # --- bytes --------------------------------------------------------------------------------------

    def read(self, size: int = 1) -> bytes:
        """Up to `size` bytes, as many as come within `timeout`."""
        if not self.is_open:
            raise PortLost(errno.EBADF, "the port is closed", self.port)
        self._wait(lambda: len(self._received) >= size, self.timeout)
        with self._changed:
            data = bytes(self._received[:size])
            del self._received[:size]
        if not data and size:
            self._check()
        return data

    @property
    def in_waiting(self) -> int:
        self._wait(lambda: False, 0.0)
        if not self._received:
            self._check()
        return len(self._received)

    def inWaiting(self) -> int:
        return self.in_waiting

    def write(self, data: bytes) -> int:
        """Not answered: whether it arrived, the board knows."""
        self._check()
        try:
            for start in range(0, len(data), MAX_BODY):
                self._connection.send(Message.WRITE, bytes(data[start : start + MAX_BODY]))
        except NoService as error:
            raise self._lose(str(error)) from None
        return len(data)

    def flush(self) -> None:
        """What was written was sent."""

    def reset_input_buffer(self) -> None:
        """Throw away what came before this call."""

        self._ask(Message.DRAIN)

    flushInput = reset_input_buffer

    def reset_output_buffer(self) -> None:
        """There is none on this side."""

    flushOutput = reset_output_buffer

    # --- rate and lines -----------------------------------------------------------------------------

    @property
    def baudrate(self) -> int:
        return self._baud

    @baudrate.setter
    def baudrate(self, baud: int) -> None:
        if baud != self._baud:
            self._ask(Message.BAUD, baud=baud)
            self._baud = baud

    @property
    def dtr(self) -> bool:
        return self._dtr

    @dtr.setter
    def dtr(self, value: bool) -> None:
        self._ask(Message.LINES, dtr=bool(value))
        self._dtr = bool(value)

    @property
    def rts(self) -> bool:
        return self._rts

    @rts.setter
    def rts(self, value: bool) -> None:
        self._ask(Message.LINES, rts=bool(value))
        self._rts = bool(value)

    def setDTR(self, value: Any = True) -> None:
        self.dtr = bool(value)

    def setRTS(self, value: Any = True) -> None:
        self.rts = bool(value)

    def channel(self, channel: str) -> None:
        """Whose bytes come after the next reset."""
        self._ask(Message.CHANNEL, channel=Channel(channel))

    # --- the port's life ----------------------------------------------------------------------------

    def open(self) -> None:
        """It is; what esptool calls when a port was closed under it."""
        self.rejoin()

    def rejoin(self) -> None:
        """The port vanished: it is there again. Raises OSError while it is not."""
        if self._lost or (self._gone and not self._wait(lambda: bool(self._back), REJOIN_S, through_gap=True)):
            raise PortLost(errno.ENODEV, self._lost or "the port has not come back", self.port)
        with self._changed:
            if self._gone:
                self.port, self._gone, self._back = self._back, False, ""
                self._received += self._later
                self._later.clear()

    def close(self) -> None:
        """End the lease. Waits until the port is given back, since the next one may want it. Idempotent."""
        if not self.is_open:
            return
        self.is_open = False
        began_s = time.monotonic()
        try:
            self._connection.socket.shutdown(socket.SHUT_WR)
            self._wait(lambda: bool(self._lost), RETURN_S, through_gap=True)
            self.returned_ms = (time.monotonic() - began_s) * 1000
        except OSError:
            pass
        self._connection.close()

    # --- frames -------------------------------------------------------------------------------------

    def _ask(self, message: Message, /, **fields: Any) -> None:
        """Ask and wait for the answer. Raises OSError."""
        self._check()
        with self._changed:
            self._number += 1
            number = self._number
            if message is Message.DRAIN:
                self._drains.add(number)
        try:
            self._connection.send(message, n=number, **fields)
        except NoService as error:
            raise self._lose(str(error)) from None
        if not self._wait(lambda: number in self._answers, ANSWER_S, through_gap=True):
            self._check()
            raise PortLost(errno.ETIMEDOUT, f"the service did not answer `{message}` in {ANSWER_S:g} s", self.port)
        answer = self._answers.pop(number).header
        if answer.get("error") is not None:
            code = answer.get("errno")
            raise PortLost(code if isinstance(code, int) else errno.EIO, str(answer["error"]), self.port)

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None, *, through_gap: bool = False) -> bool:
        """Until `ready`; False when the time is up, or nothing can come any more. `through_gap`: also while the port is
        gone, when bytes do not come but answers do."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not ready():
                if self._lost or (self._gone and not through_gap):
                    return False
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._receiving:
                    if not self._receive(left_s):
                        return ready()
                elif left_s == 0.0 or not self._changed.wait(left_s):
                    return ready()
            return True

    def _receive(self, timeout_s: float | None) -> bool:
        """Take one frame in, for every thread that waits. The lock is held, but not while nothing comes."""
        self._receiving = True
        self._changed.release()
        frame = lost = None
        try:
            frame = self._connection.receive(timeout_s)
        except TimeoutError:
            pass
        except NoService as error:
            lost = str(error)
        finally:
            self._changed.acquire()
            self._receiving = False
            self._changed.notify_all()
        if lost is not None:
            self._lost = self._lost or lost
        elif frame is not None:
            self._take(frame)
        return frame is not None or lost is not None

    def _take(self, frame: ServiceFrame) -> None:
        header = frame.header
        match frame.message:
            case Message.DATA:
                # What comes after a gap belongs to it once whoever reads has heard of the gap.
                (self._later if self._gone else self._received).extend(frame.body)
            case Message.DONE:
                number = header.get("n", 0)
                if number in self._drains:
                    self._drains.discard(number)
                    self._received.clear()
                    self._later.clear()
                self._answers[number] = frame
            case Message.GONE:
                self._gone, self._back = True, ""
            case Message.BACK:
                self._back = str(header.get("name") or self.port)
            case Message.FAILURE:
                try:
                    self._lost = decode_failure(frame).message
                except ProtocolError as error:
                    self._lost = str(error)

    def _check(self) -> None:
        """Raises OSError when nothing can be done with this port now."""
        if not self.is_open:
            raise PortLost(errno.EBADF, "the port is closed", self.port)
        if self._lost:
            raise PortLost(errno.EPIPE, self._lost, self.port)
        if self._gone:
            raise PortLost(errno.ENODEV, "the port vanished", self.port)

    def _lose(self, text: str) -> PortLost:
        self._lost = self._lost or text
        return PortLost(errno.EPIPE, self._lost, self.port)


class Borrowed(NamedTuple):
    """How long it took, in ms: to reach the service, to wait for whoever had the port, and to get it then."""

    handshake_ms: float
    wait_ms: float
    lend_ms: float


def borrow(
    device: DeviceRef,
    holder: Holder,
    *,
    take: bool = False,
    wait_s: float,
    usb_of: Callable[[Mapping[str, Any]], Any],
    waiting: Callable[[str], None] = lambda text: None,
) -> tuple[ServedPort, Borrowed]:
    """The device's port, at the ROM's 115200 baud; `waiting` is told who has it. Raises NoService when there is no
    service that could be asked, and DeviceError when it cannot give the port."""
    began_s = time.monotonic()
    connection = Connection.open()
    greeted_s = time.monotonic()
    try:
        connection.send(
            Message.PORT,
            device=device._asdict(),
            holder=holder._asdict(),
            wait_s=wait_s,
            take=take,
            env=caller_environment(),
        )
        while True:
            frame = _received(connection, wait_s + GRANT_S)
            if frame.message == Message.WAITING:
                other = frame.header.get("holder")
                waiting(read_fields(Holder, other).text if isinstance(other, dict) else "another process")
                continue
            break
        if frame.message == Message.FAILURE:
            raise DeviceError(decode_failure(frame))
        if frame.message != Message.GRANTED:
            raise NoService(f"the service answers {frame.message[:40]!r} where a port was asked for")
        usb = frame.header.get("usb")
        port = ServedPort(connection, device, frame.header, usb_of(usb) if isinstance(usb, dict) else None)
        port.baudrate = LOADER_BAUD
        port.timeout = LOADER_TIMEOUT_S
    except (ProtocolError, KeyError, TypeError, ValueError) as error:
        connection.close()
        raise NoService(f"the service says what cannot be: {error}") from None
    except BaseException:
        connection.close()
        raise
    got_s = time.monotonic()
    wait_ms = frame.header.get("waited_ms", 0)
    return port, Borrowed((greeted_s - began_s) * 1000, wait_ms, (got_s - greeted_s) * 1000 - wait_ms)


def _received(connection: Connection, timeout_s: float) -> ServiceFrame:
    try:
        return connection.receive(timeout_s)
    except TimeoutError:
        raise NoService(f"the service has not answered for {timeout_s:g} s") from None
