"""Ctrl-C, SIGTERM and `kill -9`: a report in each case, a free port, and a next run that heals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ServedBoard
from tests.e2e.space import TIMEOUT_S, Space


@pytest.fixture
def waiting(host_space: Space, start_board: Callable[[], ServedBoard]) -> Iterator[tuple[Space, subprocess.Popen[str]]]:
    """A deploy that waits for a silent firmware on a board process, and will for minutes."""
    host_space.on_process(start_board().url)
    host_space.edit("firmware/core/main.c", "    announce();\n", "")
    child = host_space.start("deploy")
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(".  ttfb:bench"):
            break
    else:
        raise AssertionError("the deploy ended before ttfb")
    with child:
        yield host_space, child


def report_of(space: Space, output: str) -> Any:
    name = output.rpartition("DEPLOY_REPORT=")[2].split(maxsplit=1)[0]
    return json.loads((space.path / name).with_suffix(".json").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_a_report(waiting: tuple[Space, subprocess.Popen[str]], number: signal.Signals) -> None:
    space, child = waiting
    child.send_signal(number)
    output, _ = child.communicate(timeout=TIMEOUT_S)
    # A shell says 130 to both. Python lets the signal end it when it came within an `eval`, such as that of namedtuple.
    assert child.returncode in (130, -signal.SIGINT), output
    assert "Traceback" not in output
    report = report_of(space, output)
    assert report["outcome"] == "interrupted"
    assert report["failure"]["category"] == "interrupted"
    assert next(s for s in report["stages"] if s["stage"] == "ttfb")["outcome"] == "interrupted"
    assert next(s for s in report["stages"] if s["stage"] == "reflash")["outcome"] == "ran"
    heal(space)


def test_a_killed_run_is_reported_by_the_next(waiting: tuple[Space, subprocess.Popen[str]]) -> None:
    space, child = waiting
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=TIMEOUT_S)
    assert list(Path(space.path / "reports").glob("*.md")) == []
    after = heal(space)
    assert "an earlier run was killed" in after
    killed = [
        report
        for path in (space.path / "reports").glob("*.json")
        if (report := json.loads(path.read_text()))["outcome"] == "interrupted"
    ]
    assert len(killed) == 1
    assert killed[0]["failure"]["stage"] == "ttfb"
    assert "killed" in killed[0]["failure"]["message"]
    assert "an earlier run was killed" not in space.deploy().out


def heal(space: Space) -> str:
    """The next deploy of a firmware that speaks again; it needs the port, the lock and the flash."""
    space.edit("firmware/core/main.c", "    port_init();\n", "    port_init();\n    announce();\n")
    result = space.deploy()
    assert result.code == 0, result.out + result.err
    assert result.written == ["app"]
    return result.out
