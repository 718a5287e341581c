"""Build with `zig cc` from the ziglang wheel: clang and lld for RISC-V in one package, no vendor download.

Knows zig's command line. Does not run anything and does not know the cache. Invariant: no word of an action names a
path of this machine; objects and images are the same bytes from any checkout and any place of the wheel.

Facts of zig 0.17.0 (measured): `zig objcopy` compiles itself on first use (17 s of CPU), hence the builtin strip;
`-Wl,--strip-debug` drops the symbols as well; with `-c -o` zig keeps no object cache of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.failures import fail
from pipeline.core.model import Action, Failure, FailureCategory, Stage, Tool
from pipeline.toolchains.builtins import ELF2IMAGE, OTADATA, PARTITION_TABLE, STRIP
from pipeline.toolchains.distribution import package_dir, program_digest, version_of

APP_ELF_SHA256_OFFSET = "0xb0"
"""File offset of `app_elf_sha256` in an application image (esp_app_desc_t + 144, after 24 + 8 bytes of headers)."""

TARGETS: Mapping[str, tuple[str, ...]] = {
    "esp32c3": ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c"),
}
"""Chips that zig has a code generator for; it has none for Xtensa (ESP32, S2, S3)."""

_COMPILE = (
    "-ffreestanding",
    "-fno-builtin",
    "-std=gnu11",
    "-g",
    "-gdwarf-4",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-sanitize=undefined",
    "-fno-stack-protector",
    "-fno-pie",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-Werror=date-time",
    # Debug information names the working directory and zig's own headers, these by absolute path or, when the wheel
    # lies in the project, by a relative one. The engine puts the places in when the command runs; the key holds the
    # words as they stand here.
    "-ffile-prefix-map={root}=.",
    "-ffile-prefix-map={zig_dir}=zig",
    "-ffile-prefix-map={zig_near}=zig",
)
_LINK = ("-nostdlib", "-Wl,--gc-sections", "-Wl,--build-id=none")


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """One program to link. `sources` are globbed and sorted; all paths are relative to the project root. `defines`:
    source -> `-D` words for that file alone, without the `-D`."""

    sources: tuple[str, ...]
    include: tuple[str, ...]
    linker_script: str
    defines: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """What to build, in one profile. `cflags` and `ldflags` come after ours, `profile_cflags` last. Sizes and offsets
    in bytes, except `flash_size` (as esptool spells it: `4MB`)."""

    profile: str
    chip: str
    app: ProgramSpec
    bootloader: ProgramSpec
    cflags: tuple[str, ...]
    ldflags: tuple[str, ...]
    profile_cflags: tuple[str, ...]
    flash_mode: str
    flash_freq: str
    flash_size: str
    flash_size_bytes: int
    partition_csv: str
    partition_offset: int

    @property
    def out(self) -> str:
        """Where everything of this profile is made."""
        return f"build/{self.profile}"


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


def run_env(state_dir: Path) -> Mapping[str, str]:
    """Environment of every zig command: caches of its own, so that nothing of another project or version is used."""
    base = state_dir / "zig"
    return {"ZIG_GLOBAL_CACHE_DIR": str(base / "global"), "ZIG_LOCAL_CACHE_DIR": str(base / "local")}


def images(spec: BuildSpec) -> Mapping[str, str]:
    """The files that go to flash: image -> path."""
    out = spec.out
    return {
        "bootloader": f"{out}/bootloader.bin",
        "partitions": f"{out}/partitions.bin",
        "otadata": f"{out}/otadata.bin",
        "app": f"{out}/app.bin",
    }


def actions(spec: BuildSpec) -> tuple[Action, ...]:
    """Everything that makes the images of `spec`. Precondition: `spec.chip` is in `TARGETS`."""
    return (
        *_program(spec, "app", spec.app, {"elf_sha256_offset": APP_ELF_SHA256_OFFSET}),
        *_program(spec, "bootloader", spec.bootloader, {}),
        *_tables(spec),
    )


def _program(spec: BuildSpec, name: str, program: ProgramSpec, image: Mapping[str, str]) -> list[Action]:
    """Compile each source, link, strip, make the image."""
    out, target = spec.out, TARGETS[spec.chip]
    search = tuple(f"-I{directory}" for directory in program.include)
    flags = ("zig", "cc", *target, *_COMPILE, *search, *spec.cflags)
    compiles = []
    for source in program.sources:
        stem = f"{out}/obj/{name}/{source}"
        defines = tuple(f"-D{word}" for word in program.defines.get(source, ()))
        # The profile's flags come last, so that its -O wins over a project's.
        argv = (*flags, *defines, *spec.profile_cflags, "-MD", "-MF", f"{stem}.d", "-c", source, "-o", f"{stem}.o")
        compiles.append(
            Action(
                name=f"compile {source}" if name == "app" else f"compile {source} for {name}",
                stage=Stage.COMPILE,
                inputs=(source,),
                outputs=(f"{stem}.o",),
                argv=argv,
                depfile=f"{stem}.d",
                profile=spec.profile,
                count_as="compiled",
            )
        )
    objects = tuple(action.outputs[0] for action in compiles)
    linked, stripped, made = f"{out}/{name}.elf", f"{out}/{name}.stripped.elf", f"{out}/{name}.bin"
    script = program.linker_script
    link = Action(
        name=f"link {name}",
        stage=Stage.LINK,
        inputs=(*objects, script),
        outputs=(linked,),
        argv=("zig", "cc", *target, *_LINK, *spec.ldflags, "-T", script, "-o", linked, *objects),
        profile=spec.profile,
        count_as="linked",
    )
    params = {
        "chip": spec.chip,
        "flash_mode": spec.flash_mode,
        "flash_freq": spec.flash_freq,
        "flash_size": spec.flash_size,
        "esptool": _esptool_version(),
        **image,
    }
    return [
        *compiles,
        link,
        Action(f"strip {name}", Stage.LINK, (linked,), (stripped,), builtin=STRIP, profile=spec.profile),
        Action(
            f"image {name}",
            Stage.LINK,
            (stripped,),
            (made,),
            builtin=ELF2IMAGE,
            params=tuple(sorted(params.items())),
            profile=spec.profile,
        ),
    ]


def _tables(spec: BuildSpec) -> list[Action]:
    params = (("flash_size", str(spec.flash_size_bytes)), ("table_offset", str(spec.partition_offset)))
    made = images(spec)
    return [
        Action(
            name,
            Stage.LINK,
            (spec.partition_csv,),
            (made[name],),
            builtin=builtin,
            params=params,
            profile=spec.profile,
        )
        for name, builtin in (("partitions", PARTITION_TABLE), ("otadata", OTADATA))
    ]


def _esptool_version() -> str:
    directory = package_dir("esptool")
    return version_of("esptool", directory) if directory is not None else "missing"
