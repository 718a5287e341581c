"""From what to build to the actions that build it, for every toolchain that compiles C and links with a script; and
the actions that take given files over, for every toolchain.

Knows the order of a build and the places of its products. Does not know a compiler's flags, which come as `Commands`,
and does not run anything. Invariant: no word of an action names a path of this machine.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS
from pipeline.effects.packages import package_dir
from pipeline.formats.map_option import map_files
from pipeline.formats.placement import BOOTLOADER, Placement
from pipeline.model import Action, Stage
from pipeline.toolchain.builtins import COPY, ELF2IMAGE, IMAGE, OTADATA, PARTITION_TABLE, STRIP, part_params
from pipeline.toolchain.compile_units import Compiling, compile_unit, file_word
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

C_ONLY = ("-std=gnu11",)
"""Of these, what no C++ compiler takes."""

CXX = ("-std=gnu++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-fno-use-cxa-atexit")
"""What every C++ compiler is told in place of that: no library stands behind the language here. Flags of the project
come later and win."""

LINK = ("-nostdlib", "-Wl,--gc-sections", "-Wl,--build-id=none")

LINK_MAP = ("-Xlinker", "-Map={map}")
"""How GNU ld is told to write a map of what it linked."""

LINK_DEPFILE = ("-Xlinker", "--dependency-file={depfile}")
"""How GNU ld (from 2.35) and lld are told to say what they read."""

CXX_ENDINGS = (".cpp", ".cc", ".cxx", ".c++", ".C")
_STANDARD = re.compile(r"-std=(?:c|gnu|iso9899:)\w+$")


class Reads(NamedTuple):
    """What flags name: files of the project or made by its actions, and a line for each file outside."""

    files: tuple[str, ...] = ()
    salt: str = ""


class ProgramSpec(NamedTuple):
    """One program to link. `sources` are globbed and sorted; all paths are relative to the project root. `defines`:
    source -> `-D` words for that file alone, without the `-D`."""

    sources: tuple[str, ...]
    include: tuple[str, ...]
    linker_script: str
    script_files: tuple[str, ...]
    """Files of the project that the linker script reads."""
    defines: Mapping[str, tuple[str, ...]]
    libraries: tuple[LibrarySpec, ...] = ()
    """Linked after the program's own objects, in this order."""


class LibrarySpec(NamedTuple):
    """One static library. `include`: where its sources look for headers, the program's directories included."""

    name: str
    sources: tuple[str, ...]
    include: tuple[str, ...]


class BuildSpec(NamedTuple):
    """What to build, in one profile. `cflags` and `ldflags` come after ours, `profile_cflags` last; C++ sources have
    `cxxflags` and `profile_cxxflags`. `reads`, `cxx_reads`, `link_reads`: what the flags of C, C++ and links name.
    Sizes and offsets in bytes, except `flash_size` (as esptool spells it: `4MB`)."""

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
    cxxflags: tuple[str, ...] = ()
    profile_cxxflags: tuple[str, ...] = ()
    reads: Reads = Reads()
    cxx_reads: Reads = Reads()
    link_reads: Reads = Reads()

    @property
    def out(self) -> str:
        """Where everything of this profile is made."""
        return out_directory(self.profile)


def out_directory(profile: str) -> str:
    """The directory of a profile's products."""
    return f"build/{profile}"


