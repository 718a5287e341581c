"""What a `deploy.toml` says: its sections and keys.

The field types and defaults of the tuples below *are* the schema: `reader.py` reads a text by them, and
`values.py` and `contradictions.py` hold what a type cannot say. Does not know TOML, files, the environment, or
whether a path or a port exists. Invariant: a `DeployConfig` that exists is complete and consistent.

Validation is this table and not msgspec because of the warm path: importing msgspec costs 15 ms on top of doit
(measured; typing_extensions, platform, uuid and decimal come with it), the same schema as frozen dataclasses 9 ms, as
named tuples 2 ms. It also lets one run report every error with its place, where a validator stops at the first.
(No `from __future__ import annotations` here: the schema is read from the evaluated annotations, and named tuples are
built twice as fast.)
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple
from pipeline.chips import flash_size_bytes
from pipeline.config.values import FARM_PORT, LOADED, NINJA_KINDS, SIZE_UNITS, VIRTUAL_PORT, size_bytes
from pipeline.model import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.formats.manifests import Firmware

# --- what a configuration is ------------------------------------------------------------------


class ProjectConfig(NamedTuple):
    """`sources`: globs, `include`: directories; both relative to the project root. `descriptor`: the one source that
    gets `-DPROJECT_NAME` and `-DPROJECT_VERSION`, so that a new version compiles nothing else. `profile`: the one used
    unless `--profile` names another."""

    name: str
    sources: tuple[str, ...] = ()
    version: str = "0.0.0"
    include: tuple[str, ...] = ()
    descriptor: str = ""
    profile: str = "local-fast"


class ToolchainConfig(NamedTuple):
    """How the app is built, in every profile. `cxxflags`: for C++ sources; None: they get the `cflags`. `launcher`:
    what the compiler is called through, such as ccache."""

    linker_script: str = ""
    kind: str = "zig"
    chip: str = "esp32c3"
    cflags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()
    cxxflags: tuple[str, ...] | None = None
    launcher: tuple[str, ...] = ()


class Prebuilt(NamedTuple):
    """Firmware that something else built: the directory of an ESP-IDF or PlatformIO build or of an esp-web-tools
    manifest, or files by their offset in flash (as written, `0x10000` or `65536`). `chip`: which of several builds of a
    manifest, `toolchain.chip` unless it is written."""

    directory: str = ""
    files: Mapping[str, str] = MappingProxyType({})
    chip: str = ""
    build: tuple[str, ...] = ()
    """The command that builds it, run before anything of it is read."""
    inputs: tuple[str, ...] = ()
    """Patterns of files that it reads. These and the next two are evidence: with any of them, and a proof that nothing
    of it moved, the command is left out."""
    depfiles: tuple[str, ...] = ()
    """Patterns of depfiles that it writes."""
    ninja: tuple[str, ...] = ()
    """Build directories of ninja that it works in."""
    env: tuple[str, ...] = ()
    """Further variables of the environment that it looks at."""


class NinjaConfig(NamedTuple):
    """A build directory of ninja. `targets`: what to make, the defaults of the manifest if empty; `configure`: the
    command that makes the manifest where there is none; `places`: name -> directory outside the project (an SDK) whose
    files count by their path within it; `prefix_map`: `debug` keeps this machine's paths out of debug information."""

    directory: str = "build"
    targets: tuple[str, ...] = ()
    configure: tuple[str, ...] = ()
    places: Mapping[str, str] = MappingProxyType({})
    prefix_map: str = "debug"
    option_headers: tuple[str, ...] = ("sdkconfig.h", "autoconf.h")
    """Names, or patterns of paths, of headers that hold options; a compile depends on those that it uses."""
    strace: bool = False
    """Say what commands read and write without declaring it."""

    def places_of(self, root: "Path") -> Iterator[tuple[str, str]]:
        """Placeholder -> absolute directory."""
        for name, place in self.places.items():
            yield f"{{{name}}}", str((root / place).resolve())


class CmakeConfig(NamedTuple):
    """How CMake is called where there is no manifest yet. `source`: relative to the project root."""

    source: str = "."
    arguments: tuple[str, ...] = ()
    toolchain_file: str = ""


class Bootloader(NamedTuple):
    """The second stage; built with the toolchain's flags and its own linker script."""

    sources: tuple[str, ...] = ()
    linker_script: str = ""
    include: tuple[str, ...] = ()


class Profile(NamedTuple):
    """Flags that come after the toolchain's; the profile's name is part of every action key. `variants.py` says which
    sections it may have beside them."""

    name: str
    cflags: tuple[str, ...] = ()
    cxxflags: tuple[str, ...] | None = None


class Partitions(NamedTuple):
    """`table`: the CSV; `offset`: where its binary lies in flash."""

    table: str = ""
    offset: int = 0x8000


class FlashSettings(NamedTuple):
    """What the image headers say about the flash chip."""

    mode: str = "dio"
    freq: str = "80m"
    size: str = "4MB"

    @property
    def size_bytes(self) -> int:
        return flash_size_bytes(self.size)


