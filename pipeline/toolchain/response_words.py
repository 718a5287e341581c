"""Is a command of ninja's still what it looks like with the words of the response files that it names?

Reads response files, each once. Does not know what makes them. Invariant: every file whose words decided is among
`files`, present or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from cache.durable import read_file
from cache.named_tuple import NamedTuple
from pipeline.formats.command_words import expand
from pipeline.formats.ninja.shell import CommandReading, with_words

LARGEST = 1 << 20
"""Bytes."""


class WholeWords(NamedTuple):
    """`words`: all of them; `files`: the names of the files that some of them are from, as words say them."""

    words: Sequence[str]
    files: Sequence[str]


class ResponseWords:
    """The response files of one manifest's commands."""

    def __init__(self, resolve: Callable[[str], str | None]) -> None:
        """`resolve`: where the file of a word lies, None if its words are not known before the build."""
        self._resolve = resolve
        self._texts: dict[str, str | None] = {}

    @property
    def files(self) -> list[str]:
        """Places that were looked at."""
        return list(self._texts)

    def whole(
        self, reading: CommandReading, words: Sequence[str], own: Callable[[str], str | None]
    ) -> WholeWords | None:
        """The words of a compile or a link with those of its response files, and of the ones that these name; None
        where it is not what it looks like. `words`: the compiler's; `own`: the text of the file that ninja itself
        writes for the command, None for any other name."""
        if not any(word[:1] == "@" for word in words):
            return WholeWords(words, ())
        unknown = False
        opened: list[str] = []

        def text(name: str) -> str | None:
            nonlocal unknown
            if (said := own(name)) is not None:
                return said
            place = self._resolve(name)
            unknown = unknown or place is None
            return None if place is None else self._text(place)

        whole = expand(words, text, opened)
        # A second depfile would be written in the place of the one that is read.
        depfiles = [sum(word.startswith("-MF") for word in each) for each in (words, whole)]
        is_left = not unknown and depfiles[0] == depfiles[1] and with_words(reading, whole).kind is reading.kind
        return WholeWords(whole, tuple(opened)) if is_left else None

    def _text(self, place: str) -> str | None:
        if place not in self._texts:
            try:
                self._texts[place] = os.fsdecode(read_file(place, most=LARGEST))
            except (OSError, ValueError):
                self._texts[place] = None
        return self._texts[place]
