"""Mistakes in options, of commands and of tasks."""

from __future__ import annotations

from typing import Any

import pytest
from doit import task as doit_task
from doit.task import Task

from pipeline.cli.attach_command import Attach
from pipeline.cli.commands import Monitor, Size
from pipeline.cli.usage import speak_plainly
from pipeline.run.options import stage_params


@pytest.mark.parametrize(
    ("command", "words", "fact", "hint"),
    [
        (Monitor, ["--call"], "--call: error: needs a value", "write it like --call=VALUE"),
        (Monitor, ["--seconds", "x"], "--seconds: error: is 'x', but must be a number", "write it like --seconds=5"),
        (Attach, ["--from", "x"], "--from: error: is 'x', but must be a whole number", "write it like --from=5"),
        (Size, ["--bye", "x"], "--bye: error: is no option here; did you mean '--by'?", "use one of --by, --"),
        (Size, ["--json=1"], "--json: error: takes no value", "write --json alone"),
        (Size, ["-x"], "-x: error: is no option here", "use one of --by, --"),
    ],
)
def test_a_command_refuses_an_option_in_a_line_and_a_hint(
    command: Any, words: list[str], fact: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command().parse_execute(words) == 3
    out, err = capsys.readouterr()
    first, second, *more = err.splitlines()
    assert (out, first, more) == ("", fact, [])
    assert second.startswith(f"hint: {hint}")


def test_a_task_does_so_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doit_task, "TaskParse", doit_task.TaskParse)  # put back at the end
    speak_plainly()
    deploy = Task("deploy", None, params=stage_params())
    with pytest.raises(SystemExit) as end:
        deploy.init_options(["--devce", "bench"])
    assert end.value.code == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first == "--devce: error: is no option here; did you mean '--device'?"
    assert second.startswith("hint: use one of --device, --group, ")
    right = Task("deploy", None, params=stage_params())
    assert right.init_options(["--device", "bench", "link"]) == ["link"]
    assert right.options["device"] == "bench"
