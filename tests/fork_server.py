"""Starts `python -m doit`, `-m virtualboard` and `-m esptool` for tests by forking: everything is imported once.

The child is a process of its own with its own arguments, directory, environment and streams, and ends as an interpreter
ends. What it is not: a start of the interpreter, so whoever counts imports, tests a start or steers the interpreter by
its environment starts a real one (`tests/forked.py` tells them apart). Knows nothing of any test. Invariant: it has one
thread and opens no file that a child could see.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import io
import json
import os
import selectors
import signal
import socket
import sys
import threading
from types import ModuleType

from doit import cmd_run

PRELOADED = (
    *("doit.doit_cmd", "doit.cmd_run", "doit.loader"),
    *("pipeline.tasks", "pipeline.cli.reporter", "pipeline.cli.commands", "pipeline.cli.direct"),
    *("pipeline.run.engines", "pipeline.run.device_service", "pipeline.toolchain.build"),
    *("virtualboard.server", "virtualboard.port", "virtualboard.active_faults", "virtualboard.control_socket"),
    *("virtualboard.rv32", "virtualboard.tcp", "unicorn"),
    *("esptool", "esptool.cmds", "esptool.targets", "serial", "serial.rfc2217"),
)
REQUEST = 1 << 20


def preload() -> None:
    """Import what a deploy and a board import."""
    spec = importlib.util.find_spec("doit")
    assert spec is not None and spec.origin is not None
    sys.argv = [spec.origin.replace("__init__", "__main__")]  # doit takes its name from there
    for name in PRELOADED:
        importlib.import_module(name)


def serve(control: socket.socket) -> dict[str, object] | None:
    """Fork for each request until the other end goes: None. In a child: what it is to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    pid, status = key.data
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _tell(status, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    status.close()
                    continue
                data, fds, _, _ = socket.recv_fds(control, REQUEST, 4)
                if not data:
                    return None
                pid = os.fork()
                if pid == 0:
                    request: dict[str, object] = json.loads(data)
                    _become(request, fds[:3])
                    return request
                for fd in fds[:3]:
                    os.close(fd)
                status = socket.socket(fileno=fds[3])
                _tell(status, pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))


def _tell(status: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # whoever asked is gone
        status.send(str(number).encode())


def _become(request: dict[str, object], streams: list[int]) -> None:
    """Streams, directory, environment and signals of the process that was asked for."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    os.closerange(3, 1 << 16)
    if request["new_session"]:
        os.setsid()
    os.chdir(str(request["cwd"]))
    os.umask(int(str(request["umask"])))
    env = request["env"]
    assert isinstance(env, dict)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.SIG_IGN if request["sigint_ignored"] else signal.default_int_handler)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin, sys.stdout, sys.stderr = _stream(0, "r"), _stream(1, "w", unbuffered), _stream(2, "w", unbuffered)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    # A default that doit takes when it is imported, and that nobody would flush.
    cmd_run.opt_outfile["default"] = sys.stdout


def _stream(fd: int, mode: str, unbuffered: bool = False) -> io.TextIOWrapper:
    """As the interpreter opens them."""
    raw = io.FileIO(fd, mode, closefd=False)
    buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    stream = io.TextIOWrapper(
        buffer,
        encoding=sys.getfilesystemencoding(),
        errors="backslashreplace" if fd == 2 else "strict",
        line_buffering=(fd == 2 or raw.isatty()),
        write_through=unbuffered,
    )
    stream.mode = mode  # type: ignore[misc]
    return stream


def run(request: dict[str, object], base: list[str]) -> None:
    """The last act of a child: what `python ARGV` does."""
    import runpy
    import tempfile

    gc.enable()
    tempfile.tempdir = None
    argv = request["argv"]
    assert isinstance(argv, list)
    sys.orig_argv = [sys.executable, *argv]
    above = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    how, what, *rest = argv
    if how == "-m":
        sys.path[:] = [str(request["cwd"]), *above, *base]
        sys.argv = ["-m", *rest]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.path[:] = ["", *above, *base]
        sys.argv = ["-c", *rest]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


def leave(code: object) -> None:
    """End as the interpreter does, but without tearing down the many modules. An exception goes the ordinary way."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
    except OSError:
        return
    os._exit((code or 0) & 0xFF)


def main() -> None:
    base = [entry for entry in sys.path[1:] if entry]
    control = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()
    preload()
    gc.freeze()
    control.send(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})).encode())
    request = serve(control)
    if request is not None:
        try:
            run(request, base)
        except SystemExit as exit_:
            leave(exit_.code)
        leave(None)


if __name__ == "__main__":
    main()
