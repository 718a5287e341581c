"""From `deploy.toml` to what a compiling toolchain builds: sources listed, flags read, linker scripts followed.

Lists directories and reads files that flags name. Does not know compilers. Invariant: sources are sorted, so that the
same tree gives the same actions everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cache.durable import read_text
from pipeline.config.schema import DeployConfig
from pipeline.errors import ConfigError
from pipeline.toolchain import generate
from pipeline.toolchain.config_places import config_failure_at
from pipeline.toolchain.globs import Listing, is_pattern
from pipeline.toolchain.named_files import Named, NamedFiles

_FORBIDDEN = re.compile(r"[\n\r]|\{(?:root|[^/{}]+_(?:dir|near))\}")
"""In a path: what depfiles and commands cannot hold."""


def spec(listing: Listing, named: NamedFiles, config: DeployConfig, profile: str) -> generate.BuildSpec:
    """What to build of `config` in a profile. Raises ConfigError."""
    project, toolchain, boot = config.project, config.toolchain, config.bootloader
    sources = _glob(listing, config, ("project",), project.sources)
    if project.descriptor and project.descriptor not in sources:
        message = f"'{project.descriptor}' is none of the {len(sources)} files that project.sources match"
        hint = "correct the path, or add the file to project.sources"
        raise ConfigError(config_failure_at(Path(listing.root), config, ("project", "descriptor"), message, hint))
    _check_script(listing, config, "toolchain", toolchain.linker_script)
    _check_script(listing, config, "bootloader", boot.linker_script)
    words = tuple(
        f"PROJECT_{key}={generate.c_string(text)}"
        for key, text in (("NAME", project.name), ("VERSION", project.version))
    )
    include = tuple(dict.fromkeys((*project.include, *(d for library in config.libraries for d in library.include))))
    c, profile_c = named.of_flags(toolchain.cflags), named.of_flags(config.profiles[profile].cflags)
    cxx = named.of_flags(_cxx(toolchain.cxxflags, toolchain.cflags))
    profile_cxx = named.of_flags(_cxx(config.profiles[profile].cxxflags, config.profiles[profile].cflags))
    link = named.of_flags(toolchain.ldflags, toolchain.linker_script)
    return generate.BuildSpec(
        profile=profile,
        chip=toolchain.chip,
        app=generate.ProgramSpec(
            sources=sources,
            include=include,
            linker_script=toolchain.linker_script,
            script_files=link.files,
            defines={project.descriptor: words} if project.descriptor else {},
            libraries=tuple(
                generate.LibrarySpec(
                    library.name,
                    _glob(listing, config, ("library", n), library.sources),
                    tuple(dict.fromkeys((*library.include, *include))),
                )
                for n, library in enumerate(config.libraries)
            ),
        ),
        bootloader=generate.ProgramSpec(
            sources=_glob(listing, config, ("bootloader",), boot.sources),
            include=boot.include,
            linker_script=boot.linker_script,
            script_files=named.of_flags(toolchain.ldflags, boot.linker_script).files,
            defines={},
        ),
        cflags=c.words,
        ldflags=link.words,
        profile_cflags=profile_c.words,
        flash_mode=config.flash.mode,
        flash_freq=config.flash.freq,
        flash_size=config.flash.size,
        flash_size_bytes=config.flash.size_bytes,
        partition_csv=config.partitions.table,
        partition_offset=config.partitions.offset,
        cxxflags=cxx.words,
        profile_cxxflags=profile_cxx.words,
        reads=_reads(c, profile_c),
        cxx_reads=_reads(cxx, profile_cxx),
        link_reads=generate.Reads((), link.salt),
    )


def _reads(*named: Named) -> generate.Reads:
    salt = "\n".join(one.salt for one in named if one.salt)
    return generate.Reads(tuple(dict.fromkeys(path for one in named for path in one.files)), salt)


def _cxx(own: tuple[str, ...] | None, flags: tuple[str, ...]) -> tuple[str, ...]:
    """The flags of C++ sources: their own, or those of C."""
    return generate.for_cxx(flags) if own is None else own


def _check_script(listing: Listing, config: DeployConfig, section: str, script: str) -> None:
    """A linker script is there, or an action makes it."""
    try:
        read_text(Path(listing.root, script), errors="replace")
    except OSError as error:
        if script not in listing.products:
            message = f"the linker script '{script}' cannot be read: {error.strerror}"
            hint = "correct the path, or declare the [[action]] that makes it"
            at = (section, "linker_script")
            raise ConfigError(config_failure_at(Path(listing.root), config, at, message, hint)) from None


def _glob(
    listing: Listing, config: DeployConfig, at: tuple[str | int, ...], patterns: Sequence[str]
) -> tuple[str, ...]:
    """Files that the patterns match or actions will make, sorted. A pattern that matches nothing is a mistake, not an
    empty list. Hidden files (`._main.c`, which macOS leaves beside `main.c`) are no sources unless a pattern asks."""
    section = at[0] if len(at) == 1 else config.libraries[int(at[1])].name
    found: set[str] = set()
    for n, pattern in enumerate(patterns):
        matches = [pattern] if pattern in listing.products else listing.match(pattern, hidden=False)
        if not matches:
            message = f"sources of [{section}]: '{pattern}' matches no file"
            hint = "correct the pattern; it is relative to the project's root"
            if is_pattern(pattern) and (hidden := listing.match(pattern)):
                hint = f"begin the name in the pattern with a dot to match hidden files such as '{hidden[0]}'"
            raise ConfigError(config_failure_at(Path(listing.root), config, (*at, "sources", n), message, hint))
        odd = next((path for path in matches if _FORBIDDEN.search(path)), None)
        if odd is not None:
            message = f"sources of [{section}]: {odd!r} holds a line break or one of our placeholders"
            hint = "rename the file: depfiles and commands cannot say its name"
            raise ConfigError(config_failure_at(Path(listing.root), config, (*at, "sources", n), message, hint))
        found.update(matches)
    return tuple(sorted(found))
