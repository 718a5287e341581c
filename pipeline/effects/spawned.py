"""A child process in a process group of ours, and what it prints.

Knows processes, not what they are for. Invariant: a child and its descendants are in a process group whose leader, a
watchdog of ours, kills the group when this process ends in any way, `kill -9` included.

The watchdog is one `sh` that reads a pipe which closes with this process. A child joins the group before its first
instruction (setpgid in the C code between fork and exec), so there is no instant at which it could be orphaned; and
unlike PR_SET_PDEATHSIG it needs no code of ours there, which threads would make unsafe, and reaches descendants. Each
command under way has a group of its own; an idle group serves the next command.
"""

from __future__ import annotations

# `signal` makes enumerations of it, which takes longer than to start a watchdog.
import _signal as signal  # type: ignore[import-not-found]
import contextlib
import os
import select
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple

if TYPE_CHECKING:  # its import takes longer than a short compile; few commands need it
    import subprocess

_WATCHDOG = "read -r never; kill -9 0"
_ENDED_S = 0.002
"""How often to look whether a child has ended, where that cannot be waited for."""
_STANDARD = 2
"""The last handle that a program expects something of."""
_PIPE = -1
"""`subprocess.PIPE`."""
OURS = tuple(getattr(signal, name) for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ") if hasattr(signal, name))
"""What Python ignores, and programs should not."""
MOST_KEPT = 8 << 20
"""Bytes of a stream that are kept: nobody reads more, and what prints without end must not fill the memory."""


class Running(NamedTuple):
    """A command under way. `timeout_s` counts from `began_s`, on the runner's clock."""

    group: Group
    child: Spawned
    began_s: float
    timeout_s: float

    @property
    def argv(self) -> Sequence[str]:
        return self.child.argv


class Spawned:
    """A child in a group, and what it prints: the first `MOST_KEPT` bytes of each stream, and how much more there was.

    Not through `subprocess`, whose pipes, streams and closing of handles cost as much as a short compile: ours are none
    that a program inherits. That cannot start a program elsewhere than where this process is, so there it still does.
    Raises OSError when it cannot be started."""

    def __init__(self, group: Group, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.argv = argv
        self.exit_code = 0
        self._ended = False
        self._kept: tuple[list[bytes], list[bytes]] = ([], [])
        self._sizes = [0, 0]
        pairs = (os.pipe(), os.pipe())
        (out, to_out), (err, to_err) = pairs
        self._open = {out: 0, err: 1}
        try:
            if min(to_out, to_err) > _STANDARD and os.getcwd() == str(cwd):  # noqa: PTH109
                self.pid = group.spawn(argv, env, to_out, to_err)
            else:
                self.pid = group.start_writing(argv, cwd, env, to_out, to_err)
        except BaseException:
            self._close_read()
            raise
        finally:
            os.close(to_out)
            os.close(to_err)

    @property
    def open(self) -> Iterable[int]:
        """The handles on which something may still come."""
        return self._open

    def is_complete(self, timeout_s: float) -> bool:
        """Read what comes within the time; has the child ended, and closed its pipes?"""
        if not self._open:
            return self.has_ended(timeout_s)
        poll = select.poll()
        for handle in self._open:
            poll.register(handle, select.POLLIN)
        for handle, _ in poll.poll(timeout_s * 1000):
            self.read(handle)
        return False

    def read(self, handle: int) -> bool:
        """Take what has come on this handle; False when that was the end, and it is closed."""
        block = os.read(handle, 1 << 16)
        number = self._open[handle]
        if not block:
            os.close(handle)
            del self._open[handle]
        elif self._sizes[number] < MOST_KEPT:
            self._kept[number].append(block)
        self._sizes[number] += len(block)
        return bool(block)

    def has_ended(self, timeout_s: float) -> bool:
        """Has it? Waits for that so long."""
        if not self._reaped(os.WNOHANG) and timeout_s > 0:
            _until_ended(self.pid, timeout_s)
            self._reaped(os.WNOHANG)
        return self._ended

    def _reaped(self, how: int) -> bool:
        if not self._ended:
            try:
                pid, status = os.waitpid(self.pid, how)
            except ChildProcessError:  # somebody told the system to forget children
                pid, status = self.pid, 0
            if pid:
                self.exit_code, self._ended = os.waitstatus_to_exitcode(status), True
        return self._ended

    def kill(self) -> None:
        """End it, whatever group it is in."""
        if not self._reaped(os.WNOHANG):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._reaped(0)

    def close(self) -> None:
        """Read no more."""
        self._close_read()

    def _close_read(self) -> None:
        for handle in self._open:
            os.close(handle)
        self._open = {}

    def printed(self, number: int) -> bytes:
        """What came on stdout (0) or stderr (1)."""
        if not self._sizes[number]:
            return b""
        data = b"".join(self._kept[number])
        more = self._sizes[number] - len(data)
        return data if not more else data + b"\n[%d bytes more were printed]\n" % more


def _until_ended(pid: int, timeout_s: float) -> None:
    """Wait for the end of a child of ours, `timeout_s` at most."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                ended = select.poll()
                ended.register(handle, select.POLLIN)
                ended.poll(timeout_s * 1000)
            finally:
                os.close(handle)
            return
    time.sleep(min(timeout_s, _ENDED_S))


def end_child(pid: int, timeout_s: float) -> None:
    """Wait for the end of a child of ours that is about to end; after that time it is killed. Raises ChildProcessError
    where there is no such child."""
    until_s = time.monotonic() + timeout_s
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        _until_ended(pid, left_s)


class Group:
    """A process group and its leader, the watchdog. Its number cannot be reused before the watchdog is reaped."""

    def __init__(self) -> None:
        # Until it leads a group of its own, a Ctrl-C reaches it too. It inherits the mask; SIGKILL ends it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            self._watchdog = _Watchdog()
            self._end = weakref.finalize(self, self._watchdog.end)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)  # a Ctrl-C that came meanwhile is raised here

    @property
    def alive(self) -> bool:
        """Can it take another command?"""
        return not self._watchdog.has_ended()

    def start(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        out: int = _PIPE,
        err: int = _PIPE,
    ) -> subprocess.Popen[bytes]:
        """A child in this group, without input. Raises OSError."""
        import subprocess

        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            process_group=self._watchdog.pid,
        )

    def spawn(self, argv: Sequence[str], env: Mapping[str, str], out: int, err: int) -> int:
        """The pid of a child in this group that writes to these handles and has no input, in our directory. Raises
        OSError."""
        return os.posix_spawn(
            argv[0],
            list(argv),
            env,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, err, 2),
            ),
            setpgroup=self._watchdog.pid,
            setsigdef=OURS,
        )

    def start_writing(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], out: int, err: int) -> int:
        """As `spawn`, in the directory `cwd`."""
        child = self.start(argv, cwd, env, out, err)
        child.returncode = 0  # whoever asked for the pid waits for it
        return child.pid

    def start_talking(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """A child in this group that is written to and read from, both outputs as one. Raises OSError."""
        import subprocess

        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            process_group=self._watchdog.pid,
        )

    def start_visible(self, argv: Sequence[str], cwd: Path, keep: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """A child in this group with our environment, outputs and the handles `keep`, and a pipe as its input. Raises
        OSError."""
        import subprocess

        return subprocess.Popen(
            list(argv), cwd=cwd, stdin=subprocess.PIPE, pass_fds=keep, process_group=self._watchdog.pid
        )

    def start_shown(self, argv: Sequence[str], cwd: Path, out: int | None, err: int | None) -> subprocess.Popen[bytes]:
        """A child in this group with our environment, these outputs (None: ours), and no input. Raises OSError."""
        import subprocess

        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            process_group=self._watchdog.pid,
        )

    def kill(self) -> None:
        """Kill all of it; the second time nothing happens."""
        self._end()


_ahead: list[Group] = []


def make_group_ahead() -> None:
    """Have a group for the first command of this process, which waits for its run; it ends with this process as any.
    Where none can be made, that command finds out."""
    with contextlib.suppress(OSError):
        _ahead.append(Group())


def first_group() -> Group:
    """One that was made ahead, else a new one. Raises OSError."""
    while _ahead:
        group = _ahead.pop()
        if group.alive:
            return group
    return Group()


class _Watchdog:
    """The leader of a group of its own; it inherits the mask of signals. Raises OSError."""

    def __init__(self) -> None:
        self._ended = False
        reading, self._writing = os.pipe()
        try:
            self.pid = os.posix_spawn(
                "/bin/sh",
                ["/bin/sh", "-c", _WATCHDOG],
                {},
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, reading, 0),  # first: it may be one of the others
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ),
                setpgroup=0,
                setsigdef=OURS,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    def has_ended(self, how: int = os.WNOHANG) -> bool:
        """Has it? Waits for that if `how` is 0."""
        if not self._ended:
            try:
                pid, _ = os.waitpid(self.pid, how)
            except ChildProcessError:  # somebody told the system to forget children
                pid = self.pid
            self._ended = pid != 0
        return self._ended

    def end(self) -> None:
        """Kill it with its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.has_ended(0)
        os.close(self._writing)
