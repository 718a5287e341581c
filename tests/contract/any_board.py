"""A board process behind any transport, its control socket, and what it uses of memory. Every wait has a deadline."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.forked import Python

ROOT = Path(__file__).parents[2]
DEADLINE_S = 300.0


class AnyBoard:
    """`python -m virtualboard`, ready when the constructor returns. `url` is what a client opens."""

    def __init__(self, *options: str, chip: str = "esp32c3", control: Path | None = None) -> None:
        command = ["-m", "virtualboard", "--chip", chip, *options]
        command += ["--control", str(control)] if control else []
        self.process: subprocess.Popen[bytes] = Python(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.ready = self.line()
        if " on " not in self.ready:
            _, errors = self.process.communicate(timeout=DEADLINE_S)
            raise AssertionError(f"the board did not start: {self.ready!r} {errors.decode()!r}")
        self.url = self.ready.split(" on ")[1].split(",")[0].strip()
        self._control = control

    def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(DEADLINE_S):
                self.process.kill()
        return self.process.stdout.readline().decode()

    @property
    def port(self) -> int:
        """The TCP port in `url`."""
        return int(self.url.rpartition(":")[2])

    def ask(self, request: str) -> dict[str, Any]:
        """One request to the control socket; the answer."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE_S)
            client.connect(str(self._control))
            client.sendall(request.encode() + b"\n")
            with client.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
        return answer

    def until(self, **wanted: Any) -> dict[str, Any]:
        """Ask for the state until it is as `wanted`."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            state = self.ask("state")
            if all(state[key] == value for key, value in wanted.items()):
                return state
        raise AssertionError(f"the board never became {wanted}")

    def memory(self) -> dict[str, int]:
        """Resident and proportional bytes (Linux)."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(encoding="ascii")
        fields = (line.split() for line in rollup.splitlines()[1:])
        return {name.rstrip(":"): int(amount) * 1024 for name, amount, *_ in fields}

    def stop(self) -> tuple[int, str]:
        """SIGTERM; exit status and what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, errors.decode()

    def __enter__(self) -> AnyBoard:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate(timeout=DEADLINE_S)


def tcp(port: int) -> socket.socket:
    """A connection with a deadline."""
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)


def read_until(read: Any, wanted: bytes) -> bytes:
    """Call `read` until `wanted` has come; everything read. Ends early at the end of the stream, or when a board has
    said a megabyte and not that: one that restarts again and again would say it for ever."""
    got = b""
    while wanted not in got and len(got) < 1 << 20:
        piece = read(65536)
        if not piece:
            break
        got += piece
    return got


def terminal(path: str) -> int:
    """Open a pty slave for reading and writing, without making it the controlling terminal."""
    return os.open(path, os.O_RDWR | os.O_NOCTTY)
