"""What `doit serve --status|--stop|--release` says without a service, for a wrong name, and of a busy one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import serve as asked
from pipeline.cli.serve_command import Serve
from pipeline.client.protocol import Message, ServiceFrame
from pipeline.model import Failure

NOTHING: dict[str, Any] = {
    "status": False,
    "stop": False,
    "now": False,
    "release": "",
    "install": False,
    "uninstall": False,
}


def run(**options: Any) -> int:
    known: dict[str, Any] = {str(option["name"]): False for option in Serve.cmd_options}
    return int(Serve.execute(object.__new__(Serve), {**known, **NOTHING, **options}, []))


@pytest.fixture(autouse=True)
def nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)


def test_one_thing_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(status=True, stop=True) == 3 and run(now=True) == 3
    assert "takes one thing at a time, got --status --stop" in capsys.readouterr().err


@pytest.mark.parametrize("option", [{"status": True}, {"stop": True}])
def test_without_a_service(option: dict[str, bool], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(**option) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("service: error: ") and "start it with `doit serve`" in said.err


def test_a_device_that_the_project_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '[project]\nname = "x"\nsources = ["a.c"]\n[toolchain]\nkind = "zig"\nchip = "esp32c3"\n'
    (tmp_path / "deploy.toml").write_text(text)
    assert run(release="bnech") == 1
    assert "hint: " in capsys.readouterr().err


def test_what_the_service_answers_is_shown_in_printable_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {
        "device": {"name": "bench", "root": "/p"},
        "port": "/dev/\x1b[31mx",
        "state": "open",
        "holder": {"pid": 7, "command": "doit deploy", "tx": "tx-1"},
        "failure": None,
        "elf": "ab" * 32,
        "viewers": 2,
        "bytes_seen": 10,
        "bytes_dropped": 0,
    }
    header = {
        "version": "0.1.0",
        "pid": 5,
        "uptime_s": 3725.5,
        "memory_kb": 30 << 10,
        "connections": 3,
        "devices": [state],
        "counts": {"slow": 1, "broken": 2},
    }
    monkeypatch.setattr(asked, "_ask", lambda message: ServiceFrame(1, header))
    assert asked.status_text() == (
        "service 0.1.0, pid 5, up 1 h 2 min, 30 MB, 3 connections\n"
        "bench of /p on /dev/\\x1b[31mx: open, lent to tx-1 (pid 7), runs abababababab, "
        "2 viewers, 10 bytes, 0 dropped\n"
        "counts: broken=2, slow=1\n"
    )


def test_a_service_that_writes_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(message: Message, *, now: bool) -> ServiceFrame:
        assert message is Message.STOP and not now
        return ServiceFrame(1, {"is": "done", "refused": "a board is being written to"})

    monkeypatch.setattr(asked, "_ask", answer)
    refused = asked.stop(now=False)
    assert isinstance(refused, Failure) and "a board is being written to" in refused.message
