"""From `deploy.toml` to actions: list the sources, find the tools, let the toolchain generate the DAG.

The only module that knows both the configuration and the toolchains. Lists directories and reads nothing else; does not
run actions. Invariant: sources are sorted, so that the same tree gives the same actions everywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.config import DeployConfig
from pipeline.core.failures import fail
from pipeline.core.model import Action, Failure, FailureCategory, Stage, Tool
from pipeline.engine_results import ActionFailure, Builtin, FailureKind
from pipeline.errors import ConfigError, ToolError
from pipeline.toolchains import zig
from pipeline.toolchains.builtins import BUILTINS


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What a provider gives the engine. `images`: name of a placement -> file."""

    name: str
    actions: tuple[Action, ...]
    tools: Mapping[str, Tool]
    builtins: Mapping[str, Builtin]
    images: Mapping[str, str]
    run_env: Mapping[str, str]


def build_toolchain(root: Path, config: DeployConfig, profile: str, state_dir: Path) -> Toolchain:
    """The toolchain of `config` for `profile`. Raises ToolError when it is not installed, ConfigError when a glob
    matches nothing."""
    tool = zig.find(state_dir)
    if isinstance(tool, Failure):
        raise ToolError(tool)
    spec = _spec(root, config, profile)
    path = {"PATH": os.environ.get("PATH", os.defpath)}
    return Toolchain(
        name=f"{tool.name} {tool.version}",
        actions=zig.actions(spec),
        tools={tool.name: tool},
        builtins=BUILTINS,
        images=zig.images(spec),
        run_env={**path, **zig.run_env(state_dir)},
    )


def _spec(root: Path, config: DeployConfig, profile: str) -> zig.BuildSpec:
    project, toolchain, boot = config.project, config.toolchain, config.bootloader
    # TOML strings cannot hold NUL and the lengths are checked; JSON's escapes are C's for what is left
    words = (f"PROJECT_NAME={json.dumps(project.name)}", f"PROJECT_VERSION={json.dumps(project.version)}")
    return zig.BuildSpec(
        profile=profile,
        chip=toolchain.chip,
        app=zig.ProgramSpec(
            sources=_glob(root, config, "[project]", project.sources),
            include=project.include,
            linker_script=toolchain.linker_script,
            defines={project.descriptor: words} if project.descriptor else {},
        ),
        bootloader=zig.ProgramSpec(
            sources=_glob(root, config, "[bootloader]", boot.sources),
            include=boot.include,
            linker_script=boot.linker_script,
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


def _glob(root: Path, config: DeployConfig, section: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """Files that the patterns match, sorted. A pattern that matches nothing is a mistake, not an empty list."""
    found: set[str] = set()
    for pattern in patterns:
        matches = [path.relative_to(root).as_posix() for path in root.glob(pattern) if path.is_file()]
        if not matches:
            message = f"sources of {section}: '{pattern}' matches no file"
            raise ConfigError(
                fail(
                    FailureCategory.CONFIG_ERROR,
                    stage=Stage.FINGERPRINT,
                    where=config.path,
                    message=message,
                    hint="correct the pattern; it is relative to the project's root",
                )
            )
        found.update(matches)
    return tuple(sorted(found))


def action_failure(stage: Stage, category: FailureCategory, failures: Sequence[ActionFailure]) -> Failure:
    """One failure of a stage from those of its actions: the first tool's first error is the fact, all of the tools'
    words are the detail. What is no tool's refusal (a missing input, a full disk) has a category of its own."""
    first = failures[0]
    if first.kind is not FailureKind.EXIT:
        category = FailureCategory.ACTION_FAILED
    if first.kind is FailureKind.FILE_SYSTEM:
        category = FailureCategory.CACHE_ERROR
    lines = [line for failure in failures for line in failure.stderr.splitlines()]
    where, fact = _first_error(lines) if first.kind is FailureKind.EXIT else ("", "")
    detail = "\n".join(lines) if lines else "\n".join(f.message for f in failures)
    return fail(
        category,
        stage=stage,
        where=where or first.action,
        message=fact or first.message,
        detail=detail if len(lines) > 1 or not fact else "",
    )


def _first_error(lines: Sequence[str]) -> tuple[str, str]:
    """`(path:line:col, fact)` of the first `...: error: ...` line, empty strings when there is none."""
    for line in lines:
        where, marker, fact = line.partition(": error: ")
        if marker:
            return where.strip(), fact.strip()
    return "", ""
