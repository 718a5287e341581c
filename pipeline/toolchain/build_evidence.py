"""What a build of somebody else's read, as far as declared evidence tells: depfiles, ninja's own files, patterns.

Reads depfiles, `.ninja_deps` and `build.ninja`; runs nothing. Does not decide whether a build may be left out.
Invariant: a file that any declared evidence names is among `Evidence.files`, or there is no evidence at all and a
sentence that says why. What tools read without any evidence naming it, nobody can tell from here: docs/prebuilt.md says
which evidence covers what.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.durable import read_file
from cache.named_tuple import NamedTuple
from pipeline.config.schema import Prebuilt
from pipeline.formats import depfile
from pipeline.formats.ninja.graph import canonical
from pipeline.formats.ninja.lexer import ManifestError
from pipeline.formats.ninja.logs import DEPS_NAME, parse_deps
from pipeline.formats.ninja.manifest import parse_manifest
from pipeline.toolchain.globs import Listing
from pipeline.toolchain.named_files import NamedFiles
from pipeline.toolchain.ninja_kept import MANIFEST
from pipeline.toolchain.other_tools import OtherTool
from pipeline.toolchain.user_actions import PYTHON

WORDS = ""
"""Stands among patterns for what is named by words: of the command, and of its configuration."""


class Evidence(NamedTuple):
    """`files`: name (as in keys: from the root, or absolute) -> may the build have made it itself?; `matched`: see
    `look`; `counts`: what tells it, for a person."""

    files: Mapping[str, bool]
    matched: Mapping[str, tuple[str, ...]]
    listing: Listing
    counts: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        """`depfiles 214 files, globs 2`."""
        return ", ".join(f"{name} {number}" + (" files" if name != "globs" else "") for name, number in self.counts)


def has_evidence(section: Prebuilt) -> bool:
    """Is anything declared that tells what the build reads?"""
    return bool(section.inputs or section.depfiles or section.ninja)


def program_of(root: Path, word: str) -> str:
    """Where the program of a build lies, `""` if nowhere."""
    if "/" in word:
        return str(root / word)
    found = sys.executable if word in PYTHON else shutil.which(word, path=os.environ.get("PATH", os.defpath))
    return found or ""


def input_patterns(root: Path, section: Prebuilt) -> tuple[str, ...]:
    """Those of deploy.toml, and those of the program itself."""
    return tuple(dict.fromkeys((*section.inputs, *OtherTool(root, section.build).own_patterns())))


def look(root: Path, section: Prebuilt, state_dir: Path) -> tuple[Listing, dict[str, tuple[str, ...]]]:
    """What patterns match and words name now: pattern -> names."""
    listing = Listing(str(root))
    listing.skipped, listing.follows_links = frozenset((".deploy",)), True
    patterns = (*input_patterns(root, section), *section.depfiles)
    matched = {pattern: tuple(listing.match(pattern)) for pattern in patterns}
    # A word that names a build directory does not mean that everything in it is read.
    own = [f"{posixpath.normpath(each)}/." for each in (*section.ninja, section.directory) if each]
    # Nor does a verb (`cargo build`) mean the directory of that name, which may be ours.
    words = [w for n, w in enumerate(section.build) if not n or "/" in w or "." in w or (root / w).is_file()]
    files = NamedFiles(listing, state_dir)
    named = (files.of_words(words, own), files.of_words(("", *OtherTool(root, section.build).configured()), own))
    outside = [line.rpartition(" sha256:")[0] for each in named for line in each.salt.splitlines()]
    program = program_of(root, section.build[0])
    every = (*([program] if program else []), *(name for each in named for name in each.files), *outside)
    matched[WORDS] = tuple(dict.fromkeys(every))
    return listing, matched


def collect(root: Path, section: Prebuilt, state_dir: Path) -> Evidence | str:
    """What is known after a build; a sentence where evidence is missing or names what is not there."""
    listing, matched = look(root, section, state_dir)
    if not section.depfiles and (place := OtherTool(root, section.build).place_outside()):
        return f"{place} lies outside of the project, and no depfile tells what is read there"
    files: dict[str, bool] = dict.fromkeys(matched[WORDS], False)
    counts: list[tuple[str, int]] = []
    made = dict.fromkeys(path for pattern in section.depfiles for path in matched[pattern])
    if section.depfiles:
        found = _of_depfiles(root, section, tuple(made))
        if isinstance(found, str):
            return found
        files.update({name: False for name in found if name not in files})
        counts.append(("depfiles", len(found)))
        files.update(dict.fromkeys(made, True))
    for directory in section.ninja:
        ninja = _of_ninja(root, directory)
        if isinstance(ninja, str):
            return ninja
        files.update({name: own for name, own in ninja.items() if files.get(name) is not False})
        counts.append((f"ninja {directory}", len(ninja)))
    strict = {path for pattern in input_patterns(root, section) for path in matched[pattern]}
    files.update({name: False for name in strict if name not in made})
    if section.inputs:
        counts.append(("globs", len(section.inputs)))
    return Evidence(files, matched, listing, tuple(counts))


def _of_depfiles(root: Path, section: Prebuilt, depfiles: Sequence[str]) -> dict[str, None] | str:
    """What they name. A name may be meant from any directory above the depfile: all that are there count."""
    if not depfiles:
        return f"no file matches {', '.join(section.depfiles)}"
    found: dict[str, None] = {}
    known: dict[tuple[str, str], tuple[str, ...]] = {}
    for path in depfiles:
        try:
            names = depfile.parse(os.fsdecode(read_file(str(root / path))))
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if names is None:
            return f"{path} is no depfile"
        for name in names:
            case = (posixpath.dirname(path), name)
            if case not in known:
                known[case] = _meant(root, *case)
            if not known[case]:
                return f"{path} names {name}, which is not there"
            found.update(dict.fromkeys(known[case]))
    return found


def _meant(root: Path, directory: str, name: str) -> tuple[str, ...]:
    if name.startswith("/"):
        return (_from_root(root, name),) if os.path.isfile(name) else ()  # noqa: PTH113
    places = []
    while True:
        place = posixpath.normpath(posixpath.join(directory, name))
        if os.path.isfile(root / place):  # noqa: PTH113
            places.append(_from_root(root, str(root / place)))
        if not directory:
            return tuple(dict.fromkeys(places))
        directory = posixpath.dirname(directory)


def _from_root(root: Path, path: str) -> str:
    return path[len(str(root)) + 1 :] if path.startswith(f"{root}/") else path


def _of_ninja(root: Path, directory: str) -> dict[str, bool] | str:
    """What the statements of a build directory read: name -> does a statement make it?"""
    place = str(root / directory)

    def read(path: str) -> str | None:
        try:
            return os.fsdecode(read_file(posixpath.join(place, path)))
        except OSError:
            return None

    text = read(MANIFEST)
    if text is None:
        return f"{directory}/{MANIFEST} cannot be read"
    parsed = parse_manifest(MANIFEST, text, read)
    if isinstance(parsed, ManifestError):
        return f"{directory}/{parsed.path}:{parsed.line}: {parsed.message}"
    try:
        deps = parse_deps(read_file(f"{place}/{DEPS_NAME}"))
    except OSError as error:
        return f"{directory}/{DEPS_NAME} cannot be read: {error.strerror}"
    wanted = {path for edge in parsed.edges if not edge.is_phony for path in (*edge.needed_inputs, *parsed.files)}
    for output, row in deps.deps.items():
        if output in parsed.producer:
            wanted.update(row.inputs)
    producer = {path for path, edge in parsed.producer.items() if not edge.is_phony}
    found = {}
    for path in wanted:
        full = posixpath.normpath(posixpath.join(place, path))
        if os.path.isfile(full):  # noqa: PTH113
            found[_from_root(root, full)] = canonical(path) in producer or path in parsed.files
        elif canonical(path) not in parsed.producer:
            return f"{directory}/{MANIFEST} names {path}, which is not there"
    return found


def first_other_match(now: Mapping[str, Sequence[str]], before: Mapping[str, Sequence[str]]) -> str:
    """Which file a pattern matches, or a word names, and did not, or the other way round; `""` if there is none."""
    for pattern in dict.fromkeys((*before, *now)):
        old = before.get(pattern, ())
        moved = sorted(set(now.get(pattern, ())).symmetric_difference(old))
        if moved:
            return f"{moved[0]} {'is gone' if moved[0] in old else 'is new'}"
    return ""
