"""The manifest of esp-web-tools: which files go where, for each chip family.

Format: a JSON object with `builds`, each with `chipFamily` and `parts` (`path`, `offset`). Does not know how a file is
opened. Invariant: paths are relative to the project's root and inside it.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import Any

from pipeline.chips import CHIPS
from pipeline.failures import fail
from pipeline.formats.flash_file import FlashFile
from pipeline.model import Failure, FailureCategory

NAME = "manifest.json"
"""The usual one; any other JSON file that looks like a manifest is taken too, if it is the only one."""


def is_manifest(text: str) -> bool:
    """Does this text look like one? Other tools call their files `manifest.json` too."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and isinstance(document.get("builds"), list)


def chips(text: str) -> tuple[str, ...]:
    """Those of this version that a text which `is_manifest` has builds for, in its order."""
    found = (_chip(build) for build in json.loads(text)["builds"] if isinstance(build, dict))
    return tuple(chip for chip in dict.fromkeys(found) if chip in CHIPS)


def parse_manifest(text: str, where: str, chip: str) -> tuple[FlashFile, ...] | Failure:
    """The files of the build for `chip`, or of the only build when `chip` is `""`; `where` is the manifest's path, and
    `text` passed `is_manifest`."""
    directory = posixpath.dirname(where)
    builds = {_chip(build): build for build in json.loads(text)["builds"] if isinstance(build, dict)}
    names = ", ".join(sorted(builds)) or "none"
    if not chip and len(builds) == 1:
        chip = next(iter(builds))
    build = builds.get(chip)
    if build is None:
        fact = f"there is no build for {chip}" if chip else "there are builds for several chips"
        return _bad(where, f"{fact}; builds: {names}", "set `chip` in [toolchain] to one of them")
    if chip not in CHIPS:
        return _bad(where, f"the build is for {chip}, which this version does not know", f"use {', '.join(CHIPS)}")
    parts = build.get("parts")
    files: list[FlashFile] = []
    for part in parts if isinstance(parts, list) else []:
        found = _file(part, directory, where)
        if isinstance(found, Failure):
            return found
        files.append(found)
    if not files:
        return _bad(where, f"the build for {chip} has no parts", "correct the manifest")
    return tuple(sorted(files))


def _chip(build: Mapping[str, Any]) -> str:
    """`esp32c3` for the family `ESP32-C3`."""
    return str(build.get("chipFamily", "")).lower().replace("-", "")


def _file(part: Any, directory: str, where: str) -> FlashFile | Failure:
    path, offset = (part.get("path"), part.get("offset")) if isinstance(part, dict) else (None, None)
    if not isinstance(path, str) or not path or not isinstance(offset, int) or not 0 <= offset <= 0xFFFFFFFF:
        return _bad(where, f"a part has no path and offset: {json.dumps(part)[:60]}", "correct the manifest")
    if "://" in path or path.startswith("//"):
        return _bad(where, f"the part '{path}' is a web address", "download it, and name the file in the manifest")
    path = posixpath.normpath(posixpath.join(directory, path.replace("\\", "/").partition("?")[0]))
    if path.startswith(("/", "../")):
        return _bad(where, f"the part '{part['path']}' lies outside the project", "move it into the project")
    return FlashFile(offset, path)


def _bad(where: str, message: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)
