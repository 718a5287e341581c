"""From `deploy.toml` to actions: list the sources, find the tools, let the toolchain generate the DAG.

The only module that knows both the configuration and the toolchains. Lists directories and reads nothing else; does not
run actions. Invariant: sources are sorted, so that the same tree gives the same actions everywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import filterfalse, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cache.durable import read_text
from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig
from pipeline.effects.versions import ask_version
from pipeline.engine import dag
from pipeline.engine.results import ActionFailure, Builtin, FailureKind
from pipeline.errors import ConfigError, ToolError
from pipeline.failures import fail
from pipeline.fastpath.watched import Watched
from pipeline.formats.linker_script import library_path, named_files, places
from pipeline.formats.placement import Placement
from pipeline.model import Action, Failure, FailureCategory, Partition, Stage, Tool
from pipeline.toolchain import generate, zig
from pipeline.toolchain.builtins import BUILTINS
from pipeline.toolchain.distribution import package_places
from pipeline.toolchain.globs import Listing, is_pattern
from pipeline.toolchain.user_actions import KeyPath, Misfit, UserActions, place_stages, user_actions

if TYPE_CHECKING:
    from pipeline.formats.manifests import Firmware


_UNSAYABLE = re.compile(r"[\n\r]|\{(?:root|[^/{}]+_(?:dir|near))\}")


class Toolchain(NamedTuple):
    """What a provider gives the engine. `images`: name of a placement -> file."""

    name: str
    actions: tuple[Action, ...]
    tools: Mapping[str, Tool]
    builtins: Mapping[str, Builtin]
    images: Mapping[str, str]
    run_env: Mapping[str, str]
    watched: Watched = Watched(MappingProxyType({}))
    """Directories whose listings decided what the actions and tools are."""


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
    listing = Listing(str(root))
    if config.firmware is not None:
        found = _prebuilt(root, config, config.firmware, profile, table, placed)
    else:
        installed = _gcc(state_dir) if config.toolchain.kind == "gcc" else _zig(state_dir)
        if isinstance(installed, Failure):
            raise ToolError(installed)
        found = _compiling(installed, _spec(listing, config, profile))
    out = generate.out_directory(profile)
    users = _users(root, config, listing, profile, state_dir)
    given = generate.given_actions(placed, out, profile, found.header)
    actions = place_stages((*found.actions, *given), users.actions)
    _check_graph(root, config, actions)
    _check_given(root, config, profile, actions)
    return Toolchain(
        name=found.name,
        actions=actions,
        tools={**users.tools, **{tool.name: tool for tool in found.tools}},
        builtins=BUILTINS,
        images={**found.images, **{one.name: generate.image_path(out, one.name) for one in placed if one.source}},
        run_env={"PATH": os.environ.get("PATH", os.defpath), **found.run_env},
        watched=Watched(listing.watched, tuple(listing.absent)).with_more(found.watched).with_more(users.watched),
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


def _compiling(installed: _Installed, spec: generate.BuildSpec) -> _Found:
    tool = installed.tools[0]
    return _Found(
        name=f"{tool.name} {tool.version}",
        tools=installed.tools,
        actions=installed.actions(spec),
        images=generate.images(spec),
        run_env=installed.run_env,
        watched=installed.watched.with_more(package_places(("esptool",))),
    )


def _prebuilt(
    root: Path,
    config: DeployConfig,
    firmware: Firmware,
    profile: str,
    table: Sequence[Partition],
    placed: Sequence[Placement],
) -> _Found:
    from pipeline.toolchain import prebuilt

    out = generate.out_directory(profile)
    made = [one.name for one in placed if not one.source]
    return _Found(
        name=f"prebuilt {firmware.kind}",
        tools=(),
        actions=prebuilt.firmware_actions(root, firmware, table, placed, out, profile),
        images={name: generate.image_path(out, name) for name in made},
        run_env={},
        watched=prebuilt.watched(root, config.prebuilt, firmware, placed),
        header=prebuilt.header_params(firmware, config.toolchain.chip, config.flash.size),
    )


class _Installed(NamedTuple):
    """A provider that is installed; the first of its `tools` names the toolchain."""

    tools: tuple[Tool, ...]
    actions: Callable[[generate.BuildSpec], tuple[Action, ...]]
    run_env: Mapping[str, str]
    watched: Watched


def _zig(state_dir: Path) -> _Installed | Failure:
    tool = zig.find(state_dir)
    if isinstance(tool, Failure):
        return tool
    return _Installed((tool,), zig.actions, zig.run_env(state_dir), package_places(("ziglang",)))


def _gcc(state_dir: Path) -> _Installed | Failure:
    from pipeline.toolchain import gcc

    search = os.environ.get("PATH", os.defpath)
    tools = gcc.find(state_dir, search)
    if isinstance(tools, Failure):
        return tools
    return _Installed(tools, gcc.actions, gcc.run_env(), gcc.watched(*tools, search))


def _users(root: Path, config: DeployConfig, listing: Listing, profile: str, state_dir: Path) -> UserActions:
    if not config.actions:
        return UserActions((), {}, Watched({}))
    found = user_actions(listing, config.actions, profile, state_dir, ask_version)
    if isinstance(found, Misfit):
        where = config_place(root, config, found.at)
        failure = fail(found.category, stage=None, where=where, message=found.message, hint=found.hint)
        raise (ToolError if found.category is FailureCategory.TOOLCHAIN_MISSING else ConfigError)(failure)
    return found


def _check_graph(root: Path, config: DeployConfig, actions: Sequence[Action]) -> None:
    """The engine checks too, but only here is it known where an action stands."""
    if not config.actions:
        return
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
        if image.file not in made and not (root / image.file).is_file():
            message = f"'{image.file}' does not exist, and no [[action]] makes it"
            hint = "make the file, correct the path, or declare the action that makes it"
            raise ConfigError(config_failure_at(root, config, ("image", image.name, "file"), message, hint))


def config_failure_at(root: Path, config: DeployConfig, path: KeyPath, message: str, hint: str) -> Failure:
    """A config_error at a place of deploy.toml."""
    where = config_place(root, config, path)
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


def config_place(root: Path, config: DeployConfig, path: KeyPath) -> str:
    """`deploy.toml:LINE:COLUMN` of a value; the file is read again for that."""
    from pipeline.formats.toml_positions import locate

    with contextlib.suppress(OSError, UnicodeDecodeError):
        line, column = locate(read_text(root / config.path)).value(path)
        return f"{config.path}:{line}:{column}"
    return config.path


def _spec(listing: Listing, config: DeployConfig, profile: str) -> generate.BuildSpec:
    project, toolchain, boot = config.project, config.toolchain, config.bootloader
    sources = _glob(listing, config, "project", project.sources)
    if project.descriptor and project.descriptor not in sources:
        message = f"'{project.descriptor}' is none of the {len(sources)} files that project.sources match"
        hint = "correct the path, or add the file to project.sources"
        raise ConfigError(config_failure_at(Path(listing.root), config, ("project", "descriptor"), message, hint))
    # TOML strings cannot hold NUL and the lengths are checked; JSON's escapes are C's for what is left
    words = (f"PROJECT_NAME={json.dumps(project.name)}", f"PROJECT_VERSION={json.dumps(project.version)}")
    return generate.BuildSpec(
        profile=profile,
        chip=toolchain.chip,
        app=generate.ProgramSpec(
            sources=sources,
            include=project.include,
            linker_script=toolchain.linker_script,
            script_files=_script_files(listing, config, "toolchain", toolchain.linker_script),
            defines={project.descriptor: words} if project.descriptor else {},
        ),
        bootloader=generate.ProgramSpec(
            sources=_glob(listing, config, "bootloader", boot.sources),
            include=boot.include,
            linker_script=boot.linker_script,
            script_files=_script_files(listing, config, "bootloader", boot.linker_script),
            defines={},
        ),
        cflags=toolchain.cflags,
        ldflags=toolchain.ldflags,
        profile_cflags=config.profiles[profile].cflags,
        flash_mode=config.flash.mode,
        flash_freq=config.flash.freq,
        flash_size=config.flash.size,
        flash_size_bytes=config.flash.size_bytes,
        partition_csv=config.partitions.table,
        partition_offset=config.partitions.offset,
    )


def _script_files(listing: Listing, config: DeployConfig, section: str, script: str) -> tuple[str, ...]:
    """Files of the project that a linker script reads, through the scripts that it includes. One that an action makes
    is not there yet, and is to be declared by `[[action]]` or `[toolchain] ldflags`."""
    search, found, waiting = library_path(config.toolchain.ldflags), dict[str, None](), [script]
    while waiting:
        path = waiting.pop()
        try:
            text = read_text(Path(listing.root, path), errors="replace")
        except OSError as error:
            if path == script and not any(script in action.outputs for action in config.actions):
                message = f"the linker script '{script}' cannot be read: {error.strerror}"
                hint = "correct the path, or declare the [[action]] that makes it"
                at = (section, "linker_script")
                raise ConfigError(config_failure_at(Path(listing.root), config, at, message, hint)) from None
            continue
        for name in filterfalse(is_pattern, named_files(text)):
            for place in places(name, search):
                path = posixpath.normpath(place)
                # Looked for through the listing, so that the fast path notices when the file appears or goes.
                if path.startswith(("/", "..")) or path in found or not listing.match(path):
                    continue
                found[path] = None
                waiting.append(path)
                break
    return tuple(found)


def _glob(listing: Listing, config: DeployConfig, section: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """Files that the patterns match, sorted. A pattern that matches nothing is a mistake, not an empty list."""
    found: set[str] = set()
    for n, pattern in enumerate(patterns):
        matches = listing.match(pattern)
        if not matches:
            message = f"sources of [{section}]: '{pattern}' matches no file"
            hint = "correct the pattern; it is relative to the project's root"
            raise ConfigError(config_failure_at(Path(listing.root), config, (section, "sources", n), message, hint))
        odd = next((path for path in matches if _UNSAYABLE.search(path)), None)
        if odd is not None:
            message = f"sources of [{section}]: {odd!r} holds a line break or one of our placeholders"
            hint = "rename the file: depfiles and commands cannot say its name"
            raise ConfigError(config_failure_at(Path(listing.root), config, (section, "sources", n), message, hint))
        found.update(matches)
    return tuple(sorted(found))


def action_failure(
    stage: Stage, category: FailureCategory, failures: Sequence[ActionFailure], actions: Sequence[Action]
) -> Failure:
    """One failure of a stage from those of its actions: the first tool's first error is the fact, all of the tools'
    words are the detail, in the form that editors read. What is no tool's refusal (a missing input, a full disk) has a
    category of its own."""
    from pipeline.formats import diagnostics

    first = failures[0]
    if first.kind is not FailureKind.EXIT:
        category = FailureCategory.ACTION_FAILED
    if first.kind is FailureKind.FILE_SYSTEM:
        category = FailureCategory.CACHE_ERROR
    sources = {action.outputs[0]: action.inputs[0] for action in actions if action.count_as == "compiled"}
    lines: list[str] = []
    for failure in failures:
        said, origin = failure.stderr.splitlines(), diagnostics.Origin(sources, _script(failure.argv))
        lines += diagnostics.plain(said, origin) if failure.kind is FailureKind.EXIT else said
    where, fact = diagnostics.first_error(lines) if first.kind is FailureKind.EXIT else ("", "")
    if first.kind is FailureKind.BUILTIN and ": error: " in first.stderr:
        where, _, fact = first.stderr.splitlines()[0].partition(": error: ")
    detail = "\n".join(lines) if lines else "\n".join(f.message for f in failures)
    by_hand = category is FailureCategory.ACTION_FAILED and bool(first.argv)
    if by_hand:
        detail = f"$ {shlex.join(first.argv)}\n{detail}"
    # A builtin says `<where>: error: <fact>` and then what to do.
    words = first.stderr.splitlines() if first.kind is FailureKind.BUILTIN else []
    hint = words[1] if len(words) > 1 else None
    if first.kind is FailureKind.INPUT_MISSING:
        hint = "make the file readable, correct its path, or declare the [[action]] that makes it"
    return fail(
        category,
        stage=stage,
        where=where or first.action,
        message=fact or first.message,
        hint=hint,
        detail=detail if len(lines) > 1 or by_hand or not fact else "",
    )


def _script(argv: Sequence[str]) -> str:
    """The linker script of a command, `""` if it has none."""
    return next((word for option, word in pairwise(argv) if option == "-T"), "")
