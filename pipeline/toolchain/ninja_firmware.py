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
from pipeline.config.schema import DeployConfig, Prebuilt
from pipeline.config.values import ESP_IDF
from pipeline.formats.manifests import FLASHER_ARGS

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


def symbols_of(root: Path, config: DeployConfig) -> dict[str, str]:
    """Placeholder -> directory outside the project: those of `[ninja] places`, and where ESP-IDF lies, as its build
    says."""
    found = dict(config.ninja.places_of(root))
    if config.toolchain.kind == ESP_IDF:
        try:
            said = json.loads(read_text(root / config.ninja.directory / "project_description.json"))
            place = str(Path(said["idf_path"]).resolve())
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return found
        if place not in ("/", *found.values()) and not f"{place}/".startswith(f"{root}/"):
            found.setdefault("{IDF}", place)
    return found


def side_makers(commands: Sequence[str], files: Iterable[str], directory: str, root: str) -> dict[int, list[str]]:
    """Number of a command -> those of `files`, which no statement declares, that it makes. `commands`: in an order in
    which each comes after what it needs; `directory`: where they run, from the root."""
    found: dict[int, list[str]] = {}
    for path in files:
        if (number := _maker(commands, path, directory, root)) is not None:
            found.setdefault(number, []).append(path)
    return found


def _maker(commands: Sequence[str], path: str, directory: str, root: str) -> int | None:
    start, name, first = f"{directory}/", posixpath.basename(path), None
    names = {f"{root}/{path}", *([path[len(start) :]] if path.startswith(start) else [])}
    for number, command in enumerate(commands):
        if name not in command:
            continue
        words = command.split()
        if names.isdisjoint(words):
            continue
        if any(words[at] in names and words[at - 1] in _WRITES for at in range(1, len(words))):
            return number
        first = number if first is None else first
    return first
