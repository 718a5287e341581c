"""esptool's command line as a subprocess against a board process over RFC 2217, from the table of all commands.

Ordinary suite: each command once, spread over chips and modes. `-m stress`: every row, chip and mode (some minutes).
The boards run on; what a row needs in flash is put into the flash file, as a programmer on the bench would.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.contract import esptool_commands as commands
from tests.contract.board_process import BoardProcess, esptool_cli
from tests.contract.esptool_commands import OLD_STUB, ROM, ROWS, STUB
from virtualboard.chips import CHIPS

pytest.importorskip("esptool")

ORDINARY = {
    "esp32": [
        ("chip-id", ROM),
        ("flash-id", STUB),
        ("read-flash-sfdp", ROM),
        ("write-flash", STUB),
        ("erase-region", ROM),
        ("load-ram", STUB),
    ],
    "esp32s3": [
        ("read-mac", STUB),
        ("write-flash-status", STUB),
        ("write-flash --diff-with", OLD_STUB),
        ("verify-flash", STUB),
        ("erase-flash", STUB),
        ("dump-mem", ROM),
    ],
    "esp32c3": [
        ("read-flash-status", ROM),
        ("write-flash header rewritten", ROM),
        ("read-flash", OLD_STUB),
        ("read-mem", STUB),
        ("write-mem", ROM),
        ("run", ROM),
        ("get-security-info", STUB),
    ],
}


def check_rows(chip: str, rows: Sequence[tuple[str, str]], folder: Path) -> None:
    """Run rows one after the other on one board."""
    (folder / "flash.bin").write_bytes(b"\xff" * commands.SIZE)
    problems = []
    with BoardProcess(folder / "flash.bin", "--no-cpu", "--mac", commands.MAC, chip=chip) as board:
        for name, mode in rows:
            problems += [f"{chip} {mode}: {name}: {why}" for why in row_problems(board.url, chip, name, mode, folder)]
        assert board.stop() == (0, "")
    assert not problems, "\n".join(problems)


def row_problems(url: str, chip: str, name: str, mode: str, folder: Path) -> list[str]:
    """What was not as the row says."""
    row = ROWS[name]
    before, after = commands.prepare(folder, row, chip)
    failing = commands.fails(name, row, chip, mode)
    argv = [*commands.MODES[mode], "--verbose", *commands.arguments(folder, row, chip)]
    done = esptool_cli(url, *argv, cwd=folder)
    said = " ".join(done.stdout.split())
    problems = []
    if (done.returncode != 0) is not failing:
        problems.append(f"exit status {done.returncode}: {said}")
    if commands.expectation(row, chip, mode) not in said:
        problems.append(f"{commands.expectation(row, chip, mode)!r} is not in {said!r}")
    if (folder / "flash.bin").read_bytes() != (before if failing else after):
        problems.append("the flash is not what it should be")
    if not failing:
        for file, content in commands.expected_back(name, row, before, chip).items():
            if (folder / file).read_bytes() != content:
                problems.append(f"{file} is not what it should be")
    return problems


def test_the_ordinary_rows_name_every_command_chip_and_mode() -> None:
    rows = [row for rows in ORDINARY.values() for row in rows]
    assert {ROWS[name].args.split()[0] for name, _ in rows} == {row.args.split()[0] for row in ROWS.values()}
    assert set(ORDINARY) == set(CHIPS)
    assert {mode for _, mode in rows} == set(commands.MODES)


@pytest.mark.long
@pytest.mark.parametrize("chip", CHIPS)
def test_each_command(chip: str, tmp_path: Path) -> None:
    check_rows(chip, ORDINARY[chip], tmp_path)


@pytest.mark.stress
@pytest.mark.parametrize("mode", commands.MODES)
@pytest.mark.parametrize("chip", CHIPS)
def test_every_command_chip_and_mode(chip: str, mode: str, tmp_path: Path) -> None:
    check_rows(chip, [(name, mode) for name in ROWS], tmp_path)
