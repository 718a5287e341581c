"""What a build looked at beside the files of its actions: listings of directories, absent files, tools, variables.

Knows stamps of directories; not what they are for. Invariant: a directory's stamp is taken before its listing, and is
None when the listing could still change without moving it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from types import MappingProxyType

from cache.fileclock import FileClock
from cache.named_tuple import NamedTuple
from pipeline.fastpath import FileStamp, stamp_of


class Watched(NamedTuple):
    """What was found by looking at directories: `listed` is path -> stamp before the listing was taken, `absent` are
    paths that would have been found first, `files` those whose content counts although no action names them (tools),
    `variables` names of the environment; `read`: path -> stamp of those of `files` of which this process knows what
    they held under that stamp, as of `settled_stamp`."""

    listed: Mapping[str, FileStamp | None]
    absent: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    read: Mapping[str, FileStamp] = MappingProxyType({})

    def with_more(self, other: Watched) -> Watched:
        """What both looked at, this one first: a directory has the stamp that it had then, so that what came to it
        since is seen by whoever compares."""
        again = {path: None if stamp is None else self.listed.get(path, stamp) for path, stamp in other.listed.items()}
        return Watched(
            {**self.listed, **again},
            (*self.absent, *other.absent),
            (*self.files, *other.files),
            (*self.variables, *other.variables),
            {**other.read, **self.read},
        )


def settled_stamp(path: str) -> FileStamp | None:
    """The stamp of a directory about to be listed, or of a file about to be read; None when what it holds could still
    change without moving it (it was written in this tick of the clock), or when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - once per directory of the project
    except OSError:
        return None
    return stamp_of(status) if file_clock().is_past(status, path) else None


@functools.cache
def file_clock() -> FileClock:
    """The clocks of the file systems that this process looks at beside its actions; the current directory is the
    project's."""
    return FileClock((".deploy", "build"))
