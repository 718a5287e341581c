"""From `[execution]` and the environment to an executor: what is refused, what is said, what a report shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig, ExecutionConfig
from pipeline.effects.clock import SystemClock
from pipeline.model import Failure
from pipeline.remote.opening import open_executor
from pipeline.remote.reapi_executor import ReapiExecutor
from pipeline.report.markdown import render_markdown
from pipeline.run.far_execution import FarExecution

TEXT = """
[project]
name = "x"
sources = ["a.c"]
[toolchain]
linker_script = "a.ld"
[bootloader]
sources = ["b.c"]
linker_script = "b.ld"
[profile.local-fast]
[partitions]
table = "p.csv"
[device.bench]
port = "virtual:"
[execution]
"""
FAR = ExecutionConfig("grpc://127.0.0.1:1", 3, {"os": "linux"})


def test_the_section_is_read() -> None:
    said = 'remote = "grpcs://h:1/i"\njobs = 3\nplatform = { os = "linux" }\ntoken_env = "T"\n'
    config = parse_config(TEXT + said)
    assert isinstance(config, DeployConfig), config
    assert config.execution == ExecutionConfig("grpcs://h:1/i", 3, {"os": "linux"}, "T")
    bare = parse_config(TEXT)
    assert isinstance(bare, DeployConfig) and bare.execution == ExecutionConfig()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('remote = "http://h:1"', "which is no URL of an executor"),
        ('remote = "grpc://h"', "which has no port"),
        ('remote = "grpc://u:p@h:1"', "holds a user's name or password"),
        ("jobs = 0", "'execution.jobs' is 0"),
        ("platform = { os = 1 }", "platform"),
        ('token_env = "a-b"', "which is no name of a variable"),
    ],
)
def test_what_is_refused(line: str, words: str) -> None:
    found = parse_config(TEXT + line)
    assert isinstance(found, Failure) and words in found.message


def test_the_environment_turns_it_off_and_gives_the_token() -> None:
    clock = SystemClock()
    assert open_executor(ExecutionConfig(), {}, clock) is None
    assert open_executor(FAR, {"HOTPLATE_EXECUTION": "off"}, clock) is None
    assert open_executor(FAR, {"HOTPLATE_EXECUTION": "no"}, clock) == (
        "HOTPLATE_EXECUTION is 'no', not off or on; everything is executed here"
    )
    wrong = open_executor(FAR, {"HOTPLATE_EXECUTION_TOKEN": "a\nb"}, clock)
    assert wrong == "HOTPLATE_EXECUTION_TOKEN holds what no token is made of; everything is executed here"
    far = open_executor(FAR, {"HOTPLATE_EXECUTION_TOKEN": "t"}, clock)
    assert isinstance(far, ReapiExecutor) and far.jobs == 3 and far._authorization == "Bearer t"


def test_nothing_is_opened_without_an_executor_and_one_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOTPLATE_EXECUTION", raising=False)
    said: list[str] = []
    nobody = FarExecution(ExecutionConfig(), SystemClock(), said.append)
    assert nobody.work({}) is None
    nobody.close()
    far = FarExecution(FAR, SystemClock(), said.append)
    one, two = far.work({}), far.work({})
    assert one is not None and two is not None and one.executor is two.executor
    far.close()
    assert not one.executor.is_on() and said == []
    monkeypatch.setenv("HOTPLATE_EXECUTION", "perhaps")
    other = FarExecution(FAR, SystemClock(), said.append)
    assert other.work({}) is None and other.work({}) is None and len(said) == 1


def test_a_report_says_what_others_executed() -> None:
    report = json.loads((Path(__file__).parents[1] / "golden/report_success.json").read_text())
    assert "executed_remote" not in render_markdown(report)
    next(row for row in report["stages"] if row["stage"] == "compile")["counts"]["executed_remote"] = 2
    assert "- executed_remote: `2`\n" in render_markdown(report)
