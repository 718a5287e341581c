"""A blocking connection to the service of this user.

Knows sockets and the first exchange of the protocol; not what is asked afterwards. Invariants: every wait has a
deadline; what goes wrong leaves as NoService, with a reason that can be shown, and the caller goes on alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from typing import Any

from pipeline import __version__
from pipeline.client import endpoint
from pipeline.client.protocol import PROTOCOL, FrameReader, Message, ProtocolError, ServiceFrame, encode

CONNECT_S = 3.0
"""A service that runs answers within a millisecond, on a machine that is overloaded later; one that hangs must not
hold up a deploy."""

SEND_S = 10.0
"""How long a send may wait for a service that takes nothing; one that hangs longer is none."""

CROWD_S = 0.01

_RECEIVE = 1 << 16


class NoService(Exception):
    """There is no service that could be used; the text says why. `silent`: that is nothing to tell a person, since
    none was started."""

    def __init__(self, text: str, *, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


class OtherProtocol(NoService):
    """There is one, of another version."""

    def __init__(self, theirs: int) -> None:
        super().__init__(f"the service speaks protocol {theirs}, and this is {PROTOCOL}: restart it (`doit serve`)")
        self.theirs = theirs


class Connection:
    """One open, greeted connection. One thread at a time, but `send` may be called from another than `receive`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # Waits are `poll`'s: a timeout of the socket would be that of a send in another thread too.
        sock.settimeout(SEND_S)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._reader = FrameReader()
        self._frames: deque[ServiceFrame] = deque()
        self.welcome: ServiceFrame = ServiceFrame(0, {})
        """What the service said of itself."""

    @classmethod
    def open(
        cls, name: str = endpoint.SOCKET, *, timeout_s: float = CONNECT_S, any_protocol: bool = False
    ) -> Connection:
        """Connect and greet. `any_protocol`: greet a service of another protocol in its own, to ask what is the same in
        all. Raises NoService."""
        made = cls(_dial(name, timeout_s))
        try:
            made._greet(timeout_s, PROTOCOL)
        except OtherProtocol as other:
            if not any_protocol:
                raise
            made = cls(_dial(name, timeout_s))
            made._greet(timeout_s, other.theirs)
        return made

    def _greet(self, timeout_s: float, protocol: int) -> None:
        """Closes itself when it raises."""
        try:
            self._exchange(timeout_s, protocol)
        except BaseException:
            self.close()
            raise

    def _exchange(self, timeout_s: float, protocol: int) -> None:
        self.send(Message.HELLO, protocol=protocol, version=__version__, pid=os.getpid())
        try:
            self.welcome = self.receive(timeout_s)
        except TimeoutError:
            raise NoService(f"the service did not greet within {timeout_s:g} s") from None
        theirs = self.welcome.header.get("protocol")
        if type(theirs) is int and theirs != protocol:
            raise OtherProtocol(theirs)
        if self.welcome.message == Message.REFUSED:
            raise NoService(f"the service refuses: {self.welcome.header.get('reason')}")
        if self.welcome.message != Message.WELCOME or theirs != protocol:
            raise NoService("what listens in the place of the service is none")

    def send(self, message: Message, body: bytes = b"", /, **fields: Any) -> None:
        """Raises NoService when the service went away."""
        self.send_bytes(encode(message, body, **fields))

    def send_bytes(self, data: bytes) -> None:
        """A frame that is encoded already."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise NoService(f"the service went away: {error}") from None

    def receive(self, timeout_s: float | None) -> ServiceFrame:
        """The next frame; with 0 what is there already. Raises NoService when the service went away, and
        TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._frames:
            left_ms = None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)
            try:
                if not self._poll.poll(left_ms):
                    raise TimeoutError
                data = self._socket.recv(_RECEIVE)
            except TimeoutError:
                raise
            except (OSError, ValueError) as error:
                raise NoService(f"the service went away: {error}") from None
            if not data:
                raise NoService("the service went away")
            try:
                self._frames += self._reader.feed(data)
            except ProtocolError as error:
                raise NoService(f"the service says what cannot be: {error}") from None
        return self._frames.popleft()

    def request(self, message: Message, /, *, timeout_s: float = CONNECT_S, **fields: Any) -> ServiceFrame:
        """Ask, and wait for one answer. Raises NoService, also when it does not answer in time."""
        self.send(message, **fields)
        try:
            return self.receive(timeout_s)
        except TimeoutError:
            raise NoService(f"the service did not answer `{message}` within {timeout_s:g} s") from None

    def fileno(self) -> int:
        """For `select`. A frame may be buffered although nothing can be read: ask `receive(0)` first."""
        return self._socket.fileno()

    @property
    def socket(self) -> socket.socket:
        """For descriptors that go along."""
        return self._socket

    def close(self) -> None:
        """Idempotent. A receive under way in another thread ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _dial(name: str, timeout_s: float) -> socket.socket:
    """A connected socket. Raises NoService."""
    directory = endpoint.runtime_dir()
    if directory is None:
        raise NoService("no service runs: there is no runtime directory of this user's alone", silent=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = time.monotonic() + timeout_s
    try:
        sock.settimeout(timeout_s)
        while True:
            try:
                sock.connect(f"{directory}/{name}")
                return sock
            except BlockingIOError:  # many connect at once; Linux does not wait for room with a timeout
                if time.monotonic() > deadline:
                    raise
                time.sleep(CROWD_S)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        sock.close()
        raise NoService(f"no service runs: {error.strerror}", silent=True) from None
    except OSError as error:
        sock.close()
        raise NoService(f"the service cannot be reached: {error}") from None
    except BaseException:
        sock.close()
        raise
