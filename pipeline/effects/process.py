"""Run commands to their end, so that none outlives this process.

Knows processes, not what they are for. Invariant: a child and its descendants are in a process group whose leader, a
watchdog of ours, kills the group when this process ends in any way, `kill -9` included.

The watchdog is one `sh` that reads a pipe which closes with this process. A child joins the group before its first
instruction (setpgid in the C code between fork and exec), so there is no instant at which it could be orphaned; and
unlike PR_SET_PDEATHSIG it needs no code of ours there, which threads would make unsafe, and reaches descendants. Each
command under way has a group of its own; an idle group serves the next command.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.effects.api import Clock, Completed

_WATCHDOG = "read -r never; kill -9 0"
_READY_S = 20.0
_LOOK_S = 0.5
"""How often to look whether a command that prints nothing is still wanted."""
_ENDED_S = 0.1
"""How often to look whether a command has ended whose outputs are still open."""
_STANDARD = 2
"""The last handle that a program expects something of."""
_OURS = tuple(getattr(signal, name) for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ") if hasattr(signal, name))
"""What Python ignores, and programs should not."""
_MOST = 8 << 20
"""Bytes of a stream that are kept: nobody reads more, and what prints without end must not fill the memory."""


class SystemProcessRunner:
    """The real runner; several threads may `run` at once. `close` it, or let it be collected."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: list[Group] = []
        self._busy: set[Group] = set()
        self._cancelled = False

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        """Run `argv` (no shell; `argv[0]` is a path) with exactly `env` and no input. Raises TimeoutError when it was
        killed for taking longer, KeyboardInterrupt after `cancel`, OSError when it cannot be started."""
        began_s = self._clock.now_s()
        with self._lock:
            # Started under the lock: `cancel` finds each child either not started or in a busy group.
            if self._cancelled:
                raise KeyboardInterrupt
            group = self._idle.pop() if self._idle else Group()
            self._busy.add(group)
            try:
                child = Spawned(group, argv, cwd, env)
            except BaseException:
                self._busy.discard(group)
                group.kill()
                raise
        try:
            stdout, stderr = self._wait(group, child, timeout_s)
        finally:
            with self._lock:
                self._busy.discard(group)
                if group.alive:
                    self._idle.append(group)
        if self._cancelled:
            raise KeyboardInterrupt
        return Completed(child.exit_code, stdout, stderr, self._clock.now_s() - began_s)

    def cancel(self) -> None:
        """Kill every child under way; this and every further `run` raises KeyboardInterrupt."""
        with self._lock:
            self._cancelled = True
            for group in (*self._busy, *self._idle):
                group.kill()
            self._idle.clear()

    def close(self) -> None:
        """End idle watchdogs, and whatever a command left running behind itself."""
        with self._lock:
            for group in self._idle:
                group.kill()
            self._idle.clear()

    def _wait(self, group: Group, child: Spawned, timeout_s: float) -> tuple[bytes, bytes]:
        """What it printed, once it has ended and its pipes are closed. A descendant that left the group may hold them
        open for ever, so that the end of a cancelled run, and of one that took too long, is not left to it."""
        deadline_s = self._clock.now_s() + timeout_s
        try:
            while not child.is_complete(_LOOK_S):
                if self._cancelled:
                    raise KeyboardInterrupt
                if self._clock.now_s() > deadline_s:
                    raise TimeoutError(f"{child.argv!r} did not end within {timeout_s} s")
        except BaseException:
            group.kill()
            child.kill()  # it may have left the group
            raise
        finally:
            child.close()
        return child.printed(0), child.printed(1)


