"""Statistics against published values and values worked by hand, and their general rules."""

from __future__ import annotations

import statistics
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.statistics import (
    Interval,
    Summary,
    bootstrap,
    difference,
    mann_whitney,
    median,
    quantile,
    ratio_interval,
    smallest_p,
    summary,
)

GAUGE = [95.1772, 95.1567, 95.1937, 95.1959, 95.1442, 95.0610, 95.1591, 95.1195, 95.1065, 95.0925, 95.1990, 95.1682]
"""NIST/SEMATECH e-Handbook of Statistical Methods, 7.2.6.2: twelve measurements of a gauge."""

TERM = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
GESTATION = [1.15, 0.88, 0.90, 0.74, 1.21]
"""Hollander and Wolfe (1973), p. 69: permeability of the human chorioamnion at term and at 12 to 26 weeks; the example
of R's wilcox.test, which gives W = 35, one-sided p = 0.1272 for it."""

MALES, FEMALES = [19, 22, 16, 29, 24], [20, 11, 17, 12]
"""Age at the diagnosis of diabetes; the example of SciPy's mannwhitneyu, exact two-sided p = 0.1111."""

durations = st.lists(st.integers(0, 60_000).map(lambda ms: ms / 1000), min_size=1, max_size=12)


def test_the_90th_percentile_of_the_gauge_data() -> None:
    # 0.9 * 11 = 9.9: between the 10th and 11th smallest, 95.1937 and 95.1959 (by the handbook's own rule, R6: 95.1981)
    assert quantile(GAUGE, 0.9) == pytest.approx(95.19568, abs=1e-9)
    assert median(GAUGE) == pytest.approx((95.1591 + 95.1567) / 2)


def test_quantiles_by_hand() -> None:
    assert [quantile([4, 1, 3, 2], p) for p in (0, 0.25, 0.5, 0.75, 1)] == [1, 1.75, 2.5, 3.25, 4]
    assert quantile([7], 0.9) == 7
    assert summary([3, 1, 2, 5, 4]) == Summary(5, 3, 4.6, 1, 5)


@pytest.mark.parametrize(("values", "p"), [([], 0.5), ([1], -0.1), ([1], 1.1)])
def test_no_quantile_of_nothing(values: list[float], p: float) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        quantile(values, p)


def test_mann_whitney_against_published_values() -> None:
    assert mann_whitney(TERM, GESTATION) == pytest.approx(2 * 0.1272, abs=1e-4)
    assert mann_whitney(MALES, FEMALES) == pytest.approx(0.1111, abs=1e-4)
    # Critical values of U for 5 against 5, two-sided: 2 at 5 % and 0 at 1 % (Siegel 1956, table K)
    assert mann_whitney([1, 2, 3, 4, 7], [5, 6, 8, 9, 10]) == pytest.approx(8 / 252)
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)


def test_ties_are_exact_too() -> None:
    # Of the 6 ways to choose 2 of {1, 1, 2, 2} with midranks 1.5, 1.5, 3.5, 3.5 two are as extreme as {1, 1}.
    assert mann_whitney([1, 1], [2, 2]) == pytest.approx(2 / 6)
    assert mann_whitney([5, 5, 5], [5, 5, 5]) == 1.0


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.lists(st.integers(0, 6), min_size=1, max_size=5))
@settings(deadline=None)
def test_p_is_that_of_counting_every_choice(first: list[int], second: list[int]) -> None:
    values = [*first, *second]
    ranks = [sum(o < v for o in values) + (sum(o == v for o in values) + 1) / 2 for v in values]
    mean = len(first) * sum(ranks) / len(ranks)
    sums = [sum(chosen) for chosen in combinations(ranks, len(first))]
    far = abs(sum(ranks[: len(first)]) - mean)
    expected = sum(abs(one - mean) >= far - 1e-9 for one in sums) / len(sums)
    assert mann_whitney(first, second) == pytest.approx(expected)
    assert mann_whitney(second, first) == pytest.approx(expected)


@given(durations, st.floats(0, 1))
@settings(deadline=None)
def test_quantiles_stay_within_the_sample_and_grow(values: list[float], p: float) -> None:
    value = quantile(values, p)
    assert min(values) <= value <= max(values)
    assert value == quantile(values[::-1], p)
    assert value <= quantile(values, (1 + p) / 2)
    assert median(values) == pytest.approx(statistics.median(values))
    if len(values) > 1:
        assert quantile(values, 0.9) == pytest.approx(statistics.quantiles(values, n=10, method="inclusive")[8])


@given(durations)
@settings(deadline=None, max_examples=20)
def test_intervals_contain_the_median_and_do_not_depend_on_order(values: list[float]) -> None:
    found = bootstrap(values)
    assert min(values) <= found.low <= median(values) <= found.high <= max(values)
    assert found == bootstrap(sorted(values))


def test_the_bootstrap_of_two_values_by_hand() -> None:
    # The median of two draws from {0, 1} is 0, 0.5 or 1 with 1/4, 1/2, 1/4: the middle 40 % are one point.
    assert bootstrap([0, 1], confidence=0.4) == Interval(0.5, 0.5)
    assert bootstrap([0, 1], confidence=0.95) == Interval(0, 1)
    assert bootstrap([0, 1, 2, 3, 9], seed=1) == bootstrap([0, 1, 2, 3, 9], seed=1)


def test_the_interval_of_a_ratio() -> None:
    assert ratio_interval([2, 2, 2], [3, 3, 3]) == Interval(1.5, 1.5)
    assert ratio_interval([0, 2, 2], [3, 3, 3]) is None, "a ratio to 0 says nothing"


def test_the_verdict_of_a_difference() -> None:
    slow, fast = [0.30, 0.31, 0.29, 0.33, 0.30], [0.10, 0.11, 0.12, 0.10, 0.13]
    assert difference(fast, slow).outside is True
    assert difference(fast, slow).ratio == pytest.approx(0.30 / 0.11)
    assert difference(fast, [0.11, 0.12, 0.10, 0.13, 0.11]).outside is False
    assert difference(fast[:3], slow[:3]).outside is None, "three runs cannot say it"
    assert smallest_p(3, 3) == pytest.approx(0.1)


def test_a_difference_within_the_resolution_is_none() -> None:
    assert difference([0.001] * 5, [0.002] * 5, resolution=0.001).outside is False
    assert difference([0.001] * 5, [0.003] * 5, resolution=0.001).outside is True


def test_a_ratio_to_nothing_is_none() -> None:
    told = difference([0.0] * 5, [0.2] * 5, resolution=0.001)
    assert (told.ratio, told.interval, told.outside) == (None, None, True)


@given(durations, durations)
@settings(deadline=None, max_examples=20)
def test_a_difference_is_symmetric_in_its_verdict(before: list[float], after: list[float]) -> None:
    one, other = difference(before, after), difference(after, before)
    assert one.outside == other.outside
    assert one.p == pytest.approx(other.p)
    assert difference(before, before).outside in (False, None)
