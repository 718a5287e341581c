"""Build with `riscv64-unknown-elf-gcc`, as Debian and others package it: GNU compiler, assembler and linker for RISC-V.

Knows gcc's command line and where its parts lie. Does not run anything and does not know the cache. Invariant: no word
of an action names a path of this machine; the identity covers every program that takes part in a build.

Facts (gcc 12.2, binutils 2.40): the default multilib for `_zicsr` is 64-bit, hence plain `rv32imc` and `.option arch`
in the sources; `-Os` calls 64-bit shifts in libgcc, which the firmware brings along; a loop that fills memory becomes a
call of `memset` even in `memset` itself unless `-fno-tree-loop-distribute-patterns`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.failures import fail
from pipeline.fastpath.watched import Watched, directory_stamp
from pipeline.model import Action, Failure, FailureCategory, Tool
from pipeline.toolchain.distribution import program_digest
from pipeline.toolchain.generate import COMPILE, LINK, BuildSpec, Commands
from pipeline.toolchain.generate import actions as _actions

TRIPLE = "riscv64-unknown-elf"
DRIVER = f"{TRIPLE}-gcc"
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
    "-Wa,--debug-prefix-map={root}=.",  # the assembler writes the debug information of .S files
)
_LINK = (*LINK, "-nostartfiles", "-Wl,--no-warn-rwx-segments")  # RAM of these chips is both, and no warning helps


def find(state_dir: Path, search: str) -> tuple[Tool, Tool] | Failure:
    """The driver on the path `search` (as in PATH), and its library directory. No program is run: the version is the
    name of the directory that holds gcc's parts (the newest, if several are installed side by side). The identity is
    version and one SHA-256 over driver, compiler, linker wrapper, assembler and linker, remembered below `state_dir`.
    """
    found = shutil.which(DRIVER, path=search)
    if found is None:
        return _missing(f"no program {DRIVER} on the PATH")
    driver = Path(found).resolve()
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
    return Tool(DRIVER, str(driver), version, identity), Tool(LIBRARY, f"{library}/include", version, identity)


def watched(driver: Tool, library: Tool, search: str) -> Watched:
    """What decides that `find` finds these: the directories before the driver's on the path, and the programs."""
    absent = []
    for directory in search.split(":"):
        if directory and Path(directory, DRIVER).exists():
            break
        absent.append(f"{directory or '.'}/{DRIVER}")
    place = Path(library.path).parent
    programs = (str(path) for path in (*_programs(Path(driver.path), place), place.parent))
    return Watched({path: directory_stamp(path) for path in programs}, tuple(absent))


def run_env() -> Mapping[str, str]:
    """Environment of every gcc command: messages in one language and alphabet, whoever calls."""
    return {"LC_ALL": "C"}


def actions(spec: BuildSpec) -> tuple[Action, ...]:
    """Everything that makes the images of `spec`. Precondition: `spec.chip` is in `TARGETS`."""
    target = TARGETS[spec.chip]
    return _actions(spec, Commands((DRIVER, *target, *_COMPILE), (DRIVER, *target, *_LINK)))


def _library(driver: Path) -> Path | None:
    """`PREFIX/lib/gcc/TRIPLE/VERSION` of the driver `PREFIX/bin/...`; the newest version."""
    found = [path.parents[1] for path in driver.parents[1].glob(f"lib/gcc/{TRIPLE}/*/include/stddef.h")]
    return max(found, key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()], default=None)


def _programs(driver: Path, library: Path) -> list[Path]:
    """What the driver calls, where packages put it; a part that lies elsewhere is the driver's own affair."""
    prefix = driver.parents[1]
    own = [library, prefix / "libexec/gcc" / TRIPLE / library.name]
    binutils = [prefix / "lib" / TRIPLE / "bin", prefix / TRIPLE / "bin"]
    wanted = [(own, "cc1"), (own, "collect2"), (binutils, "as"), (binutils, "ld")]
    places = [next((d / name for d in directories if (d / name).is_file()), None) for directories, name in wanted]
    return [driver, *(path for path in places if path is not None)]


def _missing(fact: str) -> Failure:
    return fail(
        FailureCategory.TOOLCHAIN_MISSING,
        stage=None,
        where="deploy.toml",
        message=f"toolchain 'gcc' is not installed: {fact}",
        hint="install gcc-riscv64-unknown-elf (Debian, Ubuntu: apt-get install), or choose another [toolchain] kind",
    )
