"""`kind = "ninja"`, `"cmake"`, `"esp-idf"`: from a build directory to tools, actions, and what decided about them.

Reads ninja's manifests and lists nothing. Does not run anything: what makes a manifest is an action like any other, of
stage fingerprint, after which this is asked again. Invariant: every file that was read to make the actions is watched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypedDict

from cache.durable import read_file, write_atomic
from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig
from pipeline.failures import fail
from pipeline.fastpath.watched import Watched
from pipeline.model import Action, Failure, FailureCategory, Tool
from pipeline.toolchain import ninja_kept
from pipeline.toolchain.ninja_firmware import symbols_of
from pipeline.toolchain.ninja_kept import KEPT_VERSION, MANIFEST, VARIABLES


class NinjaBuild(NamedTuple):
    """What a build directory comes to."""

    name: str
    tools: Mapping[str, Tool]
    actions: tuple[Action, ...]
    watched: Watched
    manifests: tuple[str, ...]
    """Every file that may say which statements there are, present or not: what makes one may change the actions."""


def ninja_build(root: Path, config: DeployConfig, state_dir: Path) -> NinjaBuild:
    """The statements that the wanted targets take, as actions. Raises ConfigError when there is no usable manifest."""
    section = config.ninja
    search = os.environ.get("PATH", os.defpath)
    env = [os.environ.get(name) for name in VARIABLES]
    symbols = symbols_of(root, config)
    meant = repr((config.toolchain.kind, section, config.prebuilt, symbols, config.has_loaded_identity))
    said = (str(root), KEPT_VERSION, meant, search, tuple(env))
    kept = ninja_kept.load(state_dir, said)
    if kept is None:
        from pipeline.toolchain.ninja_reading import read_build

        kept = ninja_kept.save(state_dir, said, read_build(root, config, state_dir))
    return NinjaBuild(
        name=config.toolchain.kind,
        tools=kept.tools,
        actions=kept.actions,
        watched=Watched({}, kept.absent, kept.files, VARIABLES, kept.stamps),
        manifests=kept.manifests,
    )


class StatementFacts(TypedDict):
    """Fields of `BuildSteps`."""

    run_env: Mapping[str, str]
    """All of this process's: nobody says which variables a command looks at."""
    symbols: Mapping[str, str]
    option_headers: tuple[str, ...]
    strace: str
    ninja_log_version: Callable[[], int]


def statement_facts(root: Path, config: DeployConfig, state_dir: Path) -> StatementFacts:
    """What the engine needs to know of statements beside themselves."""
    search, strace = os.environ.get("PATH", os.defpath), ""
    if config.ninja.strace:
        import shutil

        strace = shutil.which("strace") or ""
    return {
        "run_env": dict(os.environ),
        "symbols": symbols_of(root, config),
        "option_headers": config.ninja.option_headers,
        "strace": strace,
        "ninja_log_version": lambda: installed_log_version(root, config, state_dir, search),
    }


def configure_command(config: DeployConfig) -> tuple[str, ...]:
    """What makes the manifest where there is none, `()` if nobody says."""
    section, cmake = config.ninja, config.cmake
    if section.configure or config.toolchain.kind == "ninja":
        return section.configure
    if config.toolchain.kind == "esp-idf":
        return ("idf.py", "-B", section.directory, "reconfigure")
    file = (f"-DCMAKE_TOOLCHAIN_FILE={cmake.toolchain_file}",) if cmake.toolchain_file else ()
    return ("cmake", "-S", cmake.source, "-B", section.directory, "-G", "Ninja", *file, *cmake.arguments)


def due_configuration(root: Path, state_dir: Path, config: DeployConfig) -> tuple[str, ...] | Failure:
    """What has to be run so that the manifest is made as `deploy.toml` says, `()` if it was. What made one that lay
    there before is not known: it stands, unless CMake is to be told something."""
    argv, directory = configure_command(config), config.ninja.directory
    if not argv or not (root / directory / MANIFEST).exists():
        return argv
    is_cmakes = config.toolchain.kind == "cmake" and not config.ninja.configure
    before = _configured(state_dir).get(directory)
    if before == argv:
        return ()
    if before is None:
        if is_cmakes and (config.cmake.arguments or config.cmake.toolchain_file):
            return argv
        remember_configured(state_dir, config)
        return ()
    if not is_cmakes or before[:1] != argv[:1]:
        return argv
    was, now = _definitions(before), _definitions(argv)
    if was.get(_TOOLCHAIN_FILE) != now.get(_TOOLCHAIN_FILE):
        before_now = (said.get(_TOOLCHAIN_FILE, "none") for said in (was, now))
        message = "the toolchain file of {} was {}, and is {}".format(directory, *before_now)
        hint = f"remove {directory}: CMake takes another one only where nothing is configured yet"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where="deploy.toml", message=message, hint=hint)
    # What is defined no longer would stay in CMake's cache.
    return (argv[0], *(f"-U{name}" for name in was if name not in now), *argv[1:])


def remember_configured(state_dir: Path, config: DeployConfig) -> None:
    """The manifest that lies there is the one of this configuration. That it cannot be written costs another run."""
    import json

    known = {**_configured(state_dir), config.ninja.directory: configure_command(config)}
    with contextlib.suppress(OSError):
        state_dir.mkdir(parents=True, exist_ok=True)
        write_atomic(state_dir / _CONFIGURED, json.dumps(known).encode(), durable=False)


_CONFIGURED = "configured.v1"
"""In the state directory: build directory -> the command that made its manifest."""
_TOOLCHAIN_FILE = "CMAKE_TOOLCHAIN_FILE"


def _configured(state_dir: Path) -> dict[str, tuple[str, ...]]:
    import json

    try:
        value = json.loads(read_file(str(state_dir / _CONFIGURED)))
    except (OSError, ValueError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: tuple(map(str, words)) for name, words in value.items() if isinstance(words, list)}


def _definitions(words: Sequence[str]) -> dict[str, str]:
    """What the words define for CMake: name -> value."""
    said = [word[2:] for word in words if word[:2] == "-D" and len(word) > 2]
    said += [following for word, following in pairwise(words) if word == "-D"]
    return {text.partition("=")[0].partition(":")[0]: text.partition("=")[2] for text in said}


def installed_log_version(root: Path, config: DeployConfig, state_dir: Path, search: str) -> int:
    """Of the `.ninja_log` that the ninja of this build writes: what CMake found, else the first on the path."""
    import re

    from pipeline.toolchain.ninja_tools import tools_of

    directory, program = root / config.ninja.directory, "ninja"
    try:
        cache = (directory / "CMakeCache.txt").read_text(errors="replace")
        found = re.search(r"^CMAKE_MAKE_PROGRAM:\w+=(.+)$", cache, re.MULTILINE)
        program = found[1].strip() if found else program
    except OSError:
        pass
    tools = tools_of(root, config, state_dir, search)
    version = re.match(r"(\d+)\.(\d+)", tools.version(program))
    tools.save()
    number = (int(version[1]), int(version[2])) if version else (1, 13)
    return 7 if number >= (1, 13) else 6 if number >= (1, 12) else 5
