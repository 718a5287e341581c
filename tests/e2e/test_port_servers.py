"""Port servers with the programs that they are for: pyserial and its miniterm, unmodified esptool, a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import serial

from pipeline.client.protocol import Channel, ConsoleChunk, ConsoleNote, DeviceRef, Message
from tests.e2e.conftest import ServedBoard, copy_project_sources
from tests.e2e.space import Space, environment
from tests.e2e.test_monitor_service import TIMEOUT_S, lent
from tests.forked import run_python
from tests.serving import PlainViewer, ServiceProcess, ask, eventually, short_runtime_dir

BLANK = b"invalid header"
"""What the ROM says again and again of a flash without an image."""


POWER_ON = b"rst:0x1 (POWERON)"
"""And of a reset by its line."""


class SharedPort:
    """A board process, the service that owns it, its port servers, and a viewer."""

    def __init__(self, root: Path, service: ServiceProcess, board: ServedBoard) -> None:
        self.service = service
        Space(root).on_process(board.url)
        self.device = DeviceRef(str(root.resolve()), "bench", "esp32c3", board.url)
        self.viewer = PlainViewer(self.device)
        answer = ask(Message.PORTS, device=self.device._asdict())
        self.url, self.pty = str(answer.header["rfc2217"]), str(answer.header["pty"])
        assert answer.header["problems"] == []

    def open(self, url: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pyserial's client starts a thread in an old way
            return serial.serial_for_url(url, 115200, timeout=0.1)

    def reads(self, port: Any, wanted: bytes, times: int = 1) -> bytes:
        """Until it came so often."""
        data = b""

        def there() -> bool:
            nonlocal data
            data += bytes(port.read(max(1, port.in_waiting)))
            return data.count(wanted) >= times

        eventually(there)
        return data

    def notes(self, kind: str, before: int) -> list[str]:
        """Of that kind, after the first `before` entries."""
        return [
            entry.text
            for entry in self.viewer.entries[before:]
            if isinstance(entry, ConsoleNote) and entry.kind.value == kind
        ]

    def said(self, channel: Channel, before: int) -> bytes:
        """After the first `before` entries."""
        entries = self.viewer.entries[before:]
        return b"".join(one.data for one in entries if isinstance(one, ConsoleChunk) and one.channel is channel)

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.service.status()["ports"]
        return dict(row)


@contextmanager
def sharing(root: Path) -> Iterator[SharedPort]:
    copy_project_sources(root)
    with pytest.MonkeyPatch.context() as patch, short_runtime_dir(patch) as runtime:
        service = ServiceProcess(runtime, root)
        board = ServedBoard(root / "board.flash")
        one = SharedPort(root, service, board)
        yield one
        one.viewer.close()
        service.stop()
        board.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedPort]:
    """One for all tests of this file but that which ends it; each leaves the board in its application, and the port to
    all. They come in any order: a worker that has nothing to do takes some from the end of what another has."""
    with sharing(tmp_path_factory.mktemp("shared")) as one:
        yield one


@pytest.fixture
def to_be_ended(tmp_path: Path) -> Iterator[SharedPort]:
    """One for a test alone."""
    with sharing(tmp_path / "ended") as one:
        yield one


@pytest.fixture
def before(shared: SharedPort) -> int:
    """How many entries there were before this test."""
    return len(shared.viewer.entries)


def esptool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(
        ["-m", "esptool", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def test_programs_share_the_port_and_reset_nothing(shared: SharedPort, before: int) -> None:
    """pyserial's client and one on the pty hear the same board; opening and closing press no button; what they set as a
    rate is their own; a reset by one of them is a reset."""
    with shared.open(shared.url) as one, shared.open(shared.pty) as other:
        one.baudrate = 9600
        for port in (one, other):
            shared.reads(port, BLANK, 2)
        assert shared.row["clients"] == 1
        one.reset_input_buffer()
        assert POWER_ON not in shared.said(Channel.CONSOLE, before), "its watchdog resets it, and nobody else"
        one.dtr = False
        one.rts = False
        for port in (one, other):
            shared.reads(port, POWER_ON)
    assert shared.notes("preempted", before) == []


@pytest.mark.long
def test_esptool_flashes_through_the_server(shared: SharedPort, before: int, tmp_path: Path) -> None:
    """Unmodified. The port is its own from the loader to the reset into the application; what the loader says is no
    console output; afterwards the board runs and nobody has a lease."""
    image = tmp_path / "image"
    image.write_bytes(os.urandom(4096))
    common = ("--chip", "esp32c3", "--port", f"{shared.url}?ign_set_control", "--before", "default-reset")
    done = esptool(*common, "--no-stub", "--after", "hard-reset", "write-flash", "0x10000", str(image))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hash of data verified" in done.stdout
    shared.viewer.wait(lambda: shared.notes("reattached", before) != [])
    pid = shared.service.child.pid
    assert shared.notes("preempted", before) == [f"preempted by an RFC 2217 client (pid {pid})"]
    loader, console = shared.said(Channel.LOADER, before), shared.said(Channel.CONSOLE, before)
    assert b"waiting for download" in loader and b"waiting for download" not in console and b"\xc0" not in console
    assert shared.service.status()["devices"][0]["holder"] is None


def test_a_flasher_that_goes_away_leaves_a_board_that_runs(shared: SharedPort, before: int) -> None:
    done = esptool("--chip", "esp32c3", "--port", shared.url, "--no-stub", "--after", "no-reset", "chip-id")
    assert done.returncode == 0, done.stdout + done.stderr
    shared.viewer.wait(lambda: shared.notes("reattached", before) != [])
    assert any("left the board in its loader" in text for text in shared.notes("reset", before))
    shared.viewer.wait(lambda: BLANK in shared.viewer.chunks[-1].data)


def test_a_lent_port_is_only_listened_to(shared: SharedPort, before: int) -> None:
    """A deploy has it: what others write is not written, what they set is acknowledged and not done."""
    with shared.open(shared.url) as one:
        shared.reads(one, BLANK)
        port = lent(shared.device, "tx-1")
        one.write(b"to nobody")
        one.dtr = False  # RTS is asserted since it was opened: a reset
        one.rts = False
        port.close()
        shared.viewer.wait(lambda: shared.notes("reattached", before) != [])
        shared.reads(one, BLANK)
    assert shared.notes("preempted", before) == ["preempted by tx-1 (pid 1)"]
    assert POWER_ON not in shared.said(Channel.CONSOLE, before)


def test_miniterm_shows_and_ends(shared: SharedPort) -> None:
    """pyserial's own terminal."""
    keyboard, terminal = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "serial.tools.miniterm", "--raw", "--quiet", shared.url, "115200"],
        env=environment(),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert child.stdout is not None
        seen = b""
        while BLANK not in seen:
            data = os.read(child.stdout.fileno(), 4096)
            assert data, seen
            seen += data
        os.write(keyboard, b"\x1d")  # miniterm's end
        child.wait(TIMEOUT_S)
    finally:
        child.kill()
        child.communicate()
        os.close(keyboard)
        os.close(terminal)
    eventually(lambda: shared.row["clients"] == 0)


def test_the_next_service_serves_the_same(to_be_ended: SharedPort) -> None:
    """Under the same addresses, and without being asked; `--ports` and `--status` name them."""
    shared = to_be_ended
    shared.viewer.close()
    shared.service.kill()
    shared.service.start()
    row = shared.row
    assert (row["rfc2217"], row["pty"]) == (shared.url, shared.pty)
    with shared.open(shared.url) as one:
        shared.reads(one, BLANK)
    space = Space(Path(shared.device.root))
    assert space.doit("serve", "--ports").out == f"bench: {shared.url}, {shared.pty}\n"
    assert f"bench: {shared.url}, {shared.pty}" in space.doit("serve", "--status").out
    moved = shared.device._replace(port="rfc2217://127.0.0.1:1")
    assert ask(Message.PORTS, device=moved._asdict()).header["pty"] == shared.pty, "the device has another port now"
    assert shared.row["device"] == "bench", "one row"
    assert Path(shared.pty).is_symlink()
    shared.service.stop()
    assert not Path(shared.pty).is_symlink()
