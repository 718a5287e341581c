"""Level and tag of a line of a log, and rules such as `wifi:W *:I` that choose lines by them.

Pure. Knows the forms of ESP-IDF (`W (1234) wifi: ...`, and with a time of day in the parentheses), of Arduino's core
(`[  1234][W][file.cpp:12] f(): ...`) and of Zephyr (`[00:00:01.234,000] <wrn> wifi: ...`); the rules are those of
ESP-IDF's monitor (its `--print-filter`). Does not know who asks. Invariant: what a line is depends on that line alone,
and a line of no such form is shown unless the rule for `*` says `N`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cache.named_tuple import NamedTuple

LEVELS = "NEWIDV"
"""From nothing to everything; a rule shows its level and those before it."""

_FORMS = (
    r"^(?P<level>[EWIDV]) \([^)]{1,24}\) (?P<tag>[^:]{1,64}):",
    r"^\[ {0,9}\d{1,10}\]\[(?P<level>[EWIDV])\]\[(?P<tag>[^\]:]{1,64})(?::\d{1,6})?\]",
    r"^\[[\d:.,]{8,24}\] <(?P<level>err|wrn|inf|dbg)> (?P<tag>[^:]{1,64}):",
)
_ZEPHYR = {"err": "E", "wrn": "W", "inf": "I", "dbg": "D"}
_UPTIME = r"^(?:([EWIDV] )\([^)]{1,24}\)|\[ {0,9}\d{1,10}\](?=\[)|\[[\d:.,]{8,24}\](?= <))"


class LogMark(NamedTuple):
    """`level`: one letter of LEVELS."""

    level: str
    tag: str


def log_mark(line: str) -> LogMark | None:
    """Of a line without colours; None where it has no such form."""
    for form in _FORMS:
        if (found := re.match(form, line)) is not None:
            return LogMark(_ZEPHYR.get(found["level"], found["level"]), found["tag"].strip())
    return None


def without_uptime(line: str) -> str:
    """What two lines have in common that differ only by when they were logged."""
    return re.sub(_UPTIME, lambda found: found[1] or "", line, count=1)


class LevelRules:
    """Made by `parse_rules`."""

    def __init__(self, rules: Mapping[str, str]) -> None:
        self._rules = dict(rules)
        self._rest = LEVELS.index(self._rules.pop("*", "V"))

    def shows(self, line: str) -> bool:
        """Is a line (without colours) to be shown?"""
        mark = log_mark(line)
        if mark is None:
            return self._rest > 0
        rule = self._rules.get(mark.tag)
        return LEVELS.index(mark.level) <= (self._rest if rule is None else LEVELS.index(rule))


def parse_rules(text: str) -> LevelRules | str:
    """`TAG:LEVEL`, separated by blanks; `*` is every other tag, a tag alone shows all of it, a level alone is that of
    `*`. Or what is wrong with it."""
    rules = {}
    for word in text.split():
        tag, colon, level = word.rpartition(":")
        if not colon:
            tag, level = ("*", word) if word in LEVELS else (word, "V")
        if not tag or len(level) != 1 or level.upper() not in LEVELS:
            return f"'{word}' is no TAG:LEVEL with a level of {', '.join(LEVELS)}"
        rules[tag] = level.upper()
    return LevelRules(rules)
