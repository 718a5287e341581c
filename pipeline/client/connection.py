"""A blocking connection to the service of this user.

Knows sockets and the first exchange of the protocol; not what is asked afterwards. Invariants: every wait has a
deadline; what goes wrong leaves as NoService, with a reason that can be shown, and the caller goes on alone.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from pipeline import __version__
from pipeline.client import endpoint
from pipeline.client.protocol import PROTOCOL, FrameReader, Message, ProtocolError, ServiceFrame, encode

CONNECT_S = 0.5
"""A service that runs answers within a millisecond; one that hangs must not hold up a deploy."""

_RECEIVE = 1 << 16


class NoService(Exception):
    """There is no service that could be used; the text says why. `silent`: that is nothing to tell a person, since
    none was started."""

    def __init__(self, text: str, *, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


class Connection:
    """One open, greeted connection. One thread at a time, but `send` may be called from another than `receive`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = FrameReader()
        self._frames: list[ServiceFrame] = []
        self.welcome: ServiceFrame = ServiceFrame(0, {})
        """What the service said of itself."""

    @classmethod
    def open(cls, name: str = endpoint.SOCKET, *, timeout_s: float = CONNECT_S) -> Connection:
        """Connect and greet. Raises NoService."""
        directory = endpoint.runtime_dir()
        if directory is None:
            raise NoService("no runtime directory", silent=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(f"{directory}/{name}")
        except (FileNotFoundError, ConnectionRefusedError) as error:
            sock.close()
            raise NoService(f"no service runs: {error.strerror}", silent=True) from None
        except OSError as error:
            sock.close()
            raise NoService(f"the service cannot be reached: {error}") from None
        made = cls(sock)
        try:
            made._greet(timeout_s)
        except BaseException:
            made.close()
            raise
        return made

    def _greet(self, timeout_s: float) -> None:
        self.send(Message.HELLO, protocol=PROTOCOL, version=__version__, pid=os.getpid())
        self.welcome = self.receive(timeout_s)
        if self.welcome.message != Message.WELCOME or self.welcome.header.get("protocol") != PROTOCOL:
            theirs = self.welcome.header.get("protocol")
            raise NoService(f"the service speaks protocol {theirs}, and this is {PROTOCOL}: restart it (`doit serve`)")

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
        """The next frame. Raises NoService when the service went away, and TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._frames:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise TimeoutError
            try:
                self._socket.settimeout(left_s)
                data = self._socket.recv(_RECEIVE)
            except TimeoutError:
                raise
            except OSError as error:
                raise NoService(f"the service went away: {error}") from None
            if not data:
                raise NoService("the service went away")
            try:
                self._frames += self._reader.feed(data)
            except ProtocolError as error:
                raise NoService(f"the service says what cannot be: {error}") from None
        return self._frames.pop(0)

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
        """Idempotent."""
        self._socket.close()
