"""Build with `zig cc` from the ziglang wheel: clang and lld for RISC-V in one package, no vendor download.

Knows zig's command line. Does not run anything and does not know the cache. Invariant: no word of an action names a
path of this machine; objects and images are the same bytes from any checkout and any place of the wheel.

Facts of zig 0.17.0 (measured): `zig objcopy` compiles itself on first use (17 s of CPU), hence the builtin strip;
`-Wl,--strip-debug` drops the symbols as well; with `-c -o` zig keeps no object cache of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.effects.packages import package_dir
from pipeline.failures import fail
from pipeline.fastpath.watched import Watched
from pipeline.model import Action, Failure, FailureCategory, Tool
from pipeline.toolchain.distribution import package_places, program_digest, version_of
from pipeline.toolchain.generate import COMPILE, LINK, LINK_DEPFILE, BuildSpec, Commands, ProgramSpec, images
from pipeline.toolchain.generate import actions as _actions

__all__ = ["TARGETS", "BuildSpec", "ProgramSpec", "actions", "find", "images", "run_env"]

_TARGET = ("-target", "riscv32-freestanding-none")
TARGETS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("esp32c2", "esp32c3"), (*_TARGET, "-mcpu=generic_rv32+m+c")),
    **dict.fromkeys(("esp32c5", "esp32c6", "esp32c61", "esp32h2"), (*_TARGET, "-mcpu=generic_rv32+m+a+c")),
    "esp32p4": (*_TARGET, "-mcpu=generic_rv32+m+a+f+c", "-mabi=ilp32f"),
}
"""Chips that zig has a code generator for; it has none for Xtensa (ESP32, S2, S3)."""

_COMPILE = (
    *COMPILE,
    "-fno-sanitize=undefined",
    # zig's own headers are named by absolute path or, when the wheel lies in the project, by a relative one.
    "-ffile-prefix-map={zig_dir}=zig",
    "-ffile-prefix-map={zig_near}=zig",
)


def find(state_dir: Path) -> Tool | Failure:
    """The zig of the installed wheel: the program itself, not its Python launcher. Its identity is version and SHA-256,
    the latter remembered below `state_dir`."""
    directory = package_dir("ziglang")
    # Resolved: zig finds its headers from where its program really lies, and reports them so.
    program = (directory / "zig").resolve() if directory is not None else None
    if directory is None or program is None or not program.is_file():
        return fail(
            FailureCategory.TOOLCHAIN_MISSING,
            stage=None,
            where="deploy.toml",
            message="toolchain 'zig' is not installed: no package ziglang for this Python",
            hint="install it with: pip install ziglang==0.17.0 (or uv sync), or choose another [toolchain] kind",
        )
    version = version_of("ziglang", directory)
    try:
        digest = program_digest(program, state_dir)
    except OSError as error:
        return fail(
            FailureCategory.TOOLCHAIN_MISSING,
            stage=None,
            where="deploy.toml",
            message=f"toolchain 'zig' cannot be read: {error.strerror}",
        )
    return Tool("zig", str(program), version, f"zig {version} sha256:{digest}")


def watched() -> Watched:
    """What decides that `find` finds this one: where the package lies, and the program by the name that it has there,
    which may be a link."""
    directory = package_dir("ziglang")
    files = (str(directory / "zig"),) if directory is not None else ()
    return package_places(("ziglang",)).with_more(Watched({}, (), files))


def run_env(state_dir: Path) -> Mapping[str, str]:
    """Environment of every zig command: caches of its own, so that nothing of another project or version is used."""
    base = state_dir / "zig"
    return {"ZIG_GLOBAL_CACHE_DIR": str(base / "global"), "ZIG_LOCAL_CACHE_DIR": str(base / "local")}


def actions(spec: BuildSpec) -> tuple[Action, ...]:
    """Everything that makes the images of `spec`. Precondition: `spec.chip` is in `TARGETS`."""
    return _actions(spec, commands(spec.chip))


def commands(chip: str) -> Commands:
    """The words for a chip."""
    target = TARGETS[chip]
    return Commands(
        compile=("zig", "cc", *target, *_COMPILE),
        link=("zig", "cc", *target, *LINK),
        archive=("zig", "ar", "qcsD"),
        link_depfile=LINK_DEPFILE,
        link_map=("-Wl,--print-map",),  # it takes no -Map
        prints_map=True,
        assemble=("-Wno-unused-command-line-argument",),
    )
