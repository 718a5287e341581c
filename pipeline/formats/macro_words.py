"""Which names of a family of macros may a compile look at? The words of its texts that matter, without a preprocessor.

A preprocessor looks up a name only if that stands as a word in some text that it reads, or is pasted together from
pieces, the first of which then stands there as the left operand of `##`. So a text comes to two sets of words: those
that are such names, and those that may be the beginning of one. Pure. Does not evaluate conditions or follow
inclusions: a word in a part that is left out counts, and so does one between quotes; one in a comment does not.
Invariant: two compiles that differ only in the definitions of names that are not among the `named` of any of their
texts, and begin with none of the `begun`, see the same tokens. In a text with what only a preprocessor can read (raw
strings, trigraphs, digraphs) every word counts.

Source: C17 5.1.1.2 (phases of translation), 6.10.3; how GCC and Clang read quotes that nobody closes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from cache.named_tuple import NamedTuple

_SPLICE = re.compile(rb"\\[ \t\v\f\0]*\r?\n")
_RAW = re.compile(rb"(?<![\w/])\.(?:incbin|include)\b|#[ \t]*embed\b|\0")
_ODD = re.compile(rb"""%:|\?\?[=/'()!<>-]|\bu?8?[LU]?R"|\b[0-9]\w*'""")
_LITERAL_OR_COMMENT = re.compile(
    rb"""(?m)//[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/|\Z)"""
    rb"""|"(?:\\[^\n]|[^"\\\n])*(?:(")|\\?$)|'(?:\\[^\n]|[^'\\\n])*(?:(')|\\?$)"""
    rb"""|\b(?:include|include_next|import|__has_include|__has_include_next)[ \t]*\(?[ \t]*<[^>\n]*>"""
)
_PARAMETERS = re.compile(rb"[ \t]*#[ \t]*define[ \t]+[\w$]+\(([^)]*)\)")
_DEFINE = re.compile(rb"[ \t]*#[ \t]*define\b")
_NO_EXPANSION = re.compile(rb"[ \t]*#[ \t]*(?:error|warning|undef|ifdef|ifndef)\b")
_DEFINED = re.compile(rb"defined[ \t]*\(?[ \t]*\Z")
_WORD = re.compile(rb"\w+")
_VISIBLE = re.compile(rb"\S")
_GOES_ON = frozenset(b",)#%\\$_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") | frozenset(range(128, 256))
"""After a word that the left operand of a paste may end with stands the end of an argument, the operator, or a word
that may come to nothing."""


class MacroWords(NamedTuple):
    """What a text holds of a family. `named`: its names; `begun`: words that a name may be pasted from, the first piece
    of it; `is_raw`: may it read a file as bytes, or is it no text?"""

    named: frozenset[bytes] = frozenset()
    begun: frozenset[bytes] = frozenset()
    is_raw: bool = False


NO_WORDS = MacroWords()


def spliced(data: bytes) -> bytes:
    """The text with lines that go on put together."""
    return _SPLICE.sub(b"", data) if b"\\" in data else data


class Uncommented(NamedTuple):
    """A text with a space for each comment. `bare`: with nothing between its quotes as well."""

    text: bytes
    bare: bytes


def uncommented(text: bytes) -> Uncommented | None:
    """None for a text that only a preprocessor can read. Precondition: lines that go on are one.

    What comes first of that which could lead this reading astray is not in a comment, and so found afterwards."""
    if b"??/" in text:
        return None
    kept: list[bytes] = []
    bare: list[bytes] = []
    at = 0
    for match in _LITERAL_OR_COMMENT.finditer(text):
        between, found, at = text[at : match.start()], match[0], match.end()
        is_comment, quote = found[:1] == b"/", match[1] or match[2]
        kept += (between, b" " if is_comment else found)
        bare += (between, b" " if is_comment else quote + quote if quote else found)
    rest = text[at:]
    made = Uncommented(b"".join((*kept, rest)), b"".join((*bare, rest)))
    return None if _ODD.search(made.bare) else made


def loose_words(text: bytes, family: bytes) -> MacroWords:
    """As `macro_words`, of a text without a grammar, such as the words of a command: each may be anything."""
    names, pieces, _ = _patterns(family)
    return MacroWords(frozenset(names.findall(text)), frozenset(pieces.findall(text)))


def macro_words(data: bytes, family: bytes) -> MacroWords:
    """What a source or header says of the macros whose names begin with `family` (`b""`: any)."""
    text = spliced(data)
    is_raw = _RAW.search(text) is not None
    names, pieces, quick = _patterns(family)
    if quick.search(text) is None:
        return MacroWords(is_raw=True) if is_raw else NO_WORDS
    said = uncommented(text)
    if said is None:
        return loose_words(text, family)._replace(is_raw=is_raw)
    spoken = said.text if b"_Pragma" in text else said.bare  # which takes words out of quotes
    begun = {match[0] for match in pieces.finditer(spoken) if _may_be_pasted(spoken, match.start(), match.end())}
    return MacroWords(frozenset(names.findall(said.text)), frozenset(begun), is_raw)


@lru_cache(maxsize=16)
def _patterns(family: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    """(the names, everything that one may begin with, what a text without either lacks)."""
    if not family:
        word = re.compile(rb"\b[A-Za-z_]\w*")
        return word, word, word
    short = b""
    for character in reversed(family[1:-1]):
        short = b"(?:%c%b)?" % (character, short)
    start = b"%c%b" % (family[0], short)
    names = re.compile(rb"\b%b\w*" % family)
    pieces = re.compile(rb"\b(?:%b\w*|%b)\b" % (family, start))
    # A quote behind it is the common case: extern "C".
    quick = re.compile(rb"\b(?:%b|%b\b(?![\"';]))" % (family, start))
    return names, pieces, quick


def _may_be_pasted(text: bytes, start: int, end: int) -> bool:
    """May this word be the last one before `##`, in a body or as the end of an argument?"""
    first = text.rfind(b"\n", 0, start) + 1
    last = text.find(b"\n", end)
    line = text[first : last if last >= 0 else len(text)]
    behind = text[end : last if last >= 0 else len(text)].lstrip(b" \t\r\v\f")
    if line.lstrip(b" \t\v\f")[:1] == b"#":
        if _NO_EXPANSION.match(line):
            return False
        parameters = _PARAMETERS.match(line)
        if parameters is not None and text[start:end] in _WORD.findall(parameters[1]):
            return False
        if not behind:
            return _DEFINE.match(line) is not None
        if parameters is None and _DEFINE.match(line) is None and _DEFINED.search(text[first:start]):
            return False
        return behind[0] in _GOES_ON
    following = _VISIBLE.search(text, end)
    return following is None or following[0][0] in _GOES_ON
