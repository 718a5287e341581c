"""A program of this machine as a serial line: what it prints is what arrives, what is sent is its input.

For firmware that was built as a process. Does not know what it says. Invariant: the process ends with `close`, and with
this process, and no byte that it printed is lost; a reset ends it and starts it anew.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from pipeline.effects.api import Gap
from pipeline.effects.spawned import Group
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import FailureCategory, Stage

END_S = 5.0
"""How long a program has to end when it is asked to."""


class ProcessLink:
    """`SerialLink` over the program `argv`, started in `cwd` by the first reset."""

    real_time = True

    def __init__(self, argv: Sequence[str], cwd: Path, environment: Mapping[str, str], where: str) -> None:
        self._argv, self._cwd, self._environment, self._where = list(argv), cwd, dict(environment), where
        self._group = Group()
        self._child: subprocess.Popen[bytes] | None = None
        self._chunks: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._life = 0
        """Counts starts: what an earlier process printed belongs to no later one."""
        self.gaps: list[Gap] = []

    @property
    def name(self) -> str:
        return self._argv[0]

    def now_s(self) -> float:
        return time.monotonic()

    def release_reset(self) -> float:
        """End the program if it runs, and start it. Raises DeviceError."""
        self._stop()
        self._life += 1
        try:
            child = self._group.start_talking(self._argv, self._cwd, self._environment)
        except OSError as error:
            raise self._failed(f"the program cannot be started: {error.strerror}") from None
        self._child = child
        threading.Thread(target=self._read, args=(child.stdout, self._life), name="host-program", daemon=True).start()
        return self.now_s()

    def _read(self, stdout: IO[bytes], life: int) -> None:
        """Until its end, or that of whatever it left behind with its output open."""
        data = b"?"
        with stdout:
            while data:
                try:
                    data = stdout.read(65536)
                except OSError:
                    data = b""
                self._chunks.put((life, data))

    def read(self, timeout_s: float) -> bytes:
        """What it printed. Raises DeviceError when it has ended."""
        end_s = self.now_s() + timeout_s
        while True:
            try:
                life, data = self._chunks.get(timeout=max(0.0, end_s - self.now_s()))
            except queue.Empty:
                return b""
            if life != self._life:
                continue
            if not data:
                self._chunks.put((life, data))  # for whoever reads next
                raise self._failed(f"the program has ended{self._code()}")
            return data

    def _code(self) -> str:
        code = None
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._child.wait(END_S)
        return "" if code is None else f" with {code}"

    def write(self, data: bytes) -> None:
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(OSError):  # its end is told where it is read
                self._child.stdin.write(data)

    def set_baud(self, baud: int) -> None:
        """A process has none."""

    def close(self) -> None:
        self._stop()
        self._group.kill()

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
        child.terminate()
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._life += 1

    def _failed(self, message: str) -> DeviceError:
        return DeviceError(fail(FailureCategory.NO_OUTPUT, stage=Stage.TTFB, where=self._where, message=message))
