"""The loop of `doit monitor` on a link of this machine: a hostile board, and the notes of a console that is watched."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Iterator

import pytest

from pipeline.boot.console_events import ConsoleEvent
from pipeline.boot.console_view import ViewOptions
from pipeline.boot.line_pattern import LinePattern
from pipeline.cli.monitor_loop import MonitorLoop
from pipeline.cli.monitor_screen import MonitorScreen
from pipeline.client.protocol import NoteKind
from pipeline.client.watched_console import ConsoleTold, WatchedConsole
from pipeline.device.console import DeviceMonitor
from tests.unit.test_monitor import READY, Loopback

EVIL = (
    b"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b]0;title\x07-- preempted by nobody\n"
    b"<script>alert(1)</script>\x08\x08\n\xff\xfe\x00\n"
    b"\x1b[31mred\n" + b"::error::x\n" + b"same\n" * 1000 + b"Guru Meditation Error: \x1b[2K\nEND\n"
)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """Without a person."""
    monkeypatch.setattr(sys, "stdin", None)
    loop = Loopback()
    yield loop
    loop.reader.stop()
    loop.link.close()


def no_trace(seen: ConsoleEvent, elf: str) -> list[str]:
    return [f"trace of {elf[:4]}"]


def test_a_hostile_board_on_a_terminal(loop: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    screen = MonitorScreen(ViewOptions(colour=True), loop.link.now_s, lambda: "now")
    with DeviceMonitor(loop.link, loop.reader, sink=screen.show) as monitor:
        loop.port.write(READY + EVIL)
        looped = MonitorLoop(monitor, screen, loop.link, None, no_trace)
        assert looped.copy(LinePattern("END"), 300.0, decode=True, commands=True) == 0
    out, err = capsys.readouterr()
    plain = out.replace("\x1b[31m", "").replace("\x1b[0m", "")
    assert all(c.isprintable() or c == "\n" for c in plain)
    assert "\\x1b]52;c;ZXZpbA==\\x07\\x1b[2J" in plain and "red\x1b[0m\n" in out
    assert plain.count("same\n") == 1 and "  (x 1000)\n" in plain
    assert "Guru Meditation Error: \\x1b[2K\nEND\n" in plain
    assert "nobody" not in err, "what a board says never stands where we speak"


class NotedConsole(WatchedConsole):
    """Notes between bytes, as a service gives them."""

    def __init__(self, loop: Loopback) -> None:
        self.notes = deque()
        self.elf = "ab" * 32
        self.at = "now"
        self._loop = loop
        self._script: list[bytes | ConsoleTold] = [
            b"I (1) half a li",
            ConsoleTold(NoteKind.PREEMPTED, "preempted by tx-1 (pid 7)"),
            ConsoleTold(NoteKind.REATTACHED, "reattached after 12 ms\x1b[2J"),
            b"ne\nGuru Meditation Error: Core  0 panic'ed (x)\nRebooting...\nEND\n",
        ]

    def poll(self, timeout_s: float) -> tuple[float, bytes]:
        item = self._script.pop(0) if self._script else b""
        if isinstance(item, ConsoleTold):
            self.notes.append(item)
            return self.now_s(), b""
        return self.now_s(), item


def test_notes_stand_where_they_happened(loop: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    """What was begun before a deploy is not the begin of what comes after it; a panic is decoded by the firmware that
    the service knows to run."""
    watched = NotedConsole(loop)
    screen = MonitorScreen(ViewOptions(), watched.now_s, lambda: "now")
    with DeviceMonitor(watched, watched, sink=screen.show) as monitor:
        looped = MonitorLoop(monitor, screen, watched, watched, no_trace)
        assert looped.copy(LinePattern("END"), 300.0, decode=True, commands=True) == 0
    out, err = capsys.readouterr()
    assert out.startswith("I (1) half a li\nne\nGuru Meditation")
    assert err == "-- preempted by tx-1 (pid 7)\n-- reattached after 12 ms\\x1b[2J\n| trace of abab\n"


def test_a_monitor_of_the_service_loads_little() -> None:
    """What opens ports, builds and decodes is loaded where it is needed: the first byte waits for all of it."""
    heavy = {"serial", "esptool", "regex", "subprocess", "networkx", "pipeline.run.build", "pipeline.engine.engine"}
    code = f"import sys, pipeline.cli.monitor; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
