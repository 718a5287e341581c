"""A session of benchmarks: every suite is recorded, whatever becomes of it, and the report is written after each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.measure.bench import generated_project
from pipeline.measure.bench import suites as bench_suites
from pipeline.measure.bench.engine import asked_units
from pipeline.measure.bench.suite import CannotRun, Recorder
from pipeline.measure.bench.suites import BenchSession
from pipeline.measure.bench.table import BenchRow, at_most
from pipeline.model import Failure
from pipeline.run.build import Build, load_build
from pipeline.run.options import Options, last_value


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    generated_project.write_project(tmp_path, 1)
    found = load_build(Options(), tmp_path)
    assert not isinstance(found, Failure), found
    yield found
    found.close()


def good(_build: Build, recorder: Recorder, options: Mapping[str, Any]) -> None:
    recorder.step("something", 1, 2)
    recorder.add(BenchRow("good", "a case", options["runs"], "ms", target=at_most(2)))


def broken(_build: Build, recorder: Recorder, _options: Mapping[str, Any]) -> None:
    recorder.add(BenchRow("broken", "before it broke", 1, "ms"))
    raise RuntimeError("the build failed\nsrc/a.c:1:2: error: planted")


def missing(_build: Build, _recorder: Recorder, _options: Mapping[str, Any]) -> None:
    raise CannotRun("ninja is not installed", "install it")


def stopped(_build: Build, recorder: Recorder, _options: Mapping[str, Any]) -> None:
    recorder.add(BenchRow("stopped", "before", 1, "ms"))
    raise KeyboardInterrupt


def strict(_build: Build, recorder: Recorder, _options: Mapping[str, Any]) -> None:
    recorder.strict = True
    recorder.add(BenchRow("strict", "compiler runs", 2, "", target=at_most(1)))


SUITES = {suite.__name__: suite for suite in (good, broken, missing, stopped, strict)}


@pytest.fixture(autouse=True)
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_suites, "SUITES", {name: name for name in SUITES})
    monkeypatch.setattr(
        bench_suites, "import_module", lambda name: SimpleNamespace(measure=SUITES[name.rpartition(".")[2]])
    )


def report(build: Build) -> Any:
    (path,) = build.project.reports_dir.glob("bench-*.json")
    assert path.with_suffix(".md").read_text().startswith("# Benchmark Report")
    return json.loads(path.read_text())


def test_suites_that_fail_are_recorded_and_the_others_run(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    session = BenchSession(build, "doit bench", gathered=True)
    assert [session.run(name, {"runs": 3}) for name in ("missing", "broken", "good")] == ["", "", ""]
    failed = session.finish()
    assert failed == (
        "2 of 3 suites failed: missing (could not run: ninja is not installed), "
        "broken (could not run: RuntimeError: the build failed)"
    )
    made = report(build)
    assert [suite["name"] for suite in made["suites"]] == ["missing", "broken", "good"]
    assert [len(suite["rows"]) for suite in made["suites"]] == [0, 1, 1]
    assert made["suites"][0]["hint"] == "install it"
    assert made["suites"][1]["notes"] == [{"title": "what it said", "text": "src/a.c:1:2: error: planted"}]
    assert (made["outcome"], made["missed"]) == ("incomplete", ["good: a case"])
    out = capsys.readouterr().out
    assert "missed: good: a case\n" in out
    assert "\x1b" not in out and "something" not in out, "no progress in a pipe"
    assert f"BENCH_ID={made['id']} BENCH_OUTCOME=incomplete BENCH_REPORT=reports/{made['id']}.md\n" in out


def test_a_suite_alone_writes_its_own_report_and_fails_itself(build: Build) -> None:
    session = BenchSession(build, "doit bench:missing", gathered=False)
    assert session.run("missing", {"runs": 3}) == "could not run: ninja is not installed\nhint: install it"
    assert report(build)["command"] == "doit bench:missing"


def test_a_missed_target_is_no_failure_unless_nothing_but_code_can_move_it(build: Build) -> None:
    session = BenchSession(build, "doit bench:good bench:strict", gathered=False)
    assert session.run("good", {"runs": 3}) == ""
    assert session.run("strict", {}) == "1 of 1 figures are worse than kept"
    assert report(build)["missed"] == ["good: a case", "strict: compiler runs"]
    assert report(build)["outcome"] == "measured"


def test_ctrl_c_leaves_what_was_found(build: Build) -> None:
    session = BenchSession(build, "doit bench", gathered=True)
    session.run("good", {"runs": 1})
    with pytest.raises(KeyboardInterrupt):
        session.run("stopped", {"runs": 1})
    made = report(build)
    assert [suite["error"] for suite in made["suites"]] == ["", "stopped by Ctrl-C"]
    assert [len(suite["rows"]) for suite in made["suites"]] == [1, 1]


def test_runs_must_be_at_least_one(build: Build) -> None:
    session = BenchSession(build, "doit bench:good --runs 0", gathered=False)
    assert session.run("good", {"runs": 0}).startswith("could not run: --runs is 0, but must be at least 1")


def test_the_report_says_where_and_with_what(build: Build) -> None:
    BenchSession(build, "doit bench:good", gathered=False).run("good", {"runs": 1})
    made = report(build)
    assert made["machine"]["cpu"] and set(made["load"]) == {"before", "after"}
    assert made["tools"]["doit"] == "0.37.0"
    assert set(made["tools"]) == {"hotplate", "doit", "esptool", "toolchain", "ninja", "ccache"}


def test_the_runs_of_a_group_are_read_from_the_command_line() -> None:
    assert last_value(["bench", "--runs", "3"], "runs") == "3"
    assert last_value(["bench", "--runs=3", "--runs=4", "--run", "5"], "runs") == "4"
    assert last_value(["bench"], "runs") == last_value(["bench", "--runs"], "runs") == ""


def test_sizes_that_are_asked_for() -> None:
    assert asked_units({}) == asked_units({"units": ""}) == ()
    assert asked_units({"units": "100,50000"}) == (100, 50_000)
    for wrong in ("0", "-1", "many", "1.5", "100001"):
        with pytest.raises(CannotRun, match="--units"):
            asked_units({"units": wrong})
