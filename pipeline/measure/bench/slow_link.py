"""A link of a given latency and rate between a client and a server of this machine, and a place where nobody answers.

Knows sockets and time, not what is said. Invariants: bytes arrive in order, none before half of the round trip has
passed, and all connections together no faster than the rate; a new connection costs one round trip, as a handshake
does.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

_CHUNK = 4096
_READY_S = 10.0


class _Direction:
    """One way of the link. `bytes_per_s` is of all connections together."""

    def __init__(self, delay_s: float, bytes_per_s: float) -> None:
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s
        self._free_s = 0.0
        self._lock = threading.Lock()

    def arrives_s(self, size: int) -> float:
        """When a piece that is sent now arrives."""
        with self._lock:
            self._free_s = max(self._free_s, time.monotonic()) + size / self._bytes_per_s
            return self._free_s + self._delay_s

    def carry(self, source: socket.socket, target: socket.socket, first_s: float = 0.0) -> None:
        """What comes from `source`, to `target`, until its end; the first of it later by `first_s`."""
        pieces: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        threading.Thread(target=_deliver, args=(pieces, target), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                pieces.put((self.arrives_s(len(data)) + first_s, data))
                first_s = 0.0
        pieces.put((self.arrives_s(0), b""))


def _deliver(pieces: SimpleQueue[tuple[float, bytes]], target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            at_s, data = pieces.get()
            time.sleep(max(0.0, at_s - time.monotonic()))
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(data)


@contextlib.contextmanager
def slow_link(port: int, round_trip_s: float, bits_per_s: float) -> Iterator[int]:
    """The port of 127.0.0.1 at whose other end `port` is."""
    up, down = (_Direction(round_trip_s / 2, bits_per_s / 8) for _ in range(2))

    def join(client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", port))
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=down.carry, args=(server, client), daemon=True).start()
        up.carry(client, server, round_trip_s)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=join, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


@contextlib.contextmanager
def silence() -> Iterator[int]:
    """A port where connections are made and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


def free_port() -> int:
    """One of 127.0.0.1 where nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_it_listens(port: int) -> None:
    """Raises TimeoutError."""
    deadline_s = time.monotonic() + _READY_S
    while time.monotonic() < deadline_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(f"nobody listens on port {port} within {_READY_S:g} s")
