"""A console's port as a pseudo-terminal, for programs that open a device by name.

Knows ptys and the link that names one; what is shared, `shared_terminal.py` knows. Modem lines do not travel on a pty:
no reset comes this way, and the rate that a program sets is its own. Linux and macOS. Invariants: the link never points
to a terminal that is not this console's; what nobody takes is dropped, oldest first, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.service.shared_terminal import SharedTerminal

READ_BYTES = 1 << 14
MAX_UNWRITTEN = 1 << 18
"""Bytes that wait for the port; then nothing is taken from the terminal."""

MakeTerminal = Callable[[Callable[[bytes], None]], SharedTerminal]


class PtyServer:
    """Of one console. Raises OSError when there can be no terminal, or no link."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make_terminal: MakeTerminal, link: Path) -> None:
        import tty

        self._loop = loop
        self.link = link
        self.dropped = 0
        self._master, self._slave = os.openpty()
        try:
            # Open here as well: a terminal that nobody has open would hang up, and forget that it is raw.
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self.name = os.ttyname(self._slave)
            _point(link, self.name)
        except OSError:
            os.close(self._master)
            os.close(self._slave)
            raise
        self._terminal = make_terminal(self._say)
        self._reading = False
        self._opening = loop.create_task(self._open())

    async def _open(self) -> None:
        if await self._terminal.open() is None:
            self._read(True)

    def close(self) -> None:
        """Idempotent."""
        if self._master < 0:
            return
        self._opening.cancel()
        self._read(False)
        self._terminal.close()
        with contextlib.suppress(OSError):
            if os.readlink(self.link) == self.name:  # noqa: PTH115 - a str, as ttyname gives
                self.link.unlink()
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1

    def _read(self, wanted: bool) -> None:
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._master, self._typed)
            else:
                self._loop.remove_reader(self._master)

    def _typed(self) -> None:
        try:
            data = os.read(self._master, READ_BYTES)
        except OSError:
            return
        self._terminal.write(data, self._written)
        if self._terminal.queued > MAX_UNWRITTEN:
            self._read(False)

    def _written(self) -> None:
        if self._master >= 0 and self._terminal.queued <= MAX_UNWRITTEN:
            self._read(True)

    def _say(self, data: bytes) -> None:
        """What the board says. A terminal that nobody reads is full in the end: what stands in it is old, and goes."""
        import termios

        for _ in range(2):
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                pass
            except OSError:
                break
            if not data:
                return
            with contextlib.suppress(termios.error):
                self.dropped += _waiting(self._slave)
                termios.tcflush(self._slave, termios.TCIFLUSH)
        self.dropped += len(data)


def _waiting(terminal: int) -> int:
    """Bytes that a reader would get now."""
    import fcntl
    import struct
    import termios

    with contextlib.suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(terminal, termios.FIONREAD, bytes(4)))[0])
    return 0


def _point(link: Path, terminal: str) -> None:
    """Make the link; in a directory of ours alone, where only one of an earlier service can be in the way."""
    if link.is_symlink():
        link.unlink()
    link.symlink_to(terminal)
