"""Budgets: each verdict, the limit of the total, trading between phases."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.budget import Judged, PhaseBudget, judge


def test_the_three_verdicts_and_no_budget() -> None:
    assert PhaseBudget("ttfb", 1000, 1000).judged is Judged.WITHIN
    assert PhaseBudget("ttfb", 1000, 1001).judged is Judged.OVER
    assert PhaseBudget("ttfb", 1000, None).judged is Judged.NOT_MEASURED
    assert PhaseBudget("ttfb", None, 7).judged is None


def test_a_phase_that_did_not_run_has_no_margin() -> None:
    assert PhaseBudget("ttfb", 1000, None).margin_ms is None
    assert PhaseBudget("ttfb", 1000, 0).margin_ms == 1000
    assert PhaseBudget("ttfb", 1000, 1250).margin_ms == -250


def test_phases_may_trade_as_long_as_the_total_holds() -> None:
    report = judge(
        {"total": 4000, "verify-flash": 1500, "ttfb": 1000}, {"verify-flash": 400, "ttfb": 1900, "total": 3999}
    )
    assert report.fits
    assert [row.phase for row in report.over] == ["ttfb"]


def test_only_the_total_is_the_gate() -> None:
    limits = {"total": 100, "link": 50}
    assert not judge(limits, {"link": 1, "total": 101}).fits
    assert not judge(limits, {"link": 1, "total": None}).fits, "what was not measured has not passed"
    assert judge({}, {"link": 1, "total": 101}).fits, "without a limit everything fits"


def test_a_limit_without_a_measurement_is_listed_and_not_measured() -> None:
    report = judge({"ttfb": 5}, {"link": 3, "total": 3})
    assert report.phases == (PhaseBudget("link", None, 3), PhaseBudget("ttfb", 5, None))


def test_the_bottleneck_is_the_longest_measured_phase() -> None:
    assert judge({}, {"a": 5, "b": 9, "c": 9, "d": None, "total": 99}).bottleneck == "b"
    assert judge({"a": 3}, {"a": None}).bottleneck == ""


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "total"]), st.integers(0, 9)),
    st.dictionaries(st.sampled_from(["a", "b", "total"]), st.none() | st.integers(0, 9)),
)
def test_every_phase_appears_once_and_margins_add_up(limits: dict[str, int], measured: dict[str, int | None]) -> None:
    report = judge(limits, measured)
    assert sorted(row.phase for row in report.phases) == sorted({*limits, *measured} - {"total"})
    for row in (*report.phases, report.total):
        if row.judged in (Judged.WITHIN, Judged.OVER):
            assert row.measured_ms is not None
            assert row.margin_ms is not None
            assert row.margin_ms + row.measured_ms == row.limit_ms
            assert (row.judged is Judged.OVER) == (row.margin_ms < 0)
