"""Is there still nothing in the places where a file would be found first? A compile has thousands of these.

Each directory is listed once instead of each of its names being asked about, and what many actions share is asked once.
Knows directories; not what the places are for. Invariant: "nothing" is said only of a place whose directory holds no
such name; every doubt (a directory that cannot be listed, names that a file system may spell in several ways) is asked
about one by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence


class AbsentPlaces:
    """As of one look. `resolve`: a path of a key as one that can be opened; `is_present`: is there such a file?"""

    def __init__(self, resolve: Callable[[str], str], is_present: Callable[[str], bool]) -> None:
        self._resolve, self._is_present = resolve, is_present
        self._empty: set[str] = set()
        self._names: dict[str, frozenset[str] | None] = {}
        """Directory -> what it holds, in lower case; None where that cannot be told."""

    def first_taken(self, places: Sequence[str]) -> str:
        """The first where a file is by now, `""` if there is none."""
        if self._empty.issuperset(places):
            return ""
        for path in places:
            if path not in self._empty:
                if self._may_be_there(path) and self._is_present(path):
                    return path
                self._empty.add(path)
        return ""

    def forget(self, paths: Sequence[str]) -> None:
        """Files may have been made, these among them."""
        self._empty.difference_update(paths)
        self._names.clear()

    def forget_all(self, is_doubted: Callable[[str], bool]) -> None:
        """Any file may have been made in these places."""
        self.forget([*filter(is_doubted, self._empty)])

    def _may_be_there(self, path: str) -> bool:
        directory, _, name = path.rpartition("/")
        if directory in self._names:
            names = self._names[directory]
        else:
            names = self._names[directory] = _names_in(self._resolve(f"{directory}/" if directory else "."))
        return names is None or not name.isascii() or name.lower() in names


def _names_in(directory: str) -> frozenset[str] | None:
    if os.name != "posix":
        return None  # one file has several names there
    try:
        names = os.listdir(directory)  # noqa: PTH208 - a thousand directories in a run
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except (OSError, ValueError):
        return None
    return frozenset(map(str.lower, names)) if all(map(str.isascii, names)) else None
