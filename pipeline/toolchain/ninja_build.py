"""`kind = "ninja"`, `"cmake"`, `"esp-idf"`: from a build directory to tools, actions, and what decided about them.

Reads ninja's manifests and lists nothing. Does not run anything: what makes a manifest is an action like any other, of
stage fingerprint, after which this is asked again. Invariant: every file that was read to make the actions is watched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cache.durable import read_file
from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig
from pipeline.effects.versions import ask_version
from pipeline.errors import ConfigError
from pipeline.failures import fail
from pipeline.fastpath.watched import Watched
from pipeline.formats.ninja.graph import CycleError, Edge, NinjaManifest
from pipeline.formats.ninja.manifest import ManifestError, parse_manifest
from pipeline.model import Action, Failure, FailureCategory, Tool
from pipeline.toolchain.config_places import config_failure_at
from pipeline.toolchain.ninja import NinjaPlaces, StatementActions
from pipeline.toolchain.ninja_tools import StatementTools

MANIFEST = "build.ninja"


class NinjaBuild(NamedTuple):
    """What a build directory comes to. `symbols` as in `BuildSteps`; `log_version`: that of the installed ninja."""

    name: str
    tools: Mapping[str, Tool]
    actions: tuple[Action, ...]
    run_env: Mapping[str, str]
    watched: Watched
    symbols: Mapping[str, str]
    log_version: Callable[[], int]


def ninja_build(root: Path, config: DeployConfig, state_dir: Path) -> NinjaBuild:
    """The statements that the wanted targets take, as actions. Raises ConfigError when there is no usable manifest."""
    section = config.ninja
    places = NinjaPlaces(str(root), section.directory, dict(section.places_of(root)))
    manifest = _read_manifest(root, config)
    targets = list(section.targets)
    unknown = next((target for target in targets if target not in manifest.known()), "")
    if unknown:
        message = f"'{unknown}' is no target of {section.directory}/{MANIFEST}"
        hint = f"choose one that `ninja -C {section.directory} -t targets all` names"
        raise ConfigError(config_failure_at(root, config, ("ninja", "targets"), message, hint))
    try:
        early = manifest.closure([MANIFEST]) if MANIFEST in manifest.producer else []
        wanted = manifest.closure(manifest.wanted(targets))
    except CycleError as error:
        raise ConfigError(_bad(f"{section.directory}/{MANIFEST}", f"statements wait for each other: {error}")) from None
    tools = StatementTools(state_dir, root / section.directory, os.environ.get("PATH", os.defpath))
    actions = StatementActions(places, manifest, tools, section.prefix_map == "debug", os.environ)
    made = actions.of(_once([*early, *wanted]), frozenset(map(id, early)))
    tools.save()
    manifests = [str(root / section.directory / path) for path in manifest.files]
    return NinjaBuild(
        name=config.toolchain.kind,
        tools=tools.tools,
        actions=tuple(made),
        run_env=dict(os.environ),
        watched=Watched({}, (), (*manifests, *tools.files)),
        symbols=places.symbols,
        log_version=lambda: installed_log_version(root / section.directory, os.environ.get("PATH", os.defpath)),
    )


def _once(edges: list[Edge]) -> list[Edge]:
    return list({id(edge): edge for edge in edges}.values())


def _read_manifest(root: Path, config: DeployConfig) -> NinjaManifest:
    directory = config.ninja.directory

    def read(path: str) -> str | None:
        try:
            return os.fsdecode(read_file(str(root / directory / path)))
        except OSError:
            return None

    text = read(MANIFEST)
    if text is None:
        raise ConfigError(not_configured(config))
    found = parse_manifest(MANIFEST, text, read)
    if isinstance(found, ManifestError):
        raise ConfigError(_bad(f"{directory}/{found.path}:{found.line}", found.message))
    return found


def configure_command(config: DeployConfig) -> tuple[str, ...]:
    """What makes the manifest where there is none, `()` if nobody says."""
    section, cmake = config.ninja, config.cmake
    if section.configure or config.toolchain.kind == "ninja":
        return section.configure
    if config.toolchain.kind == "esp-idf":
        return ("idf.py", "-B", section.directory, "reconfigure")
    file = (f"-DCMAKE_TOOLCHAIN_FILE={cmake.toolchain_file}",) if cmake.toolchain_file else ()
    return ("cmake", "-S", cmake.source, "-B", section.directory, "-G", "Ninja", *file, *cmake.arguments)


def not_configured(config: DeployConfig) -> Failure:
    """There is no manifest yet."""
    directory, kind = config.ninja.directory, config.toolchain.kind
    how = f"`cmake -S . -B {directory} -G Ninja`" if kind == "ninja" else "`doit compile`, which configures it"
    message = f"{directory}/{MANIFEST} does not exist: the build is not configured"
    category = FailureCategory.CONFIG_ERROR
    return fail(category, stage=None, where=config.path, message=message, hint=f"run {how}")


def _bad(where: str, message: str) -> Failure:
    hint = "configure the build again: delete its directory, or correct what generates the file"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


def installed_log_version(directory: Path, search: str) -> int:
    """Of the `.ninja_log` that the ninja of this build writes: what CMake found, else the first on the path."""
    import re
    import shutil

    program = shutil.which("ninja", path=search) or ""
    try:
        cache = (directory / "CMakeCache.txt").read_text(errors="replace")
        found = re.search(r"^CMAKE_MAKE_PROGRAM:\w+=(.+)$", cache, re.MULTILINE)
        program = found[1].strip() if found else program
    except OSError:
        pass
    version = re.match(r"(\d+)\.(\d+)", ask_version(program)) if program else None
    number = (int(version[1]), int(version[2])) if version else (1, 13)
    return 7 if number >= (1, 13) else 6 if number >= (1, 12) else 5
