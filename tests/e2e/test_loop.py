"""`doit loop` over real deploys: a good project is green, and planted regressions are found where they were planted."""

from __future__ import annotations

import csv
import json
import os
from typing import Any

import pytest

from pipeline.effects.host import load_average
from pipeline.measure.loop.records import CSV_HEADER
from tests.e2e.space import Result, Space

PLANTS = """\
import shutil, time
from pathlib import Path

# a lost cache hit: one object and whatever could restore it are gone before each run
for lost in Path("build").rglob("*blink*.o"):
    lost.unlink()
    shutil.rmtree(".deploy/cache", ignore_errors=True)

from pipeline.stages import verify_flash

def slowly(*arguments, real=verify_flash.run):
    time.sleep(0.3)
    return real(*arguments)

# 300 ms more in one stage
verify_flash.run = slowly

from pipeline.tasks import *
"""
CLOCK = """
#pragma clang diagnostic ignored "-Wdate-time"
__attribute__((used, retain)) const char built_at[] = "built at " __TIME__;
"""


def lines(space: Space) -> list[dict[str, Any]]:
    return [json.loads(line) for line in space.file("reports/loop/RESULTS.jsonl").read_text().splitlines()]


def last_line(result: Result) -> dict[str, str]:
    line = next(line for line in result.out.splitlines() if line.startswith("LOOP_RULE="))
    return dict(word.split("=", 1) for word in line.split())


def declare_green(space: Space) -> None:
    """Make the one iteration that was measured the reference, as three in a row would, on a machine with time: what
    else runs here must not hide 300 ms."""
    *runs, iteration = lines(space)
    iteration |= {"ended": 1, "findings": []}
    for measured in iteration["measured"].values():
        measured["phases"] = {name: min(ms, 100) for name, ms in measured["phases"].items()}
    text = "".join(json.dumps(line) + "\n" for line in [*runs, iteration])
    space.file("reports/loop/RESULTS.jsonl").write_text(text)


@pytest.mark.long
def test_the_loop_is_green_and_planted_regressions_are_found_where_they_are(host_space: Space) -> None:
    before = {path: path.read_bytes() for path in host_space.file("firmware").rglob("*.c")}
    good = host_space.doit("loop", "--max", "1", "--repeats", "1", "--no-rebuild")
    assert [f for f in lines(host_space)[-1]["findings"] if "limit" not in f["fact"]] == [], "too slow, if anything"
    assert good.code == (last_line(good)["LOOP_STATE"] == "red"), good.out + good.err
    rows = list(csv.DictReader(host_space.file("reports/loop/RESULTS.csv").read_text().splitlines()))
    assert ",".join(rows[0]) == CSV_HEADER
    assert [row["test"] for row in rows] == ["T0", "T1", "T2", "T3", "T4", "T5"]
    outcomes = ["full_flashed", "", *["verified_unchanged"] * 3, "regions_flashed"]
    assert [row["verify_outcome"] for row in rows][:5] == outcomes[:5]
    assert rows[5]["verify_outcome"] in ("regions_flashed", "delta_flashed")
    assert all("precondition" not in row["notes"] for row in rows)
    report = host_space.file("reports/loop/runs") / f"{rows[3]['notes'].partition('tx=')[2]}.md"
    assert report.read_text().startswith("# Deploy Report")
    assert before == {path: path.read_bytes() for path in host_space.file("firmware").rglob("*.c")}
    assert not host_space.file(".deploy/boards").exists(), "the project's own board was not used"

    declare_green(host_space)
    host_space.file("dodo.py").write_text(PLANTS)
    source = host_space.file("firmware/modules/blink.c")
    source.write_text(source.read_text() + CLOCK)
    bad = host_space.doit("loop", "--max", "1", "--repeats", "1")
    assert bad.code == 1, bad.out + bad.err
    assert last_line(bad)["LOOP_RULE"] == "2", "one action per run: the first rule that holds"
    findings = lines(host_space)[-1]["findings"]
    lost = [f for f in findings if f["rule"] == 2 and "1 units were compiled" in f["fact"]]
    assert {f["test"] for f in lost} == {"T1", "T2", "T3"}
    assert all("blink" in f["subject"] for f in lost), "the lost cache hit names the object"
    # Within every limit (on a machine with time): the comparison with the reference finds it, in each test that has it.
    slow = [f for f in findings if f["fact"].startswith("verify-flash took") and f["fact"].endswith("in the reference")]
    assert {(f["rule"], f["test"], f["subject"]) for f in slow} == {(3, test, "verify-flash") for test in ("T2", "T3")}
    (clock,) = [f for f in findings if f["rule"] == 5 and f["test"] == "T0"]
    assert "blink" in clock["subject"] and ".rodata" in clock["subject"] and "built_at+" in clock["subject"]
    assert "offset 0x" in clock["fact"] and "'built at " in clock["fact"]
    if rows[5]["verify_outcome"] == "delta_flashed":
        # the lost cache held the reference of the delta too
        (whole,) = [f for f in findings if (f["rule"], f["test"], f["subject"]) == (5, "T5", "app")]
        assert "app was written" in whole["fact"] and "and delta in the reference" in whole["fact"]
    followup = host_space.file(last_line(bad)["LOOP_FILE"])
    assert followup.name == "followup-2-slow-build.md"
    text = followup.read_text()
    assert "rule 2 (2-slow-build)" in text and "built_at+" in text and "doit loop --max 1 --repeats 1" in text


@pytest.mark.stress
def test_three_green_iterations_end_with_a_summary(host_space: Space) -> None:
    if (load_average() or 0) > (os.cpu_count() or 1):
        pytest.skip("a busy machine is over the limits, and rightly so")
    first = host_space.doit("loop", "--max", "2", "--repeats", "1")
    assert (first.code, last_line(first)["LOOP_RULE"]) == (0, "0")
    second = host_space.doit("loop", "--repeats", "1", "--between", "python --version")
    assert (second.code, last_line(second)["LOOP_RULE"]) == (0, "1"), second.out
    assert last_line(second)["LOOP_ITERATIONS"] == "1", "the history counts over several runs"
    text = host_space.file("reports/loop/SUMMARY.md").read_text()
    assert "iterations: 1, 2, 3;" in text and "every output is the same" in text


@pytest.mark.long
def test_a_project_that_does_not_build_ends_with_a_follow_up(host_space: Space) -> None:
    host_space.edit("firmware/core/text.c", "#include", "nonsense\n#include")
    result = host_space.doit("loop", "--until-green", "--repeats", "1")
    assert result.code == 1
    end = last_line(result)
    assert (end["LOOP_RULE"], end["LOOP_ITERATIONS"]) == ("7", "5")
    text = host_space.file(end["LOOP_FILE"]).read_text()
    assert "compile_error" in text
    assert len(host_space.file("reports/loop/RESULTS.csv").read_text().splitlines()) == 1 + 5


def test_bad_options_are_refused(host_space: Space) -> None:
    for words, fact in (
        (["--max", "0"], "--max is 0, but must be at least 1"),
        (["--between", "'"], "is no command"),
        (["--between", "no-such-program"], "'no-such-program', which is not on PATH"),
    ):
        result = host_space.doit("loop", *words)
        assert result.code == 1
        assert f"loop: error: --{words[0][2:]}" in result.err + result.out and fact in result.err + result.out
    assert not host_space.file("reports/loop/RESULTS.csv").exists()
