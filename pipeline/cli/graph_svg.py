"""The action DAG as SVG, by a small layered layout of our own: no graphviz needed.

Pure. Columns are layers (the longest way from a start); within a column nodes are ordered by where their neighbours
lie (barycentres, a few sweeps), then pulled towards them without overlap. An edge that skips columns gets a bend in
each, so that it does not run through boxes. Does not know what an action is. Invariant: no two boxes overlap, and the
same nodes give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from pipeline.cli.graph_view import Analysis, Node, critical_edges, duration, headline, short

CHAR_WIDTH = 7.3
"""Advance of a 12 px monospace font, with a little air."""
BOX_HEIGHT = 36
ROW_GAP = 10
BEND_HEIGHT = 6
COLUMN_GAP = 90
MARGIN = 24
TITLE_HEIGHT = 40
LEGEND_HEIGHT = 34
SWEEPS = 6

_STAGE_FILL = {"compile": "#e3eefb", "link": "#e6f4e6"}
_OTHER_FILL = "#f1f1f4"
_HIT_FILL, _AFTER_FILL = "#ffd54a", "#fff5cc"
_LINE, _CRITICAL, _TEXT, _QUIET = "#9aa4b2", "#c1121f", "#1d2430", "#5b6675"


@dataclass(slots=True)
class _Item:
    """A box, or (`node` None) the bend of a long edge. `y` is the centre."""

    node: int | None
    column: int
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    y: float = 0.0

    @property
    def height(self) -> int:
        return BEND_HEIGHT if self.node is None else BOX_HEIGHT


def to_svg(nodes: Sequence[Node], found: Analysis, what_if: str) -> str:
    """The picture, with its own background, title and legend."""
    items, paths = _items(nodes, found)
    columns = _order(items, len(found.layers))
    _place(items, columns)
    widths = [
        max(
            (CHAR_WIDTH * len(short(nodes[n].name)) + 24 for item in column if (n := items[item].node) is not None),
            default=0,
        )
        for column in columns
    ]
    left = [MARGIN + sum(widths[:n]) + COLUMN_GAP * n for n in range(len(columns))]
    bottom = max((item.y + item.height / 2 for item in items), default=0.0)
    title, legend = headline(nodes, found, what_if), _legend(found, what_if)
    right = sum(widths) + COLUMN_GAP * max(0, len(columns) - 1)
    width = max(right, CHAR_WIDTH * 1.17 * len(title), CHAR_WIDTH * sum(len(text) + 7 for _, _, text in legend))
    size = (round(width + 2 * MARGIN), round(bottom + LEGEND_HEIGHT + MARGIN))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        f'viewBox="0 0 {size[0]} {size[1]}" font-family="monospace" font-size="12">',
        f'<rect width="{size[0]}" height="{size[1]}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 4}" font-size="14" fill="{_TEXT}">{escape(title)}</text>',
    ]
    critical = frozenset() if what_if else critical_edges(found)
    # Highlighted edges last, so that none is drawn over them.
    for edge in sorted(paths, key=lambda edge: (edge in critical, edge)):
        parts.append(_edge(items, paths[edge], left, widths, edge in critical))
    on_path = frozenset() if what_if else frozenset(found.critical)
    for item in items:
        if item.node is not None:
            node = nodes[item.node]
            fill = _fill(node, item.node in found.after, what_if)
            parts.append(_box(node, left[item.column], widths[item.column], item.y, fill, item.node in on_path))
    parts += _legend_row(legend, bottom + LEGEND_HEIGHT)
    return "\n".join([*parts, "</svg>"]) + "\n"


# --- layout -----------------------------------------------------------------------------------


def _items(nodes: Sequence[Node], found: Analysis) -> tuple[list[_Item], dict[tuple[int, int], list[int]]]:
    """Boxes (item i is node i) and bends; for each edge the items it passes."""
    column = {index: number for number, layer in enumerate(found.layers) for index in layer}
    items = [_Item(index, column[index]) for index in range(len(nodes))]
    paths: dict[tuple[int, int], list[int]] = {}
    for index, node in enumerate(nodes):
        for need in node.needs:
            path = [need]
            for between in range(column[need] + 1, column[index]):
                items.append(_Item(None, between))
                path.append(len(items) - 1)
            path.append(index)
            paths[need, index] = path
            for first, second in pairwise(path):
                items[first].after.append(second)
                items[second].before.append(first)
    return items, paths


def _order(items: Sequence[_Item], count: int) -> list[list[int]]:
    """Item numbers per column, ordered to cross few edges."""
    columns: list[list[int]] = [[] for _ in range(count)]
    for number, item in enumerate(items):
        columns[item.column].append(number)
    rank = {number: float(place) for column in columns for place, number in enumerate(column)}
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for column in columns if forward else reversed(columns):
            key: dict[int, float] = {}
            for number in column:
                near = items[number].before if forward else items[number].after
                key[number] = sum(rank[n] for n in near) / len(near) if near else rank[number]
            column.sort(key=lambda number: (key[number], number))
            rank.update({number: float(place) for place, number in enumerate(column)})
    return columns


def _place(items: Sequence[_Item], columns: Sequence[Sequence[int]]) -> None:
    """Give each item its y: the fullest column evenly, the others near their neighbours."""
    for column in columns:
        _stack(items, column, dict.fromkeys(column, 0.0))
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wish = {}
            for number in column:
                near = items[number].before + items[number].after
                wish[number] = sum(items[n].y for n in near) / len(near) if near else items[number].y
            _stack(items, column, wish)
    for column in columns:
        # Once more from the left, by what comes before alone: chains become straight.
        near_before = {n: [items[b].y for b in items[n].before] or [items[n].y] for n in column}
        _stack(items, column, {n: sum(ys) / len(ys) for n, ys in near_before.items()})
    top = min((item.y - item.height / 2 for item in items), default=0.0)
    for item in items:
        item.y += MARGIN + TITLE_HEIGHT - 16 - top


def _stack(items: Sequence[_Item], column: Sequence[int], wish: Mapping[int, float]) -> None:
    """Put a column as near to its wishes as the order and the gaps allow: blocks that would overlap are merged and
    moved to the mean of their members' wishes."""
    blocks: list[tuple[list[int], float]] = []  # (members, centre of the first)
    for number in column:
        members, centre = [number], wish[number]
        while blocks and centre < _below(items, *blocks[-1], members[0]):
            members = blocks.pop()[0] + members
            offsets = _offsets(items, members)
            centre = sum(wish[n] - o for n, o in zip(members, offsets, strict=True)) / len(members)
        blocks.append((members, centre))
    for members, centre in blocks:
        for number, offset in zip(members, _offsets(items, members), strict=True):
            items[number].y = centre + offset


