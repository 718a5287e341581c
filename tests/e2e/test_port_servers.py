"""Port servers with the programs that they are for: pyserial and its miniterm, unmodified esptool, a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serial

from pipeline.client.protocol import Channel, Message
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Space, environment
from tests.e2e.test_monitor_service import TIMEOUT_S, device_of, lent
from tests.serving import PlainViewer, ServiceProcess, ask, eventually, short_runtime_dir

BLANK = b"invalid header"
"""What the ROM says again and again of a flash without an image."""


POWER_ON = b"rst:0x1 (POWERON)"
"""And of a reset by its line."""


class SharedPort:
    """A board process, the service that owns it, its port servers, and a viewer."""

    def __init__(self, space: Space, service: ServiceProcess, board: ServedBoard) -> None:
        self.service = service
        space.on_process(board.url)
        self.device = device_of(space, board)
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
            data += port.read(max(1, port.in_waiting))
            return data.count(wanted) >= times

        eventually(there)
        return data

    def notes(self, kind: str) -> list[str]:
        return [note.text for note in self.viewer.notes if note.kind.value == kind]

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.service.status()["ports"]
        return dict(row)


@pytest.fixture
def shared(
    host_space: Space, start_board: Callable[..., ServedBoard], monkeypatch: pytest.MonkeyPatch
) -> Iterator[SharedPort]:
    with short_runtime_dir(monkeypatch) as runtime:
        service = ServiceProcess(runtime, host_space.path)
        one = SharedPort(host_space, service, start_board())
        yield one
        one.viewer.close()
        service.stop()


def esptool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "esptool", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_programs_share_the_port_and_reset_nothing(shared: SharedPort) -> None:
    """pyserial's client and one on the pty hear the same board; opening and closing press no button; what they set as a
    rate is their own; a reset by one of them is a reset."""
    shared.viewer.wait(lambda: BLANK in shared.viewer.data)
    with shared.open(shared.url) as one, shared.open(shared.pty) as other:
        one.baudrate = 9600
        for port in (one, other):
            shared.reads(port, BLANK, 2)
        assert shared.row["clients"] == 1
        one.reset_input_buffer()
        assert POWER_ON not in shared.viewer.data[10_000:], "its watchdog resets it all the time, and nobody else"
        one.dtr = False
        one.rts = False
        for port in (one, other):
            shared.reads(port, POWER_ON)
    assert shared.notes("preempted") == []


def test_esptool_flashes_through_the_server(shared: SharedPort, tmp_path: Path) -> None:
    """Unmodified. The port is its own from the loader to the reset into the application; what the loader says is no
    console output; afterwards the board runs and nobody has a lease."""
    image = tmp_path / "image"
    image.write_bytes(os.urandom(20_000))
    common = ("--chip", "esp32c3", "--port", f"{shared.url}?ign_set_control", "--before", "default-reset")
    done = esptool(*common, "--after", "hard-reset", "write-flash", "0x10000", str(image))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hash of data verified" in done.stdout
    shared.viewer.wait(lambda: shared.notes("reattached") != [])
    assert shared.notes("preempted") == [f"preempted by an RFC 2217 client (pid {shared.service.child.pid})"]
    loader = b"".join(chunk.data for chunk in shared.viewer.chunks if chunk.channel is Channel.LOADER)
    console = b"".join(chunk.data for chunk in shared.viewer.chunks if chunk.channel is Channel.CONSOLE)
    assert b"waiting for download" in loader and b"waiting for download" not in console and b"\xc0" not in console
    assert console.endswith(BLANK) or console.count(b"ESP-ROM:") > 1
    assert shared.service.status()["devices"][0]["holder"] is None


def test_a_flasher_that_goes_away_leaves_a_board_that_runs(shared: SharedPort) -> None:
    done = esptool("--chip", "esp32c3", "--port", shared.url, "--after", "no-reset", "flash-id")
    assert done.returncode == 0, done.stdout + done.stderr
    shared.viewer.wait(lambda: shared.notes("reattached") != [])
    assert any("left the board in its loader" in text for text in shared.notes("reset"))
    shared.viewer.wait(lambda: shared.viewer.chunks[-1].channel is Channel.CONSOLE)


def test_a_lent_port_is_only_listened_to(shared: SharedPort) -> None:
    """A deploy has it: what others write is not written, what they set is acknowledged and not done."""
    with shared.open(shared.url) as one:
        shared.reads(one, BLANK)
        port = lent(shared.device, "tx-1")
        one.write(b"to nobody")
        one.rts, one.dtr = True, False
        one.rts = False
        denied = esptool("--chip", "esp32c3", "--port", shared.url, "--connect-attempts", "1", "chip-id")
        assert denied.returncode != 0
        assert shared.notes("preempted") == ["preempted by tx-1 (pid 1)"]
        port.close()
        shared.reads(one, BLANK)


def test_miniterm_shows_and_types(shared: SharedPort) -> None:
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


def test_the_next_service_serves_the_same(shared: SharedPort, host_space: Space) -> None:
    """Under the same addresses, and without being asked; `--ports` and `--status` name them."""
    shared.service.kill()
    shared.service.start()
    row = shared.row
    assert (row["rfc2217"], row["pty"]) == (shared.url, shared.pty)
    with shared.open(shared.url) as one:
        shared.reads(one, BLANK)
    assert host_space.doit("serve", "--ports").out == f"bench: {shared.url}, {shared.pty}\n"
    assert f"bench: {shared.url}, {shared.pty}" in host_space.doit("serve", "--status").out
    assert Path(shared.pty).is_symlink()
    shared.service.stop()
    assert not Path(shared.pty).is_symlink()
