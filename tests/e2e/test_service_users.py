"""Several users of one board, and services that come, go, die and are replaced: always one writer, always a report."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.durable import FileLock
from pipeline.client import endpoint
from pipeline.client.protocol import Channel, DeviceRef, FrameReader, Holder, Message, encode
from pipeline.client.served_port import PortLost, ServedPort, borrow
from pipeline.errors import DeviceError
from pipeline.model import FailureCategory
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Space, copy_project
from tests.serving import TIMEOUT_S, PlainViewer, ServiceProcess, ask, eventually, short_runtime_dir

ME = Holder(os.getpid(), "a test")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with short_runtime_dir(monkeypatch) as directory:
        yield directory


@pytest.fixture
def start_service(runtime: Path, host_space: Space) -> Iterator[Callable[[], ServiceProcess]]:
    begun: list[ServiceProcess] = []

    def start() -> ServiceProcess:
        begun.append(ServiceProcess(runtime, host_space.path))
        return begun[-1]

    yield start
    for one in begun:
        one.stop()


def device_of(space: Space, url: str) -> DeviceRef:
    return DeviceRef(str(space.path.resolve()), "bench", "esp32c3", url)


def lent(device: DeviceRef, wait_s: float = TIMEOUT_S) -> ServedPort:
    port, _ = borrow(device, ME, wait_s=wait_s, usb_of=dict)
    return port


def test_a_deploy_waits_for_whoever_has_the_port(
    host_space: Space, start_board: Callable[..., ServedBoard], start_service: Callable[[], ServiceProcess]
) -> None:
    host_space.on_process((board := start_board()).url)
    start_service()
    port = lent(device_of(host_space, board.url))
    child = host_space.start("deploy")
    out = []
    assert child.stdout is not None
    for line in child.stdout:
        out.append(line)
        if "waiting for the port: a test" in line:
            port.close()
    child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 0, "".join(out)
    assert "DEPLOY_OUTCOME=full_flashed" in out[-1]


@pytest.mark.stress
def test_two_projects_deploy_to_one_board_at_once(
    host_space: Space,
    tmp_path: Path,
    start_board: Callable[..., ServedBoard],
    start_service: Callable[[], ServiceProcess],
) -> None:
    board = start_board("--timing", "esp32c3-usb,md5_s_per_mb=0.05")
    copy_project(host_space.path, tmp_path / "other")
    other = Space(tmp_path / "other")
    start_service()
    for space in (host_space, other):
        space.on_process(board.url)
    first = host_space.start("deploy")
    with PlainViewer(device_of(host_space, board.url)) as viewer:
        viewer.wait(lambda: any(chunk.channel is Channel.LOADER for chunk in viewer.chunks))
        second = other.deploy()
        out, _ = first.communicate(timeout=TIMEOUT_S)
        assert first.returncode == 0, out
        # Refused with the holder's name, or, where the first had ended by then, done.
        assert second.report is not None
        assert (second.code, second.category) in ((1, "port_busy"), (0, ""))
        again = other.deploy()
        assert again.code == 0 and again.outcome in ("verified_unchanged", "full_flashed"), again.out + again.err
        lines = [kind for kind in viewer.kinds() if kind in ("preempted", "reattached")]
        viewer.wait(lambda: viewer.kinds().count("reattached") == viewer.kinds().count("preempted"))
        assert all(kind == ("preempted", "reattached")[n % 2] for n, kind in enumerate(lines)), "never two at once"


def test_a_service_that_is_killed_in_a_deploy(
    host_space: Space, start_board: Callable[..., ServedBoard], start_service: Callable[[], ServiceProcess]
) -> None:
    board = start_board("--timing", "esp32c3-usb,md5_s_per_mb=0.05")
    host_space.on_process(board.url)
    service = start_service()
    with PlainViewer(device_of(host_space, board.url)) as viewer:
        child = host_space.start("deploy")
        viewer.wait(lambda: any(chunk.channel is Channel.LOADER for chunk in viewer.chunks))
        service.kill()
        out, _ = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 1 and "Traceback" not in out, out
    assert "the service went away" in out and "DEPLOY_OUTCOME=failed" in out
    (report,) = sorted(host_space.file("reports").glob("tx-*.json"))
    assert json.loads(report.read_text())["failure"]["category"] in ("port_missing", "write_failed", "sync_failed")
    healed = host_space.deploy()
    assert healed.code == 0 and "working without" not in healed.err, healed.out + healed.err
    start_service()
    assert host_space.deploy().outcome == "verified_unchanged"


@pytest.mark.stress
def test_a_service_that_begins_in_a_deploy(
    host_space: Space, start_board: Callable[..., ServedBoard], start_service: Callable[[], ServiceProcess]
) -> None:
    """The port is the deploy's until its end; who watches gets it then."""
    board = start_board("--timing", "esp32c3-usb,md5_s_per_mb=0.05")
    host_space.on_process(board.url)
    child = host_space.start("deploy")
    assert child.stdout is not None
    begun = [child.stdout.readline()]
    while "verify-flash" not in begun[-1]:
        begun.append(child.stdout.readline())
    service = start_service()
    with PlainViewer(device_of(host_space, board.url)) as viewer:
        out, _ = child.communicate(timeout=TIMEOUT_S)
        assert child.returncode == 0, out
        eventually(lambda: service.status()["devices"][0]["state"] == "open")
        assert host_space.deploy().outcome == "verified_unchanged"
        viewer.wait(lambda: "reattached" in viewer.kinds())


