"""The files of actions as a state of the fast path lists them: stamps, fingerprints and names, ordered by directory.

Knows stamps that are remembered; asks the file system nothing. Of a hundred thousand files it keeps three numbers and
16 bytes each, and the strings of whoever names them. Invariant: a file is listed only with a stamp under which its
content was read, and only if that content is what the run used.
"""

from __future__ import annotations

import os
import posixpath
from array import array
from collections.abc import Callable, Container

from cache.stamps import StampTable
from pipeline.fastpath import FileStamp


class UsedFiles:
    """`made`: what actions make, None for everything; `others`: files that matter to more than the actions, with their
    stamps; what actions use of them goes there. `short`: a path that can be opened, relative to the root where it lies
    there."""

    def __init__(
        self,
        table: StampTable,
        made: Container[str] | None,
        others: dict[str, FileStamp],
        short: Callable[[str], str],
    ) -> None:
        self._table, self._made, self._others, self._short = table, made, others, short
        self._taken: set[str] = set()
        self.elsewhere: dict[str, str] = {}
        """What went to `others`: what keys call it -> its path there."""
        self._odd: dict[str, int] = {}
        """Those whose key says another path -> place."""
        self._keys: list[str] = []
        self._shorts: list[str] = []
        self._numbers = array("Q")
        self._contents: list[bytes] = []
        self._dropped: set[int] = set()

    def take(self, path: str, sha256: str) -> bool:
        """The run used this of the file that keys call `path`. False when the file is not known to hold it. Raises
        OverflowError for a number that does not fit."""
        entry = self._table.remembered(path)
        if entry is None or not entry.settled or entry.sha256 != sha256:
            return False
        if path in self._taken:
            return True
        short = self._short(self._table.resolve(path))
        size, mtime_ns, ctime_ns, inode, _ = entry.stamp
        stamp = (ctime_ns if os.name == "posix" else mtime_ns, size, inode)
        if short in self._others:
            self._others[short] = stamp  # it matters to more than the actions that name it so
            self.elsewhere[path] = short
        elif short in self._odd or (short != path and short in self._taken):
            dropped = self._odd[short] if short in self._odd else self._shorts.index(short)
            self._dropped.add(dropped)
            self._others[short] = stamp
            self.elsewhere |= {self._keys[dropped]: short, path: short}
        else:
            if short != path:
                self._odd[short] = len(self._keys)
            self._keys.append(path)
            self._shorts.append(path if short == path else short)
            self._numbers.extend(stamp)
            is_made = self._made is None or path in self._made
            self._contents.append(b"" if is_made else entry.fingerprint_bytes)
        self._taken.add(path)
        return True

    def listed(self) -> tuple[list[str], list[str], array[int], list[bytes]]:
        """In the order of the listing: what keys call them, their paths, three numbers for each, the fingerprints.
        Nothing can be taken after it."""
        self._taken.clear()  # megabytes, of many files
        places: dict[str, list[int]] = {}
        for place, short in enumerate(self._shorts):
            if place not in self._dropped:
                places.setdefault(posixpath.dirname(short), []).append(place)
        order = array("Q")
        for directory in sorted(places):
            order.extend(places[directory])
        numbers = array("Q")
        for place in order:
            numbers.extend(self._numbers[3 * place : 3 * place + 3])
        keys, shorts = [self._keys[n] for n in order], [self._shorts[n] for n in order]
        return keys, shorts, numbers, [self._contents[n] for n in order]
