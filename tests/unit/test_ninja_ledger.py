"""What ninja's logs say of the instant up to which a run of a command counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.engine.ledger import NinjaLedger
from pipeline.formats.ninja import logs
from pipeline.model import Action, Stage, Statement

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("version", "restat", "saved_s", "is_believed"),
    [
        (5, False, 3, True),
        (5, False, 1, False),  # while the command ran, which began two seconds before it ended
        (5, True, 1, True),  # as ninja has it: the log does not tell
        (6, False, 3, True),
        (7, False, 3, True),
        (7, False, 1, False),
    ],
)
def test_what_was_saved_while_ninja_ran_the_command(
    tmp_path: Path, version: int, restat: bool, saved_s: int, is_believed: bool
) -> None:
    source, output = tmp_path / "source", tmp_path / "out/output"
    output.parent.mkdir()
    source.write_text("")
    came_ns = source.stat().st_ctime_ns
    ended_ns = came_ns + saved_s * SECOND
    output.write_text("")
    _set(output, ended_ns)
    told_ns = ended_ns if version == 5 else ended_ns - 2 * SECOND
    entry = logs.LogEntry("output", 100, 2100, told_ns, logs.hash_command(version, "make it"))
    (tmp_path / "out" / logs.LOG_NAME).write_bytes(logs.log_head(version) + logs.log_lines([entry]))
    statement = Statement(directory="out", names=("output",), command="make it", restat=restat)
    action = Action("output", Stage.LINK, ("source",), ("out/output",), statement=statement)
    ledger = NinjaLedger(tmp_path, lambda path: str(tmp_path / path), lambda: version)
    found = ledger.made_elsewhere(action, lambda path: False)
    assert (found is not None) == is_believed


def _set(path: Path, mtime_ns: int) -> None:
    os.utime(path, ns=(mtime_ns, mtime_ns))
