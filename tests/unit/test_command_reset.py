"""A port whose board is reset by a command: when it runs, what it is told, and how it fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.device.command_reset import CommandResetPort
from pipeline.device.connect import CLASSIC, SHORT
from pipeline.errors import DeviceError
from pipeline.model import FailureCategory

WRITE = "import sys; open('told', 'a').write(sys.argv[1] + '\\n')"


class QuietPort:
    """A socket: bytes, and no lines."""

    port = "socket://127.0.0.1:5555"
    baudrate = 115200
    timeout = 3.0
    sent = b""

    def write(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def setDTR(self, value: bool) -> None:
        raise AssertionError("a socket has no lines")

    setRTS = setDTR


def command(code: str, *words: str) -> str:
    return " ".join([f"'{sys.executable}'", "-c", f'"{code}"', *words])


@pytest.fixture
def port(tmp_path: Path) -> Any:
    return CommandResetPort(QuietPort(), command(WRITE, "{mode}"), tmp_path, "device sim on socket://127.0.0.1:5555")


def told(root: Path) -> list[str]:
    file = root / "told"
    return file.read_text().split() if file.exists() else []


def test_the_loaders_sequences_ask_for_download_once(port: Any, tmp_path: Path) -> None:
    for sequence in (SHORT, CLASSIC):
        for dtr, rts, _ in sequence:
            port.setDTR(dtr)
            port.setRTS(rts)
    assert told(tmp_path) == ["download", "download"]


def test_the_monitors_reset_asks_for_run_once(port: Any, tmp_path: Path) -> None:
    port.setRTS(False)
    port.setDTR(False)
    assert told(tmp_path) == [], "freeing the lines is no reset"
    port.rts = True
    assert told(tmp_path) == [], "EN is low"
    port.rts = False
    assert told(tmp_path) == ["run"] and (port.dtr, port.rts) == (False, False)


def test_everything_else_is_the_ports(port: Any) -> None:
    port.timeout = 1.5
    port.baudrate = 9600
    assert port.write(b"x") == 1
    inner = port._port
    assert (inner.timeout, inner.baudrate, inner.sent, port.baudrate) == (1.5, 9600, b"x", 9600)
    assert port.name == "rfc2217:socket://127.0.0.1:5555" and port.port == inner.port
    with pytest.raises(AttributeError):
        _ = port.no_such_thing


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("./not-there {mode}", "the reset command './not-there run' cannot be started: No such file or directory"),
        (command("import sys; sys.exit('first\\nlast words')"), "exited with 1: last words"),
        (command("raise SystemExit(7)"), "exited with 7"),
        (command("import time; time.sleep(60)"), "has not ended after 0.5 s"),
    ],
)
def test_failures(line: str, fact: str, tmp_path: Path) -> None:
    patience_s = 0.5 if "sleep" in line else 60
    port = CommandResetPort(QuietPort(), line, tmp_path, "device sim on socket://x", patience_s)
    port.setDTR(False)
    port.setRTS(True)
    with pytest.raises(DeviceError) as error:
        port.setRTS(False)
    failure = error.value.failure
    assert failure.category is FailureCategory.SYNC_FAILED and failure.message.endswith(fact)
    assert failure.where == "device sim on socket://x"
    assert failure.hint == "run the command by hand: it must reset the board and exit with 0"
