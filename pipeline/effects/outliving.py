"""A process that outlives this one by as long as it takes to clean up: it ends by itself when its stdin does.

Knows pipes and processes, not what is kept. Invariant: it is in a session of its own, so that neither a Ctrl-C nor the
end of this process's group reaches it, and in nobody's directory; its stdin ends with this process, `kill -9` included;
no wait for it is without a deadline.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path


class OutlivingProcess:
    """Started by the constructor with one line on stdin. `close` it. Raises OSError when it cannot be started."""

    def __init__(self, module: str, arguments: Sequence[str], first: bytes) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(sys.executable).anchor,
            start_new_session=True,
            bufsize=0,
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="hotplate-outliving", daemon=True).start()
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(first + b"\n")

    def line(self, timeout_s: float) -> bytes | None:
        """The next line that it prints, without its end; `b""` once it has ended, None when the time is over."""
        try:
            line = self._lines.get(timeout=timeout_s) if timeout_s > 0 else self._lines.get_nowait()
        except queue.Empty:
            return None
        if not line:
            self._lines.put(b"")
        return line.rstrip(b"\n")

    def close(self) -> None:
        """It is not wanted any more: its stdin ends. What it still says can be read. Idempotent."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()

    def ended(self, timeout_s: float) -> bool:
        """Wait for its end, which comes some time after `close`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout_s)
            return True
        return False

    @property
    def pid(self) -> int:
        return self._child.pid

    def _read(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as stdout:
            pending = b""
            while block := os.read(stdout.fileno(), 1 << 16):
                *lines, pending = (pending + block).split(b"\n")
                for line in filter(None, lines):
                    self._lines.put(line)
        self._lines.put(b"")
