"""May what a source compiles to depend on the path by which the compiler knows a file? By `__FILE__` and its like.

Pure: texts come in. A macro whose body mentions such a word, or another such macro, carries it; a file in which a
carrier or such a word stands outside of definitions may use it, and its own path is what is used. Does not evaluate
conditions, and takes a comment for a use. Invariant: a text for which `uses_path` is False gives the same tokens
whatever the file's path is, as long as no name of a carrier is put together from pieces that no carrier begins or ends
with.

Source: GCC's manual, "Standard Predefined Macros"; C++20 [support.srcloc].
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from cache.named_tuple import NamedTuple

WORDS = frozenset(
    (
        b"__FILE__",
        b"__BASE_FILE__",
        b"__builtin_FILE",
        b"__builtin_LOC",
        b"source_location",
        b"__builtin_source_location",
    )
)
"""What a compiler replaces by the path of a file, or by something that holds it."""

_CONTINUED = re.compile(rb"\\\r?\n")
_DEFINE = re.compile(rb"(?m)^[ \t]*#[ \t]*define[ \t]+([A-Za-z_]\w*)(.*)$")
_IDENTIFIER = re.compile(rb"[A-Za-z_]\w*")
_PASTED = re.compile(rb"([A-Za-z_]\w*)?[ \t]*##[ \t]*([A-Za-z_]\w*)?")


class PathWords(NamedTuple):
    """What matters of a text. `bodies`: macro -> identifiers of its body; `pasted`: macro -> the pieces that it puts
    together; `used`: identifiers outside of definitions."""

    bodies: Mapping[bytes, frozenset[bytes]]
    pasted: Mapping[bytes, frozenset[bytes]]
    used: frozenset[bytes]


def path_words(data: bytes) -> PathWords:
    """Read a source or header."""
    text = _CONTINUED.sub(b" ", data)
    bodies: dict[bytes, frozenset[bytes]] = {}
    pasted: dict[bytes, frozenset[bytes]] = {}
    for match in _DEFINE.finditer(text):
        name, body = match[1], match[2]
        bodies[name] = bodies.get(name, frozenset()) | frozenset(_IDENTIFIER.findall(body))
        if b"##" in body:
            pieces = {piece for pair in _PASTED.findall(body) for piece in pair if piece}
            pasted[name] = pasted.get(name, frozenset()) | frozenset(pieces)
    return PathWords(bodies, pasted, frozenset(_IDENTIFIER.findall(_DEFINE.sub(b"", text))))


class Carriers:
    """The words, and every macro of some texts whose body may come to one of them; many sources share their headers."""

    def __init__(self, texts: Iterable[PathWords]) -> None:
        self._users: dict[bytes, list[bytes]] = {}
        self._pasting: dict[bytes, set[bytes]] = {}
        for text in texts:
            _index(text, self._users, self._pasting)
        self.alone = _spread(set(WORDS), WORDS, (self._users,), (self._pasting,))

    def beside(self, text: PathWords) -> frozenset[bytes]:
        """Those of these texts and of one more."""
        if not text.bodies and not text.pasted:
            return self.alone
        users: dict[bytes, list[bytes]] = {}
        pasting: dict[bytes, set[bytes]] = {}
        _index(text, users, pasting)
        found = set(self.alone)
        # What is known of these already is asked of the one that is new alone; what follows from it, of all.
        first = {name for word in found & users.keys() for name in users[word]}
        first |= {name for name, pieces in pasting.items() if any(_may_make(word, pieces) for word in found)}
        first -= found
        return _spread(found | first, first, (self._users, users), (self._pasting, pasting))


def _index(text: PathWords, users: dict[bytes, list[bytes]], pasting: dict[bytes, set[bytes]]) -> None:
    for name, body in text.bodies.items():
        for word in body:
            users.setdefault(word, []).append(name)
    for name, pieces in text.pasted.items():
        pasting.setdefault(name, set()).update(pieces)


def _spread(
    found: set[bytes],
    begin: Iterable[bytes],
    users: Sequence[Mapping[bytes, list[bytes]]],
    pasting: Sequence[Mapping[bytes, set[bytes]]],
) -> frozenset[bytes]:
    """`found`, and all that comes to one of `begin`."""
    waiting = list(begin)
    while waiting:
        word = waiting.pop()
        fresh = {name for each in users for name in each.get(word, ()) if name not in found}
        fresh |= {
            name for each in pasting for name, pieces in each.items() if name not in found and _may_make(word, pieces)
        }
        found |= fresh
        waiting += fresh
    return frozenset(found)


def carriers(texts: Iterable[PathWords]) -> frozenset[bytes]:
    """The words, and every macro of these texts whose body may come to one of them."""
    return Carriers(texts).alone


def _may_make(word: bytes, pieces: Iterable[bytes]) -> bool:
    """May these pieces, put together with others, be this word? A parameter of one or two letters may be anything, and
    then nothing is known; what a macro is called with stands where it is used, and counts there."""
    return any(len(piece) > 2 and (word.startswith(piece) or word.endswith(piece)) for piece in pieces)


def uses_path(text: PathWords, carried: frozenset[bytes]) -> bool:
    """May the text outside of definitions come to the path of its file?"""
    return not carried.isdisjoint(text.used)
