"""Run commands to their end, so that none outlives this process.

Knows processes, not what they are for. Invariant: each is in a group of `spawned`, which ends with this process.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.effects.api import Children, Clock, Completed
from pipeline.effects.children import LOOK_S, PolledChildren, Served
from pipeline.effects.spawned import MOST_KEPT, Group, Running, Spawned, first_group

if TYPE_CHECKING:  # what builds need not load: see `spawned`
    import subprocess

    from pipeline.effects.command_server import CommandEnd, CommandServer

_READY_S = 20.0
_ENDED_S = 0.1
"""How often to look whether a command has ended whose outputs are still open."""


class SystemProcessRunner:
    """The real runner; several threads may `run` at once. `close` it, or let it be collected."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: list[Group] = []
        self._busy: set[Group] = set()
        self._cancelled = False
        self._program: Callable[[], str | None] = lambda: None
        self._servers: list[CommandServer] = []

    def starts_with(self, program: Callable[[], str | None]) -> None:
        """`program`: asked for the path of what starts commands where there are many (`command_server.py`)."""
        self._program = program

    def server(self) -> CommandServer | None:
        """What starts commands, running in our directory; None where there is none. Raises KeyboardInterrupt after
        `cancel`."""
        program = self._program()
        if program is None:
            return None
        from pipeline.effects.command_server import CommandServer

        with self._lock, contextlib.suppress(OSError):
            if self._cancelled:
                raise KeyboardInterrupt
            server = CommandServer(program)
            if server.is_well():
                self._servers.append(server)
                return server
            server.let_go()
            os.unlink(program)  # noqa: PTH108 - it is made anew
        return None

    def began_s(self) -> float:
        """The instant at which a command begins. Raises KeyboardInterrupt after `cancel`."""
        if self._cancelled:
            raise KeyboardInterrupt
        return self._clock.now_s()

    def finished(self, command: Served, answer: CommandEnd) -> Completed:
        """What a command did that `server` has started. Raises as `run`."""
        if self._cancelled:
            raise KeyboardInterrupt
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error), command.argv[0])
        duration_s, ended_ns = self._clock.now_s() - command.began_s, time.monotonic_ns()
        return Completed(answer.exit_code, answer.stdout, answer.stderr, duration_s, ended_ns)

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        """Run `argv` (no shell; `argv[0]` is a path) with exactly `env` and no input. Raises TimeoutError when it was
        killed for taking longer, KeyboardInterrupt after `cancel`, OSError when it cannot be started."""
        command = self.start(argv, cwd=cwd, env=env, timeout_s=timeout_s)
        trouble: BaseException | None = None
        try:
            while trouble is None and not command.child.is_complete(LOOK_S):
                trouble = self.trouble_of(command)
        except BaseException as error:
            trouble = error
        return self.finish(command, trouble)

    def start(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Running:
        """As `run`, without waiting: whoever starts it asks `trouble_of` now and then, and calls `finish`."""
        began_s = self._clock.now_s()
        with self._lock:
            # Started under the lock: `cancel` finds each child either not started or in a busy group.
            if self._cancelled:
                raise KeyboardInterrupt
            group = self._idle.pop() if self._idle else first_group()
            self._busy.add(group)
            try:
                child = Spawned(group, argv, cwd, env)
            except BaseException:
                self._busy.discard(group)
                group.kill()
                raise
        return Running(group, child, began_s, timeout_s)

    def trouble_of(self, command: Running | Served) -> BaseException | None:
        """Why a command is not to be waited for any longer, if so. A descendant that left the group may hold its pipes
        open for ever, so that the end of a cancelled run, and of one that took too long, is not left to it."""
        if self._cancelled:
            return KeyboardInterrupt()
        if self._clock.now_s() > command.began_s + command.timeout_s:
            return TimeoutError(f"{command.argv!r} did not end within {command.timeout_s} s")
        return None

    def finish(self, command: Running, trouble: BaseException | None = None) -> Completed:
        """What a command did that is complete; with `trouble`, which is raised, it is killed first."""
        group, child = command.group, command.child
        try:
            if trouble is not None:
                group.kill()
                child.kill()  # it may have left the group
                raise trouble
        finally:
            child.close()
            with self._lock:
                self._busy.discard(group)
                if group.alive:
                    self._idle.append(group)
        if self._cancelled:
            raise KeyboardInterrupt
        ended_ns = time.monotonic_ns()
        return Completed(
            child.exit_code, child.printed(0), child.printed(1), self._clock.now_s() - command.began_s, ended_ns
        )

    def together(self) -> Children:
        """For a thread that starts many, and waits for all of them at once."""
        return PolledChildren(self)

    def cancel(self) -> None:
        """Kill every child under way; this and every further `run` raises KeyboardInterrupt."""
        with self._lock:
            self._cancelled = True
            for group in (*self._busy, *self._idle):
                group.kill()
            self._idle.clear()
            for server in self._servers:
                server.close()

    def close(self) -> None:
        """End idle watchdogs, and whatever a command left running behind itself."""
        with self._lock:
            for group in self._idle:
                group.kill()
            self._idle.clear()
            for server in self._servers:
                server.close()


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
    it to stderr); its exit code, negative for a signal, and the last `MOST_KEPT` bytes that it printed. Where ours goes
    to a terminal, it has one of its own. Raises OSError when it cannot be started."""
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
        import selectors

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
        while self._size - len(self._kept[0]) > MOST_KEPT:
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
    import subprocess

    with subprocess.Popen(list(argv), env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        started(child.pid)
        out, err = child.communicate()
        return child.returncode, out, err


@contextlib.contextmanager
def background(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Iterator[str]:
    """A server, running for as long as the block does; gives the first line that it prints, which says that it is
    ready. Raises TimeoutError when that does not come."""
    import selectors

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
