"""A listening socket that no other machine reaches. Knows sockets, not what is served. Invariant: it is on loopback."""

from __future__ import annotations

import socket


def listen(port: int) -> socket.socket:
    """On 127.0.0.1; `port` 0: a free one, which `getsockname()[1]` tells. Raises OSError."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener
