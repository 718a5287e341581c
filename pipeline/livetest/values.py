"""Values in results: paths to them, and whether they are what a scenario says.

Pure. A path is what one would write in a program: `heap.free`, `modules[0].name`, `[2]`; `#` after a path counts what
is there (`modules.#`). Does not know scenarios or devices. Invariant: a comparison never raises, and what it says names
both values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.records import json_text
from pipeline.text import visible

_PART = re.compile(r"([A-Za-z_][\w-]*|#)|\[(\d{1,6})\]")
SHOWN = 120
"""Characters of a value in a message."""


class Missing(NamedTuple):
    """There is nothing at a path: `fact` says how far it leads."""

    fact: str


class Bounds(NamedTuple):
    """By chip (`""`: every other): the least and the greatest value, None: no limit."""

    by_chip: Mapping[str, tuple[float | None, float | None]]

    def of(self, chip: str) -> tuple[float | None, float | None] | None:
        """What holds on `chip`, None if nothing does."""
        return self.by_chip.get(chip, self.by_chip.get(""))


def path_problem(path: str) -> tuple[str, str] | None:
    """What is wrong with a path, and a hint; None: nothing."""
    if _parts(path) is None:
        return "it is not made of names and [numbers]", "write it like heap.free or modules[0].name"
    return None


def _parts(path: str) -> list[str | int] | None:
    parts: list[str | int] = []
    place = 0
    while place < len(path):
        if parts and path[place] == ".":
            place += 1
        elif parts and path[place] != "[":
            return None
        found = _PART.match(path, place)
        if found is None:
            return None
        parts.append(found[1] if found[1] is not None else int(found[2]))
        place = found.end()
    return parts or None


def at_path(value: Any, path: str) -> Any | Missing:
    """What stands there."""
    for part in _parts(path) or ():
        found = _step(value, part)
        if isinstance(found, Missing):
            return found
        value = found
    return value


def _step(value: Any, part: str | int) -> Any | Missing:
    if isinstance(part, int):
        if isinstance(value, list) and part < len(value):
            return value[part]
        return Missing(f"there is no [{part}] in {shown(value)}")
    if part == "#" and isinstance(value, dict | list | str):
        return len(value)
    if isinstance(value, Mapping) and part in value:
        return value[part]
    return Missing(f"there is no {part} in {shown(value)}")


def shown(value: Any) -> str:
    """A value in a message: JSON, on one line, cut where it is long."""
    try:
        text = visible(json_text(value))
    except (TypeError, ValueError):  # TOML has dates, and numbers that are none
        text = visible(repr(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def equal(found: Any, wanted: Any) -> bool:
    """As JSON sees it: `1` and `1.0` are one number, `true` and `1` are not equal."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(equal(found[key], wanted[key]) for key in wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(equal, found, wanted))
    return bool(found == wanted)


def bounds_of(value: Any) -> Bounds | str:
    """Bounds as a scenario writes them, or what is wrong with them."""
    if isinstance(value, dict) and value and not value.keys() <= {"min", "max"}:
        by_chip = {}
        for chip, limits in value.items():
            found = _limits(limits)
            if isinstance(found, str):
                return f"for {chip} {found}"
            by_chip[chip] = found
        return Bounds(by_chip)
    found = _limits(value)
    return found if isinstance(found, str) else Bounds({"": found})


def _limits(value: Any) -> tuple[float | None, float | None] | str:
    if isinstance(value, dict) and value and value.keys() <= {"min", "max"}:
        low, high = value.get("min"), value.get("max")
    elif isinstance(value, list) and len(value) == 2:
        low, high = value
    else:
        return f"is {shown(value)}"
    if not all(limit is None or is_number(limit) for limit in (low, high)):
        return f"is {shown(value)}, whose limits are no numbers"
    if low is not None and high is not None and low > high:
        return f"is {shown(value)}, which holds no number"
    return low, high


def is_number(value: Any) -> bool:
    """An integer or a float that can be compared."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124 - NaN


def outside(value: Any, low: float | None, high: float | None) -> str:
    """Why `value` is not within the limits; `""`: it is."""
    if not is_number(value):
        return f"is {shown(value)}, which is no number"
    if low is not None and value < low:
        return f"is {shown(value)}, less than {shown(low)}"
    if high is not None and value > high:
        return f"is {shown(value)}, more than {shown(high)}"
    return ""
