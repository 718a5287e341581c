"""Words of a command line: response files put in place of their names, and the parts of a word that may be paths.

Pure: whoever can read files passes a function that does. Does not know what options mean, except which ones are written
together with a path. Source: libiberty's `expandargv`, which GCC and binutils use; Clang's and zig's readers of such
files agree with it on what it describes. Invariant: a path that a word holds is among its `parts`; one too many costs
a look for a file that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

DEEPEST = 64
"""Response files within response files; one that names itself must end somewhere."""

JOINED = (
    *("--include-directory-after", "--include-directory", "--include", "--imacros", "--specs", "--sysroot"),
    *("-iwithprefixbefore", "-iwithprefix", "-idirafter", "-isystem", "-isysroot", "-imacros", "-include", "-iquote"),
    *("-iprefix", "-I", "-L", "-T", "-B", "-R", "-F"),
)
"""Options that may be written together with a path; a longer one stands before its beginnings."""

_BETWEEN = re.compile(r"[\s'\"`=,;:|&<>(){}$\\]+")
_REDIRECTED = re.compile(r"\d{0,3}>{1,2}\s{0,80}[^\s'\"|&;<>()]+")
"""With bounds: a word of 100,000 digits would be gone through once from each of them."""
_LONGEST = 1024
"""No longer text is a path."""


def split(text: str) -> tuple[str, ...]:
    """The words of a response file: blanks separate, quotes of both kinds hold together, a backslash takes the next
    character as it stands. An open quote ends with the text."""
    words: list[str] = []
    word: list[str] | None = None
    quote, n = "", 0
    while n < len(text):
        char = text[n]
        n += 1
        if char == "\\" and n < len(text):
            word = [*(word or ()), text[n]]
            n += 1
        elif quote:
            if char == quote:
                quote = ""
            elif word is not None:
                word.append(char)
        elif char in "'\"":
            quote, word = char, word or []
        elif char.isspace():
            if word is not None:
                words.append("".join(word))
            word = None
        elif word is None:
            word = [char]
        else:
            word.append(char)
    if word is not None:
        words.append("".join(word))
    return tuple(words)


def joined(words: Iterable[str]) -> str:
    """The text of a response file that `split` takes apart into these words."""
    return "".join(f"{_quoted(word)}\n" for word in words)


def _quoted(word: str) -> str:
    if word and not re.search(r"[\s'\"\\]", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def expand(words: Iterable[str], read: Callable[[str], str | None], opened: list[str] | None = None) -> tuple[str, ...]:
    """The words with those of response files in the place of `@FILE`. `read` gives a file's text, None when it cannot
    be read: then the word stands for itself, as compilers take it. `opened` receives the names, in order."""
    words = tuple(words)
    if "@" not in "".join(words):
        return words
    return tuple(_expanded(words, read, [] if opened is None else opened, 0))


def _expanded(words: Iterable[str], read: Callable[[str], str | None], opened: list[str], depth: int) -> Iterator[str]:
    for word in words:
        text = read(word[1:]) if len(word) > 1 and word.startswith("@") and depth < DEEPEST else None
        if text is None:
            yield word
        else:
            opened.append(word[1:])
            yield from _expanded(split(text), read, opened, depth + 1)


def parts(word: str) -> tuple[str, ...]:
    """What in a word may be a path: the word, what follows an option's letters, `@` or `=`, and everything between
    blanks, quotes and punctuation; not what a shell is told to write to. Options themselves are left out."""
    found: dict[str, None] = {}
    text = _REDIRECTED.sub(" ", word)
    for piece in (text, *_tails(text), *_BETWEEN.split(text)):
        for path in _stripped(piece):
            if 0 < len(path) <= _LONGEST and not path.startswith("-") and path not in ("@", ".", "..", "/", "./"):
                found[path] = None
    return tuple(found)


def _tails(word: str) -> Iterator[str]:
    """What follows the first `=`, and the first comma: a path may hold more of them."""
    for mark in "=,":
        _, found, tail = word.partition(mark)
        if found:
            yield tail


def _stripped(piece: str) -> Iterator[str]:
    yield piece
    if piece.startswith("@"):
        yield piece[1:]
    option = next((option for option in JOINED if piece.startswith(option)), None)
    if option is not None:
        yield piece[len(option) :].removeprefix("=")


def shown(argv: Sequence[str], quote: Callable[[Sequence[str]], str], most: int = 600) -> str:
    """A command for a person: whole if it is short, otherwise its beginning and how many words follow."""
    count, length = 0, 0
    for word in argv:
        length += len(word) + 1
        if length > most:
            break
        count += 1
    if count == len(argv):
        return quote(argv)
    count = max(1, count)
    return f"{quote([word[:most] for word in argv[:count]])} ... ({len(argv) - count} more words)"
