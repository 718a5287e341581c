"""Run a command to its end, so that it never outlives this process.

Knows processes, not what they are for. Invariant: every child leads its own session, and is gone, with all of its
descendants that stayed in it, when `run` returns, when `cancel` was called, and soon after this process ended anyhow.

`kill -9` of this process runs no handler. PR_SET_PDEATHSIG would need code between fork and exec, which is unsafe with
threads, and reaches only the direct child. So a watchdog (one `sh`, started with the first command) holds the read end
of a pipe that closes with this process, and then kills every process group that it was told of. What it misses is a
child that was forked but not yet told of: a window of some 100 us.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.effects.api import Clock, Completed

_WATCHDOG = """
live=" "
while read -r what group; do
  case $what in
    +) live="$live$group " ;;
    -) live="${live%% $group *} ${live#* $group }" ;;
  esac
done
for group in $live; do kill -9 -- "-$group" 2>/dev/null; done
"""
_REAP_S = 5.0
"""How long to wait for the pipes of a killed child: a descendant that left its session may hold them open."""


class SystemProcessRunner:
    """The real runner; several threads may `run` at once. `close` it, or let it be collected."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._live: set[int] = set()
        self._cancelled = False
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., SystemProcessRunner] | None = None

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Completed:
        """Run `argv` (no shell; `argv[0]` is a path) with exactly `env` and no input. Raises TimeoutError when it was
        killed for taking longer, KeyboardInterrupt after `cancel`, OSError when it cannot be started."""
        began_s = self._clock.now_s()
        with self._lock:
            # Started under the lock: `cancel` sees each child either not started or in `_live`.
            if self._cancelled:
                raise KeyboardInterrupt
            child = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._live.add(child.pid)
            self._tell("+", child.pid)
        try:
            with child:
                stdout, stderr = self._wait(child, timeout_s)
        finally:
            # The leader has been waited for; its group may still hold descendants.
            _kill_group(child.pid)
            with self._lock:
                self._live.discard(child.pid)
                self._tell("-", child.pid)
        if self._cancelled:
            raise KeyboardInterrupt
        return Completed(child.returncode, stdout, stderr, self._clock.now_s() - began_s)

    def cancel(self) -> None:
        """Kill every child under way; this and every further `run` raises KeyboardInterrupt."""
        with self._lock:
            self._cancelled = True
            for group in self._live:
                _kill_group(group)

    def close(self) -> None:
        """End the watchdog. Children are not waited for: `cancel` first if any can be under way."""
        if self._end is not None:
            self._end()

    def _wait(self, child: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes]:
        try:
            return child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill_group(child.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=_REAP_S)
            raise TimeoutError(f"{child.args!r} did not end within {timeout_s} s") from None
        except BaseException:
            _kill_group(child.pid)
            raise

    def _tell(self, what: str, group: int) -> None:
        if self._watchdog is None:
            self._watchdog = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                start_new_session=True,
            )
            self._end = weakref.finalize(self, _end_watchdog, self._watchdog)
        pipe = self._watchdog.stdin
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe.fileno(), f"{what} {group}\n".encode())


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _end_watchdog(watchdog: subprocess.Popen[bytes]) -> None:
    if watchdog.stdin is not None:
        watchdog.stdin.close()
    watchdog.wait()
