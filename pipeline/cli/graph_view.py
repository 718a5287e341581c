"""The action DAG as text, for other programs (dot, mermaid) and for people (a list): critical path, "what if I edit".

Pure; networkx does the graph work and is loaded only by `analyse`. Does not know the engine, files or pictures.
Invariant: an output is a function of the nodes alone, so that it can be compared and versioned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.engine.explain import plural

LABEL_SHOWN = 52


@dataclass(frozen=True, slots=True)
class Node:
    """One action. `needs`: indices of nodes that come before it. `duration_ms`: measured when it last ran somewhere,
    None if that is not known. `hit`: it reads the file of a what-if."""

    name: str
    stage: str
    needs: tuple[int, ...]
    duration_ms: int | None = None
    hit: bool = False


@dataclass(frozen=True, slots=True)
class Analysis:
    """`critical`: indices of the longest path, in order; `critical_ms` its duration, None when nothing was measured and
    the path is the one with the most actions. `layers`: indices by the longest way from a start. `after`: what may run
    because a hit node would."""

    critical: tuple[int, ...]
    critical_ms: int | None
    unmeasured: int
    layers: tuple[tuple[int, ...], ...]
    after: frozenset[int]


def analyse(nodes: Sequence[Node]) -> Analysis:
    """Critical path, layers and what follows the hit nodes. Precondition: `needs` has no cycle."""
    import networkx as nx

    unmeasured = sum(node.duration_ms is None for node in nodes)
    measured = unmeasured < len(nodes)
    # In thousandths of a millisecond, and one for being there: of paths that take as long, the one with more actions.
    weights = [1 + 1000 * (node.duration_ms or 0) for node in nodes]
    graph: nx.DiGraph[int] = nx.DiGraph()
    start = -1
    graph.add_node(start)
    for index, node in enumerate(nodes):
        for need in node.needs or (start,):
            graph.add_edge(need, index, weight=weights[index])
    critical = tuple(index for index in nx.dag_longest_path(graph) if index != start)
    total = sum(nodes[index].duration_ms or 0 for index in critical)
    graph.remove_node(start)
    layers = tuple(tuple(sorted(layer)) for layer in nx.topological_generations(graph))
    hit = {index for index, node in enumerate(nodes) if node.hit}
    after = frozenset(found for index in hit for found in nx.descendants(graph, index)) - hit
    return Analysis(critical, total if measured else None, unmeasured, layers, after)


def headline(nodes: Sequence[Node], found: Analysis, what_if: str) -> str:
    """The title of a picture: what is highlighted, and from what."""
    if what_if:
        hits = sum(node.hit for node in nodes)
        return f"edit {what_if}: {hits} would run, up to {len(found.after)} more after them, of {len(nodes)}"
    if found.critical_ms is None:
        return f"{plural(len(nodes), 'action')}; longest path has {len(found.critical)}; no durations were measured yet"
    without = f"; {found.unmeasured} without a measured duration" if found.unmeasured else ""
    return f"{plural(len(nodes), 'action')}; critical path {found.critical_ms} ms over {len(found.critical)}{without}"


def duration(node: Node) -> str:
    """`12 ms`, or `""` when it was not measured."""
    return "" if node.duration_ms is None else f"{node.duration_ms} ms"


def short(name: str) -> str:
    """`name`, its middle cut out when it is long: the ends tell sources apart."""
    if len(name) <= LABEL_SHOWN:
        return name
    keep = LABEL_SHOWN - 1
    return f"{name[: keep // 3]}…{name[-(keep - keep // 3) :]}"


def critical_edges(found: Analysis) -> frozenset[tuple[int, int]]:
    """The edges along the critical path."""
    return frozenset(pairwise(found.critical))


def to_text(nodes: Sequence[Node], found: Analysis, what_if: str) -> str:
    """For people: the critical path, or what an edit would rebuild."""
    lines = [headline(nodes, found, what_if)]
    if what_if:
        lines += [f"  {node.name}" for node in nodes if node.hit]
        if found.after:
            lines.append("then, where the bytes before them differ:")
            lines += [f"  {nodes[index].name}" for index in sorted(found.after)]
    else:
        lines += [f"  {duration(nodes[index]) or '?':>8}  {nodes[index].name}" for index in found.critical]
    return "\n".join(lines) + "\n"


def to_dot(nodes: Sequence[Node], found: Analysis, what_if: str) -> str:
    """Graphviz."""
    lines = [
        "digraph actions {",
        f"  label={_quoted(headline(nodes, found, what_if))}; labelloc=t; rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="monospace"];',
    ]
    critical, edges = set(found.critical), critical_edges(found)
    for index, node in enumerate(nodes):
        label = _quoted(node.name + (f"\n{duration(node)}" if duration(node) else ""))
        style = ["color=crimson, penwidth=2"] if not what_if and index in critical else []
        if node.hit:
            style.append("fillcolor=gold")
        if index in found.after:
            style.append("fillcolor=lemonchiffon")
        lines.append(f"  n{index} [{', '.join([f'label={label}', *style])}];")
    for need, index in _edges(nodes):
        style_of_edge = " [color=crimson, penwidth=2]" if not what_if and (need, index) in edges else ""
        lines.append(f"  n{need} -> n{index}{style_of_edge};")
    return "\n".join([*lines, "}"]) + "\n"


def to_mermaid(nodes: Sequence[Node], found: Analysis, what_if: str) -> str:
    """Mermaid, as Markdown renderers draw it."""
    lines = [f"%% {headline(nodes, found, what_if)}", "flowchart LR"]
    for index, node in enumerate(nodes):
        text = node.name.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        lines.append(f'  n{index}["{text}{f"<br/>{duration(node)}" if duration(node) else ""}"]')
    lines += [f"  n{need} --> n{index}" for need, index in _edges(nodes)]
    groups = {
        "critical": ("stroke:#c1121f,stroke-width:3px", () if what_if else found.critical),
        "hit": ("fill:#ffd60a", [index for index, node in enumerate(nodes) if node.hit]),
        "after": ("fill:#fff8d6", sorted(found.after)),
    }
    for name, (style, members) in groups.items():
        if members:
            lines.append(f"  classDef {name} {style}")
            lines.append(f"  class {','.join(f'n{index}' for index in members)} {name}")
    return "\n".join(lines) + "\n"


def _edges(nodes: Sequence[Node]) -> Iterator[tuple[int, int]]:
    for index, node in enumerate(nodes):
        for need in node.needs:
            yield need, index


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
