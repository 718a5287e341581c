"""What a compile reads, or looks for, and no depfile says: `__has_include`, `.incbin`, the assembler's `.include`.

A depfile lists the files that were included. GCC does not list one that only `__has_include` found, no compiler lists
one that it did not find, and nothing lists what the assembler opens. Pure: the text comes in, names come out;
whoever can look at files decides where a name leads. Invariant: a name that stands in the text is returned, whether its
line is compiled or not; one too many costs a needless compile at worst. A name that the preprocessor puts together from
several pieces is not seen.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence

from cache.named_tuple import NamedTuple

_ASKED = re.compile(r"__has_(?:include(?:_next)?|embed)\s*\(\s*(?:\"([^\"\n]+)\"|<([^>\n]+)>|(\w+))")
_DEFINED = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(?:\"([^\"\n]+)\"|<([^>\n]+)>)", re.MULTILINE)
_ASSEMBLER = re.compile(r"\.(?:incbin|include)\b")
_QUOTE = re.compile(r"\\?\"|[\x00-\x1f]")
_ARGUMENT = re.compile(r"(?<=[(,])\s*([\w.+/@-]*[./][\w.+/@-]*)(?=\s*[,)])")
_LONGEST = 1024
"""No longer text between two quotes is a path."""


class Hidden(NamedTuple):
    """`asked`: names whose presence counts. `assembled`: does the assembler read files?"""

    asked: tuple[str, ...]
    assembled: bool


def hidden(text: str) -> Hidden:
    """What a text hides that is marked. The name in a macro counts where the same text defines it so."""
    asked: dict[str, None] = {}
    macros = {match[1]: match[2] or match[3] for match in _DEFINED.finditer(text)}
    for match in _ASKED.finditer(text):
        name = match[1] or match[2] or macros.get(match[3], "")
        if name:
            asked[name] = None
    return Hidden(tuple(asked), _ASSEMBLER.search(text) is not None)


def quoted(text: str) -> tuple[str, ...]:
    """Everything between quotes, escaped or not: the names that the assembler may be given, among much else."""
    pieces = dict.fromkeys(_QUOTE.split(text)[1:])
    return tuple(piece for piece in pieces if 0 < len(piece) <= _LONGEST)


def unquoted(text: str) -> tuple[str, ...]:
    """What stands as an argument of a call and may be a path that a macro makes a string of (`#file`)."""
    return tuple(dict.fromkeys(match[1] for match in _ARGUMENT.finditer(text) if len(match[1]) <= _LONGEST))


def places(name: str, beside: Iterable[str], search: Sequence[str]) -> Iterator[str]:
    """Where a name is looked for: in the directories `beside`, then in those of the search path."""
    if name.startswith("/"):
        yield name
        return
    for directory in (*beside, *search):
        yield posixpath.join(directory, name) if directory not in ("", ".") else name
