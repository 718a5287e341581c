"""Files that match a pattern, and the directories whose listings decided it.

Lists directories and reads nothing else. Does not know what the files are for. Invariant: as long as every directory
in `Listing.watched` has the stamp given there and nothing in `Listing.absent` exists, the same patterns match the same
files.

    *  ?  [a-z]   within a name, hidden ones included; ** any number of directories (symbolic links are not followed),
    and every file below when it is the last part
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path

from pipeline.fastpath import FileStamp
from pipeline.fastpath.watched import directory_stamp

_MAGIC = re.compile(r"[*?[]")


@dataclass(slots=True)
class Listing:
    """What was looked at so far: directory -> its stamp before it was listed, and its entries (name, is a directory,
    is a link). One serves all patterns of a project, so that each directory is listed once."""

    root: str
    watched: dict[str, FileStamp | None] = field(default_factory=dict)
    absent: dict[str, None] = field(default_factory=dict)
    """Where links with matching names lead to nothing: a file there would match."""
    _entries: dict[str, list[tuple[str, bool, bool]]] = field(default_factory=dict)

    def entries(self, directory: str) -> list[tuple[str, bool, bool]]:
        """The entries of a directory (relative to the root, `""` for it), sorted; none when there is no such."""
        found = self._entries.get(directory)
        if found is None:
            place = f"{self.root}/{directory}" if directory else self.root
            self.watched[place] = directory_stamp(place)
            try:
                with os.scandir(place) as scan:
                    found = sorted((entry.name, _is_directory(entry), entry.is_symlink()) for entry in scan)
            except OSError:
                found = []
            self._entries[directory] = found
        return found

    def match(self, pattern: str) -> list[str]:
        """Files that match, POSIX, relative to the root, sorted."""
        return sorted(dict.fromkeys(self._below("", [part for part in pattern.split("/") if part not in ("", ".")])))

    def _below(self, directory: str, parts: Sequence[str]) -> list[str]:
        part, rest = parts[0], parts[1:]
        if part == "**":
            found = self._below(directory, rest or ["*"])
            for name, is_directory, is_link in self.entries(directory):
                if is_directory and not is_link:
                    found += self._below(posixpath.join(directory, name), parts)
            return found
        if not _MAGIC.search(part):
            path = posixpath.join(directory, part)
            if rest:
                return self._below(path, rest) if Path(self.root, path).is_dir() else self._nothing(directory)
            return [path] if self._leads_to_file(path) else self._nothing(directory)
        matches = re.compile(translate(part)).match
        prefix = f"{directory}/" if directory else ""
        if not rest:
            return [
                prefix + name
                for name, is_directory, is_link in self.entries(directory)
                if not is_directory and matches(name) and (not is_link or self._leads_to_file(prefix + name))
            ]
        return [
            path
            for name, is_directory, _ in self.entries(directory)
            if is_directory and matches(name)
            for path in self._below(prefix + name, rest)
        ]

    def _leads_to_file(self, link: str) -> bool:
        path = f"{self.root}/{link}"
        if os.path.isfile(path):  # noqa: PTH113
            return True
        target = os.path.realpath(path)
        if not os.path.lexists(target):
            self.absent[target] = None
        return False

    def _nothing(self, directory: str) -> list[str]:
        """What a plain name says may appear later, so the directory that lacks it is watched too."""
        self.entries(directory)
        return []


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # links in a circle


def is_pattern(text: str) -> bool:
    """Does `text` mean more than the one file of that name?"""
    return _MAGIC.search(text) is not None
