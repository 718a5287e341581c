"""What an installed distribution needs, as its metadata says it: names, versions, extras.

Format: the lines of `Requires-Dist` (PEP 508) as build tools write them. Does not know what is installed. Invariant:
what cannot be understood (a URL, a marker beside `extra`) forbids nothing.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from cache.named_tuple import NamedTuple

_LINE = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;()]*)\)?\s*(?:;(.*))?$")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_SPECIFIER = re.compile(r"\s*(==|!=|>=|<=|<|>|~=)\s*([0-9][0-9A-Za-z.*+!-]*)\s*$")


class Requirement(NamedTuple):
    """`versions`: as written, `>=5.6,<5.7`, `""` for any; `extra`: of which extra, `""` for what everybody needs."""

    name: str
    versions: str = ""
    extra: str = ""

    def accepts(self, version: str) -> bool:
        """Is this version among them?"""
        return all(_accepts(part, version) for part in self.versions.split(",") if part.strip())


def parse_requirement(line: str) -> Requirement | None:
    """One line; None for what is no requirement."""
    found = _LINE.match(line)
    if found is None:
        return None
    extra = _EXTRA.search(found[3] or "")
    return Requirement(found[1], found[2].strip(), extra[1] if extra else "")


_COMPARE: Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = MappingProxyType(
    {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt, "==": operator.eq, "!=": operator.ne}
)


def _accepts(specifier: str, version: str) -> bool:
    found = _SPECIFIER.match(specifier)
    if found is None or not version:
        return True
    sign, wanted = found[1], found[2]
    if wanted.endswith(".*"):
        prefix = numbers(wanted[:-2])
        same = _padded(numbers(version), len(prefix))[: len(prefix)] == prefix
        return same if sign == "==" else not same if sign == "!=" else True
    mine, other = numbers(version), numbers(wanted)
    width = max(len(mine), len(other))
    if sign == "~=":
        head = len(other) - 1
        return _padded(mine, width) >= _padded(other, width) and _padded(mine, width)[:head] == other[:head]
    return _COMPARE[sign](_padded(mine, width), _padded(other, width))


def numbers(version: str) -> tuple[int, ...]:
    """`(5, 6, 0)` for `5.6.0`, `5.6.0rc1` and `5.6.0+local`."""
    release = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()


def _padded(parts: tuple[int, ...], width: int) -> tuple[int, ...]:
    return parts + (0,) * (width - len(parts))
