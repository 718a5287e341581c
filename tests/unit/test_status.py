"""Status pages and live results: nothing about a failure is lost, pages stay short, the HTML page stands alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli.status import read_junit
from pipeline.failures import FAILURE_MAP
from pipeline.model import Failure, FailureCategory, Stage, StageOutcome
from pipeline.report.charts import Bar, Point, stacked_bars, ticks, trend
from pipeline.report.history import DeployHistory, HistoryRow, parse_history
from pipeline.report.html import Facts, render_page
from pipeline.report.live_results import (
    CHECKS,
    FAIL,
    NOT_REACHED,
    PASS,
    STAGES_OF,
    LiveEntry,
    Merged,
    checks_of,
    compact,
    decode_merged,
    encode_merged,
    entry,
    expand,
    merge,
)
from pipeline.report.markdown import encode_history
from pipeline.report.status_pages import StatusDevice, SuiteFile, live_text, pages, short_chip, unit_page
from pipeline.report.timeline import Timeline, timeline
from tests.golden import exports as golden
from tests.golden.scenarios import RUNS

# --- live results -----------------------------------------------------------------------------

WORDS = st.text(max_size=30)
FAILURES = st.fixed_dictionaries(
    {
        "category": st.sampled_from([category.value for category in FailureCategory]),
        "stage": st.sampled_from([None, *(stage.value for stage in Stage)]),
        "retryable": st.booleans(),
        "user_action": WORDS,
        "where": WORDS,
        "message": WORDS,
        "hint": WORDS,
        "detail": st.text(max_size=300),
    }
)
OUTCOMES = st.fixed_dictionaries({stage.value: st.sampled_from([o.value for o in StageOutcome]) for stage in Stage})


@st.composite
def entries(draw: st.DrawFn, device: str = "bench") -> LiveEntry:
    failure = draw(st.none() | FAILURES)
    checks = checks_of(draw(OUTCOMES), failure, asked_health=draw(st.booleans()), enforced=draw(st.booleans()))
    heap = draw(st.none() | st.integers(0, 1 << 20))
    return LiveEntry(device, draw(WORDS), "tx-1", "tx-1", "2026", "failed", draw(st.booleans()), checks, failure, heap)


@settings(deadline=None)
@given(entries())
def test_the_compact_form_loses_nothing(one: LiveEntry) -> None:
    text = json.dumps(compact(one))
    assert expand(json.loads(text)) == one


@settings(deadline=None)
@given(st.lists(entries(), max_size=3))
def test_the_merged_file_comes_back_as_it_was_written(found: list[LiveEntry]) -> None:
    merged = Merged(tuple(found), {"passed": 3, "failed": 0, "skipped": 1})
    assert decode_merged(json.loads(json.dumps(encode_merged(merged)))) == merged


@settings(deadline=None)
@given(OUTCOMES, FAILURES, st.booleans(), st.booleans())
def test_every_failure_fails_exactly_one_check(
    outcomes: Mapping[str, str], failure: Mapping[str, Any], asked: bool, enforced: bool
) -> None:
    results = checks_of(outcomes, failure, asked_health=asked, enforced=enforced)
    assert list(results) == list(CHECKS)
    stopped = failure["category"] == "interrupted" and failure["stage"] is None
    assert [result for result in results.values() if result == FAIL] == [FAIL] * (not stopped)


def test_a_run_that_stopped_between_stages_failed_no_check() -> None:
    """As when another device of the group failed: what was not reached is neither good nor bad."""
    outcomes = {**{stage.value: "not-run" for stage in Stage}, "fingerprint": "ran", "compile": "ran", "link": "ran"}
    outcomes["verify-flash"] = "ran"
    checks = checks_of(outcomes, {"category": "interrupted", "stage": None}, asked_health=False, enforced=False)
    assert [name for name in CHECKS if checks[name] == PASS] == ["build", "identity", "verify"]
    assert FAIL not in checks.values()
    stopped = golden.live().entries[0]._replace(checks=checks, failure={"category": "interrupted", "stage": None})
    assert live_text(stopped) == "3 passed (interrupted)"
    assert not Merged((stopped,)).good


@pytest.mark.parametrize("category", [one for one in FailureCategory if one is not FailureCategory.OVER_BUDGET])
def test_each_category_in_its_own_stage_leaves_the_earlier_checks_alone(category: FailureCategory) -> None:
    for stage in FAILURE_MAP[category].stages or (Stage.FINGERPRINT,):
        before = list(Stage)[: list(Stage).index(stage)]
        outcomes = {**{passed.value: "ran" for passed in before}, stage.value: "failed"}
        failure = {"category": category.value, "stage": stage.value}
        results = checks_of(outcomes, failure, asked_health=False, enforced=True)
        failed = next(check for check in CHECKS if results[check] == FAIL)
        for check in CHECKS[: CHECKS.index(failed)]:
            if check != "health" and stage.value not in STAGES_OF[check]:
                assert results[check] == PASS, (stage, check)
        assert all(results[check] == NOT_REACHED for check in CHECKS[CHECKS.index(failed) + 1 :])


def test_checks_of_real_reports() -> None:
    row = golden.history().rows[0]
    told = {}
    for name in RUNS:
        report = golden.report(name)
        mine = parse_history(encode_history(golden.row(1, name))).rows[0]
        told[name] = [check for check in CHECKS if entry(mine, report, row.run).checks[check] == FAIL]
        assert entry(mine, None, "").checks == entry(mine, report, "").checks, "the history alone suffices"
    assert told == {"success": [], "unchanged": [], "failure": ["boot"], "interrupted": ["build"], "killed": ["write"]}


def test_health_passes_only_where_it_was_asked() -> None:
    done = {stage.value: "ran" for stage in Stage}
    assert checks_of(done, None, asked_health=True, enforced=False)["health"] == PASS
    assert checks_of(done, None, asked_health=False, enforced=False)["health"] == NOT_REACHED
    bad = {"category": "unhealthy", "stage": "ttfb"}
    results = checks_of({**done, "ttfb": "failed"}, bad, asked_health=True, enforced=False)
    assert (results["boot"], results["readiness"], results["health"]) == (PASS, PASS, FAIL)
    late = {"category": "over_budget", "stage": None}
    assert checks_of(done, late, asked_health=True, enforced=True)["budget"] == FAIL


def test_devices_without_a_new_result_are_carried_over() -> None:
    one = golden.live().entries[0]
    old = [one._replace(device="desk", run="tx-old", current=True), one._replace(run="tx-old")]
    merged = merge([one], old, one.run)
    assert [(found.device, found.current) for found in merged] == [("bench", True), ("desk", False)]


def test_only_what_is_good_becomes_the_last_good_copy() -> None:
    failed, fine = golden.live().entries
    assert not Merged(()).good and not Merged((failed, fine)).good and Merged((fine,)).good


@pytest.mark.parametrize("value", [None, [], {"schema": 2, "devices": []}, {"schema": 1, "devices": {}}])
def test_a_merged_file_of_another_kind_is_none(value: Any) -> None:
    assert decode_merged(value) == Merged(())


def test_damaged_entries_are_left_out() -> None:
    good = encode_merged(golden.live())
    first = good["devices"][0]
    bad = [1, {}, {**first, "passed": 7}, {**first, "failure": "no"}, {**first, "current": "yes"}, {**first, "run": 1}]
    found = decode_merged({**good, "devices": [*bad, first], "unit_tests": {"passed": "3"}})
    assert [one.device for one in found.entries] == ["bench"] and found.unit_tests is None


def test_the_compact_form_is_small() -> None:
    fine = golden.live().entries[1]
    whole = json.dumps({**fine._asdict(), "checks": [{"check": c, "result": r} for c, r in fine.checks.items()]})
    assert len(json.dumps(compact(fine))) < len(whole)
    assert "detail" not in json.dumps(compact(fine)) and "failure" not in compact(fine)


# --- pages ------------------------------------------------------------------------------------


def many(count: int) -> tuple[list[StatusDevice], Merged, tuple[HistoryRow, ...]]:
    """`count` devices of four chips, each failed in the newest run."""
    chips = ("esp32", "esp32s3", "esp32c3", "esp32c6")
    devices = [StatusDevice(f"board-{number}", chips[number % 4]) for number in range(count)]
    data = [golden.row(n, "failure", device=device.name, chip=device.chip) for n, device in enumerate(devices)]
    rows = parse_history(b"".join(encode_history({**value, "run": "tx-1"}) for value in data)).rows
    report = golden.report("failure")
    return devices, Merged(tuple(entry(row, report, "tx-1") for row in rows)), rows


@pytest.mark.parametrize("count", [1, 3, 16])
def test_pages_stay_below_their_limits(count: int) -> None:
    found = {name: text.splitlines() for name, text in pages(*many(count)).items()}
    assert len(found["index.md"]) <= 9 + count
    assert len(found["deploy-summary.md"]) <= 10 + count
    chips = min(count, 4)
    assert len(found["live-results.md"]) <= 2 + 14 * chips + count
    if count == 3:
        assert len(found["index.md"]) <= 12
    if count == 16:
        assert all(len(lines) < 80 for lines in found.values())


def test_pages_of_a_project_that_never_deployed() -> None:
    found = pages([StatusDevice("bench", "esp32c3")], Merged(()), ())
    assert "never deployed" in found["index.md"] and "all runs 0 of 0" in found["index.md"]
    assert found["live-results.md"].endswith("Nothing was deployed yet.\n")
    assert found["deploy-summary.md"].endswith("Nothing was deployed yet.\n")


@pytest.mark.parametrize(
    ("chip", "short"),
    [
        ("esp32c3", "esp32c3"),
        ("ESP32-S3 (QFN56) (revision v0.2)", "esp32s3"),
        ("esp32-c6 rev 3", "esp32c6"),
        ("ESP32-D0WD-V3 (revision v3.1)", "esp32d0wdv3"),
        ("esp32c3 Rev. 4", "esp32c3"),
        ("", "unknown chip"),
    ],
)
def test_the_revision_of_a_chip_is_not_its_type(chip: str, short: str) -> None:
    assert short_chip(chip) == short


# --- unit tests -------------------------------------------------------------------------------

JUNIT = """<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="4">
<testcase classname="tests.test_a" name="one" time="0.1"/>
<testcase classname="tests.test_a" name="two"><failure message="short">all of it
second line</failure></testcase>
<testcase classname="x" file="b.c" name="three"><skipped/></testcase>
<testcase classname="x" file="b.c" name="four"><error message="only this"/></testcase>
</testsuite></testsuites>"""


def test_unit_tests_are_read_from_junit(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(JUNIT)
    assert read_junit(path) == [
        SuiteFile("tests.test_a", 1, 0, (("two", "all of it\nsecond line"),)),
        SuiteFile("b.c", 0, 1, (("four", "only this"),)),
    ]
    text = unit_page([SuiteFile("tests.test_a", 1, 0, (("two", "all of it\nsecond line"),))])
    assert "| all of it\n| second line" in text


@pytest.mark.parametrize(
    "data", [b"", b"<a/>", JUNIT[:200].encode(), b"\xff\xfe", b'<?xml version="1.0" encoding="x"?><a/>']
)
def test_what_is_no_junit_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "junit.xml").write_bytes(data)
    found = read_junit(tmp_path / "junit.xml")
    assert isinstance(found, Failure) and found.where.endswith("junit.xml") and found.message.startswith("is no ")


# --- the HTML page ----------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would fetch, run, or leave open."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "style") for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name in ("href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def check_page(text: str) -> Page:
    page = Page(text)
    assert page.tags & {"script", "link", "img", "iframe", "object", "base", "form"} == set()
    assert all(re.fullmatch(r"[\w./-]+\.md", link) for link in page.links)
    assert "url(" not in text and "@import" not in text
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"] * text.count("<svg")
    for svg in re.findall(r"<svg.*?</svg>", text, re.S):
        check_svg(svg)
    return page


def check_svg(svg: str) -> None:
    """Well-formed, and nothing begins outside the picture."""
    root = ElementTree.fromstring(svg)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for item in root.iter():
        for key, most in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("cy", height)):
            if key in item.attrib:
                assert 0 <= float(item.attrib[key]) <= most, (item.tag, item.attrib)
        if "width" in item.attrib:
            assert float(item.attrib["x"]) + float(item.attrib["width"]) <= width + 0.5


def test_the_page_stands_alone() -> None:
    page = check_page(golden.page())
    assert page.links == ["tx-20261121-085000-beef.md"]
    assert golden.page().count("<svg") == 7, "bench: in time, bars, two trends; desk: bars, two trends"


def facts(newest: Mapping[str, tuple[str, Timeline]] | None = None) -> Facts:
    return Facts("x", "2026-11-21T09:00:00.000Z", {}, newest or {}, {})


@pytest.mark.parametrize("name", RUNS)
def test_a_page_of_one_run_of_any_kind(name: str) -> None:
    rows = parse_history(encode_history(golden.row(1, name)))
    for length in (1, 2, len(RUNS[name]())):
        check_page(render_page(rows, facts({"bench": ("tx", timeline(RUNS[name]()[:length]))})))
    check_page(render_page(DeployHistory((), 0, 0), facts()))


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20))
def test_names_cannot_become_markup(name: str) -> None:
    value = f"<script>{name}</script>\"'&"
    row = golden.history().rows[0]._replace(device=value, outcome=value, category=value, transaction_id=value)
    text = render_page(DeployHistory((row,), 1, 1), Facts(value, value, {"total": 1}, {}, {}))
    check_page(text)


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=40), st.none() | st.integers(1, 10**6))
def test_every_number_stays_in_its_picture(values: list[int], limit: int | None) -> None:
    bars = [Bar("a", (("compile", ms // 2), ("link", ms - ms // 2)), "note") for ms in values]
    check_svg(stacked_bars(bars, limit))
    check_svg(trend([Point("a", ms) for ms in values], limit, "x"))


@settings(deadline=None)
@given(st.floats(0.01, 1e9), st.integers(2, 10))
def test_ticks_are_round_and_inside(most: float, about: int) -> None:
    found = ticks(most, about)
    assert found[0] == 0 and found[-1] <= most * 1.000001 and len(found) <= about + 1