@pytest.mark.stress
def test_a_killed_lessee_leaves_a_board_that_runs(
    host_space: Space, start_board: Callable[..., ServedBoard], start_service: Callable[[], ServiceProcess]
) -> None:
    board = start_board("--timing", "esp32c3-usb,md5_s_per_mb=0.05")
    host_space.on_process(board.url)
    start_service()
    assert host_space.deploy().code == 0
    with PlainViewer(device_of(host_space, board.url), since="now") as viewer:
        child = host_space.start("deploy")
        viewer.wait(lambda: any(chunk.channel is Channel.LOADER for chunk in viewer.chunks))
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        viewer.wait(lambda: "reattached" in viewer.kinds() and b'"ready"' in viewer.data)
        assert any("left the board in its loader" in note.text for note in viewer.notes)


def test_a_deploy_begins_the_service(host_space: Space, start_board: Callable[..., ServedBoard], runtime: Path) -> None:
    host_space.on_process(start_board().url)
    config = host_space.file("deploy.toml")
    config.write_text(config.read_text() + "\n[service]\nautostart = true\n")
    try:
        first = host_space.deploy()
        assert (first.code, first.outcome) == (0, "full_flashed"), first.out + first.err
        assert first.report["budget"]["parts"]
        pid = ask(Message.STATUS).header["pid"]
        assert host_space.deploy().outcome == "verified_unchanged"
        assert ask(Message.STATUS).header["pid"] == pid
    finally:
        assert host_space.doit("serve", "--stop").code == 0


def test_taking_the_port_and_waiting_for_it(tmp_path: Path, runtime: Path) -> None:
    """On a pseudo-terminal: nobody resets anything here."""
    service = ServiceProcess(runtime, tmp_path)
    board, tty = os.openpty()
    device = DeviceRef(str(tmp_path), "bench", "esp32c3", os.ttyname(tty))
    try:
        first = lent(device)
        with pytest.raises(DeviceError) as busy:
            lent(device, wait_s=0.01)
        assert busy.value.failure.category is FailureCategory.PORT_BUSY
        assert busy.value.failure.message == f"the port is lent to a test (pid {os.getpid()})"
        taker = Holder(os.getpid(), "a colleague", "urgent")
        second, _ = borrow(device, taker, take=True, wait_s=TIMEOUT_S, usb_of=dict)
        with pytest.raises(PortLost, match="the port was taken by urgent"):
            first.read(1)
        first.close()
        second.write(b"hello")
        assert os.read(board, 100) == b"hello"
        os.write(board, b"back")
        assert second.read(4) == b"back"
        with pytest.raises(OSError) as refused:
            second.setDTR(False)
        assert refused.value.errno == errno.ENOTTY, "a pseudo-terminal has no lines"
        second.close()
        (state,) = service.status()["devices"]
        assert (state["state"], state["holder"]) == ("open", None)
    finally:
        os.close(board)
        os.close(tty)
        service.stop()


