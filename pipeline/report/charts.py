"""Three pictures of deploys as SVG elements: one run in time, many runs as stacked bars, one number over many runs.

Pure: numbers in, markup out. Does not know the page: colours are CSS classes (`c-<phase>`), so that the page decides
them for light and dark. Invariant: everything is inside the viewBox, every text is escaped, each shape says in a
`<title>` what it is, and equal input gives equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from cache.named_tuple import NamedTuple
from pipeline.report.timeline import STAGES, Slice, Timeline

WIDTH = 1000
GUTTER = 150
"""For labels on the left."""
RIGHT = 90
"""For values on the right."""
ROW = 22
BAR = 14
AXIS = 26
CHAR = 7
"""At most so wide is a character of 12 px text, on average."""


def _svg(height: float, body: Iterator[str], title: str) -> str:
    inner = "\n".join(body)
    return (
        f'<svg viewBox="0 0 {WIDTH} {_n(height)}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">\n{inner}\n</svg>'
    )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}" class="{css}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, css: str, title: str, height: float = BAR) -> str:
    return (
        f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0.5))}" height="{_n(height)}" class="{css}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{css}"/>'


def ms_text(ms: float) -> str:
    """`0.4 ms`, `320 ms`, `4.2 s`."""
    if ms >= 10_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms:.0f} ms" if ms >= 10 or ms == int(ms) else f"{ms:.1f} ms"


def ticks(most: float, about: int = 6) -> list[float]:
    """Round values from 0 to at most `most`, about so many of them."""
    if most <= 0:
        return [0.0]
    raw = most / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [step * number for number in range(int(most / step + 1e-9) + 1)]


class _Scale(NamedTuple):
    """From milliseconds to x."""

    most: float

    def x(self, ms: float) -> float:
        return GUTTER + (WIDTH - GUTTER - RIGHT) * (ms / self.most if self.most > 0 else 0.0)

    def grid(self, top: float, bottom: float) -> Iterator[str]:
        for tick in ticks(self.most):
            yield _line(self.x(tick), top, self.x(tick), bottom, "grid")
            yield _text(self.x(tick), bottom + 16, ms_text(tick), "axis", "middle")


# --- one run ----------------------------------------------------------------------------------


def waterfall(timeline: Timeline) -> str:
    """Each stage on a row of its own, then the workers of the pool, then the boot on the device's clock."""
    stages = [one for one in timeline.slices if one.lane == STAGES and (one.duration_s > 0 or one.outcome != "not-run")]
    lanes: dict[str, list[Slice]] = {}
    for one in timeline.slices:
        if one.lane != STAGES:
            lanes.setdefault(one.lane, []).append(one)
    rows = [(one.name, [one]) for one in sorted(stages, key=lambda one: one.start_s)]
    rows += sorted(lanes.items(), key=lambda item: (not item[0].startswith("worker"), len(item[0]), item[0]))
    scale = _Scale(1000 * max((one.start_s + one.duration_s for one in timeline.slices), default=0.0))
    return _svg(len(rows) * ROW + AXIS, _waterfall_rows(rows, scale), "the newest run in time")


def _waterfall_rows(rows: Sequence[tuple[str, list[Slice]]], scale: _Scale) -> Iterator[str]:
    yield from scale.grid(0, len(rows) * ROW)
    for number, (label, slices) in enumerate(rows):
        y = number * ROW + (ROW - BAR) / 2
        yield _text(GUTTER - 8, y + BAR - 3, label, "label", "end")
        end = 0.0
        for one in slices:
            start, length = 1000 * one.start_s, 1000 * one.duration_s
            outcome = f" ({one.outcome})" if one.outcome else ""
            title = f"{one.name}: {ms_text(length)}{outcome}, from {ms_text(start)}"
            yield _rect(scale.x(start), y, scale.x(start + length) - scale.x(start), _css(one), title)
            end = max(end, start + length)
        busy = sum(one.duration_s for one in slices) * 1000
        value = f"{len(slices)} actions" if slices[0].kind == "action" and len(slices) > 1 else ms_text(busy)
        yield _text(scale.x(end) + 5, y + BAR - 3, value, "value")


def _css(one: Slice) -> str:
    if one.kind == "action":
        return f"c-{one.stage} {'restored' if one.outcome.startswith('restored') else ''}".strip()
    if one.kind == "segment":
        return "c-ttfb seam"
    bad = " failed" if one.outcome in ("failed", "interrupted") else ""
    return f"c-{one.name}{bad}"


# --- many runs --------------------------------------------------------------------------------


class Bar(NamedTuple):
    """One run. `parts`: (phase, ms) in order; `note` stands behind it where there is room."""

    label: str
    parts: tuple[tuple[str, int], ...]
    note: str = ""
    failed: bool = False

    @property
    def total(self) -> int:
        return sum(ms for _, ms in self.parts)


