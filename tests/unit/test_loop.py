"""The loop's rules, each and in their order, and its records byte by byte."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measure.loop import records
from pipeline.measure.loop.judgement import (
    SLUGS,
    Finding,
    Iteration,
    Limits,
    LoopDecision,
    LoopRun,
    Rule,
    Test,
    decide,
    judge,
    reference_of,
    without_progress,
)
from pipeline.measure.loop.records import CSV_HEADER, LoopOrigin, broken_precondition, csv_row, measure, read_history
from pipeline.measure.loop.view import followup, followup_name
from tests.golden import loops as golden

GOLDEN = Path(__file__).parents[1] / "golden"
GREEN = Iteration(0)
HERE = LoopOrigin("machine", "bench", "local-fast")


def red(*rules: Rule) -> Iteration:
    return Iteration(0, tuple(Finding(rule, "T2", "x", "y") for rule in rules))


UNSCORED = Iteration(0, (), ("T2: sources_changed:a.c",))
TWO = red(Rule.SLOW_BUILD)


def run(test: Test, total_ms: int = 300, **values: Any) -> LoopRun:
    base = {"phases": {"startup": 100, "verify-flash": 100, "ttfb": 60, "remainder": 40}, "compiled": 0, "linked": 0}
    if test is Test.EDIT:
        base |= {"compiled": 1, "linked": 1, "bytes_written": 4096, "regions": {"app": "delta"}}
    elif test is Test.COMMENT:
        base |= {"compiled": 1}
    return LoopRun(test, total_ms, **{**base, **values})


def found(*runs: LoopRun, reference: dict[str, LoopRun] | None = None) -> list[Finding]:
    return list(judge(runs, Limits(), reference or {})[0])


def whole(*runs: LoopRun) -> list[LoopRun]:
    """All tests, those in `runs` instead of good ones."""
    return [next((one for one in runs if one.test is test), run(test)) for test in Test]


# --- decide -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "rule", "cause"),
    [
        ([], Rule.CONTINUE, Rule.CONTINUE),
        ([GREEN], Rule.CONTINUE, Rule.CONTINUE),
        ([GREEN, GREEN], Rule.CONTINUE, Rule.CONTINUE),
        ([GREEN, GREEN, GREEN], Rule.GREEN, Rule.GREEN),
        ([TWO, GREEN, GREEN, GREEN], Rule.GREEN, Rule.GREEN),
        ([GREEN, GREEN, TWO, GREEN], Rule.CONTINUE, Rule.CONTINUE),
        ([GREEN, GREEN, UNSCORED], Rule.CONTINUE, Rule.CONTINUE),
        ([GREEN, GREEN, UNSCORED, GREEN], Rule.CONTINUE, Rule.CONTINUE),
        *(([red(rule)], rule, rule) for rule in Rule if Rule.GREEN < rule < Rule.NO_PROGRESS),
        ([red(Rule.NO_PROGRESS)], Rule.CONTINUE, Rule.NO_PROGRESS),
        ([TWO] * 4, Rule.SLOW_BUILD, Rule.SLOW_BUILD),
        ([TWO] * 5, Rule.NO_PROGRESS, Rule.SLOW_BUILD),
        ([UNSCORED] * 5, Rule.NO_PROGRESS, Rule.NO_PROGRESS),
        ([red(Rule.NO_PROGRESS)] * 5, Rule.NO_PROGRESS, Rule.NO_PROGRESS),
        ([TWO, TWO, GREEN, TWO, TWO, TWO], Rule.SLOW_BUILD, Rule.SLOW_BUILD),
        ([red(Rule.SLOW_BUILD, Rule.WROTE), *[TWO] * 5], Rule.SLOW_BUILD, Rule.SLOW_BUILD),
        ([red(Rule.SLOW_BUILD, Rule.WROTE), *[TWO] * 6], Rule.NO_PROGRESS, Rule.SLOW_BUILD),
    ],
)
def test_each_rule(history: list[Iteration], rule: Rule, cause: Rule) -> None:
    decision = decide(history)
    assert (decision.rule, decision.cause) == (rule, cause)
    assert decision.ends == (rule in (Rule.GREEN, Rule.NO_PROGRESS))


def test_of_several_findings_the_first_rule_acts() -> None:
    """One action per run: for each pair of rules the smaller number wins, whatever the order of the findings."""
    middle = [rule for rule in Rule if Rule.GREEN < rule < Rule.NO_PROGRESS]
    for first in middle:
        for second in middle:
            decision = decide([red(second, first)])
            assert decision.rule is min(first, second)
            assert {finding.rule for finding in decision.findings} == {decision.rule}


@given(st.lists(st.sampled_from([GREEN, UNSCORED, TWO, red(Rule.WROTE, Rule.COARSE), red(Rule.NO_PROGRESS)])))
def test_a_history_has_one_decision_and_ends_in_time(history: list[Iteration]) -> None:
    decision = decide(history)
    assert isinstance(decision, LoopDecision) and decision.action
    assert 0 <= without_progress(history) <= len(history)
    # whatever happened before, five more of the same end the loop, or three green ones
    assert decide([*history, GREEN, GREEN, GREEN]).rule is Rule.GREEN
    assert decide([*history, *[UNSCORED] * 5]).rule is Rule.NO_PROGRESS


# --- judge ------------------------------------------------------------------------------------


def test_good_runs_have_no_finding() -> None:
    findings, unscored, typical = judge([run(test) for test in Test], Limits(), {})
    assert (findings, unscored) == ((), ())
    assert list(typical) == ["T0", "T1", "T2", "T3", "T4", "T5"]


@pytest.mark.parametrize(
    ("bad", "rule", "subject"),
    [
        (run(Test.BUILD, 501, phases={"startup": 501}), Rule.SLOW_BUILD, "startup"),
        (run(Test.BUILD, compiled=1, moved=("output_missing build/a.o",)), Rule.SLOW_BUILD, "output_missing build/a.o"),
        (run(Test.SKIP, restored=2), Rule.SLOW_BUILD, "no stage gave a reason"),
        (run(Test.SKIP, 2001, phases={"startup": 100, "verify-flash": 1901}), Rule.SLOW_DEPLOY, "verify-flash"),
        (run(Test.LOOP, 4001, phases={"verify-flash": 1000, "ttfb": 3001}), Rule.SLOW_TTFB, "ttfb"),
        (run(Test.LOOP, ttfb_ms=1001), Rule.SLOW_TTFB, "ttfb"),
        (run(Test.SKIP, bytes_written=9, regions={"boot": "kept", "app": "written"}), Rule.WROTE, "app"),
        (run(Test.COMMENT, bytes_written=9, regions={"app": "delta"}), Rule.WROTE, "app"),
        (run(Test.COMMENT, compiled=30, linked=1, moved=("input_changed a.h",)), Rule.COARSE, "input_changed a.h"),
        (run(Test.COMMENT, linked=2), Rule.COARSE, "no stage gave a reason"),
        (run(Test.COMMENT, 2501, phases={"startup": 2501}), Rule.SLOW_DEPLOY, "startup"),
        (run(Test.EDIT, compiled=0, bytes_written=0), Rule.COARSE, "real edit"),
        (run(Test.EDIT, bytes_written=0), Rule.COARSE, "real edit"),
        (run(Test.LOOP, failure="panic"), Rule.NO_PROGRESS, "panic"),
    ],
)
def test_a_bad_run_is_attributed(bad: LoopRun, rule: Rule, subject: str) -> None:
    assert [(finding.rule, finding.subject) for finding in found(bad)] == [(rule, subject)]


def test_limits_are_inclusive_and_t5_has_none() -> None:
    assert found(run(Test.BUILD, 500), run(Test.SKIP, 2000), run(Test.LOOP, 4000), run(Test.EDIT, 60_000)) == []


def test_a_run_that_broke_its_preconditions_is_not_judged() -> None:
    broken = run(Test.SKIP, 9000, bytes_written=5, compiled=9, precondition="sources_changed:a.c")
    findings, unscored, typical = judge(whole(broken), Limits(), {})
    assert findings == ()
    assert unscored == ("T2: sources_changed:a.c",)
    assert list(typical) == ["T0", "T1", "T3", "T4", "T5"]


def test_an_iteration_without_its_warm_tests_is_not_green() -> None:
    """What was not run found nothing."""
    assert judge([run(Test.COLD)], Limits(), {})[1] == ("T1: not run", "T2: not run", "T3: not run")
    findings, unscored, _ = judge([run(Test.COLD, failure="compile_error")], Limits(), {})
    assert [(finding.rule, finding.test, finding.subject) for finding in findings] == [(7, "T0", "compile_error")]
    assert unscored == ()


def test_a_project_without_sources_can_be_green() -> None:
    edits = [run(test, 0, precondition="nothing_to_edit:no source") for test in (Test.COMMENT, Test.EDIT)]
    assert judge(whole(*edits), Limits(), {})[:2] == ((), ())


@pytest.mark.parametrize("stage", ["verify-flash", "startup", "ttfb", "remainder"])
def test_300_ms_more_in_one_stage_are_found_there_and_nowhere_else(stage: str) -> None:
    """Far within every limit: only the comparison with the last green loop can tell."""
    for test in (Test.SKIP, Test.LOOP):
        good = run(test, 300)
        slow = good._replace(total_ms=600, phases={**good.phases, stage: good.phases[stage] + 300})
        assert found(slow) == []
        (finding,) = found(slow, reference={test.value: good})
        assert finding.subject == stage
        assert finding.rule is (Rule.SLOW_TTFB if stage == "ttfb" else Rule.SLOW_DEPLOY)
        assert str(good.phases[stage]) in finding.fact and str(good.phases[stage] + 300) in finding.fact


def test_the_spread_of_a_busy_machine_is_no_regression() -> None:
    good = run(Test.LOOP)
    assert (
        found(good._replace(phases={name: ms + 150 for name, ms in good.phases.items()}), reference={"T3": good}) == []
    )


def test_one_slow_run_of_three_is_noise_and_one_write_of_three_is_not() -> None:
    quick, slow = run(Test.SKIP), run(Test.SKIP, 9000)
    assert found(quick, slow, quick) == []
    assert [f.rule for f in found(quick, slow, slow)] == [Rule.SLOW_DEPLOY]
    assert [f.rule for f in found(run(Test.SKIP, bytes_written=1), quick, quick)] == [Rule.WROTE]


def test_a_full_write_instead_of_a_delta_is_found() -> None:
    delta = run(Test.EDIT)
    full = delta._replace(regions={"app": "written"}, bytes_written=200_000)
    assert found(delta, reference={"T5": delta}) == []
    assert found(full) == [], "without a reference nobody knows that it was a delta"
    (finding,) = found(full, reference={"T5": delta})
    assert (finding.rule, finding.subject) == (Rule.WROTE, "app")
    assert "200000 bytes" in finding.fact


def test_the_reference_is_the_median_of_the_green_iterations() -> None:
    iterations = [Iteration(n, measured={"T2": run(Test.SKIP, total)}) for n, total in enumerate((9000, 100, 300, 200))]
    assert reference_of(iterations)["T2"].total_ms == 200


# --- records ----------------------------------------------------------------------------------


def report(**values: Any) -> dict[str, Any]:
    stages = {"fingerprint": 3, "compile": 4, "link": 2, "verify-flash": 200, "reflash": 0, "reattach": 20, "ttfb": 150}
    base: dict[str, Any] = {
        "transaction_id": "tx-20261121-000000-abcd",
        "outcome": "verified_unchanged",
        "targets": ["deploy"],
        "toolchain": "zig 0.17",
        "device": {"mac": "7c:df:a1:00:11:22"},
        "failure": None,
        "reasons": [{"kind": "input_changed", "subject": "a.c", "before": "1", "after": "2"}],
        "stages": [{"stage": name, "outcome": "ran", "duration_ms": ms} for name, ms in stages.items()],
        "regions": [{"name": "app", "action": "kept", "md5": "aa", "device_md5_before": "aa"}],
        "ttfb": {"total_ms": 140, "segments": {"rom_to_app_ms": 90, "reset_to_port_ms": None}},
        "plan": {"reattach_attempts": 1},
        "totals": {"compiled": 0, "restored": 0, "linked": 0, "bytes_written": 0, "duration_ms": 400},
        "budget": {
            "phases": [{"phase": "startup", "measured_ms": 110}, {"phase": "dispatch", "measured_ms": 10}],
            "total": {"measured_ms": 520},
        },
    }
    return {**base, **values}


def test_phases_and_remainder_sum_to_the_total() -> None:
    for wall_ms, total_ms in ((700, 700), (400, 520)):
        measured = measure(Test.LOOP, wall_ms, report())
        assert measured.total_ms == total_ms == sum(measured.phases.values())
    assert (measured.build_ms, measured.deploy_ms, measured.reconnect_ms, measured.ttfb_ms) == (9, 200, 20, 140)
    assert measured.moved == ("input_changed a.c: 1 -> 2",)


def test_the_header_and_the_rows_of_results_csv() -> None:
    assert CSV_HEADER == "timestamp,test,total_ms,build_ms,verify_outcome,deploy_ms,reconnect_ms,ttfb_ms,sha,notes"
    row = csv_row(measure(Test.LOOP, 700, report()), "2026-11-21T00:00:00Z", "8c814be", ["iteration=3"])
    assert row == "2026-11-21T00:00:00Z,T3,700,9,verified_unchanged,200,20,140,8c814be,iteration=3\n"
    gate = measure(Test.BUILD, 41, None)
    assert csv_row(gate, "2026-11-21T00:00:00Z", "") == "2026-11-21T00:00:00Z,T1,41,,,,,,,\n"
    broken = gate._replace(precondition='sources_changed:a,"b".c', failure="panic")
    (fields,) = csv.reader(io.StringIO(csv_row(broken, "t", "s")))
    assert fields[-1] == 'precondition:sources_changed:a,"b".c; failed:panic'
    assert len(fields) == len(CSV_HEADER.split(","))


def other(name: str, before: str) -> list[dict[str, str]]:
    return [{"name": name, "action": "written", "md5": "bb", "device_md5_before": before}]


@pytest.mark.parametrize(
    ("primed", "now", "moved", "why"),
    [
        (report(), report(), (), ""),
        (report(), None, (), ""),
        (None, report(), (), "not_primed"),
        (report(), report(), ("firmware/a.c",), "sources_changed:firmware/a.c"),
        (report(), report(toolchain="zig 0.18"), (), "toolchain_changed"),
        (report(), report(device={"mac": "other"}), (), "other_device:other"),
        (report(), report(regions=other("app", "cc")), (), "device_changed:app"),
        (report(), report(regions=other("app", "aa")), (), ""),
        (report(regions=other("app", "zz")), report(regions=other("app", "bb")), (), ""),
        (report(), report(stages=[{"stage": "reattach", "outcome": "not-run"}]), (), "no_reattach"),
        (report(), report(failure={"category": "port_busy"}), (), "port_busy"),
        (report(), report(failure={"category": "panic"}), (), ""),
    ],
)
def test_preconditions(primed: Any, now: Any, moved: tuple[str, ...], why: str) -> None:
    """An artefact that differs on an untouched board (`aa` -> `bb`) is the loop's finding, not a precondition."""
    assert broken_precondition(primed, now, moved) == why


