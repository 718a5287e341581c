"""A board whose flash chip is smaller than deploy.toml says: an address beyond its end answers with what lies lower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.run.run import Run
from tests import given_firmware as given
from tests.e2e.inprocess import InProcessRun, deploy
from tests.e2e.space import Space
from tests.given_project import project
from virtualboard.port import open_virtual

CHIP = "esp32s3"
HAS = 2 << 20
ROWS: tuple[given.Row, ...] = (
    ("nvs", 1, 2, 0x9000, 0x5000),
    ("otadata", 1, 0, 0xE000, 0x2000),
    ("app0", 0, 0x10, 0x10000, 0x40000),
    ("app1", 0, 0x11, HAS + 0x10000, 0x40000),
)


def twice(root: Path, chip: str) -> str:
    """The same application in both slots, 2 MB apart."""
    given.write(root / "bin", {"b.bin": given.bootloader(chip), "t.bin": given.table(ROWS), "a.bin": given.app(chip)})
    places = f'0x0 = "bin/b.bin", 0x8000 = "bin/t.bin", 0x10000 = "bin/a.bin", {HAS + 0x10000:#x} = "bin/a.bin"'
    return f"files = {{ {places} }}"


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Space:
    """The project, and a board of 2 MB on which another tool has put what lies below its end."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    space = project(tmp_path / "project", CHIP, twice)
    flash = bytearray(b"\xff" * HAS)
    held = {0: given.bootloader(CHIP), 0x8000: given.table(ROWS), 0xE000: given.otadata(1), 0x10000: given.app(CHIP)}
    for offset, data in held.items():
        flash[offset : offset + len(data)] = data
    space.flash.parent.mkdir(parents=True)
    space.flash.write_bytes(flash)
    return space


def of_size(path: Path, size: int) -> Callable[[Run], None]:
    def edit(run: Run) -> None:
        def open_port(_device: Any) -> Any:
            return open_virtual(CHIP, path, flash_size=size)

        run.boards._open_port = open_port  # type: ignore[method-assign,assignment]

    return edit


def on_board(space: Space, size: int) -> InProcessRun:
    return deploy(space.path, edit=of_size(space.flash, size))


def test_what_lies_lower_is_no_proof_of_what_would_lie_beyond_the_end(space: Space) -> None:
    run = on_board(space, HAS)
    assert (run.outcome, run.category, run.failed_stage) == ("failed", "wrong_device", "verify-flash")
    assert "2048 KiB" in run.report["failure"]["message"]


def test_the_size_is_asked_once_for_a_board_and_its_settings(space: Space) -> None:
    space.flash.write_bytes(space.flash.read_bytes() * 2)
    trips = []
    for _ in range(2):
        run = on_board(space, 2 * HAS)
        assert run.outcome == "verified_unchanged", run.report["failure"]
        (verify,) = (stage for stage in run.report["stages"] if stage["stage"] == "verify-flash")
        trips.append(verify["counts"]["round_trips"])
    assert trips[1] < trips[0], "what was committed to this board with these settings has proven its size"
