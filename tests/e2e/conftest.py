"""Fixtures of the end-to-end tests: a built template project, copies of it, and board processes."""

from __future__ import annotations

import fcntl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.space import ROOT, Space, copy_project, environment
from tests.forked import Python

READY_TIMEOUT_S = 300


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference project after one cold build, made once for all workers of a test run."""
    pytest.importorskip("ziglang", reason="the end-to-end tests compile with zig")
    pytest.importorskip("unicorn", reason="the end-to-end tests execute the firmware")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "popen-gw" in base.name else base
    path = shared / "template"
    with (shared / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path / "ready").exists():
            copy_project_sources(path)
            result = Space(path).doit("link")
            assert result.code == 0, result.out + result.err
            (path / "ready").touch()
    return path


def copy_project_sources(target: Path) -> None:
    """A fresh checkout: sources only."""
    import shutil

    target.mkdir(parents=True, exist_ok=True)
    for name in ("dodo.py", "deploy.toml"):
        shutil.copy2(ROOT / name, target / name)
    shutil.copytree(ROOT / "firmware", target / "firmware")


class ServedBoard:
    """`python -m virtualboard` on a free port, until the test ends."""

    def __init__(self, flash: Path, *options: str) -> None:
        self.flash = flash
        self.options = options
        self.port = "0"
        self.start()

    def start(self) -> None:
        """Start it, the second time on the same port, once whoever was given that meanwhile has left it."""
        until_s = time.monotonic() + READY_TIMEOUT_S
        ready = self._begun()
        while "Address already in use" in ready and self.port != "0" and time.monotonic() < until_s:
            self.child.communicate(timeout=READY_TIMEOUT_S)
            ready = self._begun()
        assert "rfc2217://" in ready, ready
        self.url = next(word for word in ready.split() if word.startswith("rfc2217://")).rstrip(",")
        self.port = self.url.partition("?")[0].rpartition(":")[2]

    def _begun(self) -> str:
        """Its first line."""
        options = ["--chip", "esp32c3", "--rfc2217", self.port, "--flash", str(self.flash), *self.options]
        self.child = Python(
            ["-m", "virtualboard", *options],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.child.stdout is not None
        return str(self.child.stdout.readline())

    def stop(self) -> None:
        self.child.terminate()
        self.child.communicate(timeout=READY_TIMEOUT_S)


@pytest.fixture(params=["virtual", "rfc2217"])
def space(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[Space]:
    """A built project whose default device is an in-process board, or a board process behind RFC 2217."""
    copy_project(template, tmp_path / "project")
    if request.param == "virtual":
        yield Space(tmp_path / "project")
        return
    board = ServedBoard(tmp_path / "board.flash")
    try:
        space = Space(tmp_path / "project", board.url, board.flash)
        space.stop_board, space.start_board = board.stop, board.start
        yield space
    finally:
        board.stop()


@pytest.fixture
def host_space(template: Path, tmp_path: Path) -> Space:
    """A built project with an in-process board, for scenarios that do not depend on the transport."""
    copy_project(template, tmp_path / "project")
    return Space(tmp_path / "project")


@pytest.fixture
def start_board(tmp_path: Path) -> Iterator[Callable[..., ServedBoard]]:
    """Start board processes, with more options if given; all are stopped at the end."""
    boards: list[ServedBoard] = []

    def start(*options: str) -> ServedBoard:
        boards.append(ServedBoard(tmp_path / f"board{len(boards)}.flash", *options))
        return boards[-1]

    yield start
    for board in boards:
        board.stop()