# --- other versions ---------------------------------------------------------------------------


class OtherService:
    """A service of another version, as far as others talk to it."""

    def __init__(self, runtime: Path, *, protocol: int, version: str, refuses: str = "") -> None:
        self.directory = runtime / "hotplate"
        self.directory.mkdir(mode=0o700)
        self.protocol, self.version, self.refuses = protocol, version, refuses
        self.lock = FileLock(self.directory / endpoint.LOCK)
        assert self.lock.try_acquire("pid 4711 (an older doit serve)") is None
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(self.directory / endpoint.SOCKET))
        self.listening.listen()
        self.asked: list[str] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                line, _ = self.listening.accept()
            except OSError:
                return
            with line, contextlib.suppress(ConnectionError):  # one that left
                self._talk(line)

    def _talk(self, line: socket.socket) -> None:
        reader = FrameReader()
        while data := line.recv(4096):
            for frame in reader.feed(data):
                self.asked.append(frame.message)
                if frame.message == Message.HELLO and frame.header["protocol"] != self.protocol:
                    line.sendall(encode(Message.REFUSED, protocol=self.protocol, reason="another protocol"))
                    return
                if frame.message == Message.HELLO:
                    fields: dict[str, Any] = {"protocol": self.protocol, "version": self.version}
                    line.sendall(encode(Message.WELCOME, pid=4711, started_at="", **fields))
                elif frame.message == Message.STOP:
                    line.sendall(encode(Message.DONE, refused=self.refuses))
                    if not self.refuses:
                        self.close()

    def close(self) -> None:
        # An `accept` under way would go on, and after a signal at whatever has the number of this handle by then.
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.lock.release()


def test_a_newer_service_takes_the_place_of_an_older_one(
    runtime: Path, start_service: Callable[[], ServiceProcess]
) -> None:
    old = OtherService(runtime, protocol=0, version="0.0.9")
    new = start_service()
    assert old.asked == ["hello", "hello", "stop"]
    assert new.status()["version"] != "0.0.9"


@pytest.mark.parametrize(
    ("version", "refuses", "said"),
    [
        ("0.0.9", "a board is being written to", "a board is being written to"),
        ("99.0", "", "it is of version 99.0"),
    ],
)
def test_a_service_that_does_not_make_room_is_left_alone(
    runtime: Path, host_space: Space, version: str, refuses: str, said: str
) -> None:
    old = OtherService(runtime, protocol=0, version=version, refuses=refuses)
    result = host_space.doit("serve")
    assert result.code == 1 and said in result.err and "pid 4711" in result.err
    old.close()


def test_a_deploy_works_alone_beside_a_service_of_another_version(
    runtime: Path, host_space: Space, start_board: Callable[..., ServedBoard]
) -> None:
    old = OtherService(runtime, protocol=2, version="99.0")
    host_space.on_process(start_board().url)
    result = host_space.deploy()
    assert (result.code, result.outcome) == (0, "full_flashed"), result.out + result.err
    note = "note: working without the service: the service speaks protocol 2, and this is 1: restart it (`doit serve`)"
    assert (result.out + result.err).count(note) == 1
    assert result.report["budget"]["parts"] == []
    old.close()
