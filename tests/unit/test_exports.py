"""Exports of a run: golden files, the rules of each format, every truncation of a log, hostile values, lost files."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events import ActionDone, RunStarted, StageStarted, When, event
from pipeline.failures import fail
from pipeline.model import Event, FailureCategory, Mark, MarkName, Stage, StageOutcome, StageResult
from pipeline.report.document import build_report
from pipeline.report.junit import render_junit
from pipeline.report.perfetto import render_trace
from pipeline.report.step_summary import render_summary
from pipeline.report.timeline import BOOT, STAGES, timeline
from pipeline.run import exports
from pipeline.run.options import Options, parse_options
from pipeline.text import quoted
from tests.golden import exports as golden
from tests.golden.scenarios import HERE, RUNS


@pytest.mark.parametrize("name", sorted(golden.exports()))
def test_the_files_are_these(name: str) -> None:
    assert golden.exports()[name] == (HERE / name).read_text(encoding="utf-8")


def prefixes() -> list[tuple[str, list[Event]]]:
    return [(name, make()[:length]) for name, make in RUNS.items() for length in range(1, len(make()) + 1)]


# --- trace ------------------------------------------------------------------------------------


def check_trace(text: str) -> list[dict[str, Any]]:
    """The rules of the Trace Event Format for the phases that we use."""
    value = json.loads(text)
    assert value["displayTimeUnit"] == "ms"
    rows: list[dict[str, Any]] = value["traceEvents"]
    for row in rows:
        assert {"name", "ph", "pid", "tid"} <= set(row)
        assert type(row["pid"]) is int and type(row["tid"]) is int and row["name"]
        if row["ph"] == "X":
            assert type(row["ts"]) is int and row["ts"] >= 0 and type(row["dur"]) is int and row["dur"] >= 0
        elif row["ph"] == "i":
            assert type(row["ts"]) is int and row["s"] in ("t", "p", "g")
        else:
            assert row["ph"] == "M" and row["name"] in ("process_name", "thread_name", "thread_sort_index")
    named = {(row["pid"], row["tid"]) for row in rows if row["name"] == "thread_name"}
    assert {(row["pid"], row["tid"]) for row in rows if row["ph"] != "M"} <= named
    # Viewers nest what lies inside; slices that only overlap are drawn wrong.
    for lane in named:
        slices = sorted(
            (row["ts"], row["ts"] + row["dur"]) for row in rows if row["ph"] == "X" and (row["pid"], row["tid"]) == lane
        )
        for (_, end), (start, _) in pairwise(slices):
            assert end <= start + 2, "rounding alone"
    return rows


def test_every_prefix_of_a_log_gives_a_valid_trace() -> None:
    for name, events in prefixes():
        rows = check_trace(render_trace([("bench", events)]))
        assert any(row["ph"] == "X" for row in rows), name


def test_each_action_stands_on_its_worker_and_each_device_in_its_process() -> None:
    rows = check_trace(render_trace([("bench", RUNS["success"]()), ("desk", RUNS["success"]())]))
    processes = {row["args"]["name"]: row["pid"] for row in rows if row["name"] == "process_name"}
    assert processes == {"host": 1, "device bench": 2, "device desk": 3}
    at = Counter((row["name"], row["pid"], row["tid"]) for row in rows if row["ph"] == "X")
    assert at["compile rpc.c", 1, 10] == at["compile <a & b>.c", 1, 11] == 1, "the host's part stands there once"
    assert at["reflash", 2, 1] == at["reflash", 3, 1] == 1
    assert at["rom_to_app", 2, 2] == at["rom_to_app", 3, 2] == 1


def test_the_lanes_of_a_timeline_hold_what_the_report_says() -> None:
    for name, make in RUNS.items():
        report, laid_out = build_report(make()), timeline(make())
        stages = {one.name: one for one in laid_out.slices if one.kind == "stage"}
        for row in report["stages"]:
            assert (row["stage"] in stages) == (row["outcome"] != "not-run"), name
            if row["stage"] in stages:
                assert abs(1000 * stages[row["stage"]].duration_s - row["duration_ms"]) <= 1
        segments = {one.name: one.duration_s for one in laid_out.slices if one.lane == BOOT}
        known = {key.removesuffix("_ms"): ms for key, ms in report["ttfb"]["segments"].items() if ms is not None}
        assert set(segments) == set(known)
        assert all(abs(1000 * segments[key] - known[key]) <= 1 for key in known)


def test_a_host_run_has_no_device_in_its_trace() -> None:
    events = [event(item, When("2026-11-21T08:30:00.000Z", at_s)) for item, at_s in host_run()]
    rows = check_trace(render_trace([("", events)]))
    assert {row["args"]["name"] for row in rows if row["name"] == "process_name"} == {"host"}
    assert [row["name"] for row in rows if row["ph"] == "X"] == ["startup", "cc a.c", "compile"]


def host_run() -> list[tuple[Any, float]]:
    limits = {"total": 4000}
    begin = RunStarted(
        "tx-20261121-083000-beef", "", "", "p", ("compile",), "", False, "", "md5", "", 0, limits, "", 50
    )
    return [
        (begin, 0.0),
        (StageStarted(Stage.COMPILE), 0.1),
        (ActionDone("cc a.c", Stage.COMPILE, "executed", 0, 0.11, 0.2), 0.32),
        (StageResult(Stage.COMPILE, StageOutcome.RAN, 0.25), 0.35),
    ]


# --- JUnit ------------------------------------------------------------------------------------

SUITE = {"id", "name", "package", "hostname", "timestamp", "tests", "failures", "errors", "skipped", "time"}


def check_junit(text: str) -> list[ElementTree.Element]:
    """The rules of Ant's schema (Windy Road's JUnit.xsd), which is the strictest in use."""
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites" and not root.attrib
    for number, suite in enumerate(root):
        assert suite.tag == "testsuite" and set(suite.attrib) == SUITE
        assert suite.get("id") == str(number) and suite.get("hostname") == "localhost"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
        tags = [child.tag for child in suite]
        cases = suite.findall("testcase")
        assert tags == ["properties", *["testcase"] * len(cases), "system-out", "system-err"]
        for item in suite.findall("properties/property"):
            assert set(item.attrib) == {"name", "value"} and item.get("name")
        for case in cases:
            assert set(case.attrib) == {"name", "classname", "time"} and len(case) <= 1
            for bad in (child for child in case if child.tag != "skipped"):
                assert bad.tag in ("error", "failure") and set(bad.attrib) == {"message", "type"}
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(key) == str(sum(case.find(tag) is not None for case in cases))
        assert suite.get("tests") == str(len(cases))
    return list(root)


def test_every_prefix_of_a_log_gives_valid_junit() -> None:
    suites = check_junit(render_junit([build_report(events) for _, events in prefixes()]))
    assert len(suites) == len(prefixes())


def test_each_stage_of_each_device_is_a_case() -> None:
    (failed, fine) = check_junit(render_junit([golden.report("failure"), golden.report("unchanged")]))
    assert [case.get("name") for case in failed.findall("testcase")] == [stage.value for stage in Stage]
    bad = failed.find("testcase[@name='ttfb']/failure")
    assert bad is not None and bad.get("type") == "panic" and "Load access fault" in bad.get("message", "")
    detail = "\n".join(quoted(golden.report("failure")["failure"]["detail"]))
    assert bad.text is not None and detail in bad.text, "the boot log is whole"
    assert fine.get("failures") == fine.get("errors") == "0"


def test_a_failure_outside_the_stages_is_an_error_of_the_run() -> None:
    said = RUNS["unchanged"]()[:1]
    stopped = fail(FailureCategory.INTERRUPTED, stage=None, where="device b", message="device a failed")
    (suite,) = check_junit(render_junit([build_report([*said, event(stopped, When("2026-11-21T08:30:00.000Z", 1.0))])]))
    assert suite.get("errors") == "1" and suite.find("testcase[@name='run']/error[@type='interrupted']") is not None


HOSTILE = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    ["]]>", "<!--", "\x00\x1b[31m", "a\r\nb", "\u202e", "&lt;", '" onload="', "\ud800"]
)


@settings(deadline=None)
@given(HOSTILE, HOSTILE)
def test_nothing_that_a_device_sends_breaks_the_formats(message: str, detail: str) -> None:
    panic = fail(FailureCategory.PANIC, stage=Stage.TTFB, where="device x", message=message, detail=detail)
    at = When("2026-11-21T08:30:01.000Z", 1.5)
    said = [
        *RUNS["success"]()[:1],
        event(ActionDone(f"cc {message}", Stage.COMPILE, "executed", 0, 0.2, 0.1), at),
        event(Mark(MarkName.RESET_RELEASED, 1.0, detail), at),
        event(StageResult(Stage.TTFB, StageOutcome.FAILED, 0.1, failure=panic), at),
    ]
    check_trace(render_trace([("bench", said)]))
    text = render_junit([build_report(said)])
    check_junit(text)
    assert all(c.isprintable() or c == "\n" or c == "\t" for c in text)
    summary = render_summary([build_report(said)])
    assert summary.count("## Deploy") == summary.count("\n## Deploy") + 1


# --- options, files ---------------------------------------------------------------------------


def test_options_are_read_from_the_command_line() -> None:
    argv = ["deploy", "--trace", "t.json", "--junit=j.xml", "--json", "--device", "desk"]
    assert parse_options(argv, ["deploy"]) == Options(("desk",), trace="t.json", junit="j.xml", json=True)
    assert parse_options(["compile"], []) == Options()


def test_what_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = Options(trace="file/trace.json", junit="made/j.xml")
    environment = {exports.SUMMARY_VARIABLE: str(tmp_path / "file/sum.md")}
    notes = exports.write(tmp_path, options, environment, golden.logs("success"))
    assert [note.partition(":")[0] for note in notes] == ["file/trace.json", "$GITHUB_STEP_SUMMARY"]
    check_junit((tmp_path / "made/j.xml").read_text())


def test_the_step_summary_is_added_to_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "sum.md").write_text("before\n")
    environment = {exports.SUMMARY_VARIABLE: str(tmp_path / "sum.md")}
    assert exports.write(tmp_path, Options(), environment, golden.logs("failure")) == []
    text = (tmp_path / "sum.md").read_text()
    assert text.startswith("before\n## Deploy `bench`: failed\n") and "**panic**" in text


class Closed(io.StringIO):
    """A pipe whose reader goes away after some lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.left = lines

    def write(self, text: str) -> int:
        if self.left == 0:
            raise BrokenPipeError(32, "Broken pipe")
        self.left -= 1
        return super().write(text)


def test_a_reader_that_goes_away_ends_the_stream_and_nothing_else() -> None:
    out = Closed(2)
    stream = exports.Stream(out)
    for item in RUNS["success"]():
        stream.event("tx-20261121-083000-beef", "bench", item)
    lines = out.getvalue().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["run_started", "stage_started"]
    assert "Broken pipe" in stream.broken


def test_stages_are_a_lane_of_their_own() -> None:
    assert {one.lane for one in timeline(RUNS["success"]()).slices} == {STAGES, BOOT, "worker 0", "worker 1"}
