"""What a type cannot say about one value of `deploy.toml`: which values a key allows.

Rules only, as values: each yields a `Problem` with a path into the document; `reader.py` finds the lines, and
`contradictions.py` holds what several keys say together. Does not read text, files or the environment. Invariant: a
rule names both what is there and what is allowed, and its hint starts with a verb.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS, FLASH_MODES, FLASH_SIZES, SECTOR
from pipeline.config.until import Until, parse_until
from pipeline.text import did_you_mean

if TYPE_CHECKING:
    from pipeline.formats.toml_positions import KeyPath

VIRTUAL_PORT = "virtual:"
FARM_PORT = "labgrid://"
"""Begins a `port` that is a place of a farm (`formats/farm_url.py`)."""
PREBUILT = "prebuilt"
ESP_IDF = "esp-idf"
NINJA_KINDS = ("ninja", "cmake", ESP_IDF)
TOOLCHAIN_KINDS = ("zig", "gcc", PREBUILT, *NINJA_KINDS)
"""The first two compile for RISC-V only; `prebuilt` takes over what something else built; the last ones build what
ninja would build."""

COMPILED_KEYS: Mapping[tuple[str, str], bool] = MappingProxyType(
    {
        ("project", "sources"): True,
        ("project", "include"): False,
        ("project", "descriptor"): False,
        ("toolchain", "linker_script"): True,
        ("toolchain", "cflags"): False,
        ("toolchain", "cxxflags"): False,
        ("toolchain", "ldflags"): False,
        ("toolchain", "launcher"): False,
        ("bootloader", "sources"): True,
        ("bootloader", "linker_script"): True,
        ("bootloader", "include"): False,
        ("profile", "cflags"): False,
        ("profile", "cxxflags"): False,
        ("partitions", "table"): True,
    }
)
"""(section, key) that only mean something where something is compiled; True: then they are required."""

HOST_COMPILERS = ("auto", "cc", "zig")
HOST = "host"
"""What the program of `[host]` is called where a device could stand, and where it is built below build/."""

FORMAT_OPTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "littlefs": {
            "block_size": ("4096", "8192", "16384", "32768"),
            "name_max": ("64", "32", "128", "255"),
            "disk_version": ("2.0", "2.1"),
        },
        "spiffs": {"page_size": ("256", "512", "1024"), "meta_length": ("4", "0"), "name_length": ("32", "64", "128")},
        "fat": {"wear_levelling": ("true", "false")},
        "nvs": {"version": ("2", "1")},
    }
)
"""Formats of images that are packed, with the options of each and their values, the first being the default."""
IMAGE_FORMATS = tuple(FORMAT_OPTIONS)

TIMINGS = ("instant", "esp32-uart", "esp32s3-uart", "esp32s3-usb", "esp32c3-usb")
RESETS = ("auto", "classic", "usb", "instant")
RESET_COMMAND = "command:"
"""Begins a `reset` that is a command of the user's."""
REMOTE_MODES = ("read", "read-write")
SIZE_UNITS: Mapping[str, int] = MappingProxyType({"MB": 1_000_000, "GB": 1_000_000_000})
PROGRAM_UNITS: Mapping[str, int] = MappingProxyType({"KB": 1024, "MB": 1024 * 1024})
"""Of the sizes of programs and flash, where a flash of 4MB is meant to be full with 4MB."""
LOADED = "loaded"
IDENTITIES = ("elf", LOADED)
VERIFY_LEVELS = ("md5", "app-report", "journal")

DESCRIPTOR_TEXT_MAX = 31
"""Bytes of project and version in the app descriptor: fields of 32 that end with a NUL."""


class Problem(NamedTuple):
    """An error at a key (or at its value); `message` and `hint` as in `Failure`."""

    path: KeyPath
    at_value: bool
    message: str
    hint: str


Finding = tuple[str, str] | None
"""What a rule says about one value: the fact after "'key' " and the hint, or nothing."""

Rule = Callable[[Any], Finding]


# --- one value --------------------------------------------------------------------------------


def _one_of(known: Sequence[str]) -> Rule:
    def rule(value: str) -> Finding:
        if value in known:
            return None
        if len(known) == 1:
            return f"is '{value}', but only '{known[0]}' exists so far", f"write '{known[0]}', or leave the key out"
        return f"is '{value}'{did_you_mean(value, known)}", f"use one of {', '.join(known)}"

    return rule


def _timing(value: str) -> Finding:
    """A profile, with overrides after it."""
    profile, comma, _ = value.partition(",")
    found = _one_of(TIMINGS)(profile)
    if found is not None or not comma:
        return found
    from pipeline.config.device_values import times_fault

    return times_fault(value)


