"""From what to build to the actions that build it, for every toolchain that compiles C and links with a script; and
the actions that take given files over, for every toolchain.

Knows the order of a build and the places of its products. Does not know a compiler's flags, which come as `Commands`,
and does not run anything. Invariant: no word of an action names a path of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS
from pipeline.effects.packages import package_dir
from pipeline.formats.placement import BOOTLOADER, Placement
from pipeline.model import Action, Stage
from pipeline.toolchain.builtins import COPY, ELF2IMAGE, IMAGE, OTADATA, PARTITION_TABLE, STRIP, part_params
from pipeline.toolchain.distribution import version_of

APP_ELF_SHA256_OFFSET = "0xb0"
"""File offset of `app_elf_sha256` in an application image (esp_app_desc_t + 144, after 24 + 8 bytes of headers)."""

COMPILE = (
    "-ffreestanding",
    "-fno-builtin",
    "-std=gnu11",
    "-g",
    "-gdwarf-4",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-stack-protector",
    "-fno-pie",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-Werror=date-time",
    # Debug information names the working directory and the compiler's own headers. The engine puts the places in when
    # the command runs; the key holds the words as they stand here.
    "-ffile-prefix-map={root}=.",
)
"""What every C compiler is told."""

LINK = ("-nostdlib", "-Wl,--gc-sections", "-Wl,--build-id=none")


class ProgramSpec(NamedTuple):
    """One program to link. `sources` are globbed and sorted; all paths are relative to the project root. `defines`:
    source -> `-D` words for that file alone, without the `-D`."""

    sources: tuple[str, ...]
    include: tuple[str, ...]
    linker_script: str
    script_files: tuple[str, ...]
    """Files of the project that the linker script reads."""
    defines: Mapping[str, tuple[str, ...]]


class BuildSpec(NamedTuple):
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
        return out_directory(self.profile)


def out_directory(profile: str) -> str:
    """The directory of a profile's products."""
    return f"build/{profile}"


class Commands(NamedTuple):
    """The words of a toolchain, tool name first: everything before the search path and the user's flags."""

    compile: tuple[str, ...]
    link: tuple[str, ...]


def images(spec: BuildSpec) -> Mapping[str, str]:
    """The files that go to flash: image -> path."""
    out = spec.out
    return {
        "bootloader": f"{out}/bootloader.bin",
        "partitions": f"{out}/partitions.bin",
        "otadata": f"{out}/otadata.bin",
        "app": f"{out}/app.bin",
    }


def actions(spec: BuildSpec, commands: Commands) -> tuple[Action, ...]:
    """Everything that makes the images of `spec`."""
    return (
        *_program(spec, commands, "app", spec.app, {"elf_sha256_offset": APP_ELF_SHA256_OFFSET}),
        *_program(spec, commands, "bootloader", spec.bootloader, {}),
        *_tables(spec),
    )


def _program(
    spec: BuildSpec, commands: Commands, name: str, program: ProgramSpec, image: Mapping[str, str]
) -> list[Action]:
    """Compile each source, link, strip, make the image."""
    out = spec.out
    search = tuple(f"-I{directory}" for directory in program.include)
    flags = (*commands.compile, *search, *spec.cflags)
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
        inputs=tuple(dict.fromkeys((*objects, script, *program.script_files))),
        outputs=(linked,),
        argv=(*commands.link, *spec.ldflags, "-T", script, "-o", linked, *objects),
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
    boot = CHIPS[spec.chip].bootloader_offset
    params = (
        ("boot_offset", str(boot)),
        ("flash_size", str(spec.flash_size_bytes)),
        ("table_offset", str(spec.partition_offset)),
    )
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


def image_path(out: str, name: str) -> str:
    """Where the checked copy of a given file lies."""
    return f"{out}/images/{name}.bin"


def given_actions(
    placed: Sequence[Placement], out: str, profile: str, settings: Sequence[tuple[str, str]] = ()
) -> tuple[Action, ...]:
    """One action per given file: check it and take it over. `settings`: what goes into the bootloader's header."""
    actions = []
    for one in placed:
        if one.source:
            boot = one.name == BOOTLOADER
            actions.append(
                Action(
                    f"image {one.name}",
                    Stage.LINK,
                    (one.source,),
                    (image_path(out, one.name),),
                    builtin=IMAGE if one.program else COPY,
                    params=(*(settings if boot else ()), *part_params(one.part)),
                    profile=profile,
                )
            )
    return tuple(actions)


def _esptool_version() -> str:
    directory = package_dir("esptool")
    return version_of("esptool", directory) if directory is not None else "missing"
