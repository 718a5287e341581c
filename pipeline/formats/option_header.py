"""A header that holds options: nothing but `#define` and `#undef`, as sdkconfig.h and autoconf.h are.

Pure. What each name is defined as, and what of that a compile depends on that looks at some of the names. Does not know
which compile looks at what (`macro_words`). Invariant: two headers with equal `view`s of a set of names define these
alike, in every order of inclusion; a header with anything else than definitions, comments, `#pragma once` and a guard
has no reading, and counts as a whole.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256

from cache.named_tuple import NamedTuple
from pipeline.formats.macro_words import macro_words, spliced, uncommented

_LINE = re.compile(rb"[ \t]*#[ \t]*(define|undef)[ \t]+([A-Za-z_]\w*)((?![\w$\x80-\xff]).*)", re.DOTALL)
_ONCE = re.compile(rb"[ \t]*#[ \t]*pragma[ \t]+once[ \t]*\Z")
_GUARD = re.compile(rb"[ \t]*#[ \t]*ifndef[ \t]+([A-Za-z_]\w*)[ \t]*\Z")
_END = re.compile(rb"[ \t]*#[ \t]*endif[ \t]*\Z")
_WORD = re.compile(rb"[A-Za-z_]\w*")
MOSTLY = 0.5
"""A family is what more than this part of the names begin with."""


class OptionHeader(NamedTuple):
    """`macros`: name -> what is said of it, in order: a definition as written behind its name, None for `#undef`.
    `names`: sorted; `family`: what most of them begin with, `b""` if they have nothing in common; `always`: those that
    count for everybody; `once`: how it is kept from being read twice; `leads`: name -> what its definition may come
    to: names of this header, and words that one may be pasted from."""

    macros: Mapping[bytes, tuple[bytes | None, ...]]
    names: tuple[bytes, ...]
    family: bytes
    always: tuple[bytes, ...]
    once: bytes
    leads: Mapping[bytes, tuple[tuple[bytes, ...], tuple[bytes, ...]]]

    def used(self, named: Iterable[bytes], begun: Iterable[bytes]) -> list[bytes]:
        """The names that count for a compile whose texts hold these words (as in `MacroWords`), sorted."""
        waiting = [*self.always, *(name for name in named if name in self.macros), *self._begun_with(begun)]
        found = set(waiting)
        while waiting:
            leads = self.leads.get(waiting.pop())
            if leads is not None:
                fresh = [name for name in (*leads[0], *self._begun_with(leads[1])) if name not in found]
                found.update(fresh)
                waiting += fresh
        return sorted(found)

    def _begun_with(self, pieces: Iterable[bytes]) -> list[bytes]:
        found = []
        for piece in pieces:
            for n in range(bisect_right(self.names, piece), len(self.names)):
                if not self.names[n].startswith(piece):
                    break
                found.append(self.names[n])
        return found

    def view(self, names: Iterable[bytes]) -> str:
        """SHA-256 of what is said of these names."""
        parts = [self.once]
        for name in names:
            parts.append(name)
            parts += [b"-" if said is None else b"+" + said for said in self.macros[name]]
        return sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()

    def value(self, name: bytes) -> str:
        """What a person is told that the option is, `""` for one that is not defined."""
        said = self.macros.get(name, (None,))[-1]
        return "" if said is None else said.decode("utf-8", "replace").strip() or "defined"


def parse_option_header(data: bytes) -> OptionHeader | str:
    """Read one; why it counts as a whole if it does."""
    said = uncommented(spliced(data))
    if said is None or b"\0" in data:
        return "it holds raw strings, trigraphs or digraphs"
    lines = [line.strip(b"\r") for line in said.text.split(b"\n")]
    lines = [line for line in lines if line.strip()]
    once = b""
    if lines and _ONCE.match(lines[0]):
        once = b"pragma"
        lines = lines[1:]
    elif len(lines) > 2 and (guard := _GUARD.match(lines[0])) and _END.match(lines[-1]):
        first = _LINE.match(lines[1])
        if first is not None and first[1] == b"define" and first[2] == guard[1] and not first[3].strip():
            once, lines = b"guard " + guard[1], lines[1:-1]
    macros: dict[bytes, tuple[bytes | None, ...]] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None or (found[1] == b"undef" and found[3].strip()):
            return f"it holds more than definitions: {line.strip()[:40].decode('utf-8', 'replace')}"
        # A parenthesis right behind the name makes it a function.
        macros[found[2]] = (*macros.get(found[2], ()), found[3].rstrip() if found[1] == b"define" else None)
    family = _family(macros)
    always = tuple(name for name in macros if not name.startswith(family) or name[:1] == b"_")
    leads = {name: _leads(name, said, macros, family) for name, said in macros.items() if _may_lead(said)}
    return OptionHeader(macros, tuple(sorted(macros)), family, always, once, leads)


def _may_lead(said: Iterable[bytes | None]) -> bool:
    return any(body and _WORD.search(body) for body in said)


def _leads(
    name: bytes, said: Iterable[bytes | None], macros: Mapping[bytes, object], family: bytes
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    named: dict[bytes, None] = {}
    begun: dict[bytes, None] = {}
    for body in said:
        if body:
            words = macro_words(b"#define %b%b" % (name, body), family)
            named.update(dict.fromkeys(sorted(words.named)))
            begun.update(dict.fromkeys(sorted(words.begun)))
    # Names outside of the family count for everybody.
    return tuple(word for word in named if word in macros and word != name), tuple(begun)


def _family(macros: Mapping[bytes, object]) -> bytes:
    """`CONFIG_` of `CONFIG_A` and `CONFIG_B_C`."""
    starts = Counter(name[: name.find(b"_", 1) + 1] for name in macros)
    start, count = max(starts.items(), key=lambda item: (item[1], item[0]), default=(b"", 0))
    return start if len(start) > 3 and start[:1] != b"_" and count > MOSTLY * len(macros) else b""
