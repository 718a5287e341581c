"""From `deploy.toml` to actions: list the sources, find the tools, let the toolchain generate the DAG.

The only module that knows both the configuration and the toolchains. Lists directories and reads nothing else; does not
run actions. Invariant: sources are sorted, so that the same tree gives the same actions everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig
from pipeline.effects.versions import ask_version
from pipeline.engine import dag
from pipeline.engine.results import Builtin
from pipeline.errors import ConfigError, ToolError
from pipeline.failures import fail
from pipeline.fastpath.watched import Watched
from pipeline.flash_model import Partition
from pipeline.formats.placement import Placement
from pipeline.model import Action, Failure, FailureCategory, Stage, Tool
from pipeline.toolchain import compiled, generate, zig
from pipeline.toolchain.builtins import BUILTINS
from pipeline.toolchain.config_places import config_failure_at, config_place
from pipeline.toolchain.distribution import package_places
from pipeline.toolchain.filesystems import FILESYSTEMS, pack_actions
from pipeline.toolchain.globs import Listing
from pipeline.toolchain.named_files import NamedFiles
from pipeline.toolchain.products import check_profiles, declared_products, in_profile
from pipeline.toolchain.user_actions import ActionProblem, UserActions, place_stages, user_actions

if TYPE_CHECKING:
    from pipeline.formats.manifests import Firmware


class Toolchain(NamedTuple):
    """What a provider gives the engine. `images`: name of a placement -> file. `given`: files that something else
    makes."""

    name: str
    actions: tuple[Action, ...]
    tools: Mapping[str, Tool]
    builtins: Mapping[str, Builtin]
    images: Mapping[str, str]
    run_env: Mapping[str, str]
    watched: Watched = Watched(MappingProxyType({}))
    """Directories whose listings decided what the actions and tools are."""
    given: frozenset[str] = frozenset()
    manifests: tuple[str, ...] = ()
    """Files that said which actions there are, and that actions may make again."""


def build_toolchain(
    root: Path,
    config: DeployConfig,
    profile: str,
    state_dir: Path,
    table: Sequence[Partition],
    placed: Sequence[Placement],
) -> Toolchain:
    """The toolchain of `config` for `profile`, with all that goes to flash by `placed`. Raises ToolError when it is not
    installed, ConfigError when a glob matches nothing or a given file is not there."""
    config = config._replace(actions=tuple(in_profile(action, profile) for action in config.actions))
    products = declared_products(config)
    listing = Listing(str(root), products, tuple(f"build/{name}/" for name in config.profiles))
    listing.skipped |= {config.reports.dir.split("/")[0]} - {"", ".", ".."}
    statements = None
    if config.is_ninja:
        from pipeline.toolchain.ninja_build import ninja_build

        statements = ninja_build(root, config, state_dir)
        found = _Found(statements.name, (), statements.actions, {}, {}, statements.watched)
    if config.firmware is not None:
        named = NamedFiles(listing, state_dir)
        built = _prebuilt(root, state_dir, config, config.firmware, profile, table, placed)
        found = built if statements is None else found.with_images(built)
    elif statements is not None:
        named = NamedFiles(listing, state_dir)
    else:
        installed = _gcc(state_dir, config) if config.toolchain.kind == "gcc" else _zig(state_dir, config)
        if isinstance(installed, Failure):
            raise ToolError(installed)
        if config.toolchain.launcher:
            installed = _launched(root, config, state_dir, installed)
        named = NamedFiles(listing, state_dir, installed.spec_dirs)
        found = _compiling(installed, compiled.spec(listing, named, config, profile))
    out = generate.out_directory(profile)
    users = _users(root, config, listing, named, profile, state_dir)
    given = generate.given_actions(placed, out, profile, found.header)
    packs, packers = pack_actions(root, config, listing, profile, placed)
    actions = place_stages((*found.actions, *packs, *given), users.actions)
    _check_graph(root, config, actions)
    check_profiles(root, config, profile, actions)
    _check_given(root, config, profile, actions)
    seen = Watched(listing.watched, tuple(listing.absent)).with_more(named.watched).with_more(packers)
    return Toolchain(
        name=found.name,
        actions=actions,
        tools={**users.tools, **{tool.name: tool for tool in found.tools}, **(statements.tools if statements else {})},
        builtins={**BUILTINS, **FILESYSTEMS},
        images={**found.images, **{one.name: generate.image_path(out, one.name) for one in placed if one.source}},
        run_env={"PATH": os.environ.get("PATH", os.defpath), **found.run_env},
        watched=seen.with_more(found.watched).with_more(users.watched),
        given=frozenset(file.path for file in config.firmware.files) if config.firmware is not None else frozenset(),
        manifests=statements.manifests if statements is not None else (),
    )


class _Found(NamedTuple):
    """What a toolchain comes to. `images`: those that it makes; `header`: parameters for a given bootloader's."""

    name: str
    tools: tuple[Tool, ...]
    actions: tuple[Action, ...]
    images: Mapping[str, str]
    run_env: Mapping[str, str]
    watched: Watched
    header: tuple[tuple[str, str], ...] = ()

    def with_images(self, built: _Found) -> _Found:
        """This build, and the images of the firmware that it makes."""
        return self._replace(
            actions=(*self.actions, *built.actions),
            images=built.images,
            watched=self.watched.with_more(built.watched),
            header=built.header,
        )


