"""The statistics of measured durations: quantiles, bootstrap intervals, and whether two samples differ.

Pure: numbers in, numbers out; what is random has its own seeded generator, so that equal inputs give equal results.
Does not know what was measured. Invariant: no result depends on the order of a sample.

Definitions. Quantiles: number 7 of Hyndman and Fan (1996), linear between order statistics: the default of NumPy, R and
spreadsheets. Difference of two samples: Mann and Whitney (1947), two-sided, exact, ties by midranks; it assumes nothing
about the shape of durations, whose tail is long, and one slow run cannot fake or hide a difference. Intervals: the
percentile bootstrap of Efron (1979).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import comb, floor

from cache.named_tuple import NamedTuple

SIGNIFICANT = 0.01
"""p below which two samples count as different: for 5 runs against 5, that they do not overlap (p = 2 / 252)."""

RESAMPLES = 2000
SEED = 20261121

Statistic = Callable[[Sequence[float]], float]


class Summary(NamedTuple):
    """A sample in five numbers."""

    n: int
    median: float
    p90: float
    minimum: float
    maximum: float


class Interval(NamedTuple):
    low: float
    high: float


class Difference(NamedTuple):
    """`after` against `before`. `ratio`: of the medians, `None` when that of `before` is 0; `interval` of the ratio,
    95 %. `outside`: beyond what the spread of the two explains; `None`: so few runs that no result could say so."""

    before: Summary
    after: Summary
    ratio: float | None
    interval: Interval | None
    p: float
    outside: bool | None


def quantile(values: Sequence[float], p: float) -> float:
    """The value below which the share `p` of the sample lies. Raises ValueError for an empty sample or a share outside
    0 to 1."""
    if not values or not 0 <= p <= 1:
        raise ValueError(f"no quantile {p} of {len(values)} values")
    ordered = sorted(values)
    place = p * (len(ordered) - 1)
    below = floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return min(high, low + (place - below) * (high - low))  # rounding must not leave the sample


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    return quantile(values, 0.5)


def summary(values: Sequence[float]) -> Summary:
    """Raises ValueError for an empty sample."""
    return Summary(len(values), median(values), quantile(values, 0.9), min(values), max(values))


# --- two samples ------------------------------------------------------------------------------


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p: how likely two samples of one population differ at least as much in rank as these do.

    Exact: every way to choose the first sample's places among all values counts once. Raises ValueError for an empty
    sample."""
    if not first or not second:
        raise ValueError("a sample is empty")
    ranks = _doubled_midranks([*first, *second])
    n, total = len(first), sum(ranks)
    observed = sum(ranks[:n])
    counts = _rank_sums(ranks, n)
    # Mean rank sum of the first sample: n * total / N. Compared as integers: `far` is N * |sum - mean|.
    size = len(ranks)
    far = abs(size * observed - n * total)
    extreme = sum(count for rank_sum, count in counts.items() if abs(size * rank_sum - n * total) >= far)
    return extreme / comb(size, n)


def smallest_p(n: int, m: int) -> float:
    """The p of two samples without ties that do not overlap: no result can be clearer."""
    return min(1.0, 2 / comb(n + m, n))


def _doubled_midranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value (1 is the smallest); equal values share the mean of their ranks."""
    ordered = sorted(values)
    first = {value: place for place, value in reversed(list(enumerate(ordered, 1)))}
    last = {value: place for place, value in enumerate(ordered, 1)}
    return [first[value] + last[value] for value in values]


def _rank_sums(ranks: Sequence[int], n: int) -> dict[int, int]:
    """Sum of ranks -> in how many ways `n` of them have it."""
    # A polynomial per number of ranks chosen, as one integer: coefficient k stands at bit `width * k`. Adding a rank is
    # a shift, which keeps this exact and fast for hundreds of values.
    width = len(ranks) + 1
    ways = [1] + [0] * n
    for rank in ranks:
        for chosen in range(n, 0, -1):
            ways[chosen] += ways[chosen - 1] << (width * rank)
    found, k, rest, mask = {}, 0, ways[n], (1 << width) - 1
    while rest:
        if rest & mask:
            found[k] = rest & mask
        rest >>= width
        k += 1
    return found


def difference(before: Sequence[float], after: Sequence[float], resolution: float = 0.0) -> Difference:
    """Is `after` another population than `before`? Medians that differ by no more than `resolution`, the step of the
    clock, are equal. Raises ValueError for an empty sample."""
    old, new = summary(before), summary(after)
    p = mann_whitney(before, after)
    outside: bool | None = p <= SIGNIFICANT and abs(new.median - old.median) > resolution
    if smallest_p(len(before), len(after)) > SIGNIFICANT:
        outside = None
    ratio = new.median / old.median if old.median > 0 else None
    return Difference(old, new, ratio, None if ratio is None else ratio_interval(before, after), p, outside)


# --- bootstrap --------------------------------------------------------------------------------


def bootstrap(
    values: Sequence[float], statistic: Statistic = median, confidence: float = 0.95, seed: int = SEED
) -> Interval:
    """Where `statistic` of the population lies, by resampling. Raises ValueError for an empty sample."""
    draw, values = random.Random(seed), sorted(values)
    found = [statistic(_resample(values, draw)) for _ in range(RESAMPLES)]
    return _middle(found, confidence)


def ratio_interval(
    before: Sequence[float],
    after: Sequence[float],
    statistic: Statistic = median,
    confidence: float = 0.95,
    seed: int = SEED,
) -> Interval | None:
    """Where `statistic(after) / statistic(before)` of the populations lies; `None` when `before` could be 0."""
    draw, before, after = random.Random(seed), sorted(before), sorted(after)
    found = []
    for _ in range(RESAMPLES):
        base, other = statistic(_resample(before, draw)), statistic(_resample(after, draw))
        if base <= 0:
            return None
        found.append(other / base)
    return _middle(found, confidence)


def _resample(values: Sequence[float], draw: random.Random) -> list[float]:
    if not values:
        raise ValueError("the sample is empty")
    return draw.choices(values, k=len(values))


def _middle(found: Sequence[float], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    return Interval(quantile(found, tail), quantile(found, 1 - tail))
