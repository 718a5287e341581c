"""`check:boundary`: do the portable parts of a firmware compile where there is no platform to reach for?

The sources of the given directories, and nothing else, are copied to a scratch directory and compiled there: against
the compiler's free-standing headers only, and with the names poisoned through which C reaches a platform. So a port's
header, a libc header and a register are compile errors at the line that asks for them. Does not know doit or what the
firmware is for. Invariant: what passes needs nothing from a platform but what the directories themselves declare.

Both compilers take `#pragma GCC poison`; `volatile` is among the poisoned words because every register is.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.schema import DeployConfig
from pipeline.config.values import NINJA_KINDS, PREBUILT
from pipeline.effects.api import ProcessRunner
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.toolchain import gcc, zig

PORTABLE = ("firmware/core", "firmware/modules")
"""Directories of the reference firmware that must not know a platform."""

TIMEOUT_S = 120.0
_POISONED = (
    *("volatile", "__volatile__", "__volatile", "asm", "__asm__", "__asm"),
    *("malloc", "calloc", "realloc", "printf", "memcpy", "memset", "memmove", "strlen"),
)
"""Not poisoned: functions whose names are words (`free`, `open`). Calling what nothing declares is an error as well."""

_HINT = "ask the platform through core/port.h: declare a function there, and let each port define it"
_ERROR = re.compile(r"^(?P<where>[^:\s][^:\n]*:\d+(?::\d+)?): (?:fatal )?error: (?P<fact>.*)$", re.M)


def check(
    root: Path,
    config: DeployConfig,
    runner: ProcessRunner,
    state_dir: Path,
    directories: Sequence[str] = PORTABLE,
) -> list[Failure]:
    """Every place where the C files directly in `directories` (relative to `root`) reach beyond them; empty: none.

    Compiles with the toolchain of `config` for its chip. A missing toolchain or directory is a failure of its own
    kind. Writes nothing below `root`."""
    compiler = _compiler(config, state_dir)
    if isinstance(compiler, Failure):
        return [compiler]
    command, env = compiler
    with tempfile.TemporaryDirectory(prefix="hotplate-boundary-") as scratch:
        copy = Path(scratch)
        sources = []
        for directory in directories:
            if not any((root / directory).glob("*.c")):
                message = f"'{directory}' holds no C file to check"
                return [fail(FailureCategory.CONFIG_ERROR, stage=None, where=config.path, message=message)]
            (copy / directory).mkdir(parents=True)
            for path in sorted((root / directory).glob("*.[ch]")):
                shutil.copyfile(path, copy / directory / path.name)
                sources += [f"{directory}/{path.name}"] if path.suffix == ".c" else []
        poison = copy / "poison.h"
        poison.write_text(f"#pragma GCC poison {' '.join(_POISONED)}\n")
        search = [f"-I{directory}" for directory in directories]
        argv = [*command, *search, "-include", "poison.h", "-c"]

        def errors(*names: str) -> str:
            done = runner.run([*argv, *names], cwd=copy, env=env, timeout_s=TIMEOUT_S)
            return "" if done.exit_code == 0 else (done.stderr or done.stdout).decode("utf-8", "replace")

        # All at once is fast, but some drivers stop at the first file that fails.
        return _failures("\n".join(map(errors, sources))) if errors(*sources) else []


def _compiler(config: DeployConfig, state_dir: Path) -> tuple[list[str], dict[str, str]] | Failure:
    """The command up to the search path, and its environment."""
    if config.toolchain.kind in (PREBUILT, *NINJA_KINDS):
        message = f"the toolchain is '{config.toolchain.kind}': there is no compiler to check with"
        hint = "run this check in a project that compiles"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=config.path, message=message, hint=hint)
    search = os.environ.get("PATH", os.defpath)
    words = ["-std=gnu11", "-ffreestanding", "-fno-builtin", "-nostdinc", "-DHOTPLATE_TEST_RPC=1"]
    words += ["-Werror=implicit-function-declaration"]
    if config.toolchain.kind == "gcc":
        tools = gcc.find(state_dir, search)
        if isinstance(tools, Failure):
            return tools
        driver, library = tools
        command = [driver.path, *gcc.TARGETS[config.toolchain.chip], *words, "-isystem", library.path]
        return command, {"PATH": search, **gcc.run_env()}
    tool = zig.find(state_dir)
    if isinstance(tool, Failure):
        return tool
    headers = str(Path(tool.path).parent / "lib" / "include")
    command = [tool.path, "cc", *zig.TARGETS[config.toolchain.chip], *words, "-isystem", headers]
    return command, {"PATH": search, **zig.run_env(state_dir)}


def _failures(text: str) -> list[Failure]:
    """One per error, at its line; when the compiler names none, one with its words."""
    found = [(match["where"], match["fact"]) for match in _ERROR.finditer(text)]
    return [
        fail(FailureCategory.COMPILE_ERROR, stage=None, where=where, message=fact, hint=_HINT, detail=text)
        for where, fact in dict.fromkeys(found or [("check:boundary", "the portable sources do not compile")])
    ]
