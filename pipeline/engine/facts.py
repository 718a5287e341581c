"""What an engine whose stages are all up to date believes: for the fast path's state.

Reads records and stamps that the engine holds; stats directories only. Does not decide: the caller knows that every
action is up to date. Invariant: what is returned names every file whose change could make one of them run.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Container, Iterator

from pipeline.engine.build_log import record_name
from pipeline.engine.packed_inputs import doubted
from pipeline.engine.workspace import Workspace
from pipeline.fastpath import FileStamp
from pipeline.fastpath.watched import settled_stamp


def each_used_file(workspace: Workspace) -> Iterator[tuple[str, str] | None]:
    """(path, SHA-256) of every input, discovered input and output, some of them several times, each as its record says;
    None, and no more, when an action has no record. Not all at once, since there may be a hundred thousand."""
    seen: set[int] = set()
    for action in workspace.graph.order:
        name = record_name(action)
        files, discovered = workspace.records.files(name), workspace.records.discovered(name)
        # Not every one was asked about when only a part of the graph was known.
        if files is None or not workspace.is_declared_as_recorded(action):
            yield None
            return
        # As it is declared: with the strings of the actions, which are there already.
        inputs, outputs = files
        yield from zip(action.inputs, (sha256 for _, sha256 in inputs), strict=True)
        yield from zip(action.outputs, [sha256 for _, sha256, _ in outputs], strict=True)
        # Most actions share what they discovered with others (see `build_log`), and only that.
        if id(discovered) not in seen:
            seen.add(id(discovered))
            yield from discovered


def read_of(workspace: Workspace, paths: Container[str]) -> set[str]:
    """Those of these paths that actions read."""
    found: set[str] = set()
    seen: set[int] = set()
    for action in workspace.graph.order:
        found.update([path for path in action.inputs if path in paths])
        discovered = workspace.records.discovered(record_name(action))
        if id(discovered) not in seen:
            seen.add(id(discovered))
            found.update([path for path, _ in discovered if path in paths])
    return found


def looked_at(workspace: Workspace) -> dict[str, str] | None:
    """The same of what is not believed: a link reads ten thousand files of which one run looks at one."""
    used: dict[str, str] = {}
    believed = workspace.believed
    for action in workspace.graph.order:
        name = record_name(action)
        files = workspace.records.files(name)
        if files is None or not workspace.is_declared_as_recorded(action):
            return None
        read = doubted(files[0], believed)
        for path, sha256 in (*read, *workspace.records.discovered(name), *(each[:2] for each in files[1])):
            if used.setdefault(path, sha256) != sha256:
                return None
    return used


def shadow_directories(workspace: Workspace) -> dict[str, FileStamp | None]:
    """Directory -> stamp, for those in which a new file would be included instead of another. Where the directory does
    not exist, its nearest ancestor that does stands for it."""
    names: dict[str, set[str]] = {}
    nearest: dict[str, tuple[str, str]] = {}
    absent = [workspace.records.absent(record_name(action)) for action in workspace.graph.order]
    for path in set[str]().union(*absent):  # a hundred thousand are ten thousand different ones
        # And these lie in a hundred directories: each of those is looked at once.
        head, _, name = path.rpartition("/")
        known = nearest.get(head)
        if known is None:
            known = nearest[head] = _existing(posixpath.dirname(workspace.resolve(path)))
        names.setdefault(known[0], set()).add(known[1] or name)
    stamps: dict[str, FileStamp | None] = {}
    for directory, missing in names.items():
        stamp = settled_stamp(directory)
        try:
            present = set(os.listdir(directory))  # noqa: PTH208
        except OSError:
            present = missing
        stamps[directory] = stamp if missing.isdisjoint(present) else None
    return stamps


def _existing(directory: str) -> tuple[str, str]:
    """(the nearest that exists of `directory` and those above it, the first name below it that does not or `""`)."""
    name = ""
    while directory not in ("/", "") and not os.path.isdir(directory):  # noqa: PTH112
        directory, name = posixpath.split(directory)
    return directory or "/", name
