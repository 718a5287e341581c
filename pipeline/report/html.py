"""The history of a project as one HTML page: opens from disk, asks no network, runs no script.

Pure: history, budget and timelines in, text out. Does not know files. Invariant: the page refers to nothing outside
itself but the reports beside it, every value is escaped, and without styles it still reads from top to bottom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from cache.named_tuple import NamedTuple
from pipeline.report.charts import Bar, Point, ms_text, stacked_bars, trend, waterfall
from pipeline.report.history import DeployHistory, HistoryRow, by_category, by_device, comparable, failure_rates
from pipeline.report.markdown import NOTHING
from pipeline.report.status_pages import rate_text
from pipeline.report.timeline import Timeline
from pipeline.statistics import quantile

BARS = 20
POINTS = 200
ROWS = 50

PHASES = (
    "startup",
    "dispatch",
    "fingerprint",
    "compile",
    "link",
    "verify-flash",
    "reflash",
    "reattach",
    "ttfb",
    "remainder",
)

_LIGHT = ("#8d99ae", "#5c677d", "#9ecae1", "#4292c6", "#08519c", "#fdae6b", "#e6550d", "#a1d99b", "#31a354", "#dcdcdc")
_DARK = ("#8d99ae", "#aab4c4", "#9ecae1", "#4292c6", "#2171b5", "#fdae6b", "#e6550d", "#a1d99b", "#31a354", "#4a4f58")


class Facts(NamedTuple):
    """What the page is told beside the history. `limits_ms` is today's budget, keyed `total` or a phase; `newest`:
    device -> (transaction, its timeline); `links`: transaction -> address of its report, where there is one."""

    project: str
    generated_at: str
    limits_ms: Mapping[str, int]
    newest: Mapping[str, tuple[str, Timeline]]
    links: Mapping[str, str]


def render_page(history: DeployHistory, facts: Facts) -> str:
    """The whole page."""
    title = escape(f"{facts.project}: deploys")
    body = "\n".join(_body(history, facts))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<style>\n{_style()}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _body(history: DeployHistory, facts: Facts) -> Iterator[str]:
    rows = history.rows
    yield f"<header><h1>{escape(facts.project)}</h1>"
    when = facts.generated_at[:19].replace("T", " ")
    yield f"<p>{len(rows)} deploys in the history, seen {escape(when)} UTC.</p></header>"
    if not rows:
        yield "<main><p>Nothing was deployed yet: run <code>doit deploy</code>.</p></main>"
        return
    yield "<main>"
    yield _tiles(rows, facts)
    yield _legend()
    for device, own in by_device(rows).items():
        yield from _device(device, own, facts)
    yield _budget(rows, facts.limits_ms)
    yield _failures(rows)
    yield _table(rows, facts)
    yield from _footer(history)
    yield "</main>"


def _footer(history: DeployHistory) -> Iterator[str]:
    if history.damaged or history.other_schema:
        yield (
            f'<p class="quiet">{history.damaged} lines of the history could not be read; '
            f"{history.other_schema} are of another version and were not compared.</p>"
        )


# --- sections ---------------------------------------------------------------------------------


def _tiles(rows: Sequence[HistoryRow], facts: Facts) -> str:
    tiles = []
    for device, own in by_device(rows).items():
        last, totals = own[-1], [row.total_ms for row in comparable(own) if row.total_ms is not None]
        ttfb = [row.ttfb_ms for row in _same_ttfb(comparable(own)) if row.ttfb_ms is not None]
        limit = facts.limits_ms.get("total")
        pairs = [
            ("last", last.outcome or NOTHING),
            ("p50 / p90", _pair(totals)),
            ("first JSON-RPC byte p50 / p90", _pair(ttfb)),
            ("budget", NOTHING if limit is None else ms_text(limit)),
        ]
        pairs += [(f"{name}, bytes", str(bytes_)) for name, bytes_ in last.size.items()]
        items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
        bad = ' class="bad"' if last.failed else ""
        tiles.append(f"<section><h2{bad}>{escape(device)}</h2><dl>{items}</dl></section>")
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _pair(values: Sequence[int]) -> str:
    if not values:
        return NOTHING
    return f"{ms_text(round(quantile(values, 0.5)))} / {ms_text(round(quantile(values, 0.9)))} (n={len(values)})"


def _same_ttfb(rows: Sequence[HistoryRow]) -> list[HistoryRow]:
    """TTFBs of different definitions are not compared: those of the newest."""
    newest = rows[-1].ttfb_schema if rows else 0
    return [row for row in rows if row.ttfb_schema == newest]


def _legend() -> str:
    marks = "".join(f'<span><i class="c-{phase}"></i>{phase}</span>' for phase in PHASES)
    return f'<p class="legend">{marks}</p>'


def _device(device: str, rows: Sequence[HistoryRow], facts: Facts) -> Iterator[str]:
    name = escape(device)
    if device in facts.newest:
        tx, timeline = facts.newest[device]
        yield f"<h2>{name}: the newest run in time</h2>"
        yield f'<p class="quiet">{escape(tx)}. The boot is on the device\'s clock.</p>'
        yield _chart(waterfall(timeline))
    last = list(rows[-BARS:])
    runs = "run" if len(last) == 1 else f"{len(last)} runs"
    yield f"<h2>{name}: the last {runs}, phase by phase</h2>"
    yield _chart(stacked_bars([_bar(row) for row in last], facts.limits_ms.get("total")))
    usual = comparable(rows)[-POINTS:]
    yield f"<h2>{name}: total</h2>"
    yield '<p class="quiet">Complete deploys on this machine. Hollow: something was built or written.</p>'
    points = [Point(_when(row), row.total_ms, _kind(row)) for row in usual if row.total_ms is not None]
    yield _chart(trend(points, facts.limits_ms.get("total"), f"total of each deploy of {device}"))
    yield f"<h2>{name}: time to the first JSON-RPC byte</h2>"
    points = [Point(_when(row), row.ttfb_ms, _kind(row)) for row in _same_ttfb(usual) if row.ttfb_ms is not None]
    yield _chart(trend(points, facts.limits_ms.get("ttfb"), f"TTFB of each deploy of {device}"))


def _chart(svg: str) -> str:
    """On a narrow screen a chart scrolls: shrunk to it, its words would be too small to read."""
    return f'<div class="chart">{svg}</div>'


def _bar(row: HistoryRow) -> Bar:
    parts = [(phase, row.phases[phase]) for phase in PHASES if phase in row.phases]
    rest = (row.total_ms or 0) - sum(ms for _, ms in parts)
    note = row.category or row.outcome
    return Bar(_when(row), (*parts, ("remainder", max(0, rest))), note, row.failed)


def _when(row: HistoryRow) -> str:
    return row.started_at[5:19].replace("T", " ")


def _kind(row: HistoryRow) -> str:
    return "warm" if row.warm else "built"


def _budget(rows: Sequence[HistoryRow], limits_ms: Mapping[str, int]) -> str:
    """Today's limits against the newest deploys of this machine."""
    usual = comparable(rows)[-POINTS:]
    lines = []
    for phase in ("total", *PHASES[:-1]):
        values = [
            row.total_ms if phase == "total" else row.phases[phase]
            for row in usual
            if (row.total_ms is not None if phase == "total" else phase in row.phases)
        ]
        measured = [value for value in values if value is not None]
        limit = limits_ms.get(phase)
        if not measured:
            continue
        p50, p90 = round(quantile(measured, 0.5)), round(quantile(measured, 0.9))
        over = sum(value > limit for value in measured) if limit is not None else None
        cells = [phase, limit, p50, p90, measured[-1], None if limit is None else limit - p90]
        share = "" if over is None else f"{over} of {len(measured)}"
        lines.append(_row([*cells, share], bad=limit is not None and p90 > limit))
    head = _head(("phase", "budget", "p50", "p90", "last", "margin at p90", "over"))
    return f"<h2>Budget (ms)</h2>\n<table>{head}{''.join(lines)}</table>"


