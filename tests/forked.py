"""`python -m doit`, `-m virtualboard`, `-m esptool` as tests start them: forked from where they are imported already.

`Python(words, ...)` is `subprocess.Popen([sys.executable, *words], ...)`, in a fraction of the time. Where a real start
may give something else (options or variables of the interpreter, modules in the directory, another system) it is one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODULES = ("doit", "virtualboard", "esptool")
STEERING = ("PYTHON", "LC_", "LANG", "LD_", "GRPC_")
START_TIMEOUT_S = 300
REAL = "TESTS_START_PYTHON"
"""In the environment of pytest: every start is a real one."""


class ForkServer:
    """`tests/fork_server.py` of this process, which ends with it. `names`: the modules that it has imported."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.steered = steering(os.environ)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )
        self.control.settimeout(START_TIMEOUT_S)
        self.names = frozenset(json.loads(self.control.recv(1 << 20)))

    def close(self) -> None:
        self.control.close()
        self.process.wait(START_TIMEOUT_S)


@cache
def fork_server() -> ForkServer:
    """The one of this process, started when it is first needed."""
    return ForkServer()


def end_fork_server() -> None:
    if fork_server.cache_info().currsize:
        fork_server().close()
        fork_server.cache_clear()


def steering(env: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter reads from its environment when it starts, but the path, which can be moved later."""
    return {name: value for name, value in env.items() if name.startswith(STEERING) and name != "PYTHONPATH"}


def same_when_forked(words: Sequence[str], cwd: Path, env: Mapping[str, str]) -> bool:
    """Would a start of the interpreter import the very modules that the fork server holds?"""
    if os.environ.get(REAL) or not hasattr(os, "pidfd_open") or env.get("PYTHONPATH", "") not in ("", str(ROOT)):
        return False
    if words[0] != "-c" and (words[0] != "-m" or words[1] not in MODULES):
        return False
    server = fork_server()
    if server.pid != os.getpid() or steering(env) != server.steered:
        return False
    with contextlib.suppress(OSError):
        own = {path.name.partition(".")[0] for path in cwd.iterdir()}
        return cwd == ROOT or not own & server.names
    return False


class Python(subprocess.Popen[Any]):
    """`subprocess.Popen` of this interpreter with `words`; options as Popen's."""

    def __init__(self, words: Sequence[str], **how: Any) -> None:
        self._status: socket.socket | None = None
        self._words = list(words)
        env = os.environ if how.get("env") is None else how["env"]
        self._forked = same_when_forked(self._words, Path.cwd() / (how.get("cwd") or "."), env)
        super().__init__([sys.executable, *words], **how)

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec_fn: Any,
        close_fds: Any,
        pass_fds: Any,
        cwd: Any,
        env: Any,
        startupinfo: Any,
        creationflags: Any,
        shell: Any,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        restore_signals: Any,
        gid: Any,
        gids: Any,
        uid: Any,
        umask: Any,
        start_new_session: bool,
        process_group: Any,
    ) -> None:
        """Where Popen forks and executes, ask the server to fork."""
        ends = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        if not self._forked or preexec_fn or pass_fds:
            more = (restore_signals, gid, gids, uid, umask, start_new_session, process_group)
            first = (args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell)
            super()._execute_child(*first, *ends, *more)  # type: ignore[misc]
            return
        now = os.umask(0o077)
        os.umask(now)
        request = {
            "argv": self._words,
            "cwd": os.path.abspath(cwd or "."),  # noqa: PTH100 - a link stays one
            "env": dict(os.environ if env is None else env),
            "umask": now,
            "new_session": start_new_session,
            "sigint_ignored": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        }
        streams = [fd if fd >= 0 else own for own, fd in enumerate((p2cread, c2pwrite, errwrite))]
        self._status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(fork_server().control, [json.dumps(request).encode()], [*streams, theirs.fileno()])
        self.pid = int(self._status.recv(64))
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]

    def _ended(self, timeout_s: float | None) -> bool:
        """Wait for the server's word."""
        if self.returncode is None and self._status is not None:
            if not select.select([self._status], [], [], timeout_s)[0]:
                return False
            with self._status as status:
                self.returncode = int(status.recv(64) or b"255")
        return True

    def _internal_poll(self, *args: Any, **how: Any) -> int | None:
        if self._status is None:
            return super()._internal_poll(*args, **how)  # type: ignore[misc, no-any-return]
        self._ended(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._status is None:
            return super()._wait(timeout)  # type: ignore[misc, no-any-return]
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode


def run_python(
    words: Sequence[str], *, input: Any = None, timeout: float | None = None, **how: Any
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run([sys.executable, *words], check=False, ...)`."""
    if how.pop("capture_output", False):
        how.update(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if input is not None:
        how["stdin"] = subprocess.PIPE
    with Python(words, **how) as child:
        try:
            out, err = child.communicate(input, timeout)
        except BaseException:
            child.kill()
            raise
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)
