"""Files that match a pattern, and the directories whose listings decided it.

Lists directories and reads nothing else. Does not know what the files are for. Invariant: as long as every directory
in `Listing.watched` has the stamp given there and nothing in `Listing.absent` exists, the same patterns match the same
files.

    *  ?  [a-z]   within a name, hidden ones included; ** any number of directories (symbolic links are not followed
    unless `follows_links`), and every file below when it is the last part

What this program makes matches no pattern by lying there: a wildcard does not enter `build/` and what else is written
by runs, and where a pattern names a directory below `build/`, declared products match it whether they are there or not.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from fnmatch import translate
from pathlib import Path

from pipeline.fastpath import FileStamp
from pipeline.fastpath.watched import settled_stamp

_MAGIC = re.compile(r"[*?[]")
_ANY = "*"


class Listing:
    """What was looked at so far: directory -> its stamp before it was listed, and its entries (name, is a directory,
    is a link). One serves all patterns of a project, so that each directory is listed once."""

    __slots__ = ("_entered", "_entries", "absent", "follows_links", "products", "root", "skipped", "trees", "watched")

    def __init__(self, root: str, products: frozenset[str] = frozenset(), trees: tuple[str, ...] = ()) -> None:
        """`products`: what actions declare that they make; `trees`: directories whose files are all made here, each
        with a slash at its end."""
        self.root, self.products, self.trees = root, products, trees
        self.skipped = frozenset(("build", ".deploy", "compile_commands.json"))
        """Entries of the root that runs write: no wildcard matches or enters them."""
        self.follows_links = False
        """Does `**` enter directories that are symbolic links?"""
        self._entered: list[str] = []
        """Where those lead that are being looked through, so that a circle ends."""
        self.watched: dict[str, FileStamp | None] = {}
        self.absent: dict[str, None] = {}
        """Where links with matching names lead to nothing: a file there would match."""
        self._entries: dict[str, list[tuple[str, bool, bool]]] = {}

    def entries(self, directory: str) -> list[tuple[str, bool, bool]]:
        """The entries of a directory (relative to the root, `""` for it), sorted; none when there is no such."""
        found = self._entries.get(directory)
        if found is None:
            place = f"{self.root}/{directory}" if directory else self.root
            self.watched[place] = settled_stamp(place)
            try:
                with os.scandir(place) as scan:
                    found = sorted((entry.name, _is_directory(entry), entry.is_symlink()) for entry in scan)
            except OSError:
                found = []
            self._entries[directory] = found
        return found

    def match(self, pattern: str, *, hidden: bool = True) -> list[str]:
        """Files that match, POSIX, relative to the root, sorted. Without `hidden`, a name that begins with a dot only
        matches a part that does."""
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if not any(map(is_pattern, parts)):
            return self._below("", parts, hidden)
        found = {path for path in self._below("", parts, hidden) if not self._is_product(path)}
        if parts[0] == "build":
            found.update(path for path in self.products if _matches(path.split("/"), parts, hidden))
        return sorted(found)

    def _is_product(self, path: str) -> bool:
        return path in self.products or path.startswith(self.trees)

    def is_file(self, path: str) -> bool:
        """Is there a file? One that is not there yet is watched for. `path`: relative to the root, or absolute."""
        place = f"{self.root}/{path}" if path[:1] != "/" else path
        if os.path.isfile(place):  # noqa: PTH113
            return True
        if not os.path.isdir(place):  # noqa: PTH112
            self.absent[place] = None
            target = os.path.realpath(place)
            if target != place and not os.path.lexists(target):
                self.absent[target] = None
        return False

    def files_below(self, directory: str) -> list[str]:
        """Every file below a directory that runs do not write, sorted."""
        if directory.split("/", maxsplit=1)[0] in self.skipped:
            return []
        return [path for path in self._below(directory, ["**"], True) if not self._is_product(path)]

    def _below(self, directory: str, parts: Sequence[str], hidden: bool) -> list[str]:
        part, rest = parts[0], parts[1:]
        if part == "**":
            found = self._below(directory, rest or ["*"], hidden)
            for name, is_directory, is_link in self._matching(directory, _ANY, hidden):
                if is_directory and not is_link:
                    found += self._below(posixpath.join(directory, name), parts, hidden)
                elif is_directory and self.follows_links:
                    found += self._behind(posixpath.join(directory, name), parts, hidden)
            return found
        if not _MAGIC.search(part):
            path = posixpath.join(directory, part)
            if rest and Path(self.root, path).is_dir():
                return self._below(path, rest, hidden)
            if rest:
                self._leads_to_file(path)
                return self._nothing(directory)
            return [path] if self._leads_to_file(path) else self._nothing(directory)
        prefix = f"{directory}/" if directory else ""
        found = []
        for name, is_directory, is_link in self._matching(directory, part, hidden):
            if rest and is_directory:
                found += self._below(prefix + name, rest, hidden)
            elif not is_directory and (not is_link or self._leads_to_file(prefix + name)) and not rest:
                found.append(prefix + name)
        return found

    def _behind(self, link: str, parts: Sequence[str], hidden: bool) -> list[str]:
        """What lies in the directory that it leads to, unless that is being looked through."""
        place = f"{self.root}/{link}"
        real, here = os.path.realpath(place), os.path.realpath(posixpath.dirname(place))
        if real in self._entered or f"{here}/".startswith(f"{real}/"):
            return []
        self._entered.append(real)
        try:
            return self._below(link, parts, hidden)
        finally:
            self._entered.pop()

    def _matching(self, directory: str, part: str, hidden: bool) -> list[tuple[str, bool, bool]]:
        """The entries whose names match one part of a pattern."""
        matches = re.compile(translate(part)).match
        return [
            entry
            for entry in self.entries(directory)
            if matches(entry[0])
            and (hidden or part[0] == "." or entry[0][0] != ".")
            and (directory or entry[0] not in self.skipped)
        ]

    def _leads_to_file(self, link: str) -> bool:
        """Is it a file? Where a link leads to nothing, what may appear there is watched for."""
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


def _matches(path: Sequence[str], parts: Sequence[str], hidden: bool) -> bool:
    """Would these names match these parts, were there such a file?"""
    if not parts:
        return not path
    if parts[0] == "**":
        rest = parts[1:] or ["*"]
        return any(_matches(path[n:], rest, hidden) for n in range(len(path)))
    if not path or (not hidden and path[0][0] == "." != parts[0][0]):
        return False
    return re.match(translate(parts[0]), path[0]) is not None and _matches(path[1:], parts[1:], hidden)