class Commands(NamedTuple):
    """The words of a toolchain, tool name first: everything before the search path and the user's flags. `archive`: up
    to the library's name; `link_depfile`: how a link is told to write one, nothing if it cannot; `link_map`: how it is
    told to write a map, to `{map}` or (`prints_map`) to stdout; `assemble`: what a source without preprocessing is
    compiled with beside `compile`; `assembler`: what all assembly is."""

    compile: tuple[str, ...]
    link: tuple[str, ...]
    archive: tuple[str, ...] = ()
    link_depfile: tuple[str, ...] = ()
    link_map: tuple[str, ...] = ()
    prints_map: bool = False
    assemble: tuple[str, ...] = ()
    assembler: tuple[str, ...] = ()


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
    """Compile each source, archive libraries, link, strip, make the image."""
    out = spec.out
    compiles = _compiles(spec, commands, name, program.sources, program.include, program.defines)
    archives: list[Action] = []
    for library in program.libraries:
        made = _compiles(spec, commands, library.name, library.sources, library.include, program.defines)
        compiles += made
        archives.append(_archive(spec, commands, library.name, made))
    libraries = tuple(action.outputs[0] for action in archives)
    own = len(program.sources)
    objects = tuple(action.outputs[0] for action in compiles[:own])
    linked, stripped, made_image = f"{out}/{name}.elf", f"{out}/{name}.stripped.elf", f"{out}/{name}.bin"
    script = program.linker_script
    depfile = f"{linked}.d" if commands.link_depfile else ""
    # Libraries after the objects that need them, and the script last: it may name libraries too.
    words = (*map(file_word, (*objects, *libraries)), *spec.ldflags, "-T", file_word(script))
    # A map that the user asks for goes where the user says; two cannot be had.
    map_file = f"{out}/{name}.map" if name == "app" and commands.link_map and not map_files(spec.ldflags) else ""
    map_words = tuple(word.replace("{map}", map_file) for word in commands.link_map) if map_file else ()
    link = Action(
        name=f"link {name}",
        stage=Stage.LINK,
        inputs=tuple(dict.fromkeys((*objects, *libraries, script, *program.script_files, *spec.link_reads.files))),
        outputs=(linked, *filter(None, [map_file])),
        argv=(*commands.link, *_filled(commands.link_depfile, depfile), *map_words, "-o", linked, *words),
        params=(("stdout", map_file),) if map_file and commands.prints_map else (),
        depfile=depfile,
        profile=spec.profile,
        salt=spec.link_reads.salt,
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
        *archives,
        link,
        Action(f"strip {name}", Stage.LINK, (linked,), (stripped,), builtin=STRIP, profile=spec.profile),
        Action(
            f"image {name}",
            Stage.LINK,
            (stripped,),
            (made_image,),
            builtin=ELF2IMAGE,
            params=tuple(sorted(params.items())),
            profile=spec.profile,
        ),
    ]


def _compiling(spec: BuildSpec, commands: Commands, include: Sequence[str], ending: str, of: str) -> Compiling:
    """For sources with this ending. `.s` passes no preprocessor, which would write the depfile: what the assembler
    reads is found in the text. The profile's flags come last, so that its -O wins over a project's."""
    search = tuple(f"-I{file_word(directory)}" for directory in include)
    if ending in CXX_ENDINGS:
        words = tuple(word for word in commands.compile if word not in C_ONLY)
        words, last, reads = (*words, *CXX, *search, *spec.cxxflags), spec.profile_cxxflags, spec.cxx_reads
    else:
        plain = commands.assemble if ending == ".s" else ()
        plain += commands.assembler if ending in (".s", ".S") else ()
        words, last, reads = (*commands.compile, *plain, *search, *spec.cflags), spec.profile_cflags, spec.reads
    return Compiling(words, last, reads.files, spec.profile, reads.salt, of, ending != ".s")


def _compiles(
    spec: BuildSpec,
    commands: Commands,
    name: str,
    sources: Sequence[str],
    include: Sequence[str],
    definitions: Mapping[str, tuple[str, ...]],
) -> list[Action]:
    """One action per source of a program or library; the language is that of the source's ending."""
    place, of = f"{spec.out}/obj/{name}/", "" if name == "app" else f" for {name}"
    languages: dict[str, Compiling] = {}
    found = []
    for source in sources:
        ending = posixpath.splitext(source)[1]
        how = languages.get(ending)
        if how is None:
            how = languages[ending] = _compiling(spec, commands, include, ending, of)
        if source in definitions:
            defines = tuple(f"-D{word}" for word in definitions[source])
            how = how._replace(before=(*how.before, *defines))
        found.append(compile_unit(how, source, f"{place}{source}.o"))
    return found


def _archive(spec: BuildSpec, commands: Commands, name: str, compiles: Sequence[Action]) -> Action:
    made = f"{spec.out}/lib{name}.a"
    objects = tuple(action.outputs[0] for action in compiles)
    return Action(
        name=f"archive {name}",
        stage=Stage.LINK,
        inputs=objects,
        outputs=(made,),
        argv=(*commands.archive, made, *map(file_word, objects)),
        profile=spec.profile,
        count_as="linked",
    )


def c_string(text: str) -> str:
    """`text` (all printable: deploy.toml was checked) as a string of C. JSON's escapes are C's, but for a character
    beyond 16 bits, which JSON writes as two halves that C refuses."""
    chars = (json.dumps(char)[1:-1] if ord(char) < 0x10000 else f"\\U{ord(char):08x}" for char in text)
    return f'"{"".join(chars)}"'


def for_cxx(flags: Sequence[str]) -> tuple[str, ...]:
    """Flags for C as they serve for C++: without the choice of a C standard."""
    return tuple(flag for flag in flags if not _STANDARD.match(flag))


def _filled(words: Sequence[str], depfile: str) -> tuple[str, ...]:
    return tuple(word.replace("{depfile}", depfile) for word in words)


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