class DeviceConfig(NamedTuple):
    """One board. `mac`: lower case with colons, or "" for any. `flash_file`, `timing` and `rom_elf` concern virtual
    boards; `rom_elf`: the mask ROM, relative to the project root or absolute, "" for what ESP_ROM_ELF_DIR has.
    `profile`: whose build it gets; never empty in a configuration that was read. `enabled`: may it be selected.
    `ota`: how updates go without a cable: a port, `espota://` or `http://`, "" for `port`; `ota_call`: the method by
    which a device is told the address of an update that it pulls. `power`: a command that switches the board's power
    off and on, `{port}` in it stands for its port; () for none."""

    name: str
    chip: str
    port: str = "virtual:"
    mac: str = ""
    baud: int = 460800
    monitor_baud: int = 115200
    groups: tuple[str, ...] = ()
    default: bool = False
    flash_file: str = ""
    timing: str = "instant"
    reset: str = "auto"
    tags: tuple[str, ...] = ()
    enabled: bool = True
    profile: str = ""
    rom_elf: str = ""
    ota: str = ""
    ota_call: str = ""
    power: tuple[str, ...] = ()

    @property
    def is_virtual(self) -> bool:
        return self.port.startswith(VIRTUAL_PORT)

    @property
    def is_in_farm(self) -> bool:
        """Is its port a place of a farm, which whoever uses it holds for just as long?"""
        return self.port.startswith(FARM_PORT)

    @property
    def where(self) -> str:
        """How failures name it."""
        return f"device {self.name} on {self.port}"


class Budget(NamedTuple):
    """Limits in ms; None: this stage has none. In `deploy.toml` the keys have hyphens, as the stages' names do.
    `enforce`: a run over `total` fails."""

    total: int = 4000
    startup: int = 200
    dispatch: int = 100
    fingerprint: int = 500
    compile: int | None = None
    link: int | None = None
    verify_flash: int = 1500
    reflash: int | None = None
    reattach: int = 700
    ttfb: int = 1000
    enforce: bool = False

    def of(self, stage: Stage) -> int | None:
        """The limit of a stage in ms."""
        limit: int | None = getattr(self, stage.value.replace("-", "_"))
        return limit

    @property
    def limits_ms(self) -> dict[str, int]:
        """Every limit that is set, by phase: `total`, `startup`, `dispatch`, and stages."""
        limits = {"total": self.total, "startup": self.startup, "dispatch": self.dispatch}
        return limits | {stage.value: limit for stage in Stage if (limit := self.of(stage)) is not None}


class SizeConfig(NamedTuple):
    """Limits in bytes (a number, or text with a unit); None: none. `image`: of the application's image; the others: of
    what the program takes of a memory; `section`, `archive`: by their names, an archive by what it takes in flash."""

    image: int | str | None = None
    flash: int | str | None = None
    flash_code: int | str | None = None
    flash_rodata: int | str | None = None
    ram: int | str | None = None
    iram: int | str | None = None
    dram: int | str | None = None
    rtc: int | str | None = None
    psram: int | str | None = None
    section: Mapping[str, int | str] = MappingProxyType({})
    archive: Mapping[str, int | str] = MappingProxyType({})

    @property
    def any(self) -> bool:
        """Is there a limit?"""
        return any(value is not None and value != {} for value in self)

    @property
    def totals(self) -> dict[str, int]:
        """Bytes by the key of a total."""
        said = {key: value for key, value in self._asdict().items() if key not in ("section", "archive")}
        return {key: size_bytes(value) for key, value in said.items() if value is not None}

    @property
    def sections(self) -> dict[str, int]:
        return {key: size_bytes(value) for key, value in self.section.items()}

    @property
    def archives(self) -> dict[str, int]:
        return {key: size_bytes(value) for key, value in self.archive.items()}


class Verify(NamedTuple):
    """Which level of the verify ladder is proof enough."""

    level: str = "md5"


class ReadinessConfig(NamedTuple):
    """When is the device ready (`boot/readiness.py`), how long may it take after reset, and may a module be ill."""

    until: str = "rpc:ready"
    timeout_ms: int = 5000
    allow_unhealthy: bool = False


class CacheSettings(NamedTuple):
    """`dir`: relative to the project root or absolute; "" for the one that all projects of this user share. `remote`:
    URL of a cache that other machines share, "" for none; `remote_token_env`: the variable that holds the token for
    it; `remote_wait_ms`: how long a run may wait at its end for results to be sent."""

    dir: str = ""
    max_size: str = "5GB"
    remote: str = ""
    remote_mode: str = "read"
    remote_token_env: str = "HOTPLATE_CACHE_TOKEN"
    remote_wait_ms: int = 2000

    @property
    def max_bytes(self) -> int:
        return int(self.max_size[:-2]) * SIZE_UNITS[self.max_size[-2:]]


class ExecutionConfig(NamedTuple):
    """Machines that compile for this one. `remote`: URL of a server of the Remote Execution API, "" for none; `jobs`:
    how many commands it is given at once; `platform`: properties that a worker must have; `token_env`: the variable
    that holds the token for it."""

    remote: str = ""
    jobs: int = 8
    platform: Mapping[str, str] = MappingProxyType({})
    token_env: str = "HOTPLATE_EXECUTION_TOKEN"


