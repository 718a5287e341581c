"""What a type cannot say about `deploy.toml`: which values a key allows, and which keys contradict each other.

Rules only, as values: each yields `Problem`s with a path into the document; `config_reader.py` finds the lines. Does
not read text, files or the environment. Invariant: a rule names both what is there and what is allowed, and its hint
starts with a verb.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.core.images import CHIPS, FLASH_MODES, FLASH_SIZES
from pipeline.core.model import SECTOR
from pipeline.core.readiness import Until, parse_until

if TYPE_CHECKING:
    from pipeline.core.config import DeployConfig
    from pipeline.core.toml_positions import KeyPath

VIRTUAL_PORT = "virtual:"
PREBUILT = "prebuilt"
TOOLCHAIN_KINDS = ("zig", "gcc", PREBUILT)
"""The first two compile for RISC-V only; the last one takes over what something else built."""

COMPILED_KEYS: Mapping[tuple[str, str], bool] = MappingProxyType(
    {
        ("project", "sources"): True,
        ("project", "include"): False,
        ("project", "descriptor"): False,
        ("toolchain", "linker_script"): True,
        ("toolchain", "cflags"): False,
        ("toolchain", "ldflags"): False,
        ("bootloader", "sources"): True,
        ("bootloader", "linker_script"): True,
        ("bootloader", "include"): False,
        ("profile", "cflags"): False,
        ("partitions", "table"): True,
    }
)
"""(section, key) that only mean something where something is compiled; True: then they are required."""

OWN_IMAGES = ("bootloader", "partitions", "app", "otadata")
"""Names that `[image.NAME]` cannot have: what every build has."""

TIMINGS = ("instant", "esp32-uart", "esp32s3-uart", "esp32s3-usb", "esp32c3-usb")
RESETS = ("auto", "classic", "instant")
SIZE_UNITS: Mapping[str, int] = MappingProxyType({"MB": 1_000_000, "GB": 1_000_000_000})
VERIFY_LEVELS = ("md5",)

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


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, without regard to case, hyphens and underscores. A cut-off above
    difflib's own: a far-fetched suggestion is worse than the list of what exists."""
    import difflib

    words = {word.lower().replace("-", "_"): word for word in known}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), words, n=1, cutoff=0.65)
    return words[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'X'?`, or nothing, to end a message with."""
    meant = suggestion(name, known)
    return f"; did you mean '{meant}'?" if meant else ""


# --- one value --------------------------------------------------------------------------------


def _one_of(known: Sequence[str]) -> Rule:
    def rule(value: str) -> Finding:
        if value in known:
            return None
        if len(known) == 1:
            return f"is '{value}', but only '{known[0]}' exists so far", f"write '{known[0]}', or leave the key out"
        return f"is '{value}'{did_you_mean(value, known)}", f"use one of {', '.join(known)}"

    return rule


def _between(low: int, high: int) -> Rule:
    def rule(value: int) -> Finding:
        return None if low <= value <= high else (f"is {value}", f"use a number from {low} to {high}")

    return rule


def _text(value: str) -> Finding:
    return None if value.strip() else ("is empty", "fill it in")


def _descriptor_text(value: str) -> Finding:
    if len(value.encode()) > DESCRIPTOR_TEXT_MAX:
        fact = f"has {len(value.encode())} bytes, but the app descriptor holds {DESCRIPTOR_TEXT_MAX}"
        return fact, "shorten it"
    return _text(value)


def _inside(value: str) -> Finding:
    """Paths that reach keys must be the same on every machine: POSIX, relative, inside the project."""
    if not value.strip():
        return "is an empty path", "name a file, relative to the project root"
    if "\\" in value:
        return f"is '{value}', which has backslashes", "write it with '/'"
    if value.startswith(("/", "~")) or re.match(r"[A-Za-z]:", value):
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


def _product(value: str) -> Finding:
    """Only below build/ is nothing a person wrote, so only there may a command's output replace a file."""
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


def _command(values: Sequence[str]) -> Finding:
    return _each(_program)(values[:1]) if values else ("is empty", "begin with the program to run")


def _depfile(value: str) -> Finding:
    return _product(value) if value else None


def _variable(value: str) -> Finding:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        return None
    return f"is '{value}', which is no name of a variable", "write the name alone; its value comes from the environment"


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
        ("bootloader", "sources"): _sources,
        ("bootloader", "include"): _each(_inside),
        ("bootloader", "linker_script"): _inside,
        ("partitions", "table"): _inside,
        ("partitions", "offset"): _sector,
        ("flash", "mode"): _one_of(FLASH_MODES),
        ("flash", "size"): _one_of(FLASH_SIZES),
        ("device", "port"): _text,
        ("device", "chip"): _one_of(tuple(CHIPS)),
        ("device", "mac"): _mac,
        ("device", "baud"): _BAUD,
        ("device", "monitor_baud"): _BAUD,
        ("device", "groups"): _each(_text),
        ("device", "timing"): _one_of(TIMINGS),
        ("device", "reset"): _one_of(RESETS),
        ("budget", "*"): _MS,
        ("budget", "enforce"): lambda _: None,
        ("verify", "level"): _one_of(VERIFY_LEVELS),
        ("readiness", "until"): _until,
        ("readiness", "timeout_ms"): _MS,
        ("reports", "dir"): _text,
        ("reports", "keep"): _between(1, 1_000_000),
        ("cache", "max_size"): _cache_size,
        ("prebuilt", "directory"): _directory,
        ("prebuilt", "files"): _files,
        ("image", "file"): _inside,
        ("image", "partition"): _text,
        ("image", "offset"): _sector,
        ("action", "name"): _text,
        ("action", "argv"): _command,
        ("action", "inputs"): _each(_inside),
        ("action", "outputs"): _products,
        ("action", "depfile"): _depfile,
        ("action", "env"): _each(_variable),
        ("action", "tools"): _each(_program),
    }
)


def check_value(path: KeyPath, value: Any) -> Problem | None:
    """The rule of this key about its value, which has the right type."""
    section, key = str(path[0]), str(path[-1])
    rule = _RULES.get((section, key)) or _RULES.get((section, "*"))
    finding = rule(value) if rule else None
    if finding is None:
        return None
    name = ".".join(str(part) for part in path)
    return Problem(path, True, f"'{name}' {finding[0]}", finding[1])


# --- several values ---------------------------------------------------------------------------


def cross_checks(config: DeployConfig, document: Mapping[str, Any]) -> list[Problem]:
    """Contradictions between keys. `document` (as tomllib read it) tells written keys from defaults."""
    return [
        *_build_checks(config),
        *_device_checks(config, document),
        *_action_checks(config),
        *_image_checks(config),
    ]


def prebuilt_checks(document: Mapping[str, Any]) -> list[Problem]:
    """What contradicts the toolchain's kind; `document` has sections of the right types."""
    prebuilt = document.get("prebuilt", {})
    if document.get("toolchain", {}).get("kind") != PREBUILT:
        if "prebuilt" in document:
            fact = f"[prebuilt] is for toolchain.kind = '{PREBUILT}'"
            hint = f'write kind = "{PREBUILT}" in [toolchain], or remove the section'
            return [Problem(("prebuilt",), False, fact, hint)]
        return []
    problems = [
        Problem(
            path,
            False,
            f"'{'.'.join(path)}' is for toolchains that compile, but toolchain.kind is '{PREBUILT}'",
            "remove it",
        )
        for path in _written(document)
        if (path[0], path[-1]) in COMPILED_KEYS
    ]
    given = [key for key in ("directory", "files") if prebuilt.get(key)]
    if len(given) != 1:
        fact = "[prebuilt] has both 'directory' and 'files'" if given else "nothing says where the firmware is"
        hint = "keep one of them" if given else 'add [prebuilt] with directory = "build", or with files'
        problems.append(Problem(("prebuilt",), False, fact, hint))
    return problems


def _written(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The paths of the keys in plain sections and in profiles."""
    found: list[tuple[str, ...]] = []
    for section, table in document.items():
        if section == "profile":
            found += [(section, name, key) for name, profile in table.items() for key in profile]
        elif isinstance(table, dict):
            found += [(section, key) for key in table]
    return found


def _image_checks(config: DeployConfig) -> list[Problem]:
    problems = []
    holders: dict[str, str] = {}
    for image in config.images:
        path = ("image", image.name)
        if image.name in OWN_IMAGES:
            fact = f"'{image.name}' is the name of an image that every build has"
            problems.append(Problem(path, False, fact, "choose another name"))
        if bool(image.partition) == (image.offset is not None):
            both = "both 'partition' and 'offset'" if image.partition else "neither 'partition' nor 'offset'"
            fact, hint = f"[image.{image.name}] has {both}", "say where it goes by one of them"
            problems.append(Problem(path, False, fact, hint))
        if image.partition and image.partition in holders:
            fact = f"images '{holders[image.partition]}' and '{image.name}' both go to partition '{image.partition}'"
            problems.append(Problem((*path, "partition"), True, fact, "give one of them another partition"))
        holders.setdefault(image.partition, image.name)
    return problems


def _action_checks(config: DeployConfig) -> list[Problem]:
    """Names, outputs and placeholders of `[[action]]` tables. What depends on globs is checked when they are known."""
    problems = []
    names: dict[str, int] = {}
    owners: dict[str, str] = {}
    for n, action in enumerate(config.actions):
        if action.name in names:
            fact = f"two actions are called '{action.name}'"
            problems.append(Problem(("action", n, "name"), True, fact, "rename one of them"))
        names.setdefault(action.name, n)
        for index, path in enumerate(action.outputs):
            if path in owners:
                fact = f"'{path}' is an output of both '{owners[path]}' and '{action.name}'"
                hint = "let one of them write another file"
                problems.append(Problem(("action", n, "outputs", index), True, fact, hint))
            owners.setdefault(path, action.name)
        for index, word in enumerate(action.argv):
            for place, files in (("{in}", action.inputs), ("{out}", action.outputs)):
                if place in word and not files:
                    fact = f"'{word}' stands for files, but the action has none"
                    problems.append(Problem(("action", n, "argv", index), True, fact, "declare them"))
                elif place in word and word != place and len(files) != 1:
                    fact = f"'{word}' holds {place} beside other text, but there are {len(files)} such files"
                    hint = f"write {place} as a word of its own"
                    problems.append(Problem(("action", n, "argv", index), True, fact, hint))
    return problems


def _build_checks(config: DeployConfig) -> list[Problem]:
    problems = []
    chip = CHIPS[config.toolchain.chip]
    if config.project.profile not in config.profiles:
        known = ", ".join(config.profiles) or "none"
        meant = did_you_mean(config.project.profile, config.profiles)
        fact = f"the profile '{config.project.profile}' does not exist (there are: {known}){meant}"
        hint = f"add a table [profile.{config.project.profile}], or set project.profile to an existing one"
        problems.append(Problem(("project", "profile"), True, fact, hint))
    if chip.isa != "riscv" and config.toolchain.kind != PREBUILT:
        able = ", ".join(name for name, known_chip in CHIPS.items() if known_chip.isa == "riscv")
        kind, wanted = config.toolchain.kind, config.toolchain.chip
        fact = f"the {kind} toolchain cannot compile for {wanted}: it has no {chip.isa} back end"
        problems.append(Problem(("toolchain", "chip"), True, fact, f"use one of {able}"))
    if config.flash.freq not in chip.flash_freqs:
        freqs = ", ".join(chip.flash_freqs)
        fact = f"'flash.freq' is '{config.flash.freq}', which {config.toolchain.chip} does not have"
        problems.append(Problem(("flash", "freq"), True, fact, f"use one of {freqs}"))
    if not chip.bootloader_offset < config.partitions.offset < config.flash.size_bytes:
        fact = (
            f"'partitions.offset' is {config.partitions.offset:#x}, but must lie behind the bootloader's "
            f"{chip.bootloader_offset:#x} and within the flash of {config.flash.size}"
        )
        problems.append(
            Problem(("partitions", "offset"), True, fact, "use 0x8000, unless the bootloader needs more room")
        )
    return problems


def _device_checks(config: DeployConfig, document: Mapping[str, Any]) -> list[Problem]:
    if not config.devices:
        return [
            Problem(("device",), False, "no device is declared", 'add a table [device.bench] with port = "virtual:"')
        ]
    problems = []
    defaults = [device.name for device in config.devices if device.default]
    if len(defaults) > 1:
        fact = f"{len(defaults)} devices are marked as default: {', '.join(defaults)}"
        problems.append(Problem(("device", defaults[1], "default"), True, fact, "keep `default = true` at one of them"))
    if not defaults and len(config.devices) > 1:
        names = ", ".join(device.name for device in config.devices)
        fact = f"none of the {len(config.devices)} devices is the default ({names})"
        problems.append(Problem(("device", config.devices[0].name), False, fact, "add `default = true` to one of them"))
    for device in config.devices:
        if device.chip != config.toolchain.chip:
            built = config.toolchain.chip
            fact = f"device '{device.name}' has the chip {device.chip}, but the toolchain builds for {built}"
            problems.append(
                Problem(
                    ("device", device.name, "chip"), True, fact, "make `toolchain.chip` and the device's `chip` equal"
                )
            )
        for key in ("flash_file", "timing"):
            if not device.is_virtual and key in document["device"][device.name]:
                fact = f"'device.{device.name}.{key}' is for virtual boards, but the port is '{device.port}'"
                problems.append(
                    Problem(("device", device.name, key), False, fact, f'remove it, or set port = "{VIRTUAL_PORT}"')
                )
    problems.extend(_shared(config, "mac", [device.mac for device in config.devices]))
    return problems


def _shared(config: DeployConfig, key: str, values: Sequence[str]) -> list[Problem]:
    """Two devices must not claim the same board."""
    problems = []
    owner: dict[str, str] = {}
    for device, value in zip(config.devices, values, strict=True):
        if value and value in owner:
            fact = f"devices '{owner[value]}' and '{device.name}' have the same {key} {value}"
            problems.append(Problem(("device", device.name, key), True, fact, f"correct the {key} of one of them"))
        owner.setdefault(value, device.name)
    return problems
