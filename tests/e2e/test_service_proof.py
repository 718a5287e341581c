"""A viewer sees every byte that the board sent, in order, none twice, whatever is deployed, fails or is killed.

What the board sent, the board process itself records.
"""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.client.protocol import Channel, DeviceRef
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Result, Space
from tests.serving import PlainViewer, ServiceProcess, eventually, short_runtime_dir

KINDS = ("unchanged", "delta", "full", "failing", "killed")
TIMING = "esp32c3-usb,md5_s_per_mb=0.05"


class WatchedBoard:
    """A board process, the service that owns it, a viewer, and deploys to it."""

    def __init__(self, space: Space, start_board: Callable[..., ServedBoard], scratch: Path) -> None:
        self.space = space
        self.record = scratch / "record"
        self.control = scratch / "ctl"
        self.board = start_board("--timing", TIMING, "--record", str(self.record), "--control", str(self.control))
        space.on_process(self.board.url)
        self.device = DeviceRef(str(space.path.resolve()), "bench", "esp32c3", self.board.url)
        self.viewer = PlainViewer(self.device)
        self.edits = 0
        self.there: dict[str, str] = {}

    def press(self, command: str) -> None:
        """On the board's control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.connect(str(self.control))
            line.sendall(f"{command}\n".encode())
            assert b'"ok": true' in line.recv(4096)

    def run(self, kind: str) -> Result | None:
        lent = self.viewer.kinds().count("preempted")
        try:
            result = getattr(self, f"_{kind}")()
        except AssertionError:
            print("the board:", self.board.child.poll(), *(note.text for note in self.viewer.notes[-12:]), sep="\n")
            raise
        # Whatever became of it, the console has its board again.
        self.viewer.wait(lambda: self.viewer.kinds().count("reattached") > lent)
        if isinstance(result, Result):
            assert result.category != "port_busy" and "working without" not in result.err, result.err
            return result
        return None

    def _unchanged(self) -> Result:
        self.press("fault clear")
        result = self.space.deploy()
        assert result.code == 0, result.out + result.err
        return result

    def _delta(self) -> Result:
        self.edit("firmware/core/memlog.c", "[MemBoot", "[Mem")
        result = self.space.deploy()
        assert (result.code, result.outcome) == (0, "delta_flashed"), result.out + result.err
        return result

    def _full(self) -> Result:
        self.edit("firmware/partitions.csv", "storage", "stora")
        result = self.space.deploy()
        assert (result.code, result.outcome) == (0, "full_flashed"), result.out + result.err
        return result

    def edit(self, name: str, first: str, stem: str) -> None:
        """Something else there each time, of the same length."""
        self.press("fault clear")
        path = self.space.file(name)
        text = path.read_text()
        before = self.there.get(name, first)
        self.edits += 1
        width = len(first) - len(stem)
        self.there[name] = after = stem + format(self.edits, f"0{width}x")[-width:]
        assert before in text
        path.write_text(text.replace(before, after))

    def _failing(self) -> Result:
        self.press("fault panic:boot=0.01,times=0")
        result = self.space.deploy()
        self.press("fault clear")
        assert (result.code, result.report["outcome"]) == (1, "failed"), result.out + result.err
        return result

    def _killed(self) -> None:
        self.press("fault clear")
        answers = self._loader_bytes()
        child = self.space.start("deploy")
        self.viewer.wait(lambda: self._loader_bytes() > answers + 100)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()

    def _loader_bytes(self) -> int:
        return sum(len(one.data) for one in self.viewer.chunks if one.channel is Channel.LOADER)

    def check(self) -> None:
        """Everything, in order, once."""
        said = seen = b""

        def all_came() -> bool:
            """The board goes on speaking, so that both have to be of one moment."""
            nonlocal said, seen
            seen = bytes(self.viewer.data)
            said = self.record.read_bytes()
            return said.endswith(seen)

        eventually(all_came)
        chunks = self.viewer.chunks
        missed = said[: -len(seen)]
        assert missed.count(b"ESP-ROM:") <= 1, "what the board said before the service opened its port"
        place = 0
        for chunk in chunks:
            assert chunk.offset == place
            place += len(chunk.data)
        numbers = [entry.number for entry in self.viewer.entries]
        assert numbers == list(range(1, len(numbers) + 1))
        assert "dropped" not in self.viewer.kinds()


@pytest.fixture
def watched(
    host_space: Space,
    start_board: Callable[..., ServedBoard],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[WatchedBoard]:
    with short_runtime_dir(monkeypatch) as runtime:
        service = ServiceProcess(runtime, host_space.path)
        one = WatchedBoard(host_space, start_board, runtime)
        yield one
        one.viewer.close()
        service.stop()


@pytest.mark.long
def test_every_byte_once_across_deploys(watched: WatchedBoard) -> None:
    first = watched.run("unchanged")
    assert first is not None and first.outcome == "full_flashed"
    for kind in ("unchanged", "delta", "failing", "killed", "unchanged"):
        watched.run(kind)
    watched.check()
    loader = b"".join(chunk.data for chunk in watched.viewer.chunks if chunk.channel is Channel.LOADER)
    console = b"".join(chunk.data for chunk in watched.viewer.chunks if chunk.channel is Channel.CONSOLE)
    assert b"waiting for download" in loader and b"waiting for download" not in console
    assert b'"jsonrpc"' in console and b"\xc0\x01" not in console


@pytest.mark.stress
def test_every_byte_once_across_fifty_deploys(watched: WatchedBoard) -> None:
    watched.run("unchanged")
    dice = random.Random(14)
    for _ in range(50):
        watched.run(dice.choice(KINDS))
    watched.run("unchanged")
    watched.check()
