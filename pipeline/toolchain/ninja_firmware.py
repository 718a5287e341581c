"""Which files of a build directory go to flash, and which statement makes each: ESP-IDF's images are outputs of none.

Reads `flasher_args.json`. Does not know what is in an image. Invariant: a file that no statement declares belongs to
the statement whose command names it as what it writes, or to the first one that names it at all.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path

from cache.durable import read_text
from pipeline.config.schema import Prebuilt
from pipeline.formats.manifests import FLASHER_ARGS
from pipeline.model import Action

_WRITES = ("-o", "--output", "-O", "--out")


def firmware_files(root: Path, section: Prebuilt) -> tuple[str, ...]:
    """From the root; those that are named, whether they are there or not."""
    if section.files:
        return tuple(section.files.values())
    if not section.directory:
        return ()
    try:
        listed = json.loads(read_text(root / section.directory / FLASHER_ARGS))["flash_files"]
        paths = [str(path) for path in listed.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
    return tuple(posixpath.normpath(posixpath.join(section.directory, path)) for path in paths)


def with_side_files(actions: Sequence[Action], files: Iterable[str], root: str) -> list[Action]:
    """The actions, with each of these files among the outputs of the one that makes it."""
    made = {path for action in actions for path in action.outputs}
    found = list(actions)
    for path in files:
        if path not in made and (maker := _maker(found, path, root)) is not None:
            action = found[maker]
            inputs = tuple(each for each in action.inputs if each != path)
            found[maker] = action._replace(inputs=inputs, outputs=(*action.outputs, path))
    return found


def _maker(actions: Sequence[Action], path: str, root: str) -> int | None:
    first = None
    for number, action in enumerate(actions):
        statement = action.statement
        if statement is None or path in action.inputs or posixpath.basename(path) not in statement.command:
            continue
        words = statement.command.split()
        start = f"{statement.directory}/"
        names = {f"{root}/{path}", *([path[len(start) :]] if path.startswith(start) else [])}
        if names.isdisjoint(words):
            continue
        if any(words[at] in names and words[at - 1] in _WRITES for at in range(1, len(words))):
            return number
        first = number if first is None else first
    return first