def test_a_history_is_read_back_and_damage_costs_only_its_line() -> None:
    runs = {"T1": measure(Test.BUILD, 90, None), "T3": measure(Test.LOOP, 700, report())}
    iterations = [Iteration(n, (Finding(Rule.WROTE, "T2", "app", "fact"),), ("T1: x",), runs) for n in (1, 2, 3, 4)]
    ends = [None, Rule.GREEN, None, None]
    pairs = zip(iterations, ends, strict=True)
    lines = [records.encode_iteration(HERE, one, end, {"git": "x"}) for one, end in pairs]
    lines.append(records.encode_run(HERE, 9, runs["T3"], {"command": "doit deploy"}))
    lines.append(records.encode_iteration(HERE._replace(machine="other"), iterations[0], None, {}))
    history = read_history(lines, HERE)
    assert history == records.LoopHistory(tuple(iterations[2:]), tuple(iterations[:2]), 4)
    damaged = [lines[0], lines[1][:40], "\0", "[]", "null", '{"schema":99}', *lines[2:]]
    assert read_history(damaged, HERE).open == (iterations[0], *iterations[2:])
    future = [line.replace('{"schema":1', '{"schema":2') for line in lines]
    assert read_history(future, HERE) == records.LoopHistory()


@given(st.text(max_size=60))
def test_no_line_stops_the_history(text: str) -> None:
    assert read_history([text], HERE).open == ()


