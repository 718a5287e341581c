"""The firmware as programs of this machine: `[host]` of deploy.toml as actions, for whichever compiler is there.

Knows the configuration and how C becomes a program here; the unit tests are programs like the firmware's own process,
with their support in place of its port. Runs nothing but a new compiler's `--version`. Invariant: no word of an action
names a path of this machine; each source is compiled once, whatever the number of programs that it is in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig
from pipeline.config.values import HOST
from pipeline.effects.versions import ask_version
from pipeline.errors import ConfigError, ToolError
from pipeline.failures import fail
from pipeline.model import Action, Failure, FailureCategory, Stage, Tool
from pipeline.toolchain import programs, zig
from pipeline.toolchain.compile_units import file_word
from pipeline.toolchain.config_places import config_failure_at
from pipeline.toolchain.distribution import program_identity
from pipeline.toolchain.generate import CXX_ENDINGS, c_string, for_cxx, out_directory
from pipeline.toolchain.globs import Listing
from pipeline.toolchain.named_files import Named, NamedFiles
from pipeline.toolchain.products import declared_products

CC_NAMES = ("cc", "gcc", "clang")
COMPILE = ("-std=gnu11", "-g", "-gdwarf-4", "-Werror=date-time", "-ffile-prefix-map={root}=.")
ENDING = ".exe" if sys.platform == "win32" else ""
PROGRAM = f"firmware{ENDING}"


class HostTools(NamedTuple):
    """A compiler of this machine. `compile` and `link`: the words before those of the project; `cxx`: of C++ sources
    and of programs that hold one."""

    tools: tuple[Tool, ...]
    compile: tuple[str, ...]
    cxx: tuple[str, ...]
    run_env: Mapping[str, str]


class HostPrograms(NamedTuple):
    """The actions, and what they make: the firmware's process (`""`: none is declared) and unit tests, by name."""

    tools: HostTools
    actions: tuple[Action, ...]
    program: str
    tests: Mapping[str, str]


def host_programs(root: Path, config: DeployConfig, state_dir: Path) -> HostPrograms:
    """What `[host]` comes to. Raises ToolError when there is no compiler, ConfigError when a glob matches nothing."""
    found = find_compiler(config.host.compiler, state_dir)
    if isinstance(found, Failure):
        raise ToolError(found)
    listing = Listing(
        str(root), declared_products(config), tuple(f"build/{name}/" for name in (*config.profiles, HOST))
    )
    named = NamedFiles(listing, state_dir)
    sources = {key: _sources(listing, root, config, key) for key in ("sources", "main", "tests", "test_support")}
    making = _Making(found, config, named, frozenset(sources["main"]))
    programs: dict[str, tuple[str, ...]] = {}
    if config.host.main:
        programs[PROGRAM] = (*sources["sources"], *sources["main"])
    tests = {Path(path).stem: path for path in sources["tests"]}
    if len(tests) < len(sources["tests"]):
        message, hint = "two unit tests of [host] have one name", "rename one of the files: each is a program"
        raise ConfigError(config_failure_at(root, config, ("host", "tests"), message, hint))
    for name, path in tests.items():
        programs[f"tests/{name}{ENDING}"] = (*sources["sources"], path, *sources["test_support"])
    compiles = [making.compiled(path) for path in dict.fromkeys(path for parts in programs.values() for path in parts)]
    links = [making.linked(name, parts) for name, parts in programs.items()]
    out = out_directory(HOST)
    return HostPrograms(
        found,
        (*compiles, *links),
        f"{out}/{PROGRAM}" if config.host.main else "",
        MappingProxyType({name: f"{out}/tests/{name}{ENDING}" for name in tests}),
    )


def find_compiler(kind: str, state_dir: Path) -> HostTools | Failure:
    """The compiler that `host.compiler` means here."""
    if kind in ("auto", "cc"):
        search = os.environ.get("PATH", os.defpath)
        for name in CC_NAMES:
            place = programs.find(name, search)
            if place is not None:
                return _system_compiler(name, place, search, state_dir)
        if kind == "cc":
            return fail(
                FailureCategory.TOOLCHAIN_MISSING,
                stage=None,
                where="deploy.toml",
                message=f"[host] needs a C compiler for this machine, and none of {', '.join(CC_NAMES)} is on PATH",
                hint='install one, or write compiler = "zig" with the extra `zig`',
            )
    tool = zig.find(state_dir)
    if isinstance(tool, Failure):
        hint = "install a C compiler (cc, gcc or clang), or: pip install ziglang==0.17.0"
        return tool._replace(message="[host] needs a compiler for this machine: there is neither cc nor zig", hint=hint)
    own = ("-target", "native", "-ffile-prefix-map={zig_dir}=zig", "-ffile-prefix-map={zig_near}=zig")
    return HostTools((tool,), ("zig", "cc", *own), ("zig", "c++", *own), zig.run_env(state_dir))


