"""Commands that one thread has started and waits for at once, without a thread for each.

The waiting side of `process.py`. Knows handles and ends of children, not what they are for. Where many are started, a
program of ours starts those that follow, if there is one: see `command_server.py`. Invariant: each command that was
started is named by `ended` once, or killed by `close`.
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

TYPE_CHECKING = False  # type checkers know the name
if TYPE_CHECKING:
    from pipeline.effects.command_server import CommandEnd, CommandServer

LOOK_S = 0.5
"""How often to look whether a command that prints nothing is still wanted."""
_KILLED_S = 5.0
"""How long the program may take to say that what it was to kill is gone."""
_SILENT_S = 0.002
"""How often to look whether one has ended whose outputs are closed."""


FEW, AGAIN = 16, 256
"""So many are started by this process, before it is worth to start what starts the others; and after so many more it is
asked again whether there is one by now."""


class Served:
    """A command that the program has started, or will, under this number; in the environment `env`."""

    __slots__ = ("argv", "began_s", "env", "number", "timeout_s")

    def __init__(
        self, number: int, argv: Sequence[str], env: Mapping[str, str], began_s: float, timeout_s: float
    ) -> None:
        self.number, self.argv, self.env, self.began_s, self.timeout_s = number, argv, env, began_s, timeout_s


class StartsCommands(Protocol):
    """What is asked of a runner: see `process.SystemProcessRunner`."""

    def start(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> Running: ...
    def trouble_of(self, command: Running | Served) -> BaseException | None: ...
    def finish(self, command: Running, trouble: BaseException | None = None) -> Completed: ...
    def server(self) -> CommandServer | None: ...
    def began_s(self) -> float: ...
    def finished(self, command: Served, answer: CommandEnd) -> Completed: ...


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
        self._started = 0
        self._server: CommandServer | None = None
        self._served: dict[int, Served] = {}
        self._troubles: dict[int, tuple[BaseException, float]] = {}
        """Of those that were killed, why, and when."""
        self._again: dict[Running, Served] = {}
        """Commands that this process has started since the program was gone that had started them: what they go by."""

    def start(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> object:
        self._started += 1
        if self._server is None and self._started % AGAIN == FEW and (server := self._runner.server()) is not None:
            self._server = server
            self._poll.register(server.handle, select.POLLIN)
        if self._server is not None and self._server.cwd == str(cwd):
            served = Served(self._started, argv, env, self._runner.began_s(), timeout_s)
            with contextlib.suppress(OSError):  # it has ended, which `ended` finds out
                self._server.start(served.number, argv, env)
                self._served[served.number] = served
                return served
        return self._start_here(argv, cwd, env, timeout_s)

    def _start_here(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], timeout_s: float) -> Running:
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
            elif self._server is not None and handle == self._server.handle:
                found += self._answered(self._server)
            elif (command := self._by_handle.get(handle)) is not None and self._is_complete(command, handle):
                found.append(self._result(command, None))
        found += [self._result(command, None) for command in self._silent if command.child.has_ended(0)]
        if time.monotonic() >= self._look_s:
            self._look_s = time.monotonic() + LOOK_S
            self._look_at_served()
            for command in list(self._running):
                trouble = self._runner.trouble_of(command)
                if trouble is not None:
                    found.append(self._result(command, trouble))
        return found

    def _answered(self, server: CommandServer) -> list[tuple[object, Completed | BaseException]]:
        found: list[tuple[object, Completed | BaseException]] = []
        try:
            for answer in server.answers():
                served = self._served.pop(answer.number, None)
                if served is not None:  # else nobody asked
                    found.append((served, self._outcome(served, answer)))
        except OSError:
            self._poll.unregister(server.handle)
            self._server = None
            server.let_go()
            found += self._started_again(Path(server.cwd))
        return found

    def _started_again(self, cwd: Path) -> list[tuple[object, Completed | BaseException]]:
        """What the program had started was killed with it, and is begun anew. Those that are done with thereby."""
        found: list[tuple[object, Completed | BaseException]] = []
        lost, self._served = self._served, {}
        for served in lost.values():
            trouble, _ = self._troubles.pop(served.number, (self._runner.trouble_of(served), 0.0))
            try:
                if trouble is not None:
                    raise trouble
                self._again[self._start_here(served.argv, cwd, served.env, served.timeout_s)] = served
            except BaseException as error:
                found.append((served, error))
        return found

    def _outcome(self, served: Served, answer: CommandEnd) -> Completed | BaseException:
        trouble, _ = self._troubles.pop(served.number, (None, 0.0))
        if trouble is not None:
            return trouble
        try:
            return self._runner.finished(served, answer)
        except BaseException as error:  # what `run` would have raised, for whoever waits for this one
            return error

    def _look_at_served(self) -> None:
        """Is each still wanted? One that is not is answered for when it is gone."""
        now_s, is_stuck = time.monotonic(), False
        for served in self._served.values():
            trouble = self._runner.trouble_of(served)
            if trouble is None or self._server is None:
                continue
            _, killed_s = self._troubles.setdefault(served.number, (trouble, now_s))
            is_stuck = is_stuck or now_s > killed_s + _KILLED_S
            if killed_s == now_s:
                with contextlib.suppress(OSError):  # its end comes to be known in another way
                    self._server.kill(served.number)
        if is_stuck and self._server is not None:
            self._server.close()  # and so `answers` has its end

    def wake(self) -> None:
        with self._closing, contextlib.suppress(OSError):  # full: it will wake
            if self._waker >= 0:  # whoever wakes may come late, and the number be another file's by then
                os.write(self._waker, b"!")

    def close(self) -> None:
        for command in list(self._running):
            self._result(command, KeyboardInterrupt())
        if self._server is not None:
            self._server.let_go()
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

    def _result(self, command: Running, trouble: BaseException | None) -> tuple[object, Completed | BaseException]:
        """By what it goes, and what it did."""
        return self._again.pop(command, command), self._finished(command, trouble)

    def _finished(self, command: Running, trouble: BaseException | None) -> Completed | BaseException:
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
