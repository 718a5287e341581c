"""Reports: golden pages, every truncation of a log, exact sums, hostile values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.events import (
    DeviceSeen,
    PhasePart,
    PlanMade,
    Readiness,
    RegionDone,
    RunFinished,
    RunStarted,
    StageStarted,
    When,
    event,
    payload,
)
from pipeline.failures import fail
from pipeline.model import (
    NOT_STORED,
    DeployOutcome,
    Event,
    FailureCategory,
    Mark,
    MarkName,
    Reason,
    RegionAction,
    Stage,
    StageOutcome,
    StageResult,
    note_lines,
)
from pipeline.report import markdown
from pipeline.report.document import SEGMENTS, build_report, whole_ms
from pipeline.report.markdown import code, code_block, last_line, render_markdown
from tests.golden import scenarios
from tests.golden.scenarios import RUNS, Script

GOLDEN = Path(scenarios.__file__).parent


@pytest.mark.parametrize("name", RUNS)
def test_the_pages_are_these(name: str) -> None:
    for file, text in scenarios.pages(name).items():
        assert text == (GOLDEN / file).read_text(encoding="utf-8"), file


# --- a valid report ---------------------------------------------------------------------------

STAGE_KEYS = {"stage", "outcome", "reasons", "duration_ms", "budget_ms", "margin_ms", "counts"}
REGION_KEYS = {"name", "offset", "size", "sha256", "md5", "device_md5_before", "action", "bytes_written", "done"}
FAILURE_KEYS = {"category", "stage", "retryable", "user_action", "where", "message", "hint", "detail"}
TOP_KEYS = {
    *("schema", "transaction_id", "started_at", "outcome", "device", "profile", "git", "plan", "reasons", "stages"),
    *("regions", "marks", "failure", "totals", "report_path", "targets", "toolchain", "verify_level"),
    *("fingerprints", "changed_inputs", "readiness", "ttfb", "budget", "run", "rollback", "size"),
}


def check(report: dict[str, Any]) -> None:
    """The rules that every report keeps."""
    assert set(report) == TOP_KEYS
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(report["device"]) == {"name", "mac", "chip", "port"}
    assert set(report["git"]) == {"sha", "dirty"}
    assert report["outcome"] is None or report["outcome"] in set(DeployOutcome)
    assert [row["stage"] for row in report["stages"]] == [stage.value for stage in Stage]
    for row in report["stages"]:
        assert set(row) == STAGE_KEYS
        assert (row["duration_ms"] is None) == (row["outcome"] == "not-run")
        if row["budget_ms"] is not None and row["duration_ms"] is not None:
            assert row["margin_ms"] == row["budget_ms"] - row["duration_ms"]
        else:
            assert row["margin_ms"] is None
    for row in report["regions"]:
        assert set(row) == REGION_KEYS
    if report["failure"] is not None:
        assert set(report["failure"]) == FAILURE_KEYS
        assert report["outcome"] in ("failed", "interrupted")
    totals = report["totals"]
    counted = {"compiled", "restored", "linked", "bytes_written", "unknown_failures"}
    assert set(totals) == {"duration_ms", "waiting_ms", "remainder_ms", *counted}
    durations = [row["duration_ms"] or 0 for row in report["stages"]]
    assert sum(durations) + totals["waiting_ms"] + totals["remainder_ms"] == totals["duration_ms"]
    ttfb = report["ttfb"]
    assert list(ttfb["segments"]) == [name for name, _, _ in SEGMENTS]
    known = [ms for ms in ttfb["segments"].values() if ms is not None]
    assert all(ms >= 0 for ms in known)
    if ttfb["total_ms"] is not None:
        assert sum(known) + ttfb["remainder_ms"] == ttfb["total_ms"]
    if ttfb["status"] == "complete":
        assert (ttfb["remainder_ms"], ttfb["timing_unavailable_reason"]) == (0, {})
    needed = {mark.value for _, first, last in SEGMENTS for mark in (first, last)}
    if report["marks"]:
        assert set(ttfb["timing_unavailable_reason"]) >= needed - set(report["marks"])
    assert (ttfb["status"] == "complete") == (not ttfb["timing_unavailable_reason"])
    assert all(ttfb["timing_unavailable_reason"].values()), "a missing mark says why"
    assert render_markdown(report).startswith("# Deploy Report\n\n- transaction_id: `")
    assert len(last_line(report).splitlines()) == 1


@pytest.mark.parametrize("name", RUNS)
def test_a_log_that_ends_anywhere_gives_a_valid_report(name: str) -> None:
    events = RUNS[name]()
    for size in range(len(events) + 1):
        report = build_report(events[:size])
        check(report)
        whole = size == len(events) and name != "killed"
        if not whole:
            assert report["outcome"] in ("interrupted", "failed")
            assert report["failure"] is not None
            logged = any(item.kind == "failure" or item.data.get("failure") for item in events[:size])
            assert logged or report["failure"]["category"] == "interrupted"


def test_a_report_is_a_pure_function_of_the_events() -> None:
    events = RUNS["success"]()
    assert build_report(events) == build_report(list(events))
    assert build_report(events) == build_report(events)


# --- exact sums -------------------------------------------------------------------------------

microseconds = st.integers(0, 5_000_000)


@settings(deadline=None)
@given(st.lists(st.tuples(microseconds, microseconds), min_size=7, max_size=7), st.integers(0, 7))
def test_stages_and_remainder_are_the_total_exactly(spans: list[tuple[int, int]], reached: int) -> None:
    script = Script()
    scenarios.start(script)
    for stage, (gap, us) in list(zip(Stage, spans, strict=True))[:reached]:
        script.us += gap
        script.stage(stage, us)
    script.say(RunFinished(DeployOutcome.FULL_FLASHED))
    report = build_report(script.events)
    check(report)
    assert report["totals"]["duration_ms"] == script.us // 1000
    assert report["totals"]["remainder_ms"] >= 0, "stages that follow each other never exceed the total"


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(MarkName), st.floats(-1.0, 10.0)), st.sampled_from(["passed", "failed"]))
def test_segments_and_remainder_are_the_ttfb_exactly(marks: dict[MarkName, float], status: Any) -> None:
    script = Script()
    scenarios.start(script)
    script.stage(Stage.TTFB, 1000, *(Mark(name, at_s) for name, at_s in marks.items()), Readiness(status))
    script.say(RunFinished(DeployOutcome.FULL_FLASHED))
    check(build_report(script.events))


def test_durations_are_rounded_down_after_microseconds() -> None:
    assert [whole_ms(s) for s in (0.0, 0.57, 0.000999, 0.0009996, 1.9999, -0.0005)] == [0, 570, 0, 1, 1999, -1]


def test_overlapping_stages_show_as_a_negative_remainder() -> None:
    script = Script()
    script.us = 1_000_000
    done = StageResult(Stage.COMPILE, StageOutcome.RAN, 0.9), StageResult(Stage.LINK, StageOutcome.RAN, 0.9)
    script.say(*done, RunFinished(None))
    assert build_report(script.events)["totals"]["remainder_ms"] == -800


# --- what the fields say ----------------------------------------------------------------------


def report_of(*items: Any, at_s: float = 1.0) -> dict[str, Any]:
    report = build_report([event(item, When("2026-11-21T00:00:00.000Z", at_s)) for item in items])
    check(report)
    return report


def test_what_was_not_counted_is_null_and_what_was_not_begun_wrote_nothing() -> None:
    totals = report_of(StageStarted(Stage.COMPILE), RunFinished(None))["totals"]
    assert totals == {
        "duration_ms": 1000,
        "waiting_ms": 0,
        "remainder_ms": 1000,
        "compiled": None,
        "restored": None,
        "linked": None,
        "bytes_written": 0,
        "unknown_failures": 0,
    }


def test_a_host_only_run_that_succeeded_has_no_outcome() -> None:
    report = report_of(RunFinished(None))
    assert (report["outcome"], report["failure"]) == (None, None)
    assert report["ttfb"]["status"] == "unavailable"


def test_the_first_failure_is_the_cause() -> None:
    first = fail(FailureCategory.PORT_MISSING, stage=Stage.REFLASH, where="a", message="gone")
    later = fail(FailureCategory.PORT_BUSY, stage=Stage.REATTACH, where="b", message="teardown")
    end = RunFinished(DeployOutcome.FAILED)
    result = StageResult(Stage.REFLASH, StageOutcome.FAILED, 0.1, failure=first)
    assert report_of(first, later, end)["failure"]["category"] == "port_missing"
    assert report_of(result, end)["failure"]["category"] == "port_missing", "also when only the stage carries it"


def test_a_region_whose_write_never_ended_is_not_known() -> None:
    plan = scenarios.plan(changed=True)
    kept, written = RegionAction.KEPT, RegionAction.WRITTEN
    before = report_of(plan, RunFinished(DeployOutcome.INTERRUPTED))["regions"]
    assert [(row["bytes_written"], row["done"]) for row in before] == [(0, True), (0, True), (0, True), (0, False)]
    during = report_of(plan, StageStarted(Stage.REFLASH), RunFinished(DeployOutcome.INTERRUPTED))["regions"]
    assert [(row["bytes_written"], row["done"]) for row in during][2:] == [(0, True), (None, False)]
    done = RegionDone("app", written, 70_000)
    after = report_of(plan, StageStarted(Stage.REFLASH), done, RunFinished(DeployOutcome.FULL_FLASHED))
    assert [row["action"] for row in after["regions"]] == [kept, kept, kept, written]
    assert after["totals"]["bytes_written"] == 70_000


def test_the_plan_says_why_nothing_or_everything_is_written() -> None:
    quiet = report_of(scenarios.plan(changed=False), RunFinished(None))["plan"]
    assert (quiet["reflash_regions"], quiet["reflash_skipped"]) == ([], True)
    assert quiet["reflash_skip_reason"] == "digest_already_deployed"
    trusted = report_of(PlanMade((), False, (), "journal"), RunFinished(None))["plan"]
    assert trusted["reflash_skip_reason"] == "journal_trusted"
    full = report_of(scenarios.plan(changed=True)._replace(full=True, reasons=(Reason("table", "moved"),)))["plan"]
    assert (full["requires_full_flash"], full["full_flash_reason"]) == (True, "table moved")
    unknown = report_of(RunFinished(None))["plan"]
    assert {unknown[key] for key in ("build_app", "link", "reflash_regions", "requires_full_flash")} == {None}


def test_a_reason_is_said_once_and_escalation_first() -> None:
    reason, full = Reason("input", "a.c", "1", "2"), Reason("table", "moved")
    link = StageResult(Stage.LINK, StageOutcome.RAN, 0.0, (reason,))
    compiled = StageResult(Stage.COMPILE, StageOutcome.RAN, 0.0, (reason,))
    report = report_of(compiled, link, PlanMade((), True, (full,), "md5"), RunFinished(None))
    assert [row["kind"] for row in report["reasons"]] == ["table", "input"]


def test_missing_marks_give_a_partial_ttfb_and_say_why() -> None:
    marks = [Mark(MarkName.RESET_RELEASED, 5.0), Mark(MarkName.FIRST_BYTE, 5.25), Mark(MarkName.FIRST_JSONRPC, 6.0)]
    ran = StageResult(Stage.TTFB, StageOutcome.RAN, 0.5)
    told = Readiness("passed", unavailable={"rom_banner": "native USB hides the ROM"})
    ttfb = report_of(*marks, ran, told, RunFinished(None))["ttfb"]
    assert (ttfb["status"], ttfb["total_ms"], ttfb["remainder_ms"]) == ("partial", 1000, 1000)
    assert ttfb["timing_unavailable_reason"] == {
        "port_open": "this transport does not report it",
        "rom_banner": "native USB hides the ROM",
        "app_start": "the device did not send what marks it",
    }


def test_without_a_reset_the_ttfb_counts_from_the_request() -> None:
    told = Readiness("passed", requested_at_s=7.0)
    ttfb = report_of(Mark(MarkName.FIRST_JSONRPC, 7.022), told, RunFinished(None))["ttfb"]
    assert (ttfb["from"], ttfb["total_ms"], ttfb["status"]) == ("request_sent", 22, "partial")
    assert set(ttfb["timing_unavailable_reason"].values()) == {"the device was not reset"}


def test_marks_count_from_the_reset_and_a_kept_port_costs_nothing() -> None:
    report = build_report(RUNS["unchanged"]())
    assert report["marks"] == {
        "reset_released": 0,
        "port_open": -2,
        "first_byte": 1,
        "rom_banner": 1,
        "app_start": 31,
        "first_line": 1,
        "first_jsonrpc": 31,
    }
    assert report["ttfb"]["segments"] == {
        "reset_to_port_ms": 0,
        "port_to_first_byte_ms": 1,
        "first_byte_to_rom_ms": 0,
        "rom_to_app_ms": 30,
        "app_to_jsonrpc_ms": 0,
    }


def test_a_stage_that_was_cut_off_lasted_until_the_last_event() -> None:
    script = Script()
    script.say(StageStarted(Stage.COMPILE))
    script.us = 250_000
    script.say(StageResult(Stage.COMPILE, StageOutcome.INTERRUPTED, 0.0), RunFinished(DeployOutcome.INTERRUPTED))
    report = build_report(script.events)
    check(report)
    assert report["stages"][1]["duration_ms"] == 250
    assert report["totals"]["remainder_ms"] == 0


def test_later_facts_replace_earlier_ones() -> None:
    report = report_of(DeviceSeen("a", "", "", "x"), DeviceSeen("a", "m", "esp32c3", "y"), RunFinished(None))
    assert report["device"] == {"name": "a", "mac": "m", "chip": "esp32c3", "port": "y"}


# --- hostile values ---------------------------------------------------------------------------

NASTY = [
    "`",
    "``a`",
    " `a",
    "a|b",
    "a\nb",
    "\n\n# Not a heading\n",
    "</code><b>",
    "\x1b[31mred",
    "a\u202eb",
    "\udc80",
    "- [x](y)",
    " ",
    "a  b ",
    "\\",
    "$(rm -rf /); '\"",
]


def inline_codes(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        for child in token.children or []:
            if child.type == "code_inline":
                yield child.content


def visible(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@settings(deadline=None)
@given(st.one_of(st.sampled_from(NASTY), st.text(st.characters(categories=["L", "P", "S", "Z", "C"]), min_size=1)))
def test_a_code_span_shows_exactly_its_value(value: str) -> None:
    tokens = MarkdownIt().parse(f"- key: {code(value)}")
    if "\t" not in value:  # a tab at the edge of a span is the parser's to keep or strip
        assert list(inline_codes(tokens)) == [visible(value)]
    assert code(value).encode("utf-8")
    assert "\n" not in code(value)


@pytest.mark.parametrize("count", [5, 6, 300])
def test_a_first_build_does_not_list_its_inputs_as_reasons(count: int) -> None:
    moved = Reason("file", "deploy.toml", "aa", "bb")
    seen = tuple(Reason("file", f"src/{n}.c", "", f"{n:032x}") for n in range(count))
    report = report_of(StageResult(Stage.FINGERPRINT, StageOutcome.RAN, 0.1, (moved, *seen)), RunFinished(None))
    lines = [line for line in render_markdown(report).splitlines() if line.startswith("- reason: ")]
    assert lines[-1 if count == 5 else 1].startswith("- reason: `file ") and len(report["reasons"]) == count + 1
    assert len(lines) == (6 if count == 5 else 2) and any("deploy.toml: aa -> bb" in line for line in lines)


@pytest.mark.parametrize("value", NASTY)
def test_no_value_changes_the_structure_of_the_page(value: str) -> None:
    start = payload(RUNS["failure"]()[0])
    assert isinstance(start, RunStarted)
    cause = fail(FailureCategory.UNKNOWN, stage=None, where=value, message=value, hint=value, detail=f"{value}\n```\n")
    items = [
        start._replace(device=value, profile=value, toolchain=value, targets=(value, value), git_sha=value),
        DeviceSeen(value, value, value, value),
        StageResult(Stage.LINK, StageOutcome.RAN, 0.1, (Reason(value, value, value, value),), {value: 1}),
        scenarios.plan(changed=True)._replace(verified_by=value),
        cause,
        RunFinished(DeployOutcome.FAILED),
    ]
    page = render_markdown(report_of(*items))
    tokens = MarkdownIt().enable("table").parse(page)
    heads = [tokens[n + 1].content for n, token in enumerate(tokens) if token.type == "heading_open"]
    assert heads == [
        *("Deploy Report", "Failure", "Plan", "Fingerprints", "Flash Digests", "Readiness", "Durations (ms)"),
        *("Budget (ms)", "TTFB (ms)"),
    ]
    assert sum(token.type == "fence" for token in tokens) == 1
    assert sum(token.type == "table_open" for token in tokens) == 1
    table = {f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")}
    assert {token.type for token in tokens} - table <= {
        *("heading_open", "heading_close", "inline", "bullet_list_open", "bullet_list_close", "list_item_open"),
        *("list_item_close", "paragraph_open", "paragraph_close", "fence"),
    }
    kinds = {child.type for token in tokens for child in token.children or []}
    assert kinds <= {"text", "code_inline"}
    assert page.encode("utf-8")


def test_a_block_keeps_lines_and_survives_fences_and_escapes() -> None:
    block = code_block("a\r\n````\n\x1b[31mred\tx\n\n")
    assert block == "`````text\na\n````\n\\x1b[31mred\tx\n`````"
    assert MarkdownIt().parse(block)[0].content == "a\n````\n\\x1b[31mred\tx\n"


@pytest.mark.parametrize("value", [*NASTY, "/dev/tty USB0", "virtual:", ""])
def test_the_last_line_is_words_for_a_shell(value: str) -> None:
    items = [DeviceSeen(value, "", "", value), RunFinished(DeployOutcome.FULL_FLASHED)]
    line = last_line(report_of(*items))
    words = dict(word.split("=", 1) for word in shlex.split(line))
    assert words == {
        "DEPLOY_TX_ID": "",
        "DEPLOY_OUTCOME": "full_flashed",
        "DEPLOY_DEVICE": visible(value),
        "DEPLOY_PORT": visible(value),
        "DEPLOY_REPORT": "",
    }


def test_the_last_line_of_a_deploy() -> None:
    assert last_line(build_report(RUNS["unchanged"]())) == (
        "DEPLOY_TX_ID=tx-20261121-083000-beef DEPLOY_OUTCOME=verified_unchanged DEPLOY_DEVICE=bench "
        "DEPLOY_PORT=virtual: DEPLOY_REPORT=reports/tx-20261121-083000-beef.md"
    )


def test_no_report_is_named_that_could_not_be_written() -> None:
    assert last_line(build_report(RUNS["unchanged"]()), written=False).endswith(" DEPLOY_REPORT=")


def test_results_that_cannot_be_stored_are_one_fact() -> None:
    missed = [Reason(NOT_STORED, f"compile {n}.c", "", f"/cache/{n}: Permission denied") for n in range(32)]
    assert note_lines([Reason("output vanished", "x", "", "not recorded"), *missed]) == [
        "output vanished x:  -> not recorded",
        "the cache cannot be written, results not stored: 32 (/cache/0: Permission denied)",
    ]


def test_an_event_log_read_from_disk_gives_the_same_report() -> None:
    from pipeline.events import RUN_LOG_HEADER, decode_log, encode

    for run in RUNS.values():
        events: list[Event] = run()
        read, note = decode_log(RUN_LOG_HEADER + b"".join(map(encode, events)))
        assert note is None
        assert build_report(read) == build_report(events)


def test_a_part_counts_in_its_phase_and_nothing_is_counted_twice() -> None:
    """What a lent port costs is startup's, dispatch's and reattach's, whichever stage was under way."""
    script = Script()
    golden_start = RunStarted(
        "tx-20261121-083000-beef", "bench", "/dev/x", "fast", (), "", False, "", "md5", "rpc:ready", 1, {}, "", 100, 5
    )
    script.say(golden_start)
    shares = (("service handshake", "startup", 0.003), ("wait for the port", "dispatch", 0.2))
    script.say(StageStarted(Stage.VERIFY_FLASH))
    script.us += 500_000
    script.say(*(PhasePart(*share) for share in shares), PhasePart("port lent", "verify-flash", 0.01))
    script.say(StageResult(Stage.VERIFY_FLASH, StageOutcome.RAN, 0.5))
    script.stage(Stage.REATTACH, 20_000)
    script.us += 30_000
    script.say(PhasePart("port returned", "reattach", 0.03))
    report = build_report(script.events)
    budget = report["budget"]
    measured = {row["phase"]: row["measured_ms"] for row in budget["phases"] if row["measured_ms"] is not None}
    assert measured == {"startup": 103, "dispatch": 205, "verify-flash": 297, "reattach": 50}
    assert budget["total"]["measured_ms"] == 655 == sum(measured.values())
    durations = [row["duration_ms"] for row in report["stages"] if row["duration_ms"] is not None]
    assert sum(durations) + report["totals"]["remainder_ms"] == report["totals"]["duration_ms"] == 550
    assert budget["parts"][3] == {"phase": "reattach", "part": "port returned", "measured_ms": 30}
    assert "port returned" in render_markdown(report)


def test_what_came_from_the_shared_cache_is_named_where_one_was_asked() -> None:
    report = json.loads((Path(__file__).parents[1] / "golden/report_success.json").read_text())
    assert "restored_remote" not in render_markdown(report)
    for stage, fetched in (("compile", 1200), ("link", 34)):
        row = next(row for row in report["stages"] if row["stage"] == stage)
        row["counts"] |= {"restored_remote": 2, "fetched_bytes": fetched}
    page = render_markdown(report)
    assert "- restored_remote: `4`\n- fetched_bytes: `1234`\n" in page


@given(st.text(st.sampled_from("aZ09é_@%+=:,./- '$~\u0661"), min_size=1) | st.text(min_size=1))
def test_a_word_for_a_shell_is_what_shlex_makes(text: str) -> None:
    assert markdown._word(text) == shlex.quote(text)
