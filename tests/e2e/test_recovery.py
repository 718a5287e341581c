"""Boards that do not answer, in whole deploys and by `doit recover`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.model import Stage
from pipeline.run.device_service import DeviceService
from tests.e2e.conftest import ServedBoard
from tests.e2e.inprocess import deploy
from tests.e2e.space import Space
from tests.unit.test_recovery import DeadLines


def reasons(report: dict[str, Any]) -> list[tuple[str, str]]:
    stage = next(stage for stage in report["stages"] if stage["stage"] == "verify-flash")
    return [
        (reason["kind"], reason["subject"])
        for reason in stage["reasons"]
        if reason["kind"] in ("recovered", "not-recovered")
    ]


def test_a_healthy_deploy_knows_nothing_of_it(host_space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a healthy board is not recovered")

    monkeypatch.setattr(DeviceService, "recovery", never)
    assert deploy(host_space.path).outcome == "full_flashed"


def test_a_board_that_vanished_is_found_and_flashed(host_space: Space) -> None:
    result = deploy(host_space.path, {Stage.VERIFY_FLASH: ["vanish:for=1,name=new"]})
    assert result.outcome == "full_flashed", result.failure
    assert reasons(result.report)[-1] == ("recovered", "reenumerate")


def test_the_firmware_restarts_when_the_lines_do_nothing(host_space: Space) -> None:
    """The reference firmware itself: it runs, it is asked by JSON-RPC, and only then the reset works."""
    assert deploy(host_space.path).outcome == "full_flashed"
    answer = '"id":"hotplate-recover","result":true'
    heard: list[bytes] = []

    class Deaf(DeadLines):
        """Its lines work once the firmware has answered."""

        @property
        def alive(self) -> bool:
            return answer.encode() in b"".join(heard)

        def write(self, data: bytes) -> int:
            return self.real.write(data)

        def read(self, size: int) -> bytes:
            data = self.real.read(size)
            heard.append(data)
            return data

    def deafen(context: Any) -> None:
        really_open = context.boards._open_port
        context.boards._open_port = lambda device: Deaf(really_open(device), b"", b"")

    result = deploy(host_space.path, edit=deafen)
    assert result.outcome == "verified_unchanged", result.failure
    assert reasons(result.report) == [("not-recovered", "loader-entry"), ("recovered", "soft-reset")]


RESTART = """\
import os, subprocess, sys
open("asked", "a").write(sys.argv[1] + "\\n")
child = subprocess.Popen([sys.executable, "-m", "virtualboard", *sys.argv[2:]], start_new_session=True,
    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
open("pid", "w").write(str(child.pid))
child.stdout.readline()
"""


def test_a_board_without_power_is_switched_on(host_space: Space, start_board: Callable[..., ServedBoard]) -> None:
    board = start_board()
    host_space.on_process(board.url)
    board.stop()
    host_space.file("on.py").write_text(RESTART)
    command = ["python", "on.py", "{port}", "--chip", "esp32c3", "--rfc2217", board.port, "--flash", str(board.flash)]
    host_space.edit("deploy.toml", "default = true", f"default = true\npower = {command!r}".replace("'", '"'))
    try:
        result = host_space.deploy()
        assert result.outcome == "full_flashed", result.err
        assert reasons(result.report) == [("recovered", "power-cycle")]
        assert host_space.file("asked").read_text() == f"{board.url}\n"
    finally:
        pid = Path(host_space.file("pid"))
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)


def test_doit_recover_says_what_helped(host_space: Space) -> None:
    before = host_space.flash.read_bytes() if host_space.flash.exists() else b""
    well = host_space.doit("recover")
    assert (well.code, well.out.splitlines()[-1]) == (
        0,
        "bench: answers, nothing to recover: esp32c3, 7c:df:a1:00:11:22",
    )
    host_space.edit("deploy.toml", '"virtual:"', '"virtual:?fault=silence:for=0,boot=0,times=0"')
    silent = host_space.doit("recover", "--device", "bench")
    assert silent.code == 1
    told = [line.split(" after ")[0] for line in silent.out.splitlines() if line.startswith("bench: ")]
    assert told[:4] == [
        "bench: loader-entry: failed",
        "bench: soft-reset: failed",
        "bench: reset-line: failed",
        "bench: other-baud: failed",
    ]
    assert "bench: power-cycle: skipped: deploy.toml has no `power` command for this device" in silent.out
    assert "take the fault out of the device's `port`" in silent.out + silent.err
    assert not before or host_space.flash.read_bytes() == before
