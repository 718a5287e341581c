"""Keeps the runner's socket, and starts a runner when somebody comes and there is none.

Knows asyncio and the runner's command line; not what it does. Invariant: the socket is there as long as this is; one
runner at a time takes connections from it, and a runner that ended (idle, killed, or because our code changed on disk)
is followed by another at the next connection. A runner whose keeper is gone ends with its last run.
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

BACKLOG = 32
AGAIN_S = 1.0
"""A runner that cannot be started is not tried more often."""


class RunnerKeeper:
    """All calls from the loop's thread. `directory`: the runtime directory."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: str) -> None:
        self._loop = loop
        self._path = Path(directory, RUNNER_SOCKET)
        self._listening = _listen(self._path)
        self._runner: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def pid(self) -> int:
        """Of the runner; 0 while there is none."""
        return 0 if self._runner is None else self._runner.pid

    def start(self) -> None:
        """Have a runner now, so that the first run finds it ready."""
        if self._closed or self._runner is not None:
            return
        self._loop.remove_reader(self._listening)
        handle = self._listening.fileno()
        try:
            self._runner = subprocess.Popen(
                [sys.executable, "-m", "pipeline.service.runner", str(handle)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(handle,),
            )
            ended = os.pidfd_open(self._runner.pid)
        except OSError:
            if self._runner is not None:
                self._runner.kill()
                self._runner.wait()
                self._runner = None
            self._loop.call_later(AGAIN_S, self.wait)
            return
        self._loop.add_reader(ended, self._ended, ended)

    def wait(self) -> None:
        """Start one when somebody comes."""
        if not self._closed and self._runner is None:
            self._loop.add_reader(self._listening, self.start)

    def _ended(self, handle: int) -> None:
        self._loop.remove_reader(handle)
        os.close(handle)
        runner, self._runner = self._runner, None
        if runner is not None:
            assert runner.stdin is not None
            runner.stdin.close()
            failed = runner.wait() != 0
            # One that dies at once must not be started as fast as it dies.
            self._loop.call_later(AGAIN_S, self.wait) if failed else self.wait()

    def close(self) -> None:
        """The socket goes; a run that is under way ends by itself. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listening)
        self._listening.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        if self._runner is not None and self._runner.stdin is not None:
            self._runner.stdin.close()


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
