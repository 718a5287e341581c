"""What a traced Python program said that it did with files (`engine/python_trace`): lines in, a value out.

Pure. Does not know which of the files matter. Invariant: a module counts by its source, whatever copy of it Python
keeps; a text that was cut off counts as one that says too little.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cache.named_tuple import NamedTuple

_COMPILED = re.compile(r"(.*/)__pycache__/([^/]+?)\.[a-z]+-\d+[^/]*\.pyc(?:\.\d+)?\Z")
_LOOKERS = re.compile(r"(?:[\w.]+-)*(?:objdump|nm|readelf|size)\Z")
"""Programs that read the files that their words name and nothing else."""


class PythonTrace(NamedTuple):
    """Absolute paths. `read`: files that it opened, or that were there when it asked; `missing`: those that were not;
    `written`; `unknown`: the first thing that it did and that files do not tell, `""` if there is none."""

    read: tuple[str, ...]
    missing: tuple[str, ...]
    written: tuple[str, ...]
    unknown: str


def parse_trace(text: str) -> PythonTrace:
    """The trace of one command and of the Python programs that it started."""
    found: dict[str, dict[str, None]] = {kind: {} for kind in "RMWLPN"}
    for line in text.split("\n")[:-1]:
        kind, _, path = line.partition("\t")
        if kind in found:
            found[kind][_source(path)] = None
    unknown = next(iter((*found["N"], *found["L"])), "")
    started = _started(list(found["P"]))
    if started is None:
        unknown = unknown or next(iter(found["P"]))
    if not found["R"] or (text and not text.endswith("\n")):
        unknown = unknown or "no trace"
    written = {path for path in found["W"] if "/__pycache__/" not in path and not path.endswith(".py")}
    read = {path: None for path in (*found["R"], *(started or ())) if path not in written}
    missing = [path for path in found["M"] if path not in read and path not in written]
    return PythonTrace(tuple(read), tuple(missing), tuple(sorted(written)), unknown)


def _source(path: str) -> str:
    compiled = _COMPILED.match(path)
    return f"{compiled[1]}{compiled[2]}.py" if compiled else path


def _started(words: Sequence[str]) -> tuple[str, ...] | None:
    """What programs that were started read; None where that cannot be told. A word that is an option stands in a trace
    as a file of the working directory."""
    if not words:
        return ()
    programs = [word for word in words if _LOOKERS.search(word.rsplit("/", 1)[-1])]
    if not programs or words[0] not in programs:
        return None
    return tuple(word for word in words if not word.rsplit("/", 1)[-1].startswith("-"))