def _failures(rows: Sequence[HistoryRow]) -> str:
    rates = "".join(f"<li>{escape(rate_text(rate))}</li>" for rate in failure_rates(rows))
    lines = [
        _row([name, category, len(own), own[-1].stage or NOTHING, own[-1].transaction_id])
        for (name, category), own in by_category(rows).items()
    ]
    head = _head(("cause", "category", "runs", "last in stage", "last"))
    table = f"<table>{head}{''.join(lines)}</table>" if lines else "<p>No deploy failed.</p>"
    return f"<h2>Failures</h2>\n<ul>{rates}</ul>\n{table}"


def _table(rows: Sequence[HistoryRow], facts: Facts) -> str:
    lines = []
    for row in reversed(rows[-ROWS:]):
        href = facts.links.get(row.transaction_id)
        name = escape(row.transaction_id)
        cell = f'<a href="{escape(href)}">{name}</a>' if href else name
        cells = [row.device, row.outcome or NOTHING, row.category or NOTHING, row.total_ms, row.ttfb_ms]
        lines.append(_row(cells, first=cell, bad=row.failed))
    head = _head(("transaction", "device", "outcome", "failure", "total ms", "ttfb ms"))
    return f"<h2>The last {len(lines)} deploys</h2>\n<table>{head}{''.join(lines)}</table>"


