"""The actions of a build directory as they were made last time, so that no manifest is read while nothing of it moved.

Knows stamps and what was looked at; not what a statement means. Invariant: `load` gives what reading again would give:
every file that was read has its stamp or, of a manifest, its bytes, every path that was asked about is there or not as
it was, and the configuration and the environment are the same. Losing the file costs a reading.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cache import statefile
from cache.digest import digest_bytes
from cache.durable import read_file
from cache.named_tuple import NamedTuple
from pipeline.fastpath import FileStamp
from pipeline.fastpath.watched import file_clock, settled_stamp
from pipeline.model import Action, Stage, Statement, Tool

MANIFEST = "build.ninja"
KEPT_VERSION = 5
"""Raised when the same manifest comes to other actions."""
VARIABLES = (
    *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH"),
    *("GCC_EXEC_PREFIX", "SOURCE_DATE_EPOCH", "DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES", "LD_RUN_PATH"),
    *("GCC_COMPARE_DEBUG", "ZERO_AR_DATE", "LANG", "LC_ALL", "LC_CTYPE"),
)
"""Of the environment, what compilers, archivers and linkers let their outputs depend on, or words that are replayed."""

KIND = "ninja actions 2"
NAME = "ninja-actions.v1.state"
"""The value is (said, stamps, probes, rows, tools, manifests, absent, contents). `said`: configuration, environment and
program; stamps: path -> (ctime, size, inode) or () for a file that was not there; contents: path -> SHA-256 of
manifests, which are read again where they moved: CMake often writes what was there.
History: kind 1 had no contents."""


class KeptActions(NamedTuple):
    """What one reading came to. `files`: those that were read; `absent`: where a program would be found first;
    `probes`: path -> was it there? `contents`: manifest -> SHA-256 of what was read; `stamps`: of those of which it is
    known, the stamp under which they hold that, as of `settled_stamp`."""

    actions: tuple[Action, ...]
    tools: Mapping[str, Tool]
    files: tuple[str, ...]
    manifests: tuple[str, ...]
    absent: tuple[str, ...]
    probes: Mapping[str, bool]
    contents: Mapping[str, str]
    stamps: Mapping[str, FileStamp] = MappingProxyType({})


def load(state_dir: Path, said: tuple[Any, ...]) -> KeptActions | None:
    """What was kept, if it still holds."""
    value, _ = statefile.load(state_dir / NAME, KIND)
    match value:
        case (kept, dict() as stamps, dict() as probes, rows, tools, manifests, absent, dict() as contents) if (
            kept == said
        ):
            pass
        case _:
            return None
    moved = [path for path, stamp in stamps.items() if _stamp(path) != stamp]
    settled = {path: stamps[path] for path in contents if path in stamps}
    for path in moved:
        stamp = settled_stamp(path)
        if path not in contents or _sha256(path) != contents[path]:
            return None
        if stamp is None:
            del settled[path]
        else:
            settled[path] = stamp
    if any(os.path.exists(path) != there for path, there in probes.items()):  # noqa: PTH110
        return None
    if any(map(os.path.lexists, absent)):
        return None
    try:
        actions = tuple([_action(row) for row in rows])
        by_name = {row[0]: Tool(*row) for row in tools}
    except (TypeError, ValueError, IndexError):
        return None
    return KeptActions(actions, by_name, tuple(stamps), manifests, absent, probes, contents, settled)


def save(state_dir: Path, said: tuple[Any, ...], kept: KeptActions) -> KeptActions:
    """Keep it, unless a file could still change without moving its stamp, or a manifest is another by now; with the
    stamps of the manifests, if it was kept."""
    stamps: dict[str, FileStamp | tuple[()]] = {}
    for path in kept.files:
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            stamps[path] = ()
            continue
        if not file_clock().is_past(status, path):
            return kept
        stamps[path] = (status.st_ctime_ns, status.st_size, status.st_ino)
    rows = [_row(action) for action in kept.actions]
    tools = [tuple(tool) for tool in kept.tools.values()]
    contents = {path: found for path in kept.manifests if path in stamps and (found := _sha256(path))}
    if contents != kept.contents or any(_stamp(path) != stamps[path] for path in contents):
        return kept
    value = (said, stamps, dict(kept.probes), rows, tools, kept.manifests, kept.absent, contents)
    with contextlib.suppress(OSError, ValueError):
        statefile.save(state_dir / NAME, KIND, value)
    return kept._replace(stamps={path: stamp for path in contents if (stamp := stamps[path])})


def _stamp(path: str) -> FileStamp | tuple[()]:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return ()
    return (status.st_ctime_ns, status.st_size, status.st_ino)


def _sha256(path: str) -> str:
    """Of a file's bytes, `""` where none can be read."""
    try:
        return digest_bytes(read_file(path)).hex
    except OSError:
        return ""


def _row(action: Action) -> tuple[Any, ...]:
    *fields, statement = action._replace(stage=Stage.LINK)
    fields[1] = action.stage.value
    return (*fields, None if statement is None else tuple(statement))


def _action(row: Sequence[Any]) -> Action:
    name, stage, *rest, statement = row
    return Action._make((name, _STAGES[stage], *rest, None if statement is None else Statement._make(statement)))


_STAGES = {stage.value: stage for stage in Stage}