def stacked_bars(bars: Sequence[Bar], limit_ms: int | None) -> str:
    """One bar per run, oldest first, and the budget as a line. A run much longer than the others is cut, with its value
    said, so that the others can be read."""
    ordered = sorted(bar.total for bar in bars)
    usual = ordered[len(ordered) * 3 // 4] if ordered else 0
    most = max(usual * 1.15, min(limit_ms or 0, usual * 4), 1)
    if ordered and ordered[-1] <= 3 * most:
        most = max(most, ordered[-1])
    return _svg(len(bars) * ROW + AXIS, _bar_rows(bars, limit_ms, _Scale(most)), "the last runs, phase by phase")


def _bar_rows(bars: Sequence[Bar], limit_ms: int | None, scale: _Scale) -> Iterator[str]:
    bottom = len(bars) * ROW
    yield from scale.grid(0, bottom)
    for number, bar in enumerate(bars):
        y = number * ROW + (ROW - BAR) / 2
        yield _text(GUTTER - 8, y + BAR - 3, bar.label, "label bad" if bar.failed else "label", "end")
        at = 0
        for phase, ms in bar.parts:
            if ms > 0 and at < scale.most:
                width = scale.x(min(at + ms, scale.most)) - scale.x(at)
                yield _rect(scale.x(at), y, width, f"c-{phase}", f"{phase}: {ms_text(ms)} of {ms_text(bar.total)}")
            at += max(ms, 0)
        value = ms_text(bar.total) + (" (cut)" if bar.total > scale.most else "")
        end = scale.x(min(bar.total, scale.most)) + 6
        if end + CHAR * len(f"{value} {bar.note}") < WIDTH:
            value = f"{value} {bar.note}"
        yield _text(end, y + BAR - 3, value, "value bad" if bar.failed else "value")
    if limit_ms is not None and limit_ms <= scale.most:
        yield _line(scale.x(limit_ms), 0, scale.x(limit_ms), bottom, "limit")


# --- one number -------------------------------------------------------------------------------


class Point(NamedTuple):
    """One run: its value and how it is drawn: `warm`, `built` (something was compiled or written) or `failed`."""

    label: str
    value: int
    kind: str = "warm"


HEIGHT = 200


def trend(points: Sequence[Point], limit_ms: int | None, name: str) -> str:
    """The value of each run, oldest left; warm runs are connected. Logarithmic when the values span more than 20:1."""
    if not points:
        return _svg(40, iter([_text(GUTTER, 24, "nothing was measured yet", "axis")]), name)
    values = [max(1, point.value) for point in points]
    high, low = max(*values, limit_ms or 1), min(values)
    return _svg(HEIGHT + AXIS, _trend(points, limit_ms, _Level(high * 1.05, low, high / low > 20)), name)


class _Level(NamedTuple):
    """From milliseconds to y."""

    high: float
    low: float
    log: bool

    def y(self, ms: float) -> float:
        if self.log:
            bottom = 10 ** math.floor(math.log10(self.low))
            span = math.log10(self.high) - math.log10(bottom)
            return 8 + (HEIGHT - 8) * (1 - (math.log10(max(ms, bottom)) - math.log10(bottom)) / span)
        return 8 + (HEIGHT - 8) * (1 - ms / self.high)

    def levels(self) -> list[float]:
        if not self.log:
            return ticks(self.high, 4)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
        return [10.0**power for power in powers]


def _trend(points: Sequence[Point], limit_ms: int | None, level: _Level) -> Iterator[str]:
    right = WIDTH - RIGHT
    for ms in level.levels():
        yield _line(GUTTER, level.y(ms), right, level.y(ms), "grid")
        yield _text(GUTTER - 8, level.y(ms) + 4, ms_text(ms), "axis", "end")
    step = (right - GUTTER - 16) / max(1, len(points) - 1)
    places = [(GUTTER + 8 + step * number, level.y(max(1, point.value))) for number, point in enumerate(points)]
    warm = [place for point, place in zip(points, places, strict=True) if point.kind == "warm"]
    if len(warm) > 1:
        yield f'<polyline class="trend" points="{" ".join(f"{_n(x)},{_n(y)}" for x, y in warm)}"/>'
    if limit_ms is not None:
        yield _line(GUTTER, level.y(limit_ms), right, level.y(limit_ms), "limit")
        yield _text(right - 4, level.y(limit_ms) + 14, f"budget {ms_text(limit_ms)}", "axis", "end")
    for point, (x, y) in zip(points, places, strict=True):
        title = f"<title>{escape(f'{point.label}: {ms_text(point.value)} ({point.kind})')}</title>"
        yield f'<circle cx="{_n(x)}" cy="{_n(y)}" r="3.5" class="dot {point.kind}">{title}</circle>'
    yield _text(GUTTER + 8, HEIGHT + 18, points[0].label, "axis")
    if len(points) > 1:
        yield _text(right, HEIGHT + 18, points[-1].label, "axis", "end")