def _head(names: Sequence[str]) -> str:
    return "<thead><tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr></thead>"


def _row(cells: Sequence[str | int | None], *, first: str = "", bad: bool = False) -> str:
    shown = [f"<td>{first}</td>"] if first else []
    for cell in cells:
        number = ' class="n"' if isinstance(cell, int) else ""
        shown.append(f"<td{number}>{'' if cell is None else escape(str(cell))}</td>")
    style = ' class="bad"' if bad else ""
    return f"<tr{style}>{''.join(shown)}</tr>\n"


# --- style ------------------------------------------------------------------------------------

_STYLE = """\
:root { color-scheme: light dark; --text: #1d2430; --quiet: #5b6675; --line: #d8dde5; --back: #ffffff; --card: #f6f7f9;
  --bad: #b3261e; --trend: #2171b5; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ef; --quiet: #9aa4b2; --line: #363c47; --back: #14171c;
  --card: #1d222a; --bad: #ff8a80; --trend: #6baed6; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0 auto; padding: 1rem;
  max-width: 1080px; }
h1 { margin: 0; font-size: 1.6rem; } h2 { font-size: 1.1rem; margin: 1.8rem 0 .3rem; } header p { margin: 0; }
.quiet, header p { color: var(--quiet); } p.quiet { margin: 0 0 .4rem; font-size: .85rem; }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1rem; }
.tiles section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; }
.tiles h2 { margin: 0; } dl { display: grid; grid-template-columns: auto auto; gap: 0 1rem; margin: .3rem 0 0; }
dt { color: var(--quiet); } dd { margin: 0; font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px; }
svg { width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; }
.chart { overflow-x: auto; } .chart svg { min-width: 640px; }
svg text { fill: var(--text); } svg .axis, svg .label { fill: var(--quiet); } .grid { stroke: var(--line); }
.limit { stroke: var(--bad); stroke-dasharray: 5 3; stroke-width: 1.5; } .trend { fill: none; stroke: var(--trend); }
.dot.warm { fill: var(--trend); } .dot.built { fill: var(--back); stroke: var(--trend); stroke-width: 1.5; }
svg .bad, .bad { fill: var(--bad); color: var(--bad); } rect.failed { stroke: var(--bad); stroke-width: 2; }
rect.restored { opacity: .55; } rect.seam { stroke: var(--back); }
table { border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
a { color: inherit; }
"""


def _style() -> str:
    def colours(values: Sequence[str]) -> str:
        return "".join(
            f".c-{phase} {{ fill: {colour}; background: {colour}; }}\n"
            for phase, colour in zip(PHASES, values, strict=True)
        )

    return f"{_STYLE}{colours(_LIGHT)}@media (prefers-color-scheme: dark) {{\n{colours(_DARK)}}}\n"