class Spawned:
    """A child in a group, and what it prints: the first `_MOST` bytes of each stream, and how much more there was.

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
        self._poll = select.poll()
        for handle in self._open:
            self._poll.register(handle, select.POLLIN)

    def is_complete(self, timeout_s: float) -> bool:
        """Read what comes within the time; has the child ended, and closed its pipes?"""
        if not self._open:
            return self._has_ended(timeout_s)
        for handle, _ in self._poll.poll(timeout_s * 1000):
            block = os.read(handle, 1 << 16)
            number = self._open[handle]
            if not block:
                self._poll.unregister(handle)
                os.close(handle)
                del self._open[handle]
            elif self._sizes[number] < _MOST:
                self._kept[number].append(block)
            self._sizes[number] += len(block)
        return False

    def _has_ended(self, timeout_s: float) -> bool:
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
    time.sleep(min(timeout_s, _ENDED_S / 50))


def run_shown(argv: Sequence[str], cwd: Path) -> int:
    """Run a command to its end with our environment and outputs; its exit code, negative for a signal. Raises OSError
    when it cannot be started."""
    group = Group()
    try:
        with group.start_shown(argv, cwd, None, None) as child:
            return child.wait()
    finally:
        group.kill()


def run_streamed(argv: Sequence[str], cwd: Path, *, to_stderr: bool = False) -> tuple[int, bytes]:
    """Run a command to its end with our environment, its output going where ours goes as it comes (`to_stderr`: all of
    it to stderr); its exit code, negative for a signal, and the last `_MOST` bytes that it printed. Where ours goes to
    a terminal, it has one of its own. Raises OSError when it cannot be started."""
    group = Group()
    try:
        with _PassedOn(to_stderr) as shown, group.start_shown(argv, cwd, *shown.ends) as child:
            shown.pass_on(child)
            return child.wait(), shown.said
    finally:
        group.kill()


class _PassedOn:
    """The way of a command's output: from `ends`, which it writes to, to our stdout and stderr."""

    def __init__(self, to_stderr: bool) -> None:
        self._kept: list[bytes] = []
        self._size = 0
        self._to: dict[int, int] = {}
        ours = (2 if to_stderr else 1, 2)
        if os.isatty(ours[0]) and os.isatty(2) and hasattr(os, "openpty"):
            reading, writing = os.openpty()
            _same_size(ours[0], writing)
            self._to[reading] = ours[0]
            self.ends = (writing, writing)
        else:
            pairs = [os.pipe() for _ in ours]
            self._to = {pair[0]: to for pair, to in zip(pairs, ours, strict=True)}
            self.ends = (pairs[0][1], pairs[1][1])

    def __enter__(self) -> _PassedOn:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in (*self._to, *set(self.ends)):
            with contextlib.suppress(OSError):
                os.close(handle)

    def pass_on(self, child: subprocess.Popen[bytes]) -> None:
        """Until the command has ended, and what it had printed by then was passed on: what it left behind may hold the
        ends open for ever."""
        for end in set(self.ends):
            os.close(end)
        with selectors.DefaultSelector() as selector:
            for handle, to in self._to.items():
                selector.register(handle, selectors.EVENT_READ, to)
            while selector.get_map():
                ended = child.poll() is not None
                ready = selector.select(0 if ended else _ENDED_S)
                if ended and not ready:
                    return
                for key, _ in ready:
                    if not self._read(key.fd, key.data):
                        selector.unregister(key.fileobj)

    def _read(self, handle: int, to: int) -> bool:
        """Pass a block on; False at the end."""
        try:
            block = os.read(handle, 1 << 16)
        except OSError:  # how a terminal ends
            return False
        self._show(to, block)
        return bool(block)

    def _show(self, to: int, block: bytes) -> None:
        self._kept.append(block)
        self._size += len(block)
        while self._size - len(self._kept[0]) > _MOST:
            self._size -= len(self._kept.pop(0))
        view = memoryview(block)
        with contextlib.suppress(OSError):  # the reader went away; the build goes on
            while view:
                view = view[os.write(to, view) :]

    @property
    def said(self) -> bytes:
        """The end of it."""
        return b"".join(self._kept)


def _same_size(of: int, to: int) -> None:
    """Make a terminal as wide as another one."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl
        import termios

        fcntl.ioctl(to, termios.TIOCSWINSZ, fcntl.ioctl(of, termios.TIOCGWINSZ, b"\0" * 8))


def captured(argv: Sequence[str], env: Mapping[str, str], started: Callable[[int], None]) -> tuple[int, bytes, bytes]:
    """Run a command in our own process group, with our input; `started` is told its pid. Its exit code (negative for a
    signal) and what it printed. Raises OSError when it cannot be started."""
    with subprocess.Popen(list(argv), env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        started(child.pid)
        out, err = child.communicate()
        return child.returncode, out, err


@contextlib.contextmanager
def background(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Iterator[str]:
    """A server, running for as long as the block does; gives the first line that it prints, which says that it is
    ready. Raises TimeoutError when that does not come."""
    group = Group()
    try:
        with group.start(argv, cwd, env) as child, selectors.DefaultSelector() as selector:
            try:
                assert child.stdout is not None
                selector.register(child.stdout, selectors.EVENT_READ)
                if not selector.select(_READY_S):
                    raise TimeoutError(f"{argv[0]} did not get ready within {_READY_S} s")
                yield child.stdout.readline().decode()
            finally:
                group.kill()
    finally:
        group.kill()


class Group:
    """A process group and its leader, the watchdog. Its number cannot be reused before the watchdog is reaped."""

    def __init__(self) -> None:
        # Until it leads a group of its own, a Ctrl-C reaches it too. It inherits the mask; SIGKILL ends it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            self._watchdog = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                process_group=0,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._end = weakref.finalize(self, _kill, self._watchdog)

    @property
    def alive(self) -> bool:
        """Can it take another command?"""
        return self._watchdog.poll() is None

    def start(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """A child in this group. Raises OSError."""
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
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
            setsigdef=_OURS,
        )

    def start_writing(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], out: int, err: int) -> int:
        """As `spawn`, in the directory `cwd`."""
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            process_group=self._watchdog.pid,
        )
        child.returncode = 0  # whoever asked for the pid waits for it
        return child.pid

    def start_talking(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """A child in this group that is written to and read from, both outputs as one. Raises OSError."""
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

    def start_visible(self, argv: Sequence[str], cwd: Path) -> subprocess.Popen[bytes]:
        """A child in this group with our environment and outputs, and a pipe as its input. Raises OSError."""
        return subprocess.Popen(list(argv), cwd=cwd, stdin=subprocess.PIPE, process_group=self._watchdog.pid)

    def start_shown(self, argv: Sequence[str], cwd: Path, out: int | None, err: int | None) -> subprocess.Popen[bytes]:
        """A child in this group with our environment, these outputs (None: ours), and no input. Raises OSError."""
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


def _kill(watchdog: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(watchdog.pid, signal.SIGKILL)
    watchdog.wait()
    if watchdog.stdin is not None:
        watchdog.stdin.close()
