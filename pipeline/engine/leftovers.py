"""Products that nobody makes any more: found by what the records say, and removed before the next action runs.

A generated header whose action was removed or renamed would be read by compiles here and by none in a clean checkout.
Knows records and files. Does not know why an action is no longer declared. Invariants: only a regular file below the
project's own `build/` is removed, and only while it holds what an action of ours wrote there; what a declared action
makes is never removed; a file that was found is as good as missing to whoever asks, before it is removed.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from cache.stamps import StampTable
from pipeline.engine.build_log import BuildRecords, record_name
from pipeline.engine.dag import Dag
from pipeline.errors import StoreError
from pipeline.failures import fail
from pipeline.model import STATEMENT_PROFILE, FailureCategory

BUILD = "build"
"""Where everything that actions make lies."""


def forgotten(records: BuildRecords, graph: Dag) -> set[str]:
    """Names of records whose action no profile declares any more: all declare the same, with other paths."""
    declared = {record_name(action) for action in graph.order}
    undeclared = records.names() - declared
    if not undeclared:
        return set()
    names = {action.name for action in graph.order}
    undeclared = {name for name in undeclared if not name.startswith(STATEMENT_PROFILE)}
    return {name for name in undeclared if name.partition(":")[2] not in names}


def as_made(root: Path, table: StampTable, records: BuildRecords, graph: Dag, given: frozenset[str]) -> frozenset[str]:
    """What was made, is made no more, and still lies there as we made it; nothing of what is `given`."""
    found = unmade(records, graph, forgotten(records, graph))
    return frozenset(
        path for path, sha256 in found.items() if path not in given and _is_as_made(str(root), table, path, sha256)
    )


def _is_as_made(root: str, table: StampTable, path: str, sha256: str) -> bool:
    if not is_ours_to_remove(root, path):
        return False
    try:
        entry = table.current(path)
    except OSError:
        return False
    return entry is not None and sha256 in ("", entry.sha256)


def remove(root: Path, paths: Iterable[str]) -> None:
    """Remove them, and the directories that this empties. Raises StoreError."""
    for path in paths:
        try:
            os.unlink(f"{root}/{path}")  # noqa: PTH108
        except OSError as error:
            message = f"no action makes it any more, and it cannot be removed: {error.strerror}"
            hint = "remove the file, or make its directory writable"
            category = FailureCategory.CACHE_ERROR
            raise StoreError(fail(category, stage=None, where=path, message=message, hint=hint)) from None
        with contextlib.suppress(OSError):
            for directory in emptied_directories(str(root), path):
                os.rmdir(directory)  # noqa: PTH106


def unmade(records: BuildRecords, graph: Dag, names: set[str]) -> dict[str, str]:
    """path -> SHA-256 (`""`: not known) of what was made and is made no more. `names`: as of `forgotten`."""
    found: dict[str, str] = {}
    for name in names:
        found.update(_outputs(records, name))
    for action in graph.order:
        # A compile's outputs follow from its name.
        if action.count_as != "compiled" and action.statement is None:
            made = _outputs(records, record_name(action))
            if tuple(made) != action.outputs:
                found.update(made)
    found.update(records.unrecorded)
    return {path: sha256 for path, sha256 in found.items() if path not in graph.producer}


def _outputs(records: BuildRecords, name: str) -> dict[str, str]:
    recorded = records.result(name)
    return {} if recorded is None else {path: sha256 for path, sha256, _ in recorded[0]}


def is_ours_to_remove(root: str, path: str) -> bool:
    """Is it a regular file that lies below the project's `build/`, whatever links lead there?"""
    full = f"{root}/{path}"
    try:
        if not stat.S_ISREG(os.lstat(full).st_mode):
            return False
    except OSError:
        return False
    build = os.path.realpath(f"{root}/{BUILD}")
    return f"{os.path.realpath(posixpath.dirname(full))}/".startswith(f"{build}/")


def emptied_directories(root: str, path: str) -> Iterator[str]:
    """The directories above a removed file that may be empty now, innermost first; not `build` itself."""
    directory = posixpath.dirname(path)
    while directory.startswith(f"{BUILD}/"):
        yield f"{root}/{directory}"
        directory = posixpath.dirname(directory)
