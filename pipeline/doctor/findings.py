"""What an examination found: facts with a level, and for each that is not well what to do.

Pure; does not know how anything was found out. Invariant: whatever is no `ok` and no `note` has a hint that starts with
a verb, and a deploy can work exactly if nothing is an error.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.model import Failure
from pipeline.text import visible

DOCTOR_SCHEMA = 1


class Condition(StrEnum):
    """`error`: no deploy works until it is cured; `warning`: one works, but not as well, or not always."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class DoctorFinding(NamedTuple):
    """`area`: what was looked at (`python`, `device bench`); `fact`: what was found there; `hint`: what to do."""

    area: str
    condition: Condition
    fact: str
    hint: str = ""


def ok(area: str, fact: str) -> DoctorFinding:
    return DoctorFinding(area, Condition.OK, fact)


def note(area: str, fact: str, hint: str = "") -> DoctorFinding:
    return DoctorFinding(area, Condition.NOTE, fact, hint)


def warning(area: str, fact: str, hint: str) -> DoctorFinding:
    return DoctorFinding(area, Condition.WARNING, fact, hint)


def bad(area: str, fact: str, hint: str) -> DoctorFinding:
    return DoctorFinding(area, Condition.ERROR, fact, hint)


def of_failure(area: str, failure: Failure) -> DoctorFinding:
    """An error that a part of the product would report by itself."""
    return bad(area, failure.message, failure.hint)


def can_deploy(findings: Sequence[DoctorFinding]) -> bool:
    """Does nothing stand in the way?"""
    return not any(one.condition is Condition.ERROR for one in findings)


def findings_json(findings: Sequence[DoctorFinding]) -> dict[str, Any]:
    """As data."""
    rows = [{**one._asdict(), "condition": one.condition.value, "hint": one.hint or None} for one in findings]
    return {"schema": DOCTOR_SCHEMA, "can_deploy": can_deploy(findings), "findings": rows}


def findings_text(findings: Sequence[DoctorFinding], width: int) -> str:
    """For people; `width` in columns, 0 for one line per fact and hint, which programs like better."""
    area_width = max((len(one.area) for one in findings), default=0)
    lines = []
    for one in findings:
        head = f"{one.condition.value:<8} {one.area:<{area_width}}  "
        lines += _wrapped(head + visible(one.fact), width, len(head))
        if one.hint:
            lines += _wrapped(f"{' ' * len(head)}hint: {visible(one.hint)}", width, len(head) + 6)
    return "\n".join([*lines, _verdict(findings), ""])


def _wrapped(line: str, width: int, indent: int) -> list[str]:
    if not width or len(line) <= width:
        return [line.rstrip()]
    begin = line[: len(line) - len(line.lstrip())]
    wrapper = textwrap.TextWrapper(
        width, initial_indent=begin, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True,
    )  # fmt: skip
    head, text = line[:indent], line[indent:]
    if begin == head[: len(begin)] and not begin:
        wrapper.initial_indent = head
        return wrapper.wrap(text)
    return wrapper.wrap(line.lstrip())


def _verdict(findings: Sequence[DoctorFinding]) -> str:
    errors = sum(one.condition is Condition.ERROR for one in findings)
    warnings = sum(one.condition is Condition.WARNING for one in findings)
    beside = f", with {_count(warnings, 'warning')}" if warnings else ""
    if errors:
        return f"a deploy cannot work: {_count(errors, 'error')}{beside.replace('with', 'and')}"
    return f"a deploy can work{beside}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
