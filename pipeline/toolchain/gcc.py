"""Build with `riscv64-unknown-elf-gcc`, as Debian and others package it: GNU compiler, assembler and linker for RISC-V.

Knows gcc's command line and where its parts lie. Does not run anything and does not know the cache. Invariant: no word
of an action names a path of this machine; the identity covers every program that takes part in a build.

Facts (gcc 12.2, binutils 2.40): the default multilib for `_zicsr` is 64-bit, hence plain `rv32imc` and `.option arch`
in the sources; `-Os` calls 64-bit shifts in libgcc, which the firmware brings along; a loop that fills memory becomes a
call of `memset` even in `memset` itself unless `-fno-tree-loop-distribute-patterns`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.failures import fail
from pipeline.fastpath.watched import Watched, settled_stamp
from pipeline.model import Action, Failure, FailureCategory, Tool
from pipeline.toolchain import programs
from pipeline.toolchain.distribution import program_digest
from pipeline.toolchain.generate import COMPILE, CXX_ENDINGS, LINK, LINK_DEPFILE, LINK_MAP, BuildSpec, Commands
from pipeline.toolchain.generate import actions as _actions

TRIPLE = "riscv64-unknown-elf"
DRIVER = f"{TRIPLE}-gcc"
ARCHIVER = f"{TRIPLE}-ar"
LIBRARY = "gcc-lib"
"""Name of the tool that stands for gcc's own directory, where its headers are: `{gcc-lib_dir}` in an action's words."""

TARGETS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("esp32c2", "esp32c3"), ("-march=rv32imc", "-mabi=ilp32")),
    **dict.fromkeys(("esp32c5", "esp32c6", "esp32c61", "esp32h2"), ("-march=rv32imac", "-mabi=ilp32")),
    "esp32p4": ("-march=rv32imafc", "-mabi=ilp32f"),
}
"""Chips with RISC-V CPUs: instruction set and calling convention."""

_COMPILE = (
    *COMPILE,
    "-msmall-data-limit=0",  # no relaxation against gp, whose range only the linker script knows
    "-fno-tree-loop-distribute-patterns",
    f"-ffile-prefix-map={{{LIBRARY}_dir}}=gcc",
)
# The assembler writes the debug information of assembly files. Not by -Wa, which a comma in the path would end; and not
# for C, since ccache takes these words for another command in each checkout.
_ASSEMBLER = ("-Xassembler", "--debug-prefix-map={root}=.")
_LINK = (*LINK, "-nostartfiles", "-Wl,--no-warn-rwx-segments")  # RAM of these chips is both, and no warning helps


def find(state_dir: Path, search: str) -> tuple[Tool, Tool] | Failure:
    """The driver on the path `search` (as in PATH), and its library directory. No program is run: the version is the
    name of the directory that holds gcc's parts (the newest, if several are installed side by side). The identity is
    version and one SHA-256 over driver, compiler, linker wrapper, assembler and linker, remembered below `state_dir`.
    """
    found = programs.find(DRIVER, search)
    if found is None:
        return _missing(f"no program {DRIVER} on the PATH")
    driver = Path(found.real).resolve()
    library = _library(driver)
    if library is None:
        return _missing(f"{DRIVER} is there, but its headers are not beside it")
    try:
        parts = [(path.name, program_digest(path, state_dir)) for path in _programs(driver, library)]
    except OSError as error:
        return _missing(f"{error.filename or DRIVER} cannot be read: {error.strerror}")
    version = library.name
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    identity = f"{DRIVER} {version} sha256:{digest}"
    return Tool(DRIVER, found.path, version, identity), Tool(LIBRARY, f"{library}/include", version, identity)


def archiver(driver: Tool, library: Tool, state_dir: Path) -> Tool | Failure:
    """The `ar` of binutils beside the compiler that `find` found, for static libraries."""
    real = _real(driver)
    for place in (real.with_name(f"{TRIPLE}-ar"), *(directory / "ar" for directory in _binutils(real))):
        if place.is_file():
            try:
                digest = program_digest(place, state_dir)
            except OSError as error:
                return _missing(f"{place} cannot be read: {error.strerror}")
            return Tool(ARCHIVER, str(place), library.version, f"{ARCHIVER} sha256:{digest}")
    return _missing(f"{DRIVER} is there, but {ARCHIVER} is not beside it")


def has_link_depfile(driver: Tool) -> bool:
    """Can its linker say what it read? (binutils from 2.35)"""
    linker = next((d / "ld" for d in _binutils(_real(driver)) if (d / "ld").is_file()), None)
    try:
        return linker is not None and b"dependency-file" in linker.read_bytes()
    except OSError:
        return False


def relied_on(action: Action, tools: Mapping[str, Tool]) -> Mapping[str, str] | None:
    """Absolute path -> BLAKE2b-512 of the programs that a compile of ours starts; None for another action, and where a
    launcher stands before the driver. Reads 25 MB. Raises OSError."""
    driver, library = tools.get(DRIVER), tools.get(LIBRARY)
    if action.argv[:1] != (DRIVER,) or driver is None or library is None or programs.is_launcher(driver.path, DRIVER):
        return None
    compiler = "cc1plus" if action.inputs[0].endswith(CXX_ENDINGS) else "cc1"
    parts = _programs(Path(driver.path).resolve(), Path(library.path).parent)
    wanted = [Path(driver.path), *(path for path in parts if path.name in (compiler, "as"))]
    return {str(path): hashlib.blake2b(path.read_bytes()).hexdigest() for path in wanted} if len(wanted) == 3 else None


def spec_dirs(driver: Tool, library: Tool) -> tuple[str, ...]:
    """Where it looks for spec files that are not in the working directory."""
    place, prefix = Path(library.path).parent, _real(driver).parents[1]
    return (str(place), str(prefix / TRIPLE / "lib"), str(prefix / "lib" / TRIPLE / "lib"))


def watched(driver: Tool, library: Tool, search: str) -> Watched:
    """What decides that `find` finds these: the directories before the driver's on the path, and the programs, also by
    the name by which they were found, since a link may come to lead elsewhere."""
    found = programs.find(DRIVER, search)
    place, real = Path(library.path).parent, _real(driver)
    parts = (str(path) for path in (*_programs(real, place), place.parent))
    names = (driver.path, *((found.path, found.real) if found is not None else ()))
    return Watched(
        {path: settled_stamp(path) for path in dict.fromkeys((*parts, *names))},
        found.earlier if found is not None else (),
    )


def run_env(driver: Tool | None = None) -> Mapping[str, str]:
    """Environment of every gcc command: messages in one language and alphabet, whoever calls, and what a launcher that
    the driver is called through needs."""
    found = None if driver is None else programs.find(DRIVER, os.environ.get("PATH", os.defpath))
    return {**(programs.launcher_env(found) if found is not None else {}), "LC_ALL": "C"}


def _real(driver: Tool) -> Path:
    """The driver's own file, behind launchers and links."""
    if not programs.is_launcher(driver.path, DRIVER):
        return Path(driver.path).resolve()
    found = programs.find(DRIVER, os.environ.get("PATH", os.defpath))
    return Path(found.real if found is not None else driver.path).resolve()


