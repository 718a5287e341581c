"""Commands that one thread has started and waits for at once, without a thread for each.

The waiting side of `process.py`. Knows handles and ends of children, not what they are for. Invariant: each command
that was started is named by `ended` once, or killed by `close`.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.effects.api import Completed
from pipeline.effects.spawned import Running

LOOK_S = 0.5
"""How often to look whether a command that prints nothing is still wanted."""
_SILENT_S = 0.002
"""How often to look whether one has ended whose outputs are closed."""


class StartsCommands(Protocol):
    """What is asked of a runner: see `process.SystemProcessRunner`."""

    def start(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Running: ...
    def trouble_of(self, command: Running) -> BaseException | None: ...
    def finish(self, command: Running, trouble: BaseException | None = None) -> Completed: ...


class PolledChildren:
    """See `api.Children`."""

    def __init__(self, runner: StartsCommands) -> None:
        self._runner = runner
        self._poll = select.poll()
        self._by_handle: dict[int, Running] = {}
        self._silent: list[Running] = []
        """Those whose pipes are closed."""
        self._running: set[Running] = set()
        self._look_s = time.monotonic() + LOOK_S
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._closing = threading.Lock()
        self._poll.register(self._wake, select.POLLIN)

    def start(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> object:
        command = self._runner.start(argv, cwd=cwd, env=env, timeout_s=timeout_s)
        self._running.add(command)
        for handle in command.child.open:
            self._by_handle[handle] = command
            self._poll.register(handle, select.POLLIN)
        return command

    def ended(self, timeout_s: float) -> Sequence[tuple[object, Completed | BaseException]]:
        found: list[tuple[object, Completed | BaseException]] = []
        wait_s = min(timeout_s, max(0.0, self._look_s - time.monotonic()), _SILENT_S if self._silent else LOOK_S)
        for handle, _ in self._poll.poll(wait_s * 1000):
            if handle == self._wake:
                os.read(self._wake, 1 << 12)
            elif (command := self._by_handle.get(handle)) is not None and self._is_complete(command, handle):
                found.append((command, self._result(command, None)))
        found += [(command, self._result(command, None)) for command in self._silent if command.child.has_ended(0)]
        if time.monotonic() >= self._look_s:
            self._look_s = time.monotonic() + LOOK_S
            for command in list(self._running):
                trouble = self._runner.trouble_of(command)
                if trouble is not None:
                    found.append((command, self._result(command, trouble)))
        return found

    def wake(self) -> None:
        with self._closing, contextlib.suppress(OSError):  # full: it will wake
            if self._waker >= 0:  # whoever wakes may come late, and the number be another file's by then
                os.write(self._waker, b"!")

    def close(self) -> None:
        for command in list(self._running):
            self._result(command, KeyboardInterrupt())
        with self._closing:
            os.close(self._wake)
            os.close(self._waker)
            self._waker = -1

    def _is_complete(self, command: Running, handle: int) -> bool:
        """Something came on one of its handles: was that its end?"""
        child = command.child
        if child.read(handle):
            return False
        self._forget(handle)
        if child.open:
            return False
        if child.has_ended(0):
            return True
        self._silent.append(command)  # it goes on without its pipes; most are gone a moment later
        return False

    def _result(self, command: Running, trouble: BaseException | None) -> Completed | BaseException:
        self._running.discard(command)
        for handle in command.child.open:
            self._forget(handle)
        if self._silent:
            self._silent = [one for one in self._silent if one is not command]
        try:
            return self._runner.finish(command, trouble)
        except BaseException as error:  # what `run` would have raised, for whoever waits for this one
            return error

    def _forget(self, handle: int) -> None:
        del self._by_handle[handle]
        self._poll.unregister(handle)
