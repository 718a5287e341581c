"""Rows of benchmarks: ratios, verdicts, the report and its renderings; and counters that are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.measure.bench import kept as counters
from pipeline.measure.bench.kept import INSTRUCTIONS, Kept
from pipeline.measure.bench.table import (
    BenchRow,
    BenchTarget,
    Suite,
    TargetVerdict,
    at_most,
    build,
    measured,
    number,
    ratio_at_most,
)
from pipeline.measure.bench.view import HEAD, cells, render_text
from tests.golden import benches

GOLDEN = Path(benches.__file__).parent


@pytest.mark.parametrize("file", benches.pages())
def test_renderings_are_the_golden_ones(file: str) -> None:
    text = benches.pages()[file]
    assert (GOLDEN / file).read_text(encoding="utf-8") == text, f"{file} differs: see tests/golden/benches.py"


def test_a_row_is_the_median_and_the_ends() -> None:
    row = measured("s", "c", [3.0, 1.0, 2.0], "ms", "ninja", [8.0, 4.0])
    assert (row.ours, row.low, row.high, row.n) == (2.0, 1.0, 3.0, 3)
    assert (row.peer_value, row.ratio) == (6.0, 2 / 6)


@pytest.mark.parametrize(
    ("ours", "theirs", "target", "verdict"),
    [
        (2.0, None, None, TargetVerdict.NO_TARGET),
        (2.0, None, at_most(2.0), TargetVerdict.MET),
        (2.001, None, at_most(2.0), TargetVerdict.MISSED),
        (2.0, 4.0, ratio_at_most(0.5), TargetVerdict.MET),
        (2.001, 4.0, ratio_at_most(0.5), TargetVerdict.MISSED),
        (1.0, 4.0, at_most(0.5), TargetVerdict.MISSED),
        (0.0, 4.0, ratio_at_most(0.0), TargetVerdict.MET),
        (2.0, None, ratio_at_most(9.0), TargetVerdict.MISSED),  # nothing shows that it was met
        (2.0, 0.0, ratio_at_most(9.0), TargetVerdict.MISSED),
    ],
)
def test_the_verdict_follows_from_numbers(
    ours: float, theirs: float | None, target: BenchTarget | None, verdict: TargetVerdict
) -> None:
    assert BenchRow("s", "c", ours, "ms", "p" if theirs is not None else "", theirs, target).verdict is verdict


def test_the_text_of_a_target_is_made_of_the_target() -> None:
    assert BenchRow("s", "c", 1, "ms", target=at_most(1500)).target_text == "<= 1500 ms"
    assert BenchRow("s", "c", 1, "", target=at_most(2)).target_text == "<= 2"
    assert BenchRow("s", "c", 1, "ms", target=ratio_at_most(1 / 3)).target_text == "ratio <= 0.333"
    assert BenchRow("s", "c", 1, "ms").target_text == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (12, "12"), (1346658, "1346658"), (103.34, "103.3"), (0.7184, "0.718"), (4271.4, "4271")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_suite_that_broke_off_makes_the_report_incomplete_and_keeps_its_rows() -> None:
    row = BenchRow("s", "c", 3, "ms", target=at_most(2))
    report = build({"id": "bench-1"}, [Suite("s", (row,), error="ninja is not installed"), Suite("t", (row,))])
    assert report["outcome"] == "incomplete"
    assert report["missed"] == ["s: c", "s: c"]
    assert [len(suite["rows"]) for suite in report["suites"]] == [1, 1]
    assert build({}, [Suite("t", (row,))])["outcome"] == "measured"


def test_only_a_strict_suite_fails_by_a_missed_target() -> None:
    missed = (BenchRow("s", "c", 3, "", target=at_most(2)), BenchRow("s", "d", 3, ""))
    assert Suite("s", missed).failure == ""
    assert Suite("s", missed, strict=True).failure == "1 of 2 figures are worse than kept"
    assert Suite("s", missed[1:], strict=True).failure == ""
    assert Suite("s", error="no board").failure == "could not run: no board"


def test_the_terminal_table_fits_and_leaves_empty_columns_out() -> None:
    report = benches.report()
    for columns in (80, 100, 120):
        rows = [line for line in render_text(report, columns).splitlines() if "ninja" in line or "loop" in line]
        assert rows and all(len(line) <= columns for line in rows)
    work = render_text(report, 100).partition("\nwork:\n")[2]
    assert work.splitlines()[0].split() == ["case", "ours", "target", "verdict", "n"]
    assert len(cells(report["suites"][0]["rows"][0])) == len(HEAD)


# --- kept counters ----------------------------------------------------------------------------

ROWS = [
    BenchRow("work", "one edit: compiler runs", 1, ""),
    BenchRow("work", "warm no-op: fixed", 1000.0, INSTRUCTIONS, "plain doit", 2000.0),
]
COMMAND = "doit bench:work --keep"


def kept() -> Kept:
    return counters.decode(counters.encode(ROWS, "3.11", COMMAND))


def verdicts(python: str, *ours: float) -> list[TargetVerdict]:
    found = [row._replace(ours=value) for row, value in zip(ROWS, ours, strict=True)]
    return [row.verdict for row in counters.with_targets(found, kept(), python)]


def test_what_is_kept_comes_back() -> None:
    assert kept() == Kept("3.11", {"one edit: compiler runs": (1, None), "warm no-op: fixed": (1000.0, 0.5)})
    assert json.loads(counters.encode(ROWS, "3.11", COMMAND))["written_by"] == COMMAND


def test_counters_are_compared_exactly_and_instructions_within_3_percent() -> None:
    met, missed = TargetVerdict.MET, TargetVerdict.MISSED
    assert verdicts("3.11", 1, 1030.0) == [met, met]
    assert verdicts("3.11", 1, 1031.0) == [met, missed]
    assert verdicts("3.11", 2, 900.0) == [missed, met]


def test_instructions_of_another_python_are_compared_by_their_ratio() -> None:
    met, missed = TargetVerdict.MET, TargetVerdict.MISSED
    assert verdicts("3.13", 1, 1250.0) == [met, met]
    assert verdicts("3.13", 1, 1251.0) == [met, missed]
    assert verdicts("3.13", 2, 1250.0) == [missed, met]


def test_worse_says_the_counter_both_values_and_the_command() -> None:
    found = counters.with_targets([ROWS[0]._replace(ours=3), ROWS[1]._replace(ours=1100.0)], kept(), "3.11")
    assert counters.worse(found, kept(), COMMAND) == [
        "one edit: compiler runs: 3, kept 1; if that is wanted, run `doit bench:work --keep` and commit the file",
        "warm no-op: fixed: 1100 instructions (ratio 0.550), kept 1000 instructions (ratio 0.500); "
        "if that is wanted, run `doit bench:work --keep` and commit the file",
    ]


def test_better_and_unlike() -> None:
    other = BenchRow("work", "new", 1, "")
    assert counters.better([ROWS[0]._replace(ours=0), ROWS[1]._replace(ours=1.0), other], kept()) == [ROWS[0].case]
    assert counters.unlike([ROWS[0], other], kept()) == ["new", "warm no-op: fixed"]
    assert counters.with_targets([other], kept(), "3.11")[0].verdict is TargetVerdict.NO_TARGET


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "python": "3.11", "rows": [1]}'])
def test_a_damaged_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        counters.decode(text)