def _compiling(installed: _Installed, spec: generate.BuildSpec) -> _Found:
    tool = installed.tools[0]
    return _Found(
        name=f"{tool.name} {tool.version}",
        tools=installed.tools,
        actions=installed.launched(generate.actions(spec, installed.commands)),
        images=generate.images(spec),
        run_env=installed.run_env,
        watched=installed.watched.with_more(package_places(("esptool",))),
    )


def _prebuilt(
    root: Path,
    state_dir: Path,
    config: DeployConfig,
    firmware: Firmware,
    profile: str,
    table: Sequence[Partition],
    placed: Sequence[Placement],
) -> _Found:
    from pipeline.toolchain import prebuilt
    from pipeline.toolchain.build_proof import BuildProof

    out = generate.out_directory(profile)
    made = [one.name for one in placed if not one.source]
    proof = BuildProof(root, state_dir, config.prebuilt).watched() if config.prebuilt.build else None
    proven = proof or Watched({})
    return _Found(
        name=f"prebuilt {firmware.kind}",
        tools=(),
        actions=prebuilt.firmware_actions(root, firmware, table, placed, out, profile),
        images={name: generate.image_path(out, name) for name in made},
        run_env={},
        watched=prebuilt.watched(root, config.prebuilt, firmware, placed).with_more(proven),
        header=prebuilt.header_params(firmware, config.toolchain.chip, config.flash.size),
    )


class _Installed(NamedTuple):
    """A provider that is installed; the first of its `tools` names the toolchain. `spec_dirs`: where its compiler looks
    for spec files."""

    tools: tuple[Tool, ...]
    commands: generate.Commands
    run_env: Mapping[str, str]
    watched: Watched
    spec_dirs: tuple[str, ...] = ()
    launched: Callable[[Sequence[Action]], tuple[Action, ...]] = tuple
    """The actions as they are run through a launcher."""


def _launched(root: Path, config: DeployConfig, state_dir: Path, installed: _Installed) -> _Installed:
    """Called through `[toolchain] launcher`. Raises ToolError when that is not there."""
    from pipeline.toolchain.launchers import NoLauncher, find_launcher

    found = find_launcher(config.toolchain.launcher, root, os.environ.get("PATH", os.defpath), state_dir)
    if isinstance(found, NoLauncher):
        where, missing = config_place(root, config, ("toolchain", "launcher")), FailureCategory.TOOLCHAIN_MISSING
        raise ToolError(fail(missing, stage=None, where=where, message=found.message, hint=found.hint))
    return installed._replace(
        tools=found.called(installed.tools),
        run_env={**found.run_env, **installed.run_env},
        watched=installed.watched.with_more(found.watched),
        launched=found.compiling,
    )


