"""From ninja's manifests to actions: every build directory that a build comes to is read here.

Reads manifests, dyndep files and what goes to flash; runs nothing. Invariant: every file that was read, and every path
that was asked about, is among what it says that it looked at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cache.digest import digest_bytes
from cache.durable import read_file
from pipeline.config.schema import DeployConfig
from pipeline.errors import ConfigError
from pipeline.failures import fail
from pipeline.formats.manifests import FLASHER_ARGS
from pipeline.formats.ninja.dyndep import parse_dyndep
from pipeline.formats.ninja.graph import CycleError, Edge, NinjaManifest, canonical
from pipeline.formats.ninja.lexer import ManifestError
from pipeline.formats.ninja.manifest import parse_manifest
from pipeline.formats.ninja.shell import CommandKind, read_command
from pipeline.model import Action, Failure, FailureCategory
from pipeline.toolchain.config_places import config_failure_at
from pipeline.toolchain.generate import out_directory
from pipeline.toolchain.ninja import StatementActions
from pipeline.toolchain.ninja_firmware import firmware_files, symbols_of
from pipeline.toolchain.ninja_kept import MANIFEST, KeptActions
from pipeline.toolchain.ninja_places import NestedBuild, NinjaPlaces, with_stages
from pipeline.toolchain.ninja_tools import tools_of


def read_build(root: Path, config: DeployConfig, state_dir: Path) -> KeptActions:
    reading = _BuildReading(root, config, state_dir)
    read = reading.read(config.ninja.directory, list(config.ninja.targets))
    if config.has_loaded_identity:
        read = _identified(root, config, read)
    made = with_stages(read)
    tools = reading.tools
    tools.save()
    extra = [str(root / config.prebuilt.directory / FLASHER_ARGS)] if config.makes_firmware else []
    files = dict.fromkeys((*reading.files, *tools.files, *extra))
    absent = tuple(tools.absent)
    manifests = tuple(reading.manifests)
    return KeptActions(tuple(made), tools.tools, tuple(files), manifests, absent, reading.probes, reading.contents)


def _identified(root: Path, config: DeployConfig, actions: list[Action]) -> list[Action]:
    """With images that name what is loaded. Raises ConfigError where no statement makes one that names anything."""
    from pipeline.toolchain.ninja_identity import with_loaded_identity

    found = with_loaded_identity(actions, str(root), out_directory(config.variant))
    if found == actions:
        message = "no statement makes an image by esptool's elf2image with --elf-sha256-offset, so none names its ELF"
        hint = 'remove the key, or write identity = "elf"'
        raise ConfigError(config_failure_at(root, config, ("image", "identity"), message, hint))
    return found


def _side_files(root: Path, config: DeployConfig) -> list[str]:
    """What goes to flash, and the ELF file beside the application."""
    files = firmware_files(root, config.prebuilt) if config.makes_firmware else ()
    return [*files, *(f"{path.removesuffix('.bin')}.elf" for path in files)]


class _BuildReading:
    """One reading of a build directory and of those that it builds in turn."""

    def __init__(self, root: Path, config: DeployConfig, state_dir: Path) -> None:
        self._root, self._config = root, config
        self.symbols = symbols_of(root, config)
        self.tools = tools_of(root, config, state_dir, os.environ.get("PATH", os.defpath))
        self.files: list[str] = []
        self.manifests: list[str] = []
        self.probes: dict[str, bool] = {}
        self.contents: dict[str, str] = {}
        """Manifest -> SHA-256 of what was read, of one that is read twice the first time."""
        self._seen: set[str] = set()
        self._side_files = _side_files(root, config)

    def read(self, directory: str, targets: list[str], after: tuple[str, ...] = ()) -> list[Action]:
        """The actions of a build directory (from the root) and of the nested ones. Raises ConfigError."""
        self._seen.add(directory)
        manifest = self._manifest(directory)
        self._check_targets(directory, manifest, targets)
        dyndeps = self._with_dyndeps(directory, manifest)
        try:
            early = manifest.closure([path for path in (MANIFEST, *dyndeps) if path in manifest.producer])
            wanted = manifest.closure(manifest.wanted(targets))
            nested = {id(edge): place for edge in wanted if (place := self._nested(edge, directory))}
            for edge in wanted:
                if id(edge) in nested:
                    early += manifest.closure([*edge.inputs])
        except CycleError as error:
            raise ConfigError(_bad(f"{directory}/{MANIFEST}", f"statements wait for each other: {error}")) from None
        places = NinjaPlaces(str(self._root), directory, self.symbols)
        prefix_map = self._config.ninja.prefix_map
        actions = StatementActions(places, manifest, self.tools, prefix_map, os.environ)
        actions.after, actions.side_files, actions.probes = after, self._side_files, self.probes
        inner = self._import(actions, [edge for edge in wanted if id(edge) in nested], nested)
        made = actions.of(_once([*early, *wanted]), frozenset(map(id, early)))
        self.files += (*actions.directories, *actions.response_words.files)
        return [*made, *inner]

    def _with_dyndeps(self, directory: str, manifest: NinjaManifest) -> list[str]:
        """Put in what dyndep files say; the names of those files, which are made before everything else."""
        paths = {canonical(path): None for edge in manifest.edges if (path := edge.binding("dyndep", escaped=False))}
        for path in paths:
            place = str(self._root / directory / path)
            self.manifests.append(place)
            self.files.append(place)
            text = self._text(place)
            if text is None:
                continue  # made first, and then all of this is read again
            found = parse_dyndep(path, text)
            if isinstance(found, ManifestError):
                raise ConfigError(_bad(f"{directory}/{found.path}:{found.line}", found.message))
            for one in found:
                edge = manifest.producer.get(one.output)
                if edge is not None:
                    edge.extend(one.implicit_outputs, one.implicit_inputs, restat=one.restat)
                    manifest.producer.update(dict.fromkeys(one.implicit_outputs, edge))
        return list(paths)

    def _import(self, actions: StatementActions, edges: list[Edge], nested: Mapping[int, str]) -> list[Action]:
        """The actions of the builds that these statements run. One that is not configured yet is run as a command."""
        found: list[Action] = []
        for edge in edges:
            directory = nested[id(edge)]
            place = str(self._root / directory / MANIFEST)
            self.manifests.append(place)
            self.probes[place] = os.path.exists(place)  # noqa: PTH110
            if not (self._root / directory / MANIFEST).is_file() or directory in self._seen:
                continue
            inner = self.read(directory, [], actions.before(edge))
            read = {path for action in inner for path in action.inputs}
            made = [path for action in inner for path in action.outputs]
            results = tuple(path for path in made if path not in read)
            actions.take_nested(edge, NestedBuild(frozenset(made), results))
            found += inner
        return found

    def _nested(self, edge: Edge, directory: str) -> str:
        """The directory of the build that this statement runs, from the root; `""` if it runs none there."""
        if edge.is_phony or ("--build" not in edge.command and "ninja" not in edge.command):
            return ""
        reading = read_command(edge.command)
        if reading.kind is not CommandKind.NESTED or reading.main is None:
            return ""
        place = NinjaPlaces(str(self._root), directory, {}).from_root(canonical(reading.main.directory))
        return place if place[:1] not in ("/", "{", ".") and place != directory else ""

    def _check_targets(self, directory: str, manifest: NinjaManifest, targets: list[str]) -> None:
        unknown = next((target for target in targets if target not in manifest.known()), "")
        if unknown:
            message = f"'{unknown}' is no target of {directory}/{MANIFEST}"
            hint = f"choose one that `ninja -C {directory} -t targets all` names"
            raise ConfigError(config_failure_at(self._root, self._config, ("ninja", "targets"), message, hint))

    def _text(self, place: str) -> str | None:
        """What a manifest says; None where there is none."""
        try:
            data = read_file(place)
        except OSError:
            return None
        self.contents.setdefault(place, digest_bytes(data).hex)
        return os.fsdecode(data)

    def _manifest(self, directory: str) -> NinjaManifest:
        def read(path: str) -> str | None:
            return self._text(str(self._root / directory / path))

        text = read(MANIFEST)
        if text is None:
            raise ConfigError(not_configured(self._config))
        found = parse_manifest(MANIFEST, text, read)
        if isinstance(found, ManifestError):
            raise ConfigError(_bad(f"{directory}/{found.path}:{found.line}", found.message))
        paths = [str(self._root / directory / path) for path in found.files]
        self.files += paths
        self.manifests += paths
        return found


def _once(edges: list[Edge]) -> list[Edge]:
    return list({id(edge): edge for edge in edges}.values())


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
