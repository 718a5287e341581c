"""Read a compiler's depfile (`-MD -MF`), and tell which missing headers its result depends on.

Pure. Does not know which files exist. Invariant: a text that is not a depfile gives None, never a shorter list.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence

from pipeline.formats import include_search
from pipeline.formats.include_search import IncludeSearch
from pipeline.formats.include_ways import IncludeWays

_ESCAPED = re.compile(r"(?<!\\)\\((?:\\\\)*)([ \t])")
_SPACE, _TAB = "\0s", "\0t"
"""Stand for an escaped space or tab while words are split; no path can hold a NUL."""


def parse(text: str) -> tuple[str, ...] | None:
    """The prerequisites of all rules in `text`, in order, each once; None when it is not a depfile.

    Make's syntax as GCC and Clang write it: `target: a b \\` with continuation lines, `\\ ` and `\\#` for a space and
    a hash, where backslashes before the space are doubled, `$$` for a dollar. Rules without prerequisites (`-MP`) add
    nothing. Only blanks and line ends separate: other white space (a no-break space) belongs to a name.
    """
    found: dict[str, None] = {}
    rules = 0
    joined = text.replace("\\\r\n", " ").replace("\\\n", " ")
    if "\\" in joined:
        joined = _ESCAPED.sub(_protected, joined)
    plain = "\\" not in joined and "$" not in joined and "\0" not in joined  # as almost all of them are
    for line in joined.replace("\r\n", "\n").split("\n"):
        words = list(filter(None, line.replace("\t", " ").split(" ")))
        if not plain:
            words = list(map(_unescape, words))
        if not words:
            continue
        colon = next((n for n, word in enumerate(words) if word.endswith(":")), None)
        if colon is None:
            return None
        rules += 1
        found.update(dict.fromkeys(words[colon + 1 :]))
    return tuple(found) if rules else None


_MOST_KNOWN = 64
"""Texts of fifty kilobytes, where each source includes others."""


class DepfileReader:
    """Reads many, most of which name the same headers after their own source. Gives what `parse` gives. Safe to use
    from several threads: at worst two of them read the same."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...] | None] = {}
        """The lines after the first of a rule -> the prerequisites in them, None for what `parse` must read."""

    def parse(self, text: str) -> tuple[str, ...] | None:
        """As `parse`."""
        first, _, rest = text.partition("\\\n")
        if not rest or not _is_plain(first) or "\n" in first:
            return parse(text)
        if rest not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known = {}
            self._known[rest] = _prerequisites(rest)
        more = self._known.get(rest)
        words = list(filter(None, first.replace("\t", " ").split(" ")))
        colon = next((n for n, word in enumerate(words) if word.endswith(":")), None)
        if more is None or colon is None:
            return parse(text)
        return tuple(dict.fromkeys((*words[colon + 1 :], *more)))


def _prerequisites(lines: str) -> tuple[str, ...] | None:
    """The words of the last lines of the only rule, None for anything else or with a character that means more."""
    joined = lines.replace("\\\n", " ").rstrip("\n")
    if ":" in joined or "\n" in joined or not _is_plain(joined):
        return None
    return tuple(filter(None, joined.replace("\t", " ").split(" ")))


def _is_plain(text: str) -> bool:
    return "\\" not in text and "$" not in text and "\0" not in text and "\r" not in text


def _protected(escaped: re.Match[str]) -> str:
    return "\\" * (len(escaped[1]) // 2) + (_SPACE if escaped[2] == " " else _TAB)


def _unescape(word: str) -> str:
    word = word.replace("\\#", "#").replace("$$", "$")
    return word.replace(_SPACE, " ").replace(_TAB, "\t") if "\0" in word else word


def normalise(path: str, root: str, places: Mapping[str, str]) -> str:
    """`path` as it stands in keys: relative to the project when it lies there, below a tool's placeholder when it lies
    beside the tool. `places` maps placeholders to absolute directories. `..` is left alone: only the file system knows
    what it means behind a symbolic link."""
    path = include_search.plain(path)
    # A tool may lie inside the project (.venv), and then be named relative to it; hence tools first.
    full = path if path.startswith("/") else f"{root}/{path}"
    for placeholder, directory in places.items():
        if full.startswith(directory.rstrip("/") + "/"):
            return placeholder + full[len(directory.rstrip("/")) :]
    return full[len(root) + 1 :] if full.startswith(root.rstrip("/") + "/") else path


def shadows(search: Sequence[str], sources: Iterable[str], headers: Sequence[str]) -> tuple[str, ...]:
    """Paths where a new file would have been included instead of one of `headers`, when nothing is known about who
    includes what.

    `search`: the include directories of the command, in the order of search; `sources` are the declared inputs, whose
    directories (and those of the headers) come first for `#include "..."`. Too many is safe (a needless compile when
    such a file appears), too few is not, so a header that could have been found in two ways counts in both.
    """
    present = set(headers)
    quoted = [posixpath.dirname(path) for path in (*sources, *headers) if not path.startswith(("/", "{"))]
    places = IncludeWays(IncludeSearch(bracket=tuple(search))).unexplained([*dict.fromkeys(quoted)], headers)
    return tuple(sorted(places - present))
