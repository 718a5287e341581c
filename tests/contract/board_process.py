"""A board process and esptool's command line for the contract tests. Waits only for events, always with a deadline."""

from __future__ import annotations

import re
import selectors
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.forked import Python, run_python

ROOT = Path(__file__).parents[2]
DEADLINE_S = 300.0

# esptool and the bytes on the wire are untouched; pyserial's RFC 2217 client only looks for the server's
# acknowledgement after 2 ms instead of 50 ms, which it does about four times per loader command.
IMPATIENT = (
    "import time, types, serial.rfc2217 as client\n"
    "client.time = types.SimpleNamespace(time=time.time, sleep=lambda s: time.sleep(min(s, 0.002)))\n"
    "import esptool; esptool._main()"
)


class BoardProcess:
    """`python -m virtualboard`, ready when the constructor returns. `url` is where it listens."""

    def __init__(self, flash: Path, *extra: str, chip: str = "esp32c3", port: int = 0) -> None:
        command = ["--chip", chip, "--rfc2217", str(port), "--flash", str(flash), *extra]
        self.process: subprocess.Popen[bytes] = Python(
            ["-m", "virtualboard", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.ready = self._first_line()
        match = re.search(r"rfc2217://127\.0\.0\.1:(\d+)", self.ready)
        if match is None:
            _, errors = self.process.communicate(timeout=DEADLINE_S)
            raise AssertionError(f"the board did not start: {self.ready!r} {errors.decode()!r}")
        self.url, self.port = match[0], int(match[1])

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(DEADLINE_S):
                self.process.kill()
        return self.process.stdout.readline().decode()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it with a signal; exit status and what it wrote to stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, errors.decode()

    def __enter__(self) -> BoardProcess:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate(timeout=DEADLINE_S)


def esptool_cli(url: str, *args: str, cwd: Path, patient: bool = False) -> subprocess.CompletedProcess[str]:
    """Run esptool's command line against `url`; output of both streams in `stdout`."""
    program = ["-m", "esptool"] if patient else ["-c", IMPATIENT]
    return run_python(
        [*program, "--port", url, *args],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
    )


def run_ok(url: str, commands: Sequence[Sequence[str]], cwd: Path) -> list[str]:
    """Run command lines one after the other; their outputs. An exit status other than 0 is an assertion error."""
    outputs = []
    for args in commands:
        done = esptool_cli(url, *args, cwd=cwd)
        assert done.returncode == 0, f"esptool {' '.join(args)}\n{done.stdout}"
        outputs.append(done.stdout)
    return outputs
