"""A service of a test's own: `doit serve` in a runtime directory with a short name, and a plain viewer of it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from pipeline.client.connection import Connection, NoService
from pipeline.client.protocol import (
    ConsoleChunk,
    ConsoleEntry,
    ConsoleNote,
    DeviceRef,
    Message,
    ServiceFrame,
    decode_entry,
)
from tests.e2e.space import environment
from tests.forked import Python

TIMEOUT_S = 300


class ServiceProcess:
    """`doit serve` until the test ends."""

    def __init__(self, runtime: Path, project: Path) -> None:
        self.runtime = runtime
        self.project = project
        self.start()

    def start(self, **env: str) -> None:
        self.child: subprocess.Popen[str] = Python(
            ["-m", "doit", "serve"],
            cwd=self.project,
            env=environment(XDG_RUNTIME_DIR=str(self.runtime), **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.child.stdout is not None
        ready = self.child.stdout.readline()
        assert "listening on" in ready, ready + self.child.stdout.read()

    def kill(self) -> None:
        self.child.kill()
        self.child.communicate(timeout=TIMEOUT_S)

    def stop(self) -> str:
        """What it had to say."""
        if self.child.stdout is None or self.child.stdout.closed:
            return ""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        out, _ = self.child.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in out, out
        return out

    def status(self) -> dict[str, Any]:
        connection = Connection.open(timeout_s=TIMEOUT_S)
        try:
            return dict(connection.request(Message.STATUS, timeout_s=TIMEOUT_S).header)
        finally:
            connection.close()


@contextlib.contextmanager
def short_runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory for a service and its clients; sockets have little room for their names."""
    directory = Path(tempfile.mkdtemp(prefix="hp-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class PlainViewer:
    """Watches one console in a thread, and keeps everything."""

    def __init__(self, device: DeviceRef, since: str = "all") -> None:
        self.entries: list[ConsoleEntry] = []
        self.data = bytearray()
        """All bytes, of both channels."""
        self.error = ""
        self._changed = threading.Condition()
        self._connection = Connection.open(timeout_s=TIMEOUT_S)
        answer = self._connection.request(
            Message.WATCH, timeout_s=TIMEOUT_S, device=device._asdict(), since={"what": since, "number": 0}
        )
        assert answer.message == Message.DONE, answer
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                entry = decode_entry(self._connection.receive(None))
                with self._changed:
                    self.entries.append(entry)
                    self.data += entry.data if isinstance(entry, ConsoleChunk) else b""
                    self._changed.notify_all()
        except NoService as error:
            self.error = str(error)

    @property
    def chunks(self) -> list[ConsoleChunk]:
        return [entry for entry in self.entries if isinstance(entry, ConsoleChunk)]

    @property
    def notes(self) -> list[ConsoleNote]:
        return [entry for entry in self.entries if isinstance(entry, ConsoleNote)]

    def kinds(self) -> list[str]:
        return [note.kind.value for note in self.notes]

    def wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        with self._changed:
            while not ready():
                assert self._changed.wait(deadline - time.monotonic()), str(self.entries[-20:])[-2000:]

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> PlainViewer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def ask(message: Message, **fields: Any) -> ServiceFrame:
    """One question."""
    connection = Connection.open(timeout_s=TIMEOUT_S)
    try:
        return connection.request(message, timeout_s=TIMEOUT_S, **fields)
    finally:
        connection.close()


def eventually(ready: Callable[[], bool]) -> None:
    """Look again and again, since nobody tells."""
    deadline = time.monotonic() + TIMEOUT_S
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)