def _zig(state_dir: Path, config: DeployConfig) -> _Installed | Failure:
    tool = zig.find(state_dir)
    if isinstance(tool, Failure):
        return tool
    commands = zig.commands(config.toolchain.chip)
    return _Installed((tool,), commands, zig.run_env(state_dir), zig.watched())


def _gcc(state_dir: Path, config: DeployConfig) -> _Installed | Failure:
    from pipeline.toolchain import gcc

    search = os.environ.get("PATH", os.defpath)
    tools = gcc.find(state_dir, search)
    if isinstance(tools, Failure):
        return tools
    archivers: tuple[Tool, ...] = ()
    if config.libraries:
        archiver = gcc.archiver(*tools, state_dir)
        if isinstance(archiver, Failure):
            return archiver
        archivers = (archiver,)
    commands = gcc.commands(config.toolchain.chip, link_depfile=gcc.has_link_depfile(tools[0]))
    watched = gcc.watched(*tools, search)
    return _Installed((*tools, *archivers), commands, gcc.run_env(tools[0]), watched, gcc.spec_dirs(*tools))


def _users(
    root: Path, config: DeployConfig, listing: Listing, named: NamedFiles, profile: str, state_dir: Path
) -> UserActions:
    if not config.actions:
        return UserActions((), {}, Watched({}))
    found = user_actions(listing, named, config.actions, profile, state_dir, ask_version)
    if isinstance(found, ActionProblem):
        where = config_place(root, config, found.at)
        failure = fail(found.category, stage=None, where=where, message=found.message, hint=found.hint)
        raise (ToolError if found.category is FailureCategory.TOOLCHAIN_MISSING else ConfigError)(failure)
    return found


def _check_graph(root: Path, config: DeployConfig, actions: Sequence[Action]) -> None:
    """The engine checks too, but only here is it known where an action stands."""
    if not config.actions:
        return
    late = {path: action for action in actions if action.stage is Stage.LINK for path in action.outputs}
    for action in actions:
        maker = next((late[path] for path in action.inputs if path in late), None)
        if action.count_as == "compiled" and maker is not None:
            names = [user.name for user in config.actions]
            at: tuple[str | int, ...] = ("action", names.index(maker.name)) if maker.name in names else ("project",)
            message = f"'{action.inputs[0]}' is compiled, but '{maker.name}' needs what stage link makes"
            hint = "let the action that makes a source read no image and no linked program"
            raise ConfigError(config_failure_at(root, config, at, message, hint))
    graph = dag.build(actions)
    if isinstance(graph, dag.Trouble):
        names = [action.name for action in config.actions]
        index = next((names.index(name) for name in graph.actions if name in names), 0)
        raise ConfigError(config_failure_at(root, config, ("action", index), graph.message, graph.hint))


def _check_given(root: Path, config: DeployConfig, profile: str, actions: Sequence[Action]) -> None:
    """Each file of an `[image.NAME]` exists or has a maker; a prebuilt firmware lies where we write nothing."""
    made = {path for action in actions for path in action.outputs}
    ours = f"{generate.out_directory(profile)}/"
    for file in config.firmware.files if config.firmware is not None else ():
        if file.path.startswith(ours):
            message = f"'{file.path}' lies in {ours}, where the products of this profile go"
            hint = "build the firmware in another directory, or give the profile another name"
            raise ConfigError(config_failure_at(root, config, ("prebuilt",), message, hint))
    for image in config.images:
        if image.file and image.file not in made and not (root / image.file).is_file():
            message = f"'{image.file}' does not exist, and no [[action]] makes it"
            hint = "make the file, correct the path, or declare the action that makes it"
            raise ConfigError(config_failure_at(root, config, ("image", image.name, "file"), message, hint))
