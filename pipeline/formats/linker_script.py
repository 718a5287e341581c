"""Which files does a linker script read besides itself: INCLUDE, INPUT, GROUP, STARTUP and the libraries they name.

Pure: the text comes in, names come out; whoever can look at files decides where a name leads. Does not evaluate the
script. Source: GNU ld's manual, "Commands Dealing with Files"; lld reads the same commands. Invariant: every name that
either linker could open is returned; one too many costs a look for a file that is not there.

Linkers' own dependency files do not serve: lld's (22, through zig) leaves scripts out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_INCLUDE = re.compile(r"\bINCLUDE\s+(\"[^\"]+\"|[^\s;]+)")
_FILES = re.compile(r"\b(?:INPUT|GROUP|STARTUP|AS_NEEDED)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_NAME = re.compile(r'"[^"]+"|[^\s,()"]+')


def named_files(text: str) -> tuple[str, ...]:
    """The names in the script, in order, each once; `-lNAME` as it stands there."""
    text = _COMMENT.sub(" ", text)
    found = [match[1].strip('"') for match in _INCLUDE.finditer(text)]
    for match in _FILES.finditer(text):
        found += [word.strip('"') for word in _NAME.findall(match[1])]
    return tuple(dict.fromkeys(name for name in found if name != "AS_NEEDED"))


def places(name: str, search: Sequence[str]) -> Iterator[str]:
    """Where a name is looked for, in order: as it stands, then below the directories of `-L`."""
    if name.startswith("-l"):
        library = name[3:] if name.startswith("-l:") else f"lib{name[2:]}.a"
        yield from (f"{directory}/{library}" for directory in search)
        return
    yield name
    if not name.startswith("/"):
        yield from (f"{directory}/{name}" for directory in search)


def library_path(argv: Sequence[str]) -> tuple[str, ...]:
    """The `-L` directories of a link command, relative ones without `./`."""
    words, found = iter(argv), []
    for word in words:
        if word.startswith("-L"):
            found.append((word[2:] or next(words, "")).removeprefix("./").rstrip("/") or ".")
    return tuple(dict.fromkeys(found))
