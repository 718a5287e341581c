"""`doit monitor` through the resident service: several at once, across deploys, resets and the end of the service."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.client.protocol import Channel, DeviceRef, Holder
from pipeline.client.served_port import borrow
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Space, environment
from tests.forked import Python
from tests.serving import PlainViewer, ServiceProcess, eventually, short_runtime_dir

TIMEOUT_S = 300


class MonitorProcess:
    """`doit monitor`, with what it wrote so far."""

    def __init__(self, space: Space, scratch: Path, *options: str) -> None:
        self._out, self._err = scratch / f"{id(self)}.out", scratch / f"{id(self)}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.child = Python(
                ["-m", "doit", "monitor", *options],
                cwd=space.path,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> bytes:
        return self._out.read_bytes()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def type(self, text: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(text.encode())
        self.child.stdin.flush()

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """On either stream."""

        def there() -> bool:
            assert self.child.poll() is None, self.err
            return len(re.findall(pattern, self.out.decode(errors="replace") + self.err)) >= times

        eventually(there)

    def end(self) -> None:
        self.child.terminate()
        self.child.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in self.err, self.err


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with short_runtime_dir(monkeypatch) as directory:
        yield directory


@pytest.fixture
def service(host_space: Space, runtime: Path) -> Iterator[ServiceProcess]:
    running = ServiceProcess(runtime, host_space.path)
    yield running
    running.stop()


@pytest.fixture
def monitor(host_space: Space, tmp_path: Path) -> Iterator[Callable[..., MonitorProcess]]:
    started: list[MonitorProcess] = []

    def start(*options: str) -> MonitorProcess:
        started.append(MonitorProcess(host_space, tmp_path, *options))
        return started[-1]

    yield start
    for one in started:
        one.end()


def device_of(space: Space, board: ServedBoard) -> DeviceRef:
    return DeviceRef(str(space.path.resolve()), "bench", "esp32c3", board.url)


def lent(device: DeviceRef, tx: str) -> Any:
    return borrow(device, Holder(1, "a test", tx=tx), wait_s=TIMEOUT_S, usb_of=lambda fields: None)[0]


def console_of(viewer: PlainViewer) -> bytes:
    return b"".join(chunk.data for chunk in viewer.chunks if chunk.channel is Channel.CONSOLE)


@pytest.mark.long
def test_monitors_side_by_side_across_deploys(
    host_space: Space,
    service: ServiceProcess,
    start_board: Callable[..., ServedBoard],
    monitor: Callable[..., MonitorProcess],
) -> None:
    """Each of them shows what the board said on its console, every byte once and in order; one that comes late begins
    with the last boot; a person at one of them asks the board while the others watch."""
    board = start_board()
    host_space.on_process(board.url)
    with PlainViewer(device_of(host_space, board)) as viewer:
        first, second = monitor("--raw"), monitor("bench", "--timestamps")
        for one in (first, second):
            one.wait_for("invalid header")
        assert service.status()["devices"][0]["viewers"] == 3
        assert host_space.deploy().outcome == "full_flashed"
        assert host_space.deploy().outcome == "verified_unchanged"
        for one in (first, second):
            one.wait_for(r"-- preempted by tx-\S+ \(pid \d+\)", 2)
            one.wait_for(r"-- reattached after \d+ ms", 2)
            one.wait_for(r"-- firmware [0-9a-f]{16} says that it runs", 2)
        late = monitor("--raw")
        late.wait_for('"ready"')
        second.type('/call echo ["side by side"]\n')
        second.wait_for("-- echo answered after")
        for one in (first, second, late):
            one.wait_for("side by side")
        for one, boots in ((first, 2), (late, 1)):
            seen = one.out
            assert seen.count(b'"ready"') == boots
            # The board goes on speaking: what this monitor has shown so far is one piece of what the viewer has.
            eventually(lambda seen=seen: seen in console_of(viewer))  # type: ignore[misc]
        assert b"\xc0" not in first.out and b"waiting for download" not in first.out
        assert all(re.match(rb"\d\d:\d\d:\d\d\.\d{3} |  \(x \d+\)", line) for line in second.out.splitlines())


def test_a_monitor_outlives_its_service_and_the_port(
    host_space: Space,
    service: ServiceProcess,
    start_board: Callable[..., ServedBoard],
    monitor: Callable[..., MonitorProcess],
) -> None:
    board = start_board()
    host_space.on_process(board.url)
    one = monitor()
    one.wait_for("invalid header")
    board.stop()
    one.wait_for("-- the port vanished: ")
    board.start()
    one.wait_for(r"-- the port is back as rfc2217://\S+ after \d+ ms")
    service.kill()
    one.wait_for("-- the service went away.*waiting for it")
    one.type("not to be sent\n")
    one.wait_for("-- not sent: no service runs")
    service.start()
    one.wait_for(r"-- the service is back after \d+ ms; attached again")
    before = one.out.count(b"invalid header")
    one.type("/reset\n")
    one.wait_for("invalid header", before + 1)


def test_what_is_typed_while_somebody_else_writes(
    host_space: Space,
    service: ServiceProcess,
    start_board: Callable[..., ServedBoard],
    monitor: Callable[..., MonitorProcess],
) -> None:
    """Is said once not to be sent; `--call` ends at once with the holder's name, and nothing was reset."""
    board = start_board()
    host_space.on_process(board.url)
    one = monitor()
    one.wait_for("invalid header")
    port = lent(device_of(host_space, board), "tx-1")
    one.wait_for(r"-- preempted by tx-1 \(pid 1\)")
    one.type("one\n")
    one.wait_for("-- not sent: the port is lent to tx-1")
    one.type("two\n/call health\n/call\n")
    one.wait_for("-- /call needs the name")
    refused = host_space.doit("monitor", "--call", "health", "--seconds", "1")
    assert refused.code == 1 and "the port is lent to tx-1 (pid 1)" in refused.err
    assert one.err.count("not sent") == 1
    port.close()
    one.wait_for("-- reattached after")
    assert host_space.doit("monitor", "--call", "health", "--seconds", "0.2").code == 1, "it runs nothing yet"
