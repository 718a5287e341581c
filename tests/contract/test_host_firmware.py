"""The firmware's host port as a process: pty, restarts on the same terminal, rest without a busy loop, clean ends.

What it answers is in test_firmware_rpc.py."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import firmware_build as fb
from tests.firmware_device import HOST_DEADLINE_S, HostDevice, make_host_program, ready_of


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_host_program(tmp_path_factory)


class Terminal:
    """The firmware behind a pty, opened as a serial port is."""

    def __init__(self, program: Path, link: Path) -> None:
        self.link = link
        self.child = subprocess.Popen([program, "--pty", link], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + HOST_DEADLINE_S
        while not link.exists() and self.child.poll() is None and time.monotonic() < deadline:
            select.select([], [], [], 0.005)
        self.open()

    def open(self) -> None:
        self.fd = os.open(self.link, os.O_RDWR | os.O_NOCTTY)
        self.received = b""

    def line(self, mark: str) -> str:
        """The next line that holds `mark`."""
        deadline = time.monotonic() + HOST_DEADLINE_S
        while True:
            line, newline, rest = self.received.partition(b"\n")
            if newline:
                self.received = rest
                if mark.encode() in line:
                    return line.decode()
                continue
            assert select.select([self.fd], [], [], deadline - time.monotonic())[0], f"no {mark!r}: {self.received!r}"
            self.received += os.read(self.fd, 65536)

    def call(self, method: str, params: Any = None) -> Any:
        more = {} if params is None else {"params": params}
        os.write(self.fd, json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, **more}).encode() + b"\n")
        return json.loads(self.line('"id":1'))["result"]

    def stop(self) -> int:
        os.close(self.fd)
        self.child.terminate()
        assert self.child.stderr is not None
        assert self.child.stderr.read() == b""
        self.child.stderr.close()
        return self.child.wait(timeout=HOST_DEADLINE_S)


@pytest.fixture
def terminal(program: Path, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(program, tmp_path / "ttyFirmware")
    yield terminal
    assert terminal.stop() == 0
    assert not terminal.link.is_symlink(), "the name goes with the process"


def test_it_is_a_raw_terminal_that_says_ready(terminal: Terminal) -> None:
    assert ready_of(terminal.line("ready"))["project"] == "reference"
    local = termios.tcgetattr(terminal.fd)[tty.LFLAG]
    assert local & (termios.ECHO | termios.ICANON | termios.ISIG) == 0
    assert terminal.call("echo", ["\x03\x04\r\x7f"]) == ["\x03\x04\r\x7f"]


def test_a_restart_keeps_terminal_and_process(terminal: Terminal) -> None:
    before = terminal.link.readlink()
    for method, reason in (("reboot", "software"), ("hang", "watchdog"), ("panic", "panic")):
        os.write(terminal.fd, b'{"jsonrpc":"2.0","id":2,"method":"%s"}\n' % method.encode())
        terminal.line("ready" if method != "reboot" else '"id":2')
        info = terminal.call("info")
        while info["reset_reason"] != reason:  # a request that the old life still answered
            info = terminal.call("info")
    assert terminal.link.readlink() == before and terminal.child.poll() is None


def test_the_port_may_be_closed_and_opened_again(terminal: Terminal) -> None:
    terminal.line("ready")
    for _ in range(3):
        os.close(terminal.fd)
        terminal.open()
        assert terminal.call("ping") == "pong"


def test_nobody_reading_does_not_stop_it(terminal: Terminal) -> None:
    """A pty holds some kilobytes; what is asked for here is a megabyte, and nobody takes any of it."""
    terminal.line("ready")
    request = b'{"jsonrpc":"2.0","id":2,"method":"rpc.discover"}\n'
    for _ in range(400):
        os.write(terminal.fd, request)
    os.close(terminal.fd)
    terminal.open()
    termios.tcflush(terminal.fd, termios.TCIOFLUSH)
    deadline = time.monotonic() + HOST_DEADLINE_S
    while time.monotonic() < deadline:
        os.write(terminal.fd, b'\n{"jsonrpc":"2.0","id":"after","method":"ping"}\n')
        if select.select([terminal.fd], [], [], 0.2)[0]:
            terminal.received += os.read(terminal.fd, 65536)
            if b'"after","result":"pong"' in terminal.received:
                return
    raise AssertionError("it no longer answers")


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc that tells CPU times")
def test_rest_is_no_busy_loop(program: Path) -> None:
    device = HostDevice(program)
    device.exchange(b"")
    before = cpu_s(device.child.pid)
    device.let_pass(1.5)
    assert cpu_s(device.child.pid) - before <= 0.1
    device.close()


def test_a_link_of_before_is_replaced_and_a_file_is_not(program: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.symlink_to("/nowhere")
    terminal = Terminal(program, old)
    assert terminal.call("ping") == "pong" and old.readlink() != Path("/nowhere")
    assert terminal.stop() == 0

    precious = tmp_path / "precious"
    precious.write_text("work")
    done = subprocess.run(
        [program, "--pty", precious], capture_output=True, text=True, timeout=HOST_DEADLINE_S, check=False
    )
    assert done.returncode == 1 and done.stderr == f"{precious}: error: File exists\n"
    assert precious.read_text() == "work"


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--pty"], 2), (["x"], 2), (["--pty", "a", "b"], 2)])
def test_usage(program: Path, arguments: list[str], code: int) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=HOST_DEADLINE_S, check=False)
    assert done.returncode == code
    assert (done.stdout or done.stderr).startswith("usage: ") and "--pty LINK" in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it(program: Path, number: signal.Signals) -> None:
    device = HostDevice(program)
    device.child.send_signal(number)
    assert device.child.wait(timeout=HOST_DEADLINE_S) == 0
    for pipe in (device.child.stdin, device.child.stdout):
        assert pipe is not None
        pipe.close()


def test_the_release_build_has_no_test_methods(tmp_path: Path) -> None:
    compiler, _ = fb.host_compiler()
    device = HostDevice(fb.build_host(tmp_path / "firmware", compiler, "-UHOTPLATE_TEST_RPC", "-O2"))
    names = [method["name"] for method in device.call("rpc.discover")["methods"]]
    assert "reboot" in names and not {"panic", "hang"} & set(names)
    assert device.raw("hang")["error"]["code"] == -32601
    device.close()
