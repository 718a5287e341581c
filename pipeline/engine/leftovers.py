"""Products that nobody makes any more: found by what the records say, and removed before the next action runs.

A generated header whose action was removed or renamed would be read by compiles here and by none in a clean checkout.
Knows records and files. Does not know why an action is no longer declared. Invariants: only a regular file below the
project's own `build/` is removed, and only while it holds what an action of ours wrote there; what a declared action
makes is never removed; a file that was found is as good as missing to whoever asks, before it is removed.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator

from pipeline.engine.build_log import BuildRecords, record_name
from pipeline.engine.dag import Dag
from pipeline.model import STATEMENT_PROFILE

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
