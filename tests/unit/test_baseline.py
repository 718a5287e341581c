"""Baselines as data: rows, what counts, before and after, run 1 against the others, the budget, and the renderings."""

from __future__ import annotations

import csv
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measure.baseline import rows as core
from pipeline.measure.baseline.measure import Step, steps
from pipeline.measure.baseline.rows import BaselineRow, build, comparable, measured, rows, rows_of, samples
from pipeline.measure.baseline.view import CSV_HEADER, render_csv, render_text
from pipeline.model import Stage
from pipeline.report.document import build_report
from tests.golden import baselines as golden
from tests.golden import scenarios

GOLDEN = Path(golden.__file__).parent
before = cache(golden.before)
ALL_STEPS = [
    ("build", "fingerprint"),
    ("build", "compile"),
    ("build", "link"),
    ("flash", "verify"),
    ("flash", "write"),
    ("serial", "reattach"),
    ("serial", "ttfb"),
    ("deploy", "total"),
]


@pytest.mark.parametrize("name", golden.BASELINES)
def test_renderings_are_those_on_file(name: str) -> None:
    for file, text in golden.pages(name).items():
        assert (GOLDEN / file).read_text(encoding="utf-8") == text, f"{file} differs: see tests/golden/baselines.py"


def test_the_csv_begins_with_the_agreed_header() -> None:
    text = render_csv(golden.full())
    assert text.splitlines()[0] == "run,category,step,status,duration_s" == CSV_HEADER
    assert text.splitlines()[1] == "cold-1,build,fingerprint,ok,0.012"
    assert all(len(line) == 5 for line in csv.reader(io.StringIO(text)))


def test_a_run_has_a_row_for_each_step() -> None:
    found = rows(measured("warm", 2, "", build_report(scenarios.unchanged())), deploy=True)
    assert [(row.category, row.step) for row in found] == ALL_STEPS
    assert [row.status for row in found] == ["up-to-date"] * 3 + ["ok", "up-to-date", "ok", "ok", "ok"]
    assert found[3] == BaselineRow("warm-2", "flash", "verify", "ok", 0.24)
    host = rows(measured("warm", 2, "", build_report(scenarios.unchanged())), deploy=False)
    assert [row.category for row in host] == ["build", "build", "build", "deploy"]


def test_a_failed_step_has_its_category_and_the_rest_did_not_run() -> None:
    found = {row.step: row for row in rows(measured("cold", 1, "", build_report(scenarios.failure())), deploy=True)}
    assert found["ttfb"].status == found["total"].status == "fail:panic"
    assert found["ttfb"].duration_s == 0.26
    stopped = rows(measured("cold", 1, "", build_report(scenarios.killed())), deploy=True)
    assert [(row.status, row.duration_s) for row in stopped[4:7]] == [
        ("fail:interrupted", 0.09),
        ("not-run", None),
        ("not-run", None),
    ]


def test_a_run_that_never_began_has_no_durations() -> None:
    found = rows(core.unmeasured("cold", 1, "", "config_error", "x"), deploy=True)
    assert [row.duration_s for row in found] == [None] * 8
    assert [row.status for row in found] == ["not-run"] * 7 + ["fail:config_error"]


def test_what_the_gate_answered_is_up_to_date() -> None:
    found = rows(core.answered_by_fastpath("warm", 2, "", 31), deploy=False)
    assert [(row.status, row.duration_s) for row in found] == [("up-to-date", 0.0)] * 3 + [("ok", 0.031)]


def test_statistics_are_of_successful_steps_and_without_the_run_that_got_warm() -> None:
    found = [
        BaselineRow("warm-1", "flash", "verify", "ok", 9.0),
        BaselineRow("warm-2", "flash", "verify", "ok", 0.2),
        BaselineRow("warm-3", "flash", "verify", "fail:port_missing", 0.1),
        BaselineRow("warm-4", "flash", "verify", "not-run", None),
        BaselineRow("warm-10", "flash", "verify", "up-to-date", 0.0),
        BaselineRow("cold-1", "flash", "verify", "ok", 1.0),
    ]
    assert samples(found) == {("warm", "flash", "verify"): [0.2, 0.0], ("cold", "flash", "verify"): [1.0]}


def test_the_runs_of_each_mode() -> None:
    assert list(steps("cold", 2)) == [Step("cold", 1, erase=True), Step("cold", 2, erase=True)]
    assert list(steps("warm", 2)) == [Step("warm", 1, erase=True), Step("warm", 2), Step("warm", 3)]
    full = [(step.series, step.number, step.edit) for step in steps("full", 2)]
    assert full == [
        *[("cold", 1, ""), ("cold", 2, ""), ("warm", 1, ""), ("warm", 2, ""), ("warm", 3, "")],
        *[("edit", n, edit) for n in (1, 2) for edit in ("comment", "header", "real")],
    ]


# --- before and after -------------------------------------------------------------------------


def outside(made: dict[str, Any]) -> dict[str, Any]:
    return {f"{row['category']}/{row['step']}": row["outside_spread"] for row in made["compared"]["rows"]}


def test_300_ms_more_in_one_stage_show_under_that_step_and_the_total_alone() -> None:
    found = outside(golden.slower())
    assert {step for step, verdict in found.items() if verdict} == {"flash/verify", "deploy/total"}
    assert len(found) == len(ALL_STEPS)


