"""May what a source compiles to depend on a directory that the compiler's words name? By a macro that holds it, as
CMake defines them: `-DSOURCES="/home/me/project"`.

Pure: words with placeholders for the directories, and what texts say (`file_macro`), come in. Does not evaluate
conditions, and takes a comment for a use. Invariant: words of which `other` is False, and none of whose `macros` a
text `mentions`, give the same tokens whatever the directories are called; no length or digest of a name is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cache.named_tuple import NamedTuple
from pipeline.formats.file_macro import PathWords

_IDENTIFIER = re.compile(rb"[A-Za-z_]\w*")
_FILES = (
    *("-I", "-L", "-B", "-o", "-MF", "-MT", "-MQ", "-isystem", "-iquote", "-idirafter", "-include", "-imacros"),
    *("-iprefix", "-iwithprefix", "-isysroot", "--sysroot", "-specs", "--specs", "-Wa,-I", "-Wl,", "-fuse-ld="),
    *("-fdebug-prefix-map=", "-fmacro-prefix-map=", "-ffile-prefix-map=", "--debug-prefix-map="),
)
"""Options whose directory decides nothing but which files are found, written, or called otherwise."""
_SHORTEST_PIECE = 3
"""A parameter of one or two letters may be pasted to anything, and then nothing is known."""


class PlaceMacros(NamedTuple):
    """`macros`: names that the words define by a directory, or by another one of these; `other`: may a word with a
    directory decide about the result by something else?"""

    macros: frozenset[bytes] = frozenset()
    other: bool = False


def place_macros(words: Sequence[str], places: Iterable[str]) -> PlaceMacros:
    """Of a compiler's words after its name; `places`: the placeholders."""
    named = tuple(places)
    defined: dict[bytes, tuple[bool, frozenset[bytes]]] = {}
    other, before = False, ""
    for word in words:
        holds = any(place in word for place in named)
        text = word if before == "-D" else word[2:] if word.startswith("-D") else ""
        if text:
            name, _, value = text.partition("=")
            known = _IDENTIFIER.match(name.encode())
            if known is not None:
                bodies = frozenset(_IDENTIFIER.findall(value.encode(errors="surrogateescape")))
                defined[known[0]] = (holds, bodies)
            else:
                other = other or holds
        elif holds and not before.startswith(_FILES):
            odd = word[:1] == "-" or before == "-A"
            other = other or (not word.startswith(_FILES) and (odd or before == "-Xassembler"))
        before = word
    macros = {name for name, (holds, _) in defined.items() if holds}
    while more := {name for name, (_, body) in defined.items() if name not in macros and body & macros}:
        macros |= more
    return PlaceMacros(frozenset(macros), other)


def mentions(text: PathWords, macros: frozenset[bytes]) -> bool:
    """May the text come to one of these macros, by its name or by pieces that are pasted together?"""
    identifiers = text.used.union(text.bodies, *text.bodies.values())
    if not macros.isdisjoint(identifiers):
        return True
    begun = {name[:n] for name in macros for n in range(_SHORTEST_PIECE, len(name))}
    return not begun.isdisjoint(identifiers)
