"""esptool's own command line, in-process: every command, chip and mode. Its sleeps pass on the board's clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.device.connect import Unseen
from tests.contract import esptool_commands as commands
from virtualboard.board import Board
from virtualboard.chips import CHIPS
from virtualboard.nor import NorFlash
from virtualboard.port import BoardClock, VirtualPort

esptool = pytest.importorskip("esptool")


def open_port(flash: Path, chip: str, monkeypatch: pytest.MonkeyPatch) -> VirtualPort:
    """A powered board whose clock only esptool's sleeps and reads move."""
    clock = BoardClock(lambda: 0.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.advance_to(clock.now() + seconds))
    board = Board(CHIPS[chip], NorFlash(commands.SIZE, flash), commands.MAC, clock.now, execute=False)
    return VirtualPort(board, clock)


def run(port: VirtualPort, argv: list[str]) -> bool:
    """Run a command line on the port; whether it succeeded. What it says is on stdout."""
    esp: Any = esptool.detect_chip(port)
    try:
        esptool.main(argv, esp=esp)
    except (esptool.FatalError, esptool.util.UnsupportedCommandError) as exc:
        print(exc)
        return False
    return True


@pytest.fixture(autouse=True)
def no_hex_dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """esptool makes one of each packet for a trace, also when nobody traces: two fifths of this file's time."""
    monkeypatch.setattr(esptool.loader, "HexFormatter", Unseen)


@pytest.fixture(autouse=True)
def stub_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--stub-version` is global in esptool."""
    from esptool.loader import StubFlasher

    monkeypatch.setattr(StubFlasher, "STUB_SUBDIRS", ["2", "1"])
    monkeypatch.setattr(StubFlasher, "STUB_VERSION_EXPLICIT", False)


@pytest.mark.parametrize("mode", commands.MODES)
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("name", commands.ROWS)
def test_command(
    name: str,
    chip: str,
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = commands.ROWS[name]
    before, after = commands.prepare(tmp_path, row, chip)
    failing = commands.fails(name, row, chip, mode)
    port = open_port(tmp_path / "flash.bin", chip, monkeypatch)
    try:
        done = run(port, [*commands.MODES[mode], "--verbose", *commands.arguments(tmp_path, row, chip)])
    finally:
        port.close()
        port.board.flash.close()
    said = " ".join(capsys.readouterr().out.split())
    assert done is not failing, said
    assert commands.expectation(row, chip, mode) in said
    if mode == commands.OLD_STUB:
        assert "Using the deprecated legacy stub flasher." in said
    assert (tmp_path / "flash.bin").read_bytes() == (before if failing else after)
    if not failing:
        for file, content in commands.expected_back(name, row, before, chip).items():
            assert (tmp_path / file).read_bytes() == content
