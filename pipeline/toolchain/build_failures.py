"""From what a build of somebody else's printed when it failed to a failure with the place of its first error.

Knows how compilers, linkers, make and ninja say where they are. Does not run anything; asks whether files are there.
Invariant: the place that a failure names is that of a file, from the project's root where it lies there; where no error
has such a place, the failure is about the command.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

from pipeline.failures import fail
from pipeline.formats import diagnostics
from pipeline.model import Failure, FailureCategory

_ENTERED = re.compile(
    r"(?:Entering directory|Running \S+ in directory|Building in|cd) [`'\"]?([^`'\"]+?)[`'\"]?\s*(?:\.\.\.)?$"
)
_LINKER = re.compile(
    r"undefined reference|multiple definition|undefined symbol|collect2: |\bld(?:\.lld)?: |overflowed by"
)
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\\\)")
_MOST_LINES = 20_000
HINT = "correct what it reports above"


def build_failure(said: bytes, root: str, is_file: Callable[[str], bool], where: str, what: str) -> Failure:
    """`said`: the end of what it printed; `where` and `what`: the command's own place and fate."""
    text = _COLOUR.sub("", said.decode("utf-8", "replace")).replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")[-_MOST_LINES:]
    places = _directories(lines, root)
    for line in diagnostics.plain(lines, diagnostics.Origin({})):
        if not diagnostics.is_error(line):
            continue
        place, _, fact = line.partition(": error: ")
        path, row, column = place.rsplit(":", 2)
        found = next((one for one in (posixpath.join(each, path) for each in places) if is_file(one)), "")
        if found:
            short = posixpath.normpath(found)
            short = short[len(root) + 1 :] if short.startswith(f"{root}/") else short
            linked = _LINKER.search(fact) is not None
            category = FailureCategory.LINK_ERROR if linked else FailureCategory.COMPILE_ERROR
            return fail(category, stage=None, where=f"{short}:{row}:{column}", message=fact, hint=HINT, detail=what)
    category = FailureCategory.LINK_ERROR if _LINKER.search(text) else FailureCategory.ACTION_FAILED
    return fail(category, stage=None, where=where, message=what, hint=HINT)


def _directories(lines: Sequence[str], root: str) -> list[str]:
    """Where a path that was printed may be meant from: the root, and every directory that a tool said it went to."""
    found = {root: None}
    for line in lines:
        entered = _ENTERED.search(line) if "irectory" in line else None
        if entered:
            found[posixpath.join(root, entered[1])] = None
    return list(found)