def _system_compiler(name: str, place: programs.Found, search: str, state_dir: Path) -> HostTools | Failure:
    try:
        identity = program_identity(place.real, state_dir, ask_version)
    except OSError as error:
        message = f"the compiler '{name}' ({place.real}) cannot be read: {error.strerror}"
        return fail(FailureCategory.TOOLCHAIN_MISSING, stage=None, where="deploy.toml", message=message)
    tool = Tool(name, place.path, identity.version, f"{name} {identity.version} sha256:{identity.sha256}")
    # a driver for C compiles C++ by the ending; only its link lacks the library
    env = {"PATH": search, **programs.launcher_env(place)}
    return HostTools((tool,), (name,), (name,), env)


class _Making:
    """The actions of one compiler."""

    def __init__(self, tools: HostTools, config: DeployConfig, named: NamedFiles, main: frozenset[str]) -> None:
        self._tools, self._host, self._main = tools, config.host, main
        self._c = named.of_flags(config.host.cflags)
        self._link = named.of_flags(config.host.ldflags)
        name, version = c_string(config.project.name), c_string(config.project.version)
        self._descriptor = (f"-DPROJECT_NAME={name}", f"-DPROJECT_VERSION={version}")

    def compiled(self, source: str) -> Action:
        """One source. Those of the process' own are told the project's name and version."""
        is_cxx = source.endswith(CXX_ENDINGS)
        words = for_cxx(COMPILE) if is_cxx else COMPILE
        place = f"{out_directory(HOST)}/obj/{source}"
        search = [f"-I{file_word(directory)}" for directory in self._host.include]
        own = self._descriptor if source in self._main else ()
        last = ("-MD", "-MF", f"{place}.d", "-c", file_word(source), "-o", f"{place}.o")
        flags = for_cxx(self._c.words) if is_cxx else self._c.words
        return Action(
            name=f"compile {source} for this machine",
            stage=Stage.COMPILE,
            inputs=(source, *(path for path in self._c.files if path != source)),
            outputs=(f"{place}.o",),
            argv=(*(self._tools.cxx if is_cxx else self._tools.compile), *words, *search, *own, *flags, *last),
            depfile=f"{place}.d",
            profile=HOST,
            salt=self._c.salt,
            count_as="compiled",
        )

    def linked(self, name: str, sources: Sequence[str]) -> Action:
        """One program."""
        made, objects = f"{out_directory(HOST)}/{name}", [f"{out_directory(HOST)}/obj/{path}.o" for path in sources]
        is_cxx = any(path.endswith(CXX_ENDINGS) for path in sources)
        library = ("-lstdc++",) if is_cxx and self._tools.cxx == self._tools.compile else ()
        driver = self._tools.cxx if is_cxx else self._tools.compile
        # flags that choose a runtime (sanitizers, coverage) must be said when linking too
        words = (*_instrumenting(self._c), *self._link.words)
        return Action(
            name=f"link {name} for this machine",
            stage=Stage.LINK,
            inputs=(*objects, *self._link.files),
            outputs=(made,),
            argv=(*driver, *words, *map(file_word, objects), *library, "-o", made),
            profile=HOST,
            salt=self._link.salt,
            count_as="linked",
        )


def _instrumenting(flags: Named) -> tuple[str, ...]:
    return tuple(word for word in flags.words if word.startswith(("-fsanitize", "-fno-sanitize", "--coverage", "-m")))


def _sources(listing: Listing, root: Path, config: DeployConfig, key: str) -> tuple[str, ...]:
    found: set[str] = set()
    for n, pattern in enumerate(getattr(config.host, key)):
        matches = [pattern] if pattern in listing.products else listing.match(pattern, hidden=False)
        if not matches:
            message = f"{key} of [host]: '{pattern}' matches no file"
            hint = "correct the pattern; it is relative to the project's root"
            raise ConfigError(config_failure_at(root, config, ("host", key, n), message, hint))
        found.update(matches)
    return tuple(sorted(found))
