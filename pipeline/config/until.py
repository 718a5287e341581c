"""What `readiness.until` may say: its four forms, as values.

Pure; does not know ports or how a boot goes, nor how a line is matched (`boot/line_pattern.py`). Invariant: an `Until`
that exists can be decided, and its expression is of bounded size.
"""

from __future__ import annotations

import re
from enum import StrEnum

from cache.named_tuple import NamedTuple
from pipeline.text import did_you_mean

MAX_EXPRESSION = 1000
"""Characters of the expression of `line:`."""

MAX_NESTING = 30
"""Groups within groups."""

MAX_WEIGHT = 10_000
"""Characters and classes of an expression whose counted repeats are written out, as engines do."""


class ReadinessGate(StrEnum):
    """What must happen. `READY` and `HEALTH` prove which image runs; `LINE` and `BYTE` do not."""

    READY = "rpc:ready"
    HEALTH = "rpc:health"
    LINE = "line:"
    BYTE = "byte"


class Until(NamedTuple):
    """A checked `readiness.until`; `pattern` only for LINE. `text` as written."""

    gate: ReadinessGate
    text: str
    pattern: str | None = None

    @property
    def speaks_rpc(self) -> bool:
        """Is the firmware expected to speak JSON-RPC, and so to say which image it is?"""
        return self.gate in (ReadinessGate.READY, ReadinessGate.HEALTH)


def parse_until(text: str) -> Until | tuple[str, str]:
    """The readiness gate, or what is wrong with it and a hint."""
    if text.startswith(ReadinessGate.LINE.value):
        expression = text.removeprefix(ReadinessGate.LINE.value)
        if not expression:
            return "has no regular expression after 'line:'", "write one that matches a line of your firmware's output"
        if (wrong := expression_problem(expression)) is not None:
            return f"is 'line:' with {wrong[0]}", wrong[1]
        if re.search(expression, ""):
            return f"is '{text}', which matches an empty line too", "make the regular expression name some text"
        return Until(ReadinessGate.LINE, text, expression)
    for gate in (ReadinessGate.READY, ReadinessGate.HEALTH, ReadinessGate.BYTE):
        if text == gate.value:
            return Until(gate, text)
    return _unknown(text)


def _unknown(text: str) -> tuple[str, str]:
    meant = did_you_mean(text[:MAX_EXPRESSION], [gate.value for gate in ReadinessGate])
    return f"is '{text}'{meant}", "use 'rpc:ready', 'rpc:health', 'line:<regular expression>' or 'byte'"


def expression_problem(expression: str) -> tuple[str, str] | None:
    """What is wrong with a regular expression that lines of a device will meet, and a hint; None when it can serve."""
    if len(expression) > MAX_EXPRESSION:
        fact = f"a regular expression of {len(expression)} characters, of which {MAX_EXPRESSION} are allowed"
        return fact, "match a short, telling part of the line"
    nesting, weight = _size(expression)
    if nesting > MAX_NESTING:
        fact = f"a regular expression of {nesting} nested groups, of which {MAX_NESTING} are allowed"
        return fact, "match a short, telling part of the line"
    if weight > MAX_WEIGHT:
        fact = f"a regular expression whose repeats stand for {weight} characters, of which {MAX_WEIGHT} are allowed"
        return fact, "use `*` or `+` instead of counted repeats"
    try:
        re.compile(expression)
    except re.error as error:
        place = f" at character {error.pos + 1} of it" if error.pos is not None else ""
        return f"a bad regular expression: {error.msg}{place}", "correct the regular expression"
    except (RecursionError, OverflowError) as error:
        return f"a regular expression that cannot be used: {error}", "match a short, telling part of the line"
    return None


_COUNT = r"\{(\d{0,12})(?:,(\d{0,12}))?\}"


def _size(expression: str) -> tuple[int, int]:
    """(groups within groups, weight with repeats written out), without compiling: compiling is what may never end."""
    weights, last, nesting, place = [0], 0, 0, 0
    while place < len(expression):
        char = expression[place]
        step = 1
        if char == "(":
            weights.append(0)
            nesting = max(nesting, len(weights) - 1)
            last = 0
        elif char == ")" and len(weights) > 1:
            last = weights.pop() + 1
            weights[-1] += last
        elif (count := re.compile(_COUNT).match(expression, place)) and last:
            times = max(int(number) for number in (count[1] or "0", count[2] or "0"))
            weights[-1] += last * max(0, times - 1)
            last *= max(1, times)
            step = len(count[0])
        else:
            step = 2 if char == "\\" else _class_length(expression, place) if char == "[" else 1
            last = 1
            weights[-1] += 1
        place += step
    return nesting, sum(weights)


def _class_length(expression: str, place: int) -> int:
    """Characters of the class that begins at `place`; 1 where it has no end."""
    end = place + 1
    end += expression.startswith("^", end)
    end += expression.startswith("]", end)
    while end < len(expression) and expression[end] != "]":
        end += 2 if expression[end] == "\\" else 1
    return end + 1 - place if end < len(expression) else 1
