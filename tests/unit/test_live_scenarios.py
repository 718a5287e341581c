"""Live tests as text: scenarios and their mistakes, values and ranges, what was observed, selection, results."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.livetest import observed
from pipeline.livetest.scenario import Scenario, names_twice, parse_scenario
from pipeline.livetest.selection import parse_selection
from pipeline.livetest.values import Bounds, Missing, at_path, bounds_of, equal, outside, path_problem, shown
from pipeline.model import Failure, FailureCategory
from pipeline.report.junit import render_junit
from pipeline.report.live_tests import CaseResult, SuiteResult, decode_suite, encode_suite, matrix, suite_text

GOOD = """tags = ["smoke"]
heap_floor = { esp32c3 = 60000 }
[[step]]
call = "health"
params = { deep = [1, true] }
values = { ok = true, "modules[0].name" = "blink" }
range = { "heap.free" = { esp32c3 = [1, 2], host = { min = 3 } }, "heap.size" = [1, 9] }
observe = ["heap.free"]
[[step]]
call = "health"
[[step]]
expect_re = "free=(?P<free>[0-9]+)"
range = { free = { max = 10 } }
[[step]]
reset = true
"""


def parsed(text: str) -> Scenario:
    found = parse_scenario(text, "tests/live/a.toml", "a")
    assert isinstance(found, Scenario), found
    return found


def refused(text: str) -> Failure:
    found = parse_scenario(text, "tests/live/a.toml", "a")
    assert isinstance(found, Failure) and found.category is FailureCategory.CONFIG_ERROR
    return found


def test_a_scenario_says_what_is_done() -> None:
    scenario = parsed(GOOD)
    assert (scenario.name, scenario.tags, scenario.floor("esp32c3"), scenario.floor("host")) == (
        "a",
        ("smoke",),
        60000,
        None,
    )
    first = scenario.steps[0]
    assert (first.action, first.word, first.params) == ("call", "health", {"deep": [1, True]})
    assert first.ranges["heap.free"].of("host") == (3, None)
    assert first.ranges["heap.free"].of("esp32") is None
    assert first.ranges["heap.size"].of("esp32") == (1, 9)
    assert [step.label for step in scenario.steps] == ["health", "health 2", "expect_re", "reset"]
    assert (scenario.where(0), scenario.where(2), scenario.where(None)) == (
        "tests/live/a.toml:3",
        "tests/live/a.toml:11",
        "tests/live/a.toml",
    )


STEP = '[[step]]\ncall = "ping"\n'


@pytest.mark.parametrize(
    ("text", "place", "fact"),
    [
        ("", "1:1", "the scenario has no step, so that it can never fail"),
        ("[[step]\n", "1:8", "Expected ']]' at the end of an array declaration"),
        ('tag = ["x"]\n' + STEP, "1:1", "unknown key 'tag' in a scenario; did you mean 'tags'?"),
        ('tags = "x"\n' + STEP, "1:8", "'tags' must be of type array of strings"),
        ("[[step]]\nname = 'x'\n", "1:3", "the step does nothing"),
        (STEP + 'expect = "x"\n', "1:3", "the step does call and expect"),
        ("[[step]]\nreset = false\n", "2:9", "'reset' is false"),
        (STEP + "timeout_ms = 0\n", "3:14", "'timeout_ms' is 0"),
        ('[[step]]\nsend = "x"\nresult = 1\n', "3:1", "'result' says nothing of 'send'"),
        (STEP + "error = -1\nresult = 1\n", "4:1", "'error' says that there is no result, but 'result' asks for one"),
        ('[[step]]\nexpect_re = "("\n', "2:13", "'(' is "),
        (STEP + 'observe = ["a..b"]\n', "3:12", "'a..b' is no path into a result"),
        (STEP + "range = { a = [2, 1] }\n", "3:15", "the range of 'a' is [2, 1], which holds no number"),
        (STEP + 'range = { a = "x" }\n', "3:15", "the range of 'a' is \"x\""),
        (STEP + "match = { a = 1 }\n", "3:15", "'match' of 'a' is no string"),
        (STEP + "params = { a = 2026-01-01 }\n", "3:10", "'params' holds what JSON has not"),
        ('heap_floor = { host = "x" }\n' + STEP, "1:23", "'heap_floor.host' is no integer"),
        ("[[step]]\ncall = ' '\n", "2:8", "'call' is empty"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, place: str, fact: str) -> None:
    failure = refused(text)
    assert failure.where == f"tests/live/a.toml:{place}" or (text.startswith("[[step]\n") and failure.where), failure
    assert failure.message.startswith(fact), failure.message
    assert failure.hint


def test_all_mistakes_are_told_at_once() -> None:
    failure = refused(STEP + 'observe = ["a."]\nrange = { "[" = [0, 1] }\n')
    assert failure.detail.count("error:") == 1


def test_a_text_cut_anywhere_is_a_scenario_or_a_failure() -> None:
    for length in range(len(GOOD)):
        assert isinstance(parse_scenario(GOOD[:length], "a.toml", "a"), Scenario | Failure)


KEYS = ("call", "expect", "params", "result", "values", "match", "range", "observe", "timeout_ms", "reset")
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=4))
def test_no_value_in_a_step_raises(step: dict[str, Any]) -> None:
    import tomli_w

    clean = json.loads(json.dumps(step), object_hook=lambda d: {k: v for k, v in d.items() if v is not None})
    try:
        text = tomli_w.dumps({"step": [clean]})
    except TypeError:  # TOML has no null in arrays
        return
    assert isinstance(parse_scenario(text, "a.toml", "a"), Scenario | Failure)


def test_two_scenarios_of_one_name_are_refused() -> None:
    other = parsed(GOOD)._replace(path="b.toml")
    failure = names_twice([parsed(GOOD), other])
    assert failure is not None and failure.where == "b.toml" and "tests/live/a.toml" in failure.message
    assert names_twice([parsed(GOOD), other._replace(name="b")]) is None


# --- values -----------------------------------------------------------------------------------

TREE = {"heap": {"free": 5}, "modules": [{"name": "blink"}], "#": "no"}


@pytest.mark.parametrize(
    ("path", "value"),
    [("heap.free", 5), ("modules[0].name", "blink"), ("modules.#", 1), ("modules[0].name.#", 5), ("heap.#", 1)],
)
def test_a_path_leads_to_a_value(path: str, value: Any) -> None:
    assert path_problem(path) is None
    assert at_path(TREE, path) == value


def test_a_path_that_leads_nowhere_says_how_far() -> None:
    assert at_path(TREE, "heap.used") == Missing('there is no used in {"free": 5}')
    assert at_path(TREE, "modules[1].name") == Missing('there is no [1] in [{"name": "blink"}]')
    assert at_path([[1, 2]], "[0][1]") == 2


@pytest.mark.parametrize("path", ["", ".", "a.", "a..b", "a[", "a[x]", "[1]b", "a b", "-"])
def test_what_is_no_path(path: str) -> None:
    assert path_problem(path) is not None


def test_equality_is_that_of_json() -> None:
    assert equal({"a": [1, 2.0]}, {"a": [1.0, 2]})
    assert not equal(True, 1) and not equal(1, True) and not equal({"a": True}, {"a": 1})
    assert not equal([1], [1, 2]) and not equal({"a": 1}, {"b": 1}) and not equal(None, False)


@given(TREES, TREES)
def test_equality_is_symmetric_and_texts_are_short(one: Any, other: Any) -> None:
    assert equal(one, one)
    assert equal(one, other) == equal(other, one)
    assert len(shown(one)) < 160


def test_bounds() -> None:
    assert bounds_of([1, None]) == Bounds({"": (1, None)})
    assert bounds_of({"min": 1}) == Bounds({"": (1, None)})
    assert isinstance(bounds_of([True, 1]), str) and isinstance(bounds_of({}), str)
    assert isinstance(bounds_of({"esp32": "x"}), str)
    assert outside(5, 1, 5) == "" and outside(6, None, 5) == "is 6, more than 5"
    assert outside(0, 1, None) == "is 0, less than 1" and "no number" in outside(True, 0, 1)
    assert "no number" in outside(float("nan"), 0, 1)


# --- what was observed ------------------------------------------------------------------------

RANGES = st.dictionaries(
    st.sampled_from(["esp32c3", "host"]),
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.tuples(st.integers(-99, 99), st.integers(0, 99)).map(lambda t: (t[0], t[0] + t[1])),
        min_size=1,
        max_size=3,
    ),
    max_size=2,
)


@given(RANGES)
def test_observed_ranges_come_back_as_they_were_written(found: Any) -> None:
    assert observed.decode(observed.encode(found), "b.json") == found


@given(
    RANGES, st.sampled_from(["esp32c3", "host"]), st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-99, 99))
)
def test_widening_never_makes_a_range_narrower(found: Any, chip: str, values: dict[str, float]) -> None:
    now = observed.widened(found, chip, values)
    for known, ranges in found.items():
        for key, (low, high) in ranges.items():
            assert now[known][key][0] <= low and now[known][key][1] >= high
    assert all(now[chip][key][0] <= value <= now[chip][key][1] for key, value in values.items())
    assert observed.widened(now, chip, values) == now


def test_the_file_is_one_line_per_value() -> None:
    assert observed.encode({"host": {"b": (1, 2), "a": (0.5, 1)}}).decode() == (
        '{\n "schema": 1,\n "chips": {\n  "host": {\n   "a": [0.5, 1],\n   "b": [1, 2]\n  }\n }\n}\n'
    )


def test_a_damaged_baseline_is_a_failure_and_never_empty() -> None:
    data = observed.encode({"host": {"a": (1, 2)}})
    for length in range(len(data) - 2):
        assert isinstance(observed.decode(data[:length], "b.json"), Failure), length
    for text in (b'{"schema": 2, "chips": {}}', b'{"schema": 1, "chips": {"host": {"a": [2, 1]}}}', b"[]"):
        assert isinstance(observed.decode(text, "b.json"), Failure)


# --- selection --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", {"health", "heap", "panic"}),
        ("hea", {"health", "heap"}),
        ("hea and not heap", {"health"}),
        ("panic or heap", {"heap", "panic"}),
        ("not (panic or heap)", {"health"}),
        ("not not panic", {"panic"}),
        ("HEAP", {"heap"}),
    ],
)
def test_words_select_as_in_pytest(text: str, names: set[str]) -> None:
    is_meant = parse_selection(text, "-k")
    assert not isinstance(is_meant, Failure)
    known = ("health", "heap", "panic")
    assert {name for name in known if is_meant(lambda word: word.lower() in name)} == names  # noqa: B023


@pytest.mark.parametrize("text", ["(", ")", "a b", "a and", "or a", "not", "(a", "a)", "()", "(" * 5000])
def test_what_cannot_be_read_selects_nothing(text: str) -> None:
    failure = parse_selection(text, "-k")
    assert isinstance(failure, Failure) and failure.where == "-k" and failure.hint


# --- results ----------------------------------------------------------------------------------

CASES = st.builds(
    CaseResult,
    st.text(min_size=1, max_size=6),
    st.sampled_from(["failed", "skipped", "error"]),
    st.integers(0, 999),
    st.text(max_size=9),
    st.text(max_size=9),
) | st.text(min_size=1, max_size=6).map(lambda name: CaseResult(name, "passed", 7))


@given(st.lists(CASES, max_size=4, unique_by=lambda case: case.name))
def test_results_come_back_as_they_were_written(cases: list[CaseResult]) -> None:
    suite = SuiteResult("bench", "esp32c3", "live", "2026", "tx-1", tuple(cases), 7)
    value = json.loads(json.dumps(encode_suite(suite)))
    assert decode_suite(value) == suite
    for key in value:
        assert decode_suite({k: v for k, v in value.items() if k != key}) is None
        assert key == "duration_ms" or decode_suite({**value, key: 5}) is None


@given(TREES)
def test_what_is_no_result_is_as_good_as_none(value: Any) -> None:
    assert decode_suite(value) is None


HOSTILE = st.text(st.characters(codec="utf-8") | st.sampled_from("\x00\x1b<>&\"'\n\ufffe\ud800"), max_size=20)


@given(HOSTILE, HOSTILE, HOSTILE, st.sampled_from(["passed", "failed", "skipped", "error"]))
def test_whatever_a_device_said_is_junit_xml(name: str, message: str, detail: str, outcome: str) -> None:
    suite = SuiteResult(
        "bench", "esp32c3", "live", "2026-11-29T01:02:03Z", "tx-1", (CaseResult(name, outcome, 5, message, detail),), 7
    )
    text = render_junit([], [suite])
    (element,) = ElementTree.fromstring(text.encode("utf-8", "replace"))
    counted = {key: element.get(key) for key in ("tests", "failures", "errors", "skipped")}
    kinds = {"failed": "failures", "error": "errors", "skipped": "skipped"}
    assert counted == {key: str(int(key in ("tests", kinds.get(outcome)))) for key in counted}
    assert (element.get("name"), element.get("timestamp")) == ("live bench", "2026-11-29T01:02:03")


def test_the_matrix_has_a_row_per_test_and_a_column_per_device() -> None:
    one = SuiteResult("a", "esp32c3", "live", "", "", (CaseResult("x", "passed", 1), CaseResult("y", "failed", 1)))
    other = SuiteResult("b", "esp32c3", "live", "", "", (CaseResult("x", "skipped", 1), CaseResult("z", "error", 1)))
    assert matrix([one, other]) == [("x", "pass", "skip"), ("y", "FAIL", "-"), ("z", "-", "ERROR")]
    assert [suite_text(one), suite_text(other), suite_text(None)] == ["FAIL 1 of 2", "FAIL 1 of 2", "-"]
