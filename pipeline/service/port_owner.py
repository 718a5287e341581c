"""One serial port for as long as the service runs: every byte of it read once, stamped and numbered.

Knows pyserial-like objects, lines, rates, and how a port that vanished is found again (`device/ports.reopen`). Does not
know consoles, leases or sockets. Two threads: one reads and nothing else, so that a stamp is that of the byte; one does
what is asked, in order, since a line change may wait for an answer. Both tell by `deliver`, which must not block.

Invariants: each byte that the system gives is told exactly once, in order; nothing is ever purged; what a barrier
finds pending is told before it ends; the channel changes while the chip is held in reset, so that no byte is on the
wrong side.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.client.protocol import Channel
from pipeline.errors import DeviceError
from pipeline.model import Failure
from pipeline.service.channel_switch import ChannelSwitch

POLL_S = 0.05
"""Read timeout of a port whose read cannot be woken."""

IDLE_S = 5.0
"""And of one whose can."""

BARRIER_S = 3.0
"""A reader that does not come round by then is stuck in the driver."""

EN_LOW_S = 0.005

REOPEN_FIRST_S, REOPEN_MOST_S, REOPEN_UNWATCHED_S = 0.05, 2.0, 30.0
"""A port that vanished is looked for this often, then rarer: USB is back within a second, a person within minutes; and
rarer still while nobody wants to see it."""


class PortBytes(NamedTuple):
    """What arrived. `offset`: bytes of this port before it, of all channels."""

    at: str
    at_s: float
    offset: int
    channel: Channel
    data: bytes


class PortOpened(NamedTuple):
    """It is open, as `name`. `again_ms`: since it vanished; None for the first time."""

    at_s: float
    name: str
    again_ms: int | None = None


class PortGone(NamedTuple):
    """It vanished; it is looked for."""

    at_s: float
    text: str


class PortLetGo(NamedTuple):
    """It is not held any more, or could not be opened; nobody looks for it."""

    at_s: float
    failure: Failure | None = None


PortEvent = PortBytes | PortOpened | PortGone | PortLetGo
Done = Callable[[OSError | None], None]
"""Told when a command is through, and what went wrong with it. Called in the command thread."""


class PortClock(NamedTuple):
    """What stamps: monotonic seconds, UTC text, and how to wait."""

    now_s: Callable[[], float]
    utc: Callable[[], str]
    pause: Callable[[float], None] = time.sleep


def _ignore(error: OSError | None) -> None:
    del error


class PortOwner:
    """Call `open`, then anything, from any thread; `close` is the end."""

    def __init__(
        self,
        opener: Callable[[], Any],
        reopen: Callable[[Any], None],
        where: str,
        clock: PortClock,
        deliver: Callable[[PortEvent], None],
        *,
        pulse: Callable[[Any], bool] = lambda port: False,
    ) -> None:
        """`opener` gives the open port, or raises DeviceError. `pulse`: is RTS a message that resets at once, as on a
        chip's own USB, instead of a wire that holds the chip in reset?"""
        self._opener = opener
        self._reopen = reopen
        self._where = where
        self._clock = clock
        self._deliver = deliver
        self._pulse = pulse
        self._port: Any = None
        self._commands: queue.SimpleQueue[tuple[Callable[[], None], Done] | None] = queue.SimpleQueue()
        self._barriers: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()
        self._offset = 0
        self._channels = ChannelSwitch()
        self._closing = threading.Event()
        self._failure: Failure | None = None
        self._reader: threading.Thread | None = None
        self._worker = threading.Thread(target=self._work, name="hotplate-port-commands", daemon=True)
        self._wanted = True
        self._look = threading.Event()
        self.queued = 0
        """Bytes of writes that are not through."""

    # --- asked ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin; PortOpened or PortLetGo follows."""
        self._worker.start()
        self._commands.put((self._open, _ignore))

    @property
    def name(self) -> str:
        """The port's name now."""
        return "" if self._port is None else str(self._port.port)

    @property
    def usb(self) -> Any:
        """What the system knows of the device behind it; None for a port that is none of this machine's."""
        return getattr(self._port, "usb", None)

    @property
    def state(self) -> tuple[int, bool, bool]:
        """Rate, DTR, RTS."""
        port = self._port
        return (0, False, False) if port is None else (int(port.baudrate), bool(port.dtr), bool(port.rts))

    @property
    def in_loader(self) -> bool:
        """Would the board stay in its loader, or in reset, if nobody touched it any more?"""
        _, dtr, rts = self.state
        return self._channels.loading or (rts and not dtr)

    def want(self, wanted: bool, *, now: bool = False) -> None:
        """Does anybody want to see the port? `now`: look for one that vanished at once."""
        self._wanted = wanted
        if now:
            self._look.set()

    def write(self, data: bytes, done: Done = _ignore) -> None:
        """To the board."""
        self.queued += len(data)

        def write() -> None:
            try:
                self._open_port.write(data)
            finally:
                self.queued -= len(data)

        self._commands.put((write, done))

    def set_baud(self, baud: int, done: Done = _ignore) -> None:
        self._commands.put((lambda: self._set_baud(baud), done))

    def set_lines(self, dtr: bool | None, rts: bool | None, done: Done = _ignore) -> None:
        """DTR first; None leaves one as it is."""
        self._commands.put((lambda: self._set_lines(dtr, rts), done))

    def set_channel(self, channel: Channel, done: Done = _ignore) -> None:
        """From the next reset on."""
        self._commands.put((lambda: self._channels.ask(channel), done))

    def barrier(self, done: Done) -> None:
        """What is pending now is told before `done`."""
        self._commands.put((self._barrier, done))

    def reset(self, done: Done = _ignore) -> None:
        """Into the application, by the shortest sequence; what it says is the console's."""
        self._commands.put((self._reset, done))

    def close(self) -> None:
        """Let go of it; PortLetGo follows. Idempotent."""
        self._closing.set()
        self._look.set()
        self._wake()
        self._commands.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait until it is let go of, after `close`."""
        self._worker.join(timeout_s)
        return not self._worker.is_alive()

    # --- the thread of commands -------------------------------------------------------------------

    def _work(self) -> None:
        while (command := self._commands.get()) is not None:
            call, done = command
            error = None
            try:
                call()
            except OSError as failed:  # pyserial's SerialException is one
                error = failed
            except (ValueError, TypeError, AttributeError) as failed:  # a rate that cannot be; a port that is closed
                error = OSError(f"{type(failed).__name__}: {failed}")
            done(error)
        self._shut()

    def _open(self) -> None:
        try:
            self._port = self._opener()
        except DeviceError as error:
            self._failure = error.failure
            self.close()
            return
        self._set_read_timeout()
        self._deliver(PortOpened(self._clock.now_s(), self.name))
        self._reader = threading.Thread(target=self._read, name="hotplate-port-reader", daemon=True)
        self._reader.start()

    @property
    def _open_port(self) -> Any:
        if self._port is None or not self._port.is_open:
            raise OSError("the port is not open")
        return self._port

    def _set_baud(self, baud: int) -> None:
        port = self._open_port
        if port.baudrate != baud:
            self._barrier()  # what was sent at the old rate
            port.baudrate = baud

    def _set_lines(self, dtr: bool | None, rts: bool | None) -> None:
        port = self._open_port
        pulse = self._pulse(port)
        if rts and self._channels.asserted() and pulse:
            self._switch()
        if rts is False and self._channels.armed:
            self._switch()
        if dtr is not None:
            port.dtr = dtr
        if rts is not None:
            port.rts = rts

    def _switch(self) -> None:
        """The chip is silent: what is still pending was said before."""
        self._barrier()
        self._channels.switch()

    def _reset(self) -> None:
        # The order: see PortLink.
        self._set_lines(None, False)
        self._set_lines(False, None)
        self._channels.ask(Channel.CONSOLE)
        self._set_lines(None, True)
        self._clock.pause(EN_LOW_S)
        self._set_lines(None, False)

    def _barrier(self) -> None:
        if self._reader is None or not self._reader.is_alive():
            return
        reached = threading.Event()
        self._barriers.put(reached)
        self._wake()
        if not reached.wait(BARRIER_S) and self._reader.is_alive():
            raise OSError(f"the port's driver has not returned within {BARRIER_S:g} s")

    def _shut(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=BARRIER_S)
        if self._port is not None:
            with contextlib.suppress(OSError):
                self._port.close()
        self._deliver(PortLetGo(self._clock.now_s(), self._failure))

    # --- the thread that reads --------------------------------------------------------------------

    def _set_read_timeout(self) -> None:
        from pipeline.device.rom_loader import set_timeout

        set_timeout(self._port, IDLE_S if _waker(self._port) is not None else POLL_S)

    def _wake(self) -> None:
        port = self._port
        wake = None if port is None else _waker(port)
        if wake is not None:
            with contextlib.suppress(OSError, ValueError, TypeError):
                wake()

    def _read(self) -> None:
        while not self._closing.is_set():
            reached = self._asked_barriers()
            try:
                data = b"" if reached else self._port.read(1)
                data += _pending(self._port)
            except (OSError, TypeError, AttributeError) as error:  # pyserial's, when a port is closed under a read
                _all(reached)
                if not self._find_again(error):
                    return
                continue
            if data:
                self._tell(data)
            _all(reached)
        with contextlib.suppress(OSError, TypeError, AttributeError):
            if data := _pending(self._port):
                self._tell(data)
        _all(self._asked_barriers())

    def _tell(self, data: bytes) -> None:
        at_s = self._clock.now_s()
        self._deliver(PortBytes(self._clock.utc(), at_s, self._offset, self._channels.current, data))
        self._offset += len(data)

    def _asked_barriers(self) -> list[threading.Event]:
        asked = []
        with contextlib.suppress(queue.Empty):
            while True:
                asked.append(self._barriers.get_nowait())
        return asked

    def _find_again(self, error: Exception) -> bool:
        """Open the same board's port again. False: it is let go of."""
        gone_s = self._clock.now_s()
        self._deliver(PortGone(gone_s, str(error)))
        wait_s = REOPEN_FIRST_S
        while not self._closing.is_set():
            _all(self._asked_barriers())
            try:
                self._reopen(self._port)
                self._set_read_timeout()
            except OSError:
                self._look.wait(wait_s)
                self._look.clear()
                wait_s = min(wait_s * 1.5, REOPEN_MOST_S if self._wanted else REOPEN_UNWATCHED_S)
                continue
            now_s = self._clock.now_s()
            self._deliver(PortOpened(now_s, self.name, round((now_s - gone_s) * 1000)))
            return True
        return False


def _all(reached: list[threading.Event]) -> None:
    for one in reached:
        one.set()


def _pending(port: Any) -> bytes:
    """What waits now. A read may end early, because it was woken."""
    wanted, data = port.in_waiting, b""
    while len(data) < wanted and port.in_waiting:
        data += port.read(min(wanted - len(data), port.in_waiting))
    return bytes(data)


def _waker(port: Any) -> Callable[[], None] | None:
    """What makes a read under way return, where there is something. pyserial's RFC 2217 client has no name for it: its
    reader ends each read at a None in its queue, as it does when the connection is lost."""
    if type(port).__module__ == "serial.rfc2217":
        buffer = port._read_buffer
        return None if buffer is None else lambda: buffer.put(None)
    return getattr(port, "cancel_read", None)
