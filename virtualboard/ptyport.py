"""A board's line on a pseudo terminal, for tools that open a device by name. Linux.

The name is a symbolic link to the terminal that the kernel happens to give; each time the port comes back it is another
terminal. Modem lines do not travel on a pty (the ioctls are refused), so resets come over the control socket; the rate
does, it is read from the terminal's settings. Does not know the loader or the CPU. Invariant: output that nobody takes
is dropped, input waits in the kernel, and the link never points to a terminal that is not this board's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import struct
import termios
import tty
from pathlib import Path

from virtualboard.board import DEFAULT_BAUD
from virtualboard.cable import Cable
from virtualboard.server import ListenError, Loop

_CHUNK = 1 << 16
# What a driver keeps for a reader that is late: the kernel's flip buffers hold 64 KiB.
_MAX_UNSENT = 1 << 16
# Linux, asm-generic/ioctls.h: the settings with rates as numbers, of which the last two words are input and output.
_TCGETS2 = 0x802C542A
_TERMIOS2 = struct.Struct("4I20B2I")


class PtyPort:
    """Behind `link`. Raises ListenError when the link cannot be made."""

    def __init__(self, loop: Loop, cable: Cable, link: Path) -> None:
        self._loop = loop
        self._cable = cable
        self._base = link
        self._names = 0
        self._link = link
        self._master = self._slave = -1
        self._unsent = bytearray()
        self._open()

    @property
    def url(self) -> str:
        """What a client opens."""
        return str(self._link)

    def due(self) -> float | None:
        """Nothing happens by itself."""
        return None

    def pump(self) -> None:
        """Pass on what has arrived from the board."""
        data = self._cable.transmit()
        if self._master < 0:
            return
        self._follow_rate()
        self._unsent += data[: max(0, _MAX_UNSENT - len(self._unsent))]
        with contextlib.suppress(OSError):
            while self._unsent:
                del self._unsent[: os.write(self._master, self._unsent[:_CHUNK])]
        self._watch()

    def unplug(self) -> None:
        """Hang up: whoever has the terminal open gets an end of file or EIO, and the link is gone."""
        if self._master < 0:
            return
        self._loop.watch(self._master, 0, self._ready)
        with contextlib.suppress(OSError):
            self._link.unlink()
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1
        self._unsent.clear()

    def plug_in(self, *, renamed: bool) -> None:
        """Another terminal, and where `renamed` another link: its number is appended. Raises ListenError."""
        if renamed:
            self._names += 1
            self._link = self._base.with_name(f"{self._base.name}-{self._names + 1}")
        self._open()

    def close(self) -> None:
        """Vanish for good."""
        self.unplug()

    def _open(self) -> None:
        master, slave = os.openpty()  # the slave stays open: a terminal that nobody has open would hang up
        try:
            tty.setraw(slave)
            settings = termios.tcgetattr(slave)
            settings[4] = settings[5] = termios.B115200
            termios.tcsetattr(slave, termios.TCSANOW, settings)
            _point(self._link, Path(os.ttyname(slave)))
        except OSError as exc:
            os.close(master)
            os.close(slave)
            raise ListenError(
                f"{self._link}: error: cannot make the link: {exc.strerror}\n"
                "Give a path that does not exist, in a directory that can be written."
            ) from exc
        os.set_blocking(master, False)
        self._master, self._slave = master, slave
        self._cable.set_baud(DEFAULT_BAUD)
        self._watch()

    def _watch(self) -> None:
        events = selectors.EVENT_WRITE if self._unsent else 0
        events |= 0 if self._cable.full else selectors.EVENT_READ
        self._loop.watch(self._master, events, self._ready)

    def _ready(self) -> None:
        try:
            data = os.read(self._master, _CHUNK)
        except OSError:
            return  # nothing there after all; writing is `pump`'s
        self._follow_rate()
        self._cable.receive(data)

    def _follow_rate(self) -> None:
        try:
            settings = fcntl.ioctl(self._master, _TCGETS2, bytes(_TERMIOS2.size))
        except OSError:
            return
        rate = _TERMIOS2.unpack(settings)[-1]
        if rate:
            self._cable.set_baud(rate)


def _point(link: Path, terminal: Path) -> None:
    """Make the link. One that an earlier board left behind is replaced; anything else is not touched."""
    if link.is_symlink() and str(link.readlink()).startswith("/dev/pts/"):
        link.unlink()
    link.symlink_to(terminal)
