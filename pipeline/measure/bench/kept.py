"""Kept counters of work: what was accepted, and what is worse than that.

Pure: rows and the text of the file in, rows with targets out. Does not know where the file lies or how one counts.
Invariants: counters are compared exactly; counts of bytecode instructions within `TOLERANCE`, and when they were kept
with another Python, whose instructions are others, by their ratio to a peer within `RATIO_TOLERANCE`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.measure.bench.table import BenchRow, BenchTarget, TargetVerdict, at_most, number, ratio_at_most

SCHEMA = 1
INSTRUCTIONS = "instructions"
"""The unit that is compared with a tolerance."""

TOLERANCE = 0.03
RATIO_TOLERANCE = 0.25
SLACK = 1.0
"""Instructions: one run in ten takes 90 more or fewer of a warm no-op's 12,000, which is 0.9 per unit between projects
of 100 and 200. Why is not known: the files, and the directories that they are listed by, are the same."""


class Kept(NamedTuple):
    """`python`: major.minor of the interpreter that counted; `rows`: case -> (ours, ratio to the peer)."""

    python: str
    rows: Mapping[str, tuple[float, float | None]]


def decode(text: str) -> Kept:
    """Raises ValueError when the file is damaged or of another version."""
    try:
        found = json.loads(text)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']} is not {SCHEMA}")
        return Kept(found["python"], {case: (row["ours"], row["ratio"]) for case, row in found["rows"].items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no kept counters: {error!r}") from None


def encode(rows: Iterable[BenchRow], python: str, command: str) -> str:
    """The file, one line per row, so that a diff shows what moved."""
    lines = [f"    {json.dumps(row.case)}: {json.dumps(_kept(row))}" for row in rows]
    head = {"schema": SCHEMA, "python": python, "written_by": command}
    first = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    return "\n".join(["{", *first, '  "rows": {', ",\n".join(lines), "  }", "}", ""])


def _kept(row: BenchRow) -> dict[str, Any]:
    return {"ours": row.ours, "unit": row.unit, "ratio": row.ratio}


def with_targets(rows: Sequence[BenchRow], kept: Kept, python: str) -> list[BenchRow]:
    """The rows with what was kept of them as target; one that was not kept has none."""
    return [row._replace(target=_target(row, kept, python)) for row in rows]


def _target(row: BenchRow, kept: Kept, python: str) -> BenchTarget | None:
    if row.case not in kept.rows:
        return None
    ours, ratio = kept.rows[row.case]
    if row.unit != INSTRUCTIONS:
        return at_most(ours)
    if python == kept.python:
        return at_most(max(ours * (1 + TOLERANCE), ours + SLACK))
    return None if ratio is None else ratio_at_most(ratio * (1 + RATIO_TOLERANCE))


def worse(rows: Iterable[BenchRow], kept: Kept, command: str) -> list[str]:
    """For each missed row: the counter, both values, and what to do if it is wanted."""
    return [
        f"{row.case}: {_value(row.ours, row.ratio, row.unit)}, kept {_value(*kept.rows[row.case], row.unit)}; "
        f"if that is wanted, run `{command}` and commit the file"
        for row in rows
        if row.verdict is TargetVerdict.MISSED
    ]


def _value(ours: float, ratio: float | None, unit: str) -> str:
    return f"{number(ours)} {unit}".rstrip() + (f" (ratio {ratio:.3f})" if ratio is not None else "")


def unlike(rows: Sequence[BenchRow], kept: Kept) -> list[str]:
    """Cases that only one of the two has."""
    return sorted({row.case for row in rows} ^ kept.rows.keys())


def better(rows: Iterable[BenchRow], kept: Kept) -> list[str]:
    """Exact counters that are less than kept: the file should be written again, so that they cannot creep back."""
    return [
        row.case
        for row in rows
        if row.case in kept.rows and row.unit != INSTRUCTIONS and row.ours < kept.rows[row.case][0]
    ]