def _reset(value: str) -> Finding:
    """How the board is reset: by name, or by a command of the user's."""
    if not value.startswith(RESET_COMMAND):
        return _one_of(RESETS)(value)
    import shlex

    try:
        words = shlex.split(value.removeprefix(RESET_COMMAND))
    except ValueError as error:
        return f"is '{value}', whose command cannot be read: {error}", "quote it as for a POSIX shell"
    if not words:
        return f"is '{value}', which names no command", f'write it like "{RESET_COMMAND}python tools/reset.py {{mode}}"'
    return _placeholders(words, "{mode}")


def _between(low: int, high: int) -> Rule:
    def rule(value: int) -> Finding:
        return None if low <= value <= high else (f"is {value}", f"use a number from {low} to {high}")

    return rule


def _text(value: str) -> Finding:
    return None if value.strip() else ("is empty", "fill it in")


def _port(value: str) -> Finding:
    if "://" not in value or value.startswith(VIRTUAL_PORT):
        return _text(value)
    from pipeline.config.device_values import port_fault

    return port_fault(value)


def _ota(value: str) -> Finding:
    """`""`: over the port."""
    if value.startswith(VIRTUAL_PORT) or not ("://" in value or value[:1].isdigit()):
        return _text(value) if value else None
    from pipeline.config.device_values import ota_fault

    return ota_fault(value)


def _descriptor_text(value: str) -> Finding:
    if len(value.encode()) > DESCRIPTOR_TEXT_MAX:
        fact = f"has {len(value.encode())} bytes, but the app descriptor holds {DESCRIPTOR_TEXT_MAX}"
        return fact, "shorten it"
    if not value.isprintable():
        bad = next(char for char in value if not char.isprintable())
        return (
            f"holds U+{ord(bad):04X}, which cannot be printed",
            "leave it out: reports and the device's log show this",
        )
    return _text(value)


def _inside(value: str) -> Finding:
    """Paths that reach keys must be the same on every machine: POSIX, relative, inside the project."""
    if not value.strip():
        return "is an empty path", "name a file, relative to the project root"
    if "\\" in value:
        return f"is '{value}', which has backslashes", "write it with '/'"
    drive = value[1:2] == ":" and value[0].isascii() and value[0].isalpha()
    if drive or value.startswith(("/", "~")):
        return f"is '{value}', which is not relative to the project root", "write it relative to the project root"
    if ".." in value.split("/"):
        return f"is '{value}', which leaves the project root", "move the file into the project, or link to it there"
    return None


def _each(rule: Rule) -> Rule:
    def on_every(values: Sequence[str]) -> Finding:
        for value in values:
            finding = rule(value)
            if finding is not None:
                return f"has an element that {finding[0]}", finding[1]
        return None

    return on_every


def _sources(values: Sequence[str]) -> Finding:
    return _each(_inside)(values) if values else ("is empty", "name at least one source file or glob")


def _sector(value: int) -> Finding:
    if value > 0 and value % SECTOR == 0:
        return None
    return f"is {value:#x}, which is not a positive multiple of {SECTOR:#x}", "use a multiple of 0x1000, such as 0x8000"


def _directory(value: str) -> Finding:
    return _inside(value) if value else None


def _build_directory(value: str) -> Finding:
    if finding := _inside(value):
        return finding
    if value.rstrip("/") != value or value.startswith("./") or value in (".", ".deploy"):
        return f"is '{value}', which cannot be a build directory", "name a directory of its own, such as build"
    return None


def _symbols(value: Mapping[str, str]) -> Finding:
    for name in value:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            return f"has the name '{name}'", 'write it in capitals, such as SDK = "/opt/sdk"'
    return None


def _source_directory(value: str) -> Finding:
    """`web/` is how people write a directory."""
    return _inside(value.rstrip("/") if value.strip("/") else value)


def _files(value: Mapping[str, str]) -> Finding:
    places: dict[int, str] = {}
    for key, path in value.items():
        if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}", key):
            return f"has the key '{key}', which is no offset", 'write it like 0x10000 = "app.bin"'
        offset = int(key, 0) if key[:2] in ("0x", "0X") else int(key)
        if offset % SECTOR:
            return f"has the offset {key}, which is not a multiple of {SECTOR:#x}", "write where the file goes in flash"
        if offset in places:
            return f"has the offset {offset:#x} twice: {places[offset]} and {key}", "remove one of them"
        if finding := _inside(path):
            return f"has at {key} a file that {finding[0]}", finding[1]
        places[offset] = key
    return None


