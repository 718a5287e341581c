"""A child process whose output is taken line by line while it runs, and that can be asked to end.

Knows processes and threads, not what the lines mean. Invariants: the child and what it starts never outlive this
process; every line is handed over exactly once, in the order of its stream; what is kept of an output that has no end
is bounded.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from pipeline.effects.spawned import Group

LINE_BYTES = 1 << 24
"""A longer line is handed over in pieces: a report of 10,000 reasons has some MB."""

OnLine = Callable[[bool, bytes], None]
"""`on_line(is stderr, line)`, without its end; called from two threads, one per stream."""


class StreamedRun:
    """One command, started by the constructor. `ended(code)` is called once, from a thread, after the last line."""

    def __init__(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], on_line: OnLine, ended: Callable[[int], None]
    ) -> None:
        """Raises OSError when it cannot be started."""
        self._group = Group()
        self._timer: threading.Timer | None = None
        try:
            self._child = self._group.start(argv, cwd, env)
        except BaseException:
            self._group.kill()
            raise
        assert self._child.stdout is not None and self._child.stderr is not None
        streams = ((False, self._child.stdout), (True, self._child.stderr))
        self._readers = [threading.Thread(target=_hand_over, args=(*s, on_line), daemon=True) for s in streams]
        for reader in self._readers:
            reader.start()
        threading.Thread(target=self._wait, args=(ended,), daemon=True).start()

    def interrupt(self, patience_s: float) -> None:
        """As Ctrl-C in a terminal, once; killed when it has not ended after `patience_s`."""
        if self._timer is not None:
            return
        self._timer = threading.Timer(patience_s, self._group.kill)
        self._timer.daemon = True
        self._timer.start()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child.pid, signal.SIGINT)

    def _wait(self, ended: Callable[[int], None]) -> None:
        code = self._child.wait()
        if self._timer is not None:
            self._timer.cancel()
        self._group.kill()  # what it left behind may hold its pipes open
        for reader in self._readers:
            reader.join()
        ended(code)


def _hand_over(is_stderr: bool, stream: IO[bytes], on_line: OnLine) -> None:
    with stream:
        while line := stream.readline(LINE_BYTES):
            on_line(is_stderr, line.removesuffix(b"\n"))