def actions(spec: BuildSpec) -> tuple[Action, ...]:
    """Everything that makes the images of `spec`. Precondition: `spec.chip` is in `TARGETS`."""
    return _actions(spec, commands(spec.chip))


def commands(chip: str, *, link_depfile: bool = False) -> Commands:
    """The words for a chip. `link_depfile`: the linker knows the option."""
    target = TARGETS[chip]
    return Commands(
        compile=(DRIVER, *target, *_COMPILE),
        link=(DRIVER, *target, *_LINK),
        archive=(ARCHIVER, "qcsD"),
        link_depfile=LINK_DEPFILE if link_depfile else (),
        link_map=LINK_MAP,
        assembler=_ASSEMBLER,
    )


def _library(driver: Path) -> Path | None:
    """`PREFIX/lib/gcc/TRIPLE/VERSION` of the driver `PREFIX/bin/...`; the newest version."""
    found = [path.parents[1] for path in driver.parents[1].glob(f"lib/gcc/{TRIPLE}/*/include/stddef.h")]
    return max(found, key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()], default=None)


def _programs(driver: Path, library: Path) -> list[Path]:
    """What the driver calls, where packages put it; a part that lies elsewhere is the driver's own affair."""
    own = [library, driver.parents[1] / "libexec/gcc" / TRIPLE / library.name]
    binutils = _binutils(driver)
    wanted = [(own, "cc1"), (own, "cc1plus"), (own, "collect2"), (binutils, "as"), (binutils, "ld")]
    places = [next((d / name for d in directories if (d / name).is_file()), None) for directories, name in wanted]
    return [driver, *(path for path in places if path is not None)]


def _binutils(driver: Path) -> list[Path]:
    prefix = driver.parents[1]
    return [prefix / "lib" / TRIPLE / "bin", prefix / TRIPLE / "bin"]


def _missing(fact: str) -> Failure:
    return fail(
        FailureCategory.TOOLCHAIN_MISSING,
        stage=None,
        where="deploy.toml",
        message=f"toolchain 'gcc' is not installed: {fact}",
        hint="install gcc-riscv64-unknown-elf (Debian, Ubuntu: apt-get install), or choose another [toolchain] kind",
    )