class ActionConfig(NamedTuple):
    """One `[[action]]`: a command of the user's with what it reads and writes. `inputs`: files and globs, `env`: names
    of variables that reach the command and its key, `tools`: further programs that it starts."""

    name: str
    argv: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    depfile: str = ""
    env: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    cacheable: bool = True


class LibraryConfig(NamedTuple):
    """One `[[library]]`: a static library of the app. `include`: directories for its sources and for the app's."""

    name: str
    sources: tuple[str, ...]
    include: tuple[str, ...] = ()


class ImageConfig(NamedTuple):
    """One `[image.NAME]`: a built or given file with a place of its own in flash, by partition or by offset; or the
    directory `source` (for `nvs`, its CSV file), packed as a file system of this `format` that fills its partition.
    `options`: of the format."""

    name: str
    file: str = ""
    partition: str = ""
    offset: int | None = None
    source: str = ""
    format: str = ""
    options: Mapping[str, str] = MappingProxyType({})


class HostConfig(NamedTuple):
    """The firmware as a program of this machine, and its unit tests. `sources`: in every program; `main`: those that
    make the firmware's process of them; each of `tests` is a program of its own, with `test_support`. `compiler`: `cc`
    (the first of cc, gcc and clang on PATH), `zig`, or `auto`."""

    sources: tuple[str, ...] = ()
    main: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    test_support: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    cflags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()
    compiler: str = "auto"

    @property
    def declared(self) -> bool:
        """Does the project say how?"""
        return bool(self.main or self.tests)


class LiveTestConfig(NamedTuple):
    """Where the live tests lie, and the file of what was observed; `timeout_ms`: of a step that says nothing else."""

    dir: str = "tests/live"
    baselines: str = "tests/live/baselines.json"
    timeout_ms: int = 2000


class Reports(NamedTuple):
    """Where the rendered reports go, and of how many transactions they are kept."""

    dir: str = "reports"
    keep: int = 200


class GateConfig(NamedTuple):
    """What `doit gate` asks for: from which share of a warm deploy (median or 90th percentile) a phase is worth a
    change, and how much evidence it takes."""

    p50_percent: int = 30
    p90_percent: int = 40
    min_pairs: int = 30
    min_runs: int = 30
    days: int = 7


class ServiceConfig(NamedTuple):
    """Of the resident service. `autostart`: a deploy that needs a port starts it, if it is not there. `port`: of its
    page, where `doit serve` is run in this project; 0: any."""

    autostart: bool = False
    port: int = 0


class DeployConfig(NamedTuple):
    """A checked `deploy.toml` as one profile, `variant`, means it; `path` is what its errors call it."""

    path: str
    project: ProjectConfig
    toolchain: ToolchainConfig
    bootloader: Bootloader
    profiles: Mapping[str, Profile]
    partitions: Partitions
    flash: FlashSettings
    devices: tuple[DeviceConfig, ...]
    budget: Budget
    verify: Verify
    readiness: ReadinessConfig
    cache: CacheSettings
    reports: Reports
    gate: GateConfig
    service: ServiceConfig
    execution: ExecutionConfig = ExecutionConfig()
    actions: tuple[ActionConfig, ...] = ()
    images: tuple[ImageConfig, ...] = ()
    libraries: tuple[LibraryConfig, ...] = ()
    prebuilt: Prebuilt = Prebuilt()
    ninja: NinjaConfig = NinjaConfig()
    cmake: CmakeConfig = CmakeConfig()
    host: HostConfig = HostConfig()
    livetest: LiveTestConfig = LiveTestConfig()
    size: SizeConfig = SizeConfig()
    image_identity: str = ""
    """`[image] identity`: what an application's image calls its ELF file, in builds of ninja: the SHA-256 of the whole
    (`elf`), or of what is loaded (`loaded`); `""`: not said, as the toolchain does it."""
    firmware: "Firmware | None" = None
    """What a prebuilt toolchain found."""
    variant: str = ""
    """The profile whose sections stand here."""
    own: frozenset[tuple[str, ...]] = frozenset()
    """Sections and keys that stand below that profile and not at the top."""

    def place(self, path: Sequence[str | int]) -> tuple[str | int, ...]:
        """Where a path of this configuration stands in the text."""
        mine = tuple(path[:2]) in self.own or tuple(path[:1]) in self.own
        return ("profile", self.variant, *path) if mine else tuple(path)

    @property
    def is_ninja(self) -> bool:
        """Is it built by statements of ninja?"""
        return self.toolchain.kind in NINJA_KINDS

    @property
    def makes_firmware(self) -> bool:
        """Does a build of ninja make something that goes to flash?"""
        return self.is_ninja and bool(self.prebuilt.directory or self.prebuilt.files)

    @property
    def has_loaded_identity(self) -> bool:
        """Shall the images of a build of ninja name what is loaded of their ELF file?"""
        return self.makes_firmware and self.image_identity == LOADED

    @property
    def default_device(self) -> DeviceConfig:
        """The one marked `default = true`, or the only one."""
        return next((device for device in self.devices if device.default), self.devices[0])