def test_a_baseline_is_only_compared_with_its_like() -> None:
    one = json.loads(json.dumps(before()))
    assert comparable(one, before())
    for name, other in (
        ("mode", "cold"),
        ("profile", "release"),
        ("device", {**one["device"], "timing": "esp32-uart"}),
        ("machine", {**one["machine"], "id": "another"}),
        ("deploy", False),
        ("schema", 2),
        ("kind", "deploy"),
    ):
        assert not comparable(one, {**one, name: other}), name
    assert comparable(one, {**one, "machine": {**one["machine"], "python": "CPython 3.12.1"}, "git": {}})
    assert not comparable(one, {"kind": "baseline"})


def test_no_earlier_baseline_is_said() -> None:
    made = before()
    assert made["compared"] is None
    assert "There is no earlier baseline" in golden.pages("full")["baseline_full.md"]


def test_a_step_that_one_of_the_two_did_not_measure_is_left_out() -> None:
    earlier = {**before(), "rows": [row for row in before()["rows"] if row["category"] != "serial"]}
    made = build(golden.facts("b", "warm"), [golden.warm(n) for n in range(1, 7)], {}, earlier)
    assert len(outside(made)) == 6


# --- run 1, budget, failures ------------------------------------------------------------------


def test_run_1_against_the_others() -> None:
    (row,) = before()["first_run"]
    assert (row["first_ms"], row["rest_median_ms"], row["cold_start_paid_again"]) == (1738, 443, False)
    again = [golden.run("warm", n, golden.COLD) for n in range(1, 4)]
    made = build(golden.facts("b", "warm"), again, {})
    assert made["first_run"][0]["cold_start_paid_again"] is True
    assert "A COLD START WAS PAID AGAIN" in render_text(made)
    assert build(golden.facts("b", "warm"), again[:1], {})["first_run"] == []


def test_the_budget_is_judged_on_the_medians_of_the_warm_runs() -> None:
    budget = golden.full()["budget"]
    assert (budget["series"], budget["total"]["measured_ms"], budget["bottleneck"]) == ("warm", 442, "verify-flash")
    cold = build(golden.facts("b", "cold"), [golden.run("cold", n, golden.COLD) for n in (1, 2)], {"total": 10})
    assert (cold["budget"]["series"], cold["budget"]["total"]["verdict"]) == ("cold", "OVER")


@pytest.mark.parametrize(
    ("series", "limit", "enforced", "outcome"),
    [
        ("warm", 443, True, "ok"),
        ("warm", 442, True, "over_budget"),
        ("warm", 442, False, "ok"),
        ("cold", 442, True, "ok"),
    ],
)
def test_only_warm_runs_can_break_an_enforced_budget(series: str, limit: int, enforced: bool, outcome: str) -> None:
    made_of = golden.warm if series == "warm" else lambda n: golden.run("cold", n, golden.COLD)
    runs = [made_of(n) for n in range(1, 7)]
    made = build(golden.facts("b", series), runs, {"total": limit}, enforced=enforced)
    assert (made["outcome"], made["budget"]["enforced"]) == (outcome, enforced)


def test_a_baseline_of_failures_alone_still_renders() -> None:
    runs = [core.unmeasured("cold", n, "", "config_error", "deploy.toml:1:1: error: no\x1b[31m") for n in (1, 2)]
    made = build(golden.facts("b", "cold"), runs, {"total": 10})
    assert made["outcome"] == "failed"
    assert made["budget"]["total"]["verdict"] == "NOT_MEASURED"
    text = render_text(made)
    assert "cold-2: config_error: deploy.toml:1:1: error: no" in text
    assert "\x1b" not in text, "what a child printed does not steer the terminal"


def test_a_real_edit_that_changed_nothing_is_said() -> None:
    nothing = golden.run("edit", 1, golden.WARM, edit="real", warm=True)
    made = build(golden.facts("b", "full"), [nothing], {})
    assert made["notes"] == ["the real edit did not change the image in edit-1"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["cold", "warm", "edit"]),
            st.integers(1, 12),
            st.dictionaries(st.sampled_from([*map(str, Stage), "total"]), st.none() | st.integers(0, 90_000)),
            st.dictionaries(st.sampled_from([str(s) for s in Stage]), st.sampled_from(["ran", "up-to-date", "failed"])),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(deadline=None, max_examples=12)
def test_any_runs_make_a_baseline_that_survives_its_json(found: list[Any]) -> None:
    runs = [
        core.BaselineRun(
            series,
            number,
            "real" if series == "edit" else "",
            phases,
            outcomes,
            {},
            ("panic", "", "x") if bad else None,
        )
        for series, number, phases, outcomes, bad in found
    ]
    made = json.loads(json.dumps(build(golden.facts("b", "full"), runs, {"total": 5}, before())))
    assert rows_of(made) == [row for run in runs for row in rows(run, deploy=True)]
    assert render_text(made)
    for row in made["summary"]:
        if row["n"]:
            assert row["min_ms"] <= row["median_ms"] <= row["p90_ms"] <= row["max_ms"]
            assert row["median_low_ms"] <= row["median_ms"] <= row["median_high_ms"]
        else:
            assert row["median_ms"] is None, "what was not measured is not 0"