# --- pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", golden.pages())
def test_the_pages_are_as_pinned(file: str) -> None:
    assert (GOLDEN / file).read_text(encoding="utf-8") == golden.pages()[file], f"{file}: see tests/golden/loops.py"


def test_a_follow_up_holds_what_each_rule_needs() -> None:
    """The retry course for rule 4, the reasons for work for the others, and always a way to see it again."""
    late = run(Test.LOOP, ttfb_ms=1500, attempts=4, segments={"rom_to_app_ms": 1400})
    compiled = run(Test.BUILD, compiled=1, rebuilt=("build/a.o", "build/app.elf"), moved=("file a.h",))
    for bad, needed in (
        (late, ["4 attempts to open the port; rom_to_app_ms 1400", "1500 ms to the first JSON-RPC byte"]),
        (compiled, ["- T1: build/a.o", "- T1: file a.h", "`build/a.o; build/app.elf; file a.h`"]),
        (run(Test.LOOP, failure="panic"), ["the run failed: panic"]),
        (run(Test.SKIP, precondition="toolchain_changed"), ["not scored, T2: toolchain_changed"]),
    ):
        iteration = Iteration(1, *judge(whole(bad), Limits(), {}))
        decision = decide([iteration] * 5)
        text = followup(golden.SESSION, [iteration] * 5, decision, Limits(), {})
        assert text.startswith("# Warm loop, rule ")
        for expected in [*needed, "## Reproduce", "doit loop", "## Validation"]:
            assert expected in text
        assert followup_name(decision) == f"followup-{SLUGS[decision.cause]}.md"
