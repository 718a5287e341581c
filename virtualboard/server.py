"""The loop of a board process: one thread that waits for clients, for the control socket and for the board's own time.

Does not know the loader, the CPU, or how a transport works. Invariant: nothing that a client does ends the loop or
makes it grow; only `stop` ends it, and then every port and socket is closed.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from typing import Protocol

from virtualboard.cable import Cable

# With nothing to do the loop still looks around this often, so that a clock that jumps cannot stall a board.
_LONGEST_WAIT_S = 5.0


class ListenError(Exception):
    """A port or socket cannot be made. The text is for a person."""


class Loop(selectors.SelectSelector):
    """The selector that all parts share. `select` because it waits microseconds where epoll rounds up to
    milliseconds, which a paced line would feel at every command; the descriptors are few by construction."""

    def watch(self, end: socket.socket | int, events: int, ready: Callable[[], None]) -> None:
        """Call `ready` when `end` is; events 0 forgets it, and what is watched already is changed."""
        known = self.get_map().get(end)
        if known is None:
            if events:
                self.register(end, events, ready)
        elif not events:
            self.unregister(end)
        elif known.events != events:
            self.modify(end, events, ready)


class Port(Protocol):
    """How the host reaches the board's line: TCP, RFC 2217 or a pty."""

    @property
    def url(self) -> str:
        """What a client opens."""

    def pump(self) -> None:
        """Pass on what the board sent, and read no more than it takes."""

    def due(self) -> float | None:
        """When `pump` has something to do by itself."""

    def unplug(self) -> None:
        """Vanish: clients lose their connection and find nothing to open."""

    def plug_in(self, *, renamed: bool) -> None:
        """Come back, under another name where `renamed`."""

    def close(self) -> None:
        """Vanish for good. Idempotent."""


class Side(Protocol):
    """Something else that lives in the loop (the control socket)."""

    def close(self) -> None:
        """Release everything. Idempotent."""


class Server:
    """Serves `cable` through `port` until `stop`. `announce` is told the new URL when the port takes another name."""

    def __init__(
        self,
        loop: Loop,
        cable: Cable,
        port: Port,
        *,
        side: Side | None = None,
        now: Callable[[], float] = time.monotonic,
        announce: Callable[[str], None] = lambda _url: None,
    ) -> None:
        self.port = port
        self._loop = loop
        self._cable = cable
        self._side = side
        self._now = now
        self._announce = announce
        self._stopping = False
        self._generation = cable.board.plug.generation
        self._names = cable.board.plug.names
        self._gone = False
        # Written to by `stop`, which may run in a signal handler or another thread.
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_write.setblocking(False)
        loop.watch(self._wake_read, selectors.EVENT_READ, self._stop_requested)

    def stop(self) -> None:
        """Make `serve` return. Safe in signal handlers and other threads."""
        with contextlib.suppress(BlockingIOError):  # it has been asked often enough
            self._wake_write.send(b"x")

    def serve(self) -> None:
        """Run the board and its clients until `stop`, then close everything."""
        try:
            while not self._stopping:
                for key, _mask in self._loop.select(self._wait()):
                    if self._loop.get_map().get(key.fd) is not None:  # an earlier one may have closed it
                        key.data()
                self._cable.advance()
                self._watch_plug()
                self.port.pump()
        finally:
            self.port.close()
            if self._side is not None:
                self._side.close()
            self._loop.close()
            self._wake_read.close()
            self._wake_write.close()

    def _wait(self) -> float:
        due = [self._cable.wake_at(), self.port.due()]
        now = self._now()
        return max(0.0, min([_LONGEST_WAIT_S, *(at - now for at in due if at is not None)]))

    def _watch_plug(self) -> None:
        plug = self._cable.board.plug
        if plug.generation != self._generation:
            self._generation = plug.generation
            self._gone = True
            self._cable.unplug()
            self.port.unplug()
        if self._gone and self._cable.present:
            renamed, self._names = plug.names != self._names, plug.names
            try:
                self.port.plug_in(renamed=renamed)
            except ListenError:
                # Somebody else took the name meanwhile: any other is better than none.
                self.port.plug_in(renamed=True)
                renamed = True
            self._gone = False
            self._cable.plug_in()
            if renamed:
                self._announce(self.port.url)

    def _stop_requested(self) -> None:
        self._stopping = True