def _mac(value: str) -> Finding:
    if value == "" or re.fullmatch(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", value):
        return None
    return f"is '{value}', which is not a MAC address", "write six pairs of hex digits, such as 7c:df:a1:00:11:22"


def _cache_size(value: str) -> Finding:
    if re.fullmatch(r"[1-9][0-9]{0,5}(MB|GB)", value):
        return None
    return f"is '{value}', which is not a size", "write a whole number with its unit, such as 500MB or 5GB"


def size_bytes(value: int | str) -> int:
    """`"1.5MB"` -> 1572864; a number stands for itself. Raises ValueError."""
    if isinstance(value, int):
        return value
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(KB|MB)", value)
    if found is None:
        raise ValueError(value)
    return int(float(found[1]) * PROGRAM_UNITS[found[2]])


def _program_size(value: int | str) -> Finding:
    hint = 'write bytes, such as 100000, or a text with KB or MB, such as "1.5MB"'
    try:
        return None if size_bytes(value) > 0 else (f"is {value}", hint)
    except ValueError:
        return f"is '{value}', which is not a size", hint


def _program_sizes(values: Mapping[str, int | str]) -> Finding:
    for key, value in values.items():
        finding = _program_size(value)
        if finding is not None:
            return f"has a '{key}' that {finding[0]}", finding[1]
    return None


def _cache_url(value: str) -> Finding:
    from pipeline.config.cache_url import fault_of

    return fault_of(value) if value else None


def _executor_url(value: str) -> Finding:
    from pipeline.config.cache_url import executor_fault_of

    return executor_fault_of(value) if value else None


def _path_of_action(value: str) -> Finding:
    if "{" not in value.replace("{profile}", ""):
        return None
    from pipeline.config.placeholders import OF_PATHS, unknown_in_path

    return unknown_in_path(value, OF_PATHS)


def _input(value: str) -> Finding:
    return _path_of_action(value) or _inside(value)


def _product(value: str) -> Finding:
    """Only below build/ is nothing a person wrote, so only there may a command's output replace a file."""
    if finding := _path_of_action(value):
        return finding
    if finding := _inside(value):
        return finding
    if not value.startswith("build/"):
        return f"is '{value}', which is not below build/", f"write 'build/{value}'"
    return None


def _products(values: Sequence[str]) -> Finding:
    return _each(_product)(values) if values else ("is empty", "name at least one file that the command writes")


def _program(value: str) -> Finding:
    if value.startswith("/") or ".." in value.split("/"):
        return f"is '{value}', a place on this machine", "write the program's name, or its path within the project"
    return _text(value)


def _optional_command(values: Sequence[str]) -> Finding:
    """A command that may be left out: of its words only the first is ours to judge."""
    return _each(_program)(values[:1])


def _command(values: Sequence[str]) -> Finding:
    return _each(_program)(values[:1]) if values else ("is empty", "begin with the program to run")


def _power(values: Sequence[str]) -> Finding:
    """A command of this bench, which may lie anywhere on its machine."""
    if not all(values[:1]):
        return "begins with an empty word", "begin with the program to run"
    return _placeholders(values, "{port}")


def _placeholders(words: Sequence[str], known: str) -> Finding:
    """Words of a command in which one placeholder stands for something."""
    if not any("{" in word.replace(known, "") for word in words):
        return None
    from pipeline.config.placeholders import unknown_in_command

    found = unknown_in_command(words, (known,))
    return None if found is None else (f"has an element that {found[1]}", found[2])


def _depfile(value: str) -> Finding:
    return _product(value) if value else None


def _variable(value: str) -> Finding:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        return None
    return f"is '{value}', which is no name of a variable", "write the name alone; its value comes from the environment"


def _library_name(value: str) -> Finding:
    if value in ("app", "bootloader"):
        return f"is '{value}', which is the name of a program that every build has", "choose another name"
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", value):
        return None
    return f"is '{value}'", "use letters, digits, '_', '-', '+' and '.', and begin with a letter or a digit"


def _until(value: str) -> Finding:
    found = parse_until(value)
    return None if isinstance(found, Until) else found


_MS = _between(1, 3_600_000)
_BAUD = _between(300, 5_000_000)
_RULES: Mapping[tuple[str, str], Rule] = MappingProxyType(
    {
        ("project", "name"): _descriptor_text,
        ("project", "version"): _descriptor_text,
        ("project", "sources"): _sources,
        ("project", "include"): _each(_inside),
        ("toolchain", "kind"): _one_of(TOOLCHAIN_KINDS),
        ("toolchain", "chip"): _one_of(tuple(CHIPS)),
        ("toolchain", "linker_script"): _inside,
        ("toolchain", "launcher"): _each(_text),
        ("bootloader", "sources"): _sources,
        ("bootloader", "include"): _each(_inside),
        ("bootloader", "linker_script"): _inside,
        ("partitions", "table"): _inside,
        ("partitions", "offset"): _sector,
        ("flash", "mode"): _one_of(FLASH_MODES),
        ("flash", "size"): _one_of(FLASH_SIZES),
        ("device", "port"): _port,
        ("device", "ota"): _ota,
        ("device", "ota_call"): lambda value: _text(value) if value else None,
        ("device", "power"): _power,
        ("device", "chip"): _one_of(tuple(CHIPS)),
        ("device", "mac"): _mac,
        ("device", "baud"): _BAUD,
        ("device", "monitor_baud"): _BAUD,
        ("device", "groups"): _each(_text),
        ("device", "tags"): _each(_text),
        ("device", "timing"): _timing,
        ("device", "reset"): _reset,
        ("budget", "*"): _MS,
        ("budget", "enforce"): lambda _: None,
        ("size", "*"): _program_size,
        ("size", "section"): _program_sizes,
        ("size", "archive"): _program_sizes,
        ("image", "identity"): _one_of(IDENTITIES),
        ("verify", "level"): _one_of(VERIFY_LEVELS),
        ("readiness", "until"): _until,
        ("readiness", "timeout_ms"): _MS,
        ("reports", "dir"): _text,
        ("gate", "p50_percent"): _between(1, 100),
        ("gate", "p90_percent"): _between(1, 100),
        ("gate", "min_pairs"): _between(1, 10_000),
        ("gate", "min_runs"): _between(1, 10_000),
        ("gate", "days"): _between(1, 3650),
        ("reports", "keep"): _between(1, 1_000_000),
        ("service", "port"): _between(0, 65_535),
        ("cache", "max_size"): _cache_size,
        ("execution", "remote"): _executor_url,
        ("execution", "jobs"): _between(1, 1000),
        ("execution", "token_env"): _variable,
        ("cache", "remote"): _cache_url,
        ("cache", "remote_mode"): _one_of(REMOTE_MODES),
        ("cache", "remote_token_env"): _variable,
        ("cache", "remote_wait_ms"): _between(0, 600_000),
        ("prebuilt", "directory"): _directory,
        ("prebuilt", "files"): _files,
        ("prebuilt", "build"): _optional_command,
        ("prebuilt", "inputs"): _each(_inside),
        ("prebuilt", "depfiles"): _each(_inside),
        ("prebuilt", "ninja"): _each(_inside),
        ("prebuilt", "env"): _each(_variable),
        ("ninja", "directory"): _build_directory,
        ("ninja", "targets"): _each(_text),
        ("ninja", "configure"): _optional_command,
        ("ninja", "option_headers"): _each(_text),
        ("ninja", "places"): _symbols,
        ("ninja", "prefix_map"): _one_of(("debug", "all", "none")),
        ("cmake", "source"): _inside,
        ("cmake", "toolchain_file"): _directory,
        ("image", "file"): _inside,
        ("image", "partition"): _text,
        ("image", "from"): _source_directory,
        ("image", "format"): _one_of(IMAGE_FORMATS),
        ("host", "sources"): _each(_inside),
        ("host", "main"): _each(_inside),
        ("host", "tests"): _each(_inside),
        ("host", "test_support"): _each(_inside),
        ("host", "include"): _each(_inside),
        ("host", "compiler"): _one_of(HOST_COMPILERS),
        ("livetest", "dir"): _inside,
        ("livetest", "baselines"): _inside,
        ("livetest", "timeout_ms"): _MS,
        ("image", "offset"): _sector,
        ("library", "name"): _library_name,
        ("library", "sources"): _sources,
        ("library", "include"): _each(_inside),
        ("action", "name"): _text,
        ("action", "argv"): _command,
        ("action", "inputs"): _each(_input),
        ("action", "outputs"): _products,
        ("action", "depfile"): _depfile,
        ("action", "env"): _each(_variable),
        ("action", "tools"): _each(_program),
    }
)


def check_value(path: KeyPath, value: Any) -> Problem | None:
    """The rule of this key about its value, which has the right type, and that of all: no path, name, word of a command
    or pattern may hold a NUL."""
    name = ".".join(str(part) for part in path)
    if _holds_nul(value):
        return Problem(path, True, f"'{name}' holds a NUL character (\\u0000)", "remove it")
    section, key = str(path[0]), str(path[-1])
    rule = _RULES.get((section, key)) or _RULES.get((section, "*"))
    finding = rule(value) if rule else None
    return None if finding is None else Problem(path, True, f"'{name}' {finding[0]}", finding[1])


def _holds_nul(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple)):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value
