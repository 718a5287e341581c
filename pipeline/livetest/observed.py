"""What live tests observed: per chip and value the least and the greatest, which are only ever widened.

Pure. A contract (`range` in a scenario) is what must hold; what was observed is what was always so until now. Does not
know files. Invariant: `widened` never makes a range narrower, and a text that cannot be read is a failure, never an
empty table: a baseline that vanished would let everything pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.failures import fail
from pipeline.livetest.values import is_number
from pipeline.model import Failure, FailureCategory
from pipeline.records import json_text, parse_json

SCHEMA = 1

Observed = Mapping[str, Mapping[str, tuple[float, float]]]
"""chip -> value (`health: health.heap.free`) -> (least, greatest)."""


def decode(data: bytes, path: str) -> Observed | Failure:
    """The table of a file."""
    try:
        document = parse_json(data)
    except (ValueError, RecursionError) as error:
        return _bad(path, f"is no JSON: {error}")
    if (
        not isinstance(document, dict)
        or document.get("schema") != SCHEMA
        or not isinstance(document.get("chips"), dict)
    ):
        return _bad(path, f"is not of version {SCHEMA}")
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for chip, values in document["chips"].items():
        if not isinstance(values, dict):
            return _bad(path, f"holds nothing that can be read for {chip}")
        for key, limits in values.items():
            right = isinstance(limits, list) and len(limits) == 2 and all(map(is_number, limits))
            if not right or limits[0] > limits[1]:
                return _bad(path, f"holds no range for '{key}' on {chip}")
            found.setdefault(chip, {})[key] = (limits[0], limits[1])
    return found


def _bad(path: str, fact: str) -> Failure:
    hint = "restore it, or remove it and run `doit livetest --update-baseline`"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=path, message=f"the baseline {fact}", hint=hint)


def encode(observed: Observed) -> bytes:
    """As a file, a line per value, sorted, so that a change of it is read easily."""
    document: dict[str, Any] = {"schema": SCHEMA, "chips": {}}
    for chip in sorted(observed):
        document["chips"][chip] = {key: list(observed[chip][key]) for key in sorted(observed[chip])}
    lines = [f'{{\n "schema": {SCHEMA},\n "chips": {{']
    chips = []
    for chip, values in document["chips"].items():
        rows = ",\n".join(f"   {json_text(key)}: {json_text(limits)}" for key, limits in values.items())
        chips.append(f"\n  {json_text(chip)}: {{\n{rows}\n  }}")
    return "".join([*lines, ",".join(chips), "\n }\n}\n"]).encode()


def widened(observed: Observed, chip: str, values: Mapping[str, float]) -> Observed:
    """With these values of one run."""
    mine = dict(observed.get(chip, {}))
    for key, value in values.items():
        low, high = mine.get(key, (value, value))
        mine[key] = (min(low, value), max(high, value))
    return {**observed, chip: mine} if mine else dict(observed)
