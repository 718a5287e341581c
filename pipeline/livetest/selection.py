"""Which live tests are meant: `-k 'health and not slow'`, as pytest understands it, and `-m TAG` likewise over tags.

Pure. A word stands for every test whose name, file or tags hold it (with `-m`: whose tag it is). Invariant: an
expression that cannot be read is a failure; it never selects everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cache.named_tuple import NamedTuple
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory

_TOKEN = re.compile(r"\s*(?:(\(|\))|([^\s()]+))")
Holds = Callable[[str], bool]
"""Does a word stand for the test at hand?"""
Predicate = Callable[[Holds], bool]


class LiveOptions(NamedTuple):
    """`-k`, `-m`, and whether what is observed widens the baselines."""

    select: str = ""
    tags: str = ""
    update: bool = False


class _Unreadable(Exception):
    """The fact."""


def parse_selection(text: str, option: str) -> Predicate | Failure:
    """What decides; an empty text selects all."""
    tokens = [found[1] or found[2] for found in _TOKEN.finditer(text)]
    if not tokens:
        return lambda holds: True
    tokens.append("")
    try:
        found, place = _either(tokens, 0)
        if tokens[place]:
            raise _Unreadable(f"'{tokens[place]}' stands where the expression should end")
    except (_Unreadable, RecursionError) as error:
        fact = str(error) if isinstance(error, _Unreadable) else "it is nested too deeply"
        message = f"'{text[:80]}' cannot be read: {fact}"
        hint = "combine words with `and`, `or`, `not` and brackets, and quote them for the shell"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=option, message=message, hint=hint)
    return found


def _either(tokens: list[str], place: int) -> tuple[Predicate, int]:
    parts = []
    while True:
        part, place = _both(tokens, place)
        parts.append(part)
        if tokens[place].lower() != "or":
            return (lambda holds: any(part(holds) for part in parts)), place
        place += 1


def _both(tokens: list[str], place: int) -> tuple[Predicate, int]:
    parts = []
    while True:
        part, place = _one(tokens, place)
        parts.append(part)
        if tokens[place].lower() != "and":
            return (lambda holds: all(part(holds) for part in parts)), place
        place += 1


def _one(tokens: list[str], place: int) -> tuple[Predicate, int]:
    token = tokens[place]
    if token.lower() == "not":
        inner, place = _one(tokens, place + 1)
        return (lambda holds: not inner(holds)), place
    if token == "(":
        inner, place = _either(tokens, place + 1)
        if tokens[place] != ")":
            raise _Unreadable("a bracket is not closed")
        return inner, place + 1
    if not token or token == ")" or token.lower() in ("and", "or"):
        raise _Unreadable(f"a word is missing {f'before {token!r}' if token else 'at its end'}")
    return (lambda holds: holds(token)), place + 1
