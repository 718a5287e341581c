"""From what commands said when they failed to the one failure of a stage.

Knows actions and how tools report. Does not run anything. Invariant: the first tool's first error is the fact, all of
the tools' words are the detail; a command is shown by a few lines of it at most.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise

from pipeline.engine.results import ActionFailure, FailureKind
from pipeline.failures import fail
from pipeline.formats.command_words import shown
from pipeline.model import Action, Failure, FailureCategory, Stage

_FULL = re.compile(r"no space left on device|NoSpaceLeft|disk quota exceeded|DiskQuota", re.IGNORECASE)
"""What compilers say, and zig, when they cannot write what they made."""


def action_failure(
    stage: Stage, category: FailureCategory, failures: Sequence[ActionFailure], actions: Sequence[Action]
) -> Failure:
    """One failure of a stage from those of its actions: the first tool's first error is the fact, all of the tools'
    words are the detail, in the form that editors read. What is no tool's refusal (a missing input, a full disk) has a
    category of its own."""
    from pipeline.formats import diagnostics

    first = failures[0]
    if first.kind is not FailureKind.EXIT:
        category = FailureCategory.ACTION_FAILED
    full = first.kind is FailureKind.EXIT and _FULL.search(first.stderr) is not None
    if first.kind is FailureKind.FILE_SYSTEM or full:
        category = FailureCategory.CACHE_ERROR
    sources = {action.outputs[0]: action.inputs[0] for action in actions if action.count_as == "compiled"}
    lines: list[str] = []
    for failure in failures:
        said, origin = failure.stderr.splitlines(), diagnostics.Origin(sources, _script(failure.argv))
        lines += diagnostics.plain(said, origin) if failure.kind is FailureKind.EXIT else said
    placed = first.kind is FailureKind.EXIT and not full
    where, fact = diagnostics.first_error(lines) if placed else ("", "")
    if full:
        fact = f"the disk that holds build/ is full: {_line_of(_FULL, first.stderr)}"
    if first.kind is FailureKind.BUILTIN and ": error: " in first.stderr:
        where, _, fact = first.stderr.splitlines()[0].partition(": error: ")
    detail = "\n".join(lines) if lines else "\n".join(f.message for f in failures)
    by_hand = category is FailureCategory.ACTION_FAILED and bool(first.argv)
    if by_hand:
        detail = f"$ {shown(first.argv, shlex.join)}\n{detail}"
    # A builtin says `<where>: error: <fact>` and then what to do.
    words = first.stderr.splitlines() if first.kind is FailureKind.BUILTIN else []
    hint = words[1] if len(words) > 1 else None
    if first.kind is FailureKind.LAUNCHER:
        hint = "run the command shown above by hand, or remove `launcher` from [toolchain]"
    if first.kind is FailureKind.INPUT_MISSING:
        hint = "make the file readable, correct its path, or declare the [[action]] that makes it"
    return fail(
        category,
        stage=stage,
        where=where or first.action,
        message=fact or first.message,
        hint=hint,
        detail=detail if len(lines) > 1 or by_hand or not fact else "",
    )


def _script(argv: Sequence[str]) -> str:
    """The linker script of a command, `""` if it has none. The project's own comes after those of its flags."""
    return next((word for word, option in pairwise(reversed(argv)) if option == "-T"), "")


def _line_of(pattern: re.Pattern[str], text: str) -> str:
    return next((line.strip() for line in text.splitlines() if pattern.search(line)), "")
