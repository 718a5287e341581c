"""The listing of a fast path's state: which files it names, under which stamps, as the compiled loop reads them.

Knows the bytes (see `fastpath.KIND`), how directories are grouped in them, and how a part of them is cut out. Does not
look at files nor know what they are for. Pure. Invariant: what is cut out is a listing itself.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import struct
from collections.abc import Callable, Iterable, Sequence

from pipeline.fastpath import STAMP_BYTES, FileStamp

FEW = 32
"""Going to a directory costs as much as a few more steps in the paths of so many files."""


def listing_of(files: Sequence[tuple[str, FileStamp]]) -> bytes:
    """The listing (see `fastpath.KIND`) of paths and stamps, best ordered by directory. Raises struct.error for a
    number that does not fit (files of before 1970, ReFS)."""
    numbers = [number for _, stamp in files for number in stamp]
    return struct.pack(f"={len(numbers)}Q", *numbers) + names_of([path for path, _ in files])


def names_of(paths: Iterable[str]) -> bytes:
    """The part of a listing that is names."""
    groups: list[tuple[str, list[str]]] = []
    for directory, run in itertools.groupby(paths, lambda path: path[: path.rfind("/") + 1]):
        names = list(run)
        if groups and (base := _shared(*groups[-1], directory, len(names))) is not None:
            groups[-1] = (base, groups[-1][1] + names)
        else:
            groups.append((directory, names))
    return os.fsencode("".join(f"{base or './'}\0{_from(base, paths)}\0\0" for base, paths in groups))


def _shared(base: str, paths: Sequence[str], directory: str, count: int) -> str | None:
    """The directory of a group that takes in so many files of another directory; None when that is better on its own:
    when it has many files, or those of the group would get longer ways."""
    if directory == base:
        return base
    if count >= FEW or directory.startswith("/") != base.startswith("/"):
        return None
    common = posixpath.commonprefix((base, directory))
    common = common[: common.rfind("/") + 1]
    return common if common == base or len(paths) < FEW else None


def _from(base: str, paths: Sequence[str]) -> str:
    return "\0".join(path[len(base) :] or "." for path in paths)


ListingPart = tuple[bytes, list[range]]
"""The listing of some files of another one, and their places there."""


_MADE = b"build/"


def product_part(listing: bytes, count: int) -> ListingPart:
    """What of a listing of so many lies below build/; perhaps a few more that share a group."""
    return _part(
        listing, count, lambda text, end: text.startswith(_MADE) or (text[:2] == b"./" and b"\0" + _MADE in text)
    )


def beside_part(listing: bytes, count: int, used_count: int) -> ListingPart:
    """The same of what actions do not use."""
    return _part(listing, count, lambda text, end: end > used_count)


def _part(listing: bytes, count: int, wanted: Callable[[bytes, int], bool]) -> ListingPart:
    """Of a listing the groups of which `wanted` says so, given their text and the place after their last file."""
    stamps, texts, ranges, first = [], [], [], 0
    for text in listing[STAMP_BYTES * count : -2].split(b"\0\0"):
        end = first + text.count(b"\0")
        if wanted(text, end):
            stamps.append(listing[STAMP_BYTES * first : STAMP_BYTES * end])
            texts.append(text)
            ranges.append(range(first, end))
        first = end
    return b"".join([*stamps, b"\0\0".join(texts), b"\0\0"]), ranges
