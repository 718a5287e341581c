"""Where a linker is told to write its map.

Pure. Does not know what a map says (`link_map`), nor what else a command does.
Invariant: a file is named once, as the command spells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest


def map_files(words: Sequence[str]) -> list[str]:
    """The files to which a linker is told to write its map."""
    found = []
    passed = [piece for word in words for piece in (word[4:].split(",") if word.startswith("-Wl,") else [word])]
    pieces = [piece for piece in passed if piece != "-Xlinker"]
    for piece, following in zip_longest(pieces, pieces[1:], fillvalue=""):
        for option in ("-Map", "--Map"):
            if piece.startswith(f"{option}="):
                found.append(piece.partition("=")[2])
            elif piece == option and following:
                found.append(following)
    return [path for path in dict.fromkeys(found) if path]
