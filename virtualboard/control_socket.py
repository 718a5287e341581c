"""The control socket of a board process: a Unix socket that only its owner may open, several clients at once.

Does not know the commands (`control`). Invariant: no client raises out of here or makes it grow: lines are bounded, and
who does not read his answers is cut off.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import stat
from pathlib import Path

from virtualboard.control import MAX_LINE, Control
from virtualboard.server import ListenError, Loop

_MAX_CLIENTS = 16
_LONGEST_PATH = 107  # sockaddr_un, less the NUL
# Lines answered before the board is looked at again: a client that floods must not stop it.
_LINES_AT_ONCE = 64


class ControlSocket:
    """Listens at `path`. One that a killed board left behind is replaced. Raises ListenError."""

    def __init__(self, loop: Loop, path: Path, control: Control) -> None:
        self._loop = loop
        self._path = path
        self._control = control
        self._clients: dict[socket.socket, bytearray] = {}
        self._listener = _listen(path)
        self._loop.watch(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Close everything and remove the socket."""
        for client in list(self._clients):
            self._drop(client)
        if self._listener.fileno() >= 0:
            self._loop.watch(self._listener, 0, self._accept)
            self._listener.close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _accept(self) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        if len(self._clients) >= _MAX_CLIENTS:
            client.close()
            return
        self._clients[client] = bytearray()
        self._loop.watch(client, selectors.EVENT_READ, lambda: self._ready(client))

    def _ready(self, client: socket.socket) -> None:
        pending = self._clients.get(client)
        if pending is None:
            return
        try:
            data = client.recv(MAX_LINE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        pending += data
        *lines, rest = bytes(pending).split(b"\n")
        pending[:] = rest
        if len(rest) > MAX_LINE:
            lines.append(b"")  # answered with how it is done, and cut off
        answers = [self._control.answer(line) for line in lines[:_LINES_AT_ONCE]]
        try:
            whole = client.send(b"".join(answers)) == sum(map(len, answers)) if answers else True
        except OSError:
            whole = False
        if not whole or len(lines) > _LINES_AT_ONCE or len(rest) > MAX_LINE:
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        self._loop.watch(client, 0, lambda: None)
        client.close()
        del self._clients[client]


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ListenError(f"{path}: error: the path is longer than {_LONGEST_PATH} bytes\nGive a shorter one.")
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
        listener.listen()
    except OSError as exc:
        listener.close()
        raise ListenError(
            f"{path}: error: cannot make the control socket: {exc.strerror}\n"
            "Give a path that does not exist, in a directory that can be written."
        ) from exc
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens to; anything else stays, and the bind says so."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            pass
