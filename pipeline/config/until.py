"""What `readiness.until` may say: its four forms, as values.

Pure; does not know ports or how a boot goes. Invariant: an `Until` that exists can be decided.
"""

from __future__ import annotations

import re
from enum import StrEnum

from cache.named_tuple import NamedTuple
from pipeline.text import did_you_mean


class Gate(StrEnum):
    """What must happen. `READY` and `HEALTH` prove which image runs; `LINE` and `BYTE` do not."""

    READY = "rpc:ready"
    HEALTH = "rpc:health"
    LINE = "line:"
    BYTE = "byte"


class Until(NamedTuple):
    """A checked `readiness.until`; `pattern` only for LINE. `text` as written."""

    gate: Gate
    text: str
    pattern: re.Pattern[str] | None = None

    @property
    def speaks_rpc(self) -> bool:
        """Is the firmware expected to speak JSON-RPC, and so to say which image it is?"""
        return self.gate in (Gate.READY, Gate.HEALTH)


def parse_until(text: str) -> Until | tuple[str, str]:
    """The gate, or what is wrong with it and a hint."""
    if text.startswith(Gate.LINE.value):
        expression = text.removeprefix(Gate.LINE.value)
        if not expression:
            return "has no regular expression after 'line:'", "write one that matches a line of your firmware's output"
        try:
            pattern = re.compile(expression)
        except re.error as error:
            place = f" at character {error.pos + 1} of it" if error.pos is not None else ""
            return f"is 'line:' with a bad regular expression: {error.msg}{place}", "correct the regular expression"
        if pattern.search(""):
            return f"is '{text}', which matches an empty line too", "make the regular expression name some text"
        return Until(Gate.LINE, text, pattern)
    for gate in (Gate.READY, Gate.HEALTH, Gate.BYTE):
        if text == gate.value:
            return Until(gate, text)
    return _unknown(text)


def _unknown(text: str) -> tuple[str, str]:
    meant = did_you_mean(text, [gate.value for gate in Gate])
    return f"is '{text}'{meant}", "use 'rpc:ready', 'rpc:health', 'line:<regular expression>' or 'byte'"
