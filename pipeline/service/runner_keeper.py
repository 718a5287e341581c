"""Keeps the runner's socket, and starts a runner when somebody comes and there is none.

Knows asyncio and the runner's command line; not what it does. Invariants: the socket is there as long as this is; one
runner at a time takes connections from it, and one that ended (idle, killed, or because our code changed on disk) is
followed by another at the next connection, which is refused at once and so waits for nothing. A runner whose keeper is
gone ends with its last run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from pipeline.client.endpoint import RUNNER_SOCKET
from pipeline.client.run_frame import REFUSED, frame

BACKLOG = 32
AGAIN_S = 1.0
"""A runner that cannot be started is not tried more often."""


class RunnerKeeper:
    """All calls from the loop's thread. `directory`: the runtime directory. Raises OSError."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: str) -> None:
        self._loop = loop
        self._path = Path(directory, RUNNER_SOCKET)
        self._listening = _listen(self._path)
        self._runner: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._next_s = float("-inf")
        self._closed = False
        loop.add_reader(self._listening, self._come)

    @property
    def pid(self) -> int:
        """Of the runner that takes connections; 0 while there is none."""
        return self._runner.pid if self._runner is not None and self._ready else 0

    def _come(self) -> None:
        """Somebody wants a runner, and there is none: he works alone, and the next one need not."""
        with contextlib.suppress(OSError):
            connection, _ = self._listening.accept()
            with connection:
                connection.setblocking(False)
                connection.sendall(frame(REFUSED, b"the runner is being started"))
        if self._runner is None and self._loop.time() >= self._next_s:
            self._start()

    def _start(self) -> None:
        self._next_s = self._loop.time() + AGAIN_S
        handle = self._listening.fileno()
        argv = [sys.executable, "-m", "pipeline.service.runner", str(handle)]
        with contextlib.suppress(OSError):
            self._runner = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(handle,), cwd="/"
            )
            assert self._runner.stdout is not None
            self._loop.add_reader(self._runner.stdout, self._heard, self._runner)

    def _heard(self, runner: subprocess.Popen[bytes]) -> None:
        """A runner says that it is ready, or has ended."""
        assert runner.stdout is not None and runner.stdin is not None
        if os.read(runner.stdout.fileno(), 1):
            self._ready = True
            self._loop.remove_reader(self._listening)
            return
        self._loop.remove_reader(runner.stdout)
        runner.stdout.close()
        runner.stdin.close()
        runner.wait()
        self._runner, self._ready = None, False
        if not self._closed:
            self._loop.add_reader(self._listening, self._come)

    def close(self) -> None:
        """The socket goes; a run that is under way ends by itself. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listening)
        self._listening.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        runner = self._runner
        if runner is not None and runner.stdin is not None and runner.stdout is not None:
            self._loop.remove_reader(runner.stdout)
            runner.stdout.close()
            runner.stdin.close()


def _listen(path: Path) -> socket.socket:
    """0600 from the first instant. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    listening.setblocking(False)
    return listening