def _offsets(items: Sequence[_Item], members: Sequence[int]) -> list[float]:
    offsets = [0.0]
    for first, second in pairwise(members):
        offsets.append(offsets[-1] + _pitch(items[first], items[second]))
    return offsets


def _below(items: Sequence[_Item], members: Sequence[int], centre: float, following: int) -> float:
    return centre + _offsets(items, members)[-1] + _pitch(items[members[-1]], items[following])


def _pitch(first: _Item, second: _Item) -> float:
    return (first.height + second.height) / 2 + ROW_GAP


# --- drawing ----------------------------------------------------------------------------------


def _edge(
    items: Sequence[_Item], path: Sequence[int], left: Sequence[float], widths: Sequence[float], bold: bool
) -> str:
    first, *rest = (items[number] for number in path)
    x, y = left[first.column] + widths[first.column], first.y
    line = f"M{x:.0f},{y:.0f}"
    for item in rest:
        end = left[item.column]
        middle = (x + end) / 2
        line += f" C{middle:.0f},{y:.0f} {middle:.0f},{item.y:.0f} {end:.0f},{item.y:.0f}"
        x, y = end, item.y
        if item.node is None:
            x += widths[item.column]
            line += f" H{x:.0f}"
    colour, stroke = (_CRITICAL, 2.5) if bold else (_LINE, 1)
    return f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="{stroke}"/>'


def _box(node: Node, x: float, width: float, y: float, fill: str, bold: bool) -> str:
    colour, stroke = (_CRITICAL, 2.5) if bold else (_LINE, 1)
    top, spent = y - BOX_HEIGHT / 2, duration(node)
    text = y - 2 if spent else y + 4
    lines = [
        f"<g><title>{escape(node.name)}</title>",
        f'<rect x="{x:.0f}" y="{top:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="5" fill="{fill}" '
        f'stroke="{colour}" stroke-width="{stroke}"/>',
        f'<text x="{x + 12:.0f}" y="{text:.0f}" fill="{_TEXT}">{escape(short(node.name))}</text>',
    ]
    if spent:
        lines.append(f'<text x="{x + 12:.0f}" y="{y + 12:.0f}" font-size="10" fill="{_QUIET}">{spent}</text>')
    return "".join([*lines, "</g>"])


def _fill(node: Node, after: bool, what_if: str) -> str:
    if not what_if:
        return _STAGE_FILL.get(node.stage, _OTHER_FILL)
    return _HIT_FILL if node.hit else _AFTER_FILL if after else "#ffffff"


def _legend(found: Analysis, what_if: str) -> list[tuple[str, str, str]]:
    """(fill, stroke, words)."""
    if what_if:
        return [(_HIT_FILL, _LINE, "reads it: would run"), (_AFTER_FILL, _LINE, "after those: may run")]
    path = "longest path" if found.critical_ms is None else "critical path"
    return [
        (_STAGE_FILL["compile"], _LINE, "compile"),
        (_STAGE_FILL["link"], _LINE, "link and images"),
        ("#ffffff", _CRITICAL, path),
    ]


def _legend_row(legend: Sequence[tuple[str, str, str]], y: float) -> list[str]:
    parts, x = [], float(MARGIN)
    for fill, stroke, words in legend:
        parts.append(
            f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="14" height="12" rx="3" fill="{fill}" stroke="{stroke}"/>'
            f'<text x="{x + 21:.0f}" y="{y:.0f}" fill="{_QUIET}">{words}</text>'
        )
        x += 21 + CHAR_WIDTH * len(words) + 22
    return parts
