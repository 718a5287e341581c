"""Commands that another process of ours starts: whoever starts one stands still until it runs (vfork), for as long as
all else takes that is done for a short compile.

The Python half of `fastpath/command_server.h`, whose program is given. Knows its orders and answers; not what commands
are for, nor whether they are still wanted. Invariants: `answers` names each command that was started once, or raises
`ServerGone` when the program is no more; all that it has started is killed when `close` returns, or this process ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.effects.spawned import OURS, end_child

ARGUMENT = "commands"
_ORDER = struct.Struct("@III")
_ANSWER = struct.Struct("@IiiIIQQ")
"""`struct order` and `struct answer`."""
_START, _ENVIRONMENT, _KILL = map(ord, "SEK")
_BLOCK = 1 << 18
_WELL_S, _ENDED_S = 1.0, 8.0
"""How long it may take to say that it works, and to end with all that it has started."""


class ServerGone(OSError):
    """The program has ended, and with it what it had started."""


class CommandEnd(NamedTuple):
    """How a command ended; `error`: it could not be started."""

    number: int
    error: int
    exit_code: int
    stdout: bytes
    stderr: bytes


class CommandServer:
    """The program, running. All but `close` is for one thread."""

    def __init__(self, program: str) -> None:
        """Start it in the directory in which its commands are to run. Raises OSError."""
        self.cwd = os.getcwd()  # noqa: PTH109
        ours, theirs = socket.socketpair()
        try:
            nothing = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0) for n in (1, 2)]
            self._pid = os.posix_spawn(
                program,
                [program, ARGUMENT],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), *nothing],
                setpgroup=0,
                setsigdef=OURS,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        self.handle = ours.fileno()
        self._environment: Mapping[str, str] | None = None
        self._waiting = bytearray()

    def is_well(self) -> bool:
        """Has it said so within a short time? To be asked first; one that has not is of no use."""
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        with contextlib.suppress(OSError):
            return bool(poll.poll(_WELL_S * 1000)) and self.answers() == [CommandEnd(0, 0, 0, b"", b"")]
        return False

    def start(self, number: int, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start it, under a number that no other one has. Raises ServerGone."""
        orders, is_known = _order(_START, number, argv), env == self._environment
        if not is_known:
            orders = _order(_ENVIRONMENT, 0, [f"{name}={value}" for name, value in env.items()]) + orders
        self._say(orders)
        if not is_known:
            self._environment = dict(env)

    def kill(self, number: int) -> None:
        """Kill it with its descendants; it is answered for as any other. Raises ServerGone."""
        self._say(_order(_KILL, number, ()))

    def _say(self, orders: bytes) -> None:
        try:
            self._socket.sendall(orders)
        except OSError as error:
            raise ServerGone(error.errno, "what starts commands has ended") from None

    def answers(self) -> list[CommandEnd]:
        """What has come. Raises ServerGone at the end."""
        try:
            data = self._socket.recv(_BLOCK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            raise ServerGone(0, "what starts commands has ended")
        waiting, at, found = self._waiting, 0, []
        waiting += data
        while len(waiting) - at >= _ANSWER.size:
            number, error, status, out, err, more_out, more_err = _ANSWER.unpack_from(waiting, at)
            first = at + _ANSWER.size
            if len(waiting) < first + out + err:
                break
            middle, at = first + out, first + out + err
            said = _printed(waiting[first:middle], more_out), _printed(waiting[middle:at], more_err)
            found.append(CommandEnd(number, error, 0 if error else os.waitstatus_to_exitcode(status), *said))
        del waiting[:at]
        return found

    def close(self) -> None:
        """Kill what was started, from any thread; the second time nothing happens."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        pid, self._pid = self._pid, 0
        if pid:
            with contextlib.suppress(ChildProcessError):
                end_child(pid, _ENDED_S)

    def let_go(self) -> None:
        """Close the handle, too, which nobody waits for any more."""
        self.close()
        self._socket.close()


def _order(kind: int, number: int, words: Sequence[str]) -> bytes:
    text = os.fsencode("".join([f"{word}\0" for word in words]))
    if text.count(0) != len(words):
        raise ValueError("embedded null byte")  # as `os.posix_spawn` says
    return _ORDER.pack(kind, number, len(text)) + text


def _printed(kept: bytearray, more: int) -> bytes:
    return bytes(kept) if not more else bytes(kept) + b"\n[%d bytes more were printed]\n" % more
