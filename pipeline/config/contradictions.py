"""What several keys of `deploy.toml` say together: contradictions, and what one key requires of another.

Rules only, as values, like those of `values.py`. Does not read text, files or the environment. Invariant: a
problem stands at the key that has to move, and names what it contradicts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.chips import CHIPS
from pipeline.config.values import (
    COMPILED_KEYS,
    FORMAT_OPTIONS,
    HOST,
    IMAGE_FORMATS,
    LOADED,
    NINJA_KINDS,
    PREBUILT,
    RESET_COMMAND,
    VIRTUAL_PORT,
    Problem,
)
from pipeline.text import did_you_mean

if TYPE_CHECKING:
    from pipeline.config.schema import ActionConfig, DeployConfig, DeviceConfig, ImageConfig

_PLACEHOLDERS = r"\{(?:in|out|depfile|profile|root)\}"


def cross_checks(config: DeployConfig, document: Mapping[str, Any]) -> list[Problem]:
    """Contradictions between keys. `document` (as tomllib read it) tells written keys from defaults."""
    return [
        *_build_checks(config),
        *_device_checks(config, document),
        *_action_checks(config),
        *_image_checks(config),
        *_identity_checks(config),
        *_library_checks(config),
        *_host_checks(config),
    ]


def prebuilt_checks(document: Mapping[str, Any]) -> list[Problem]:
    """What contradicts the toolchain's kind; `document` has sections of the right types."""
    prebuilt = document.get("prebuilt", {})
    kind = document.get("toolchain", {}).get("kind")
    for section in ("ninja", "cmake"):
        if section in document and kind not in NINJA_KINDS:
            fact = f"[{section}] is for toolchain.kind = '{section}'"
            hint = f'write kind = "{section}" in [toolchain], or remove the section'
            return [Problem((section,), False, fact, hint)]
    if kind not in (PREBUILT, *NINJA_KINDS):
        if "prebuilt" in document:
            fact = f"[prebuilt] is for toolchain.kind = '{PREBUILT}'"
            hint = f'write kind = "{PREBUILT}" in [toolchain], or remove the section'
            return [Problem(("prebuilt",), False, fact, hint)]
        return []
    problems = [
        Problem(
            path,
            False,
            f"'{'.'.join(path)}' is for toolchains that compile, but toolchain.kind is '{kind}'",
            "remove it",
        )
        for path in _written(document)
        if (path[0], path[-1]) in COMPILED_KEYS
    ]
    if "library" in document:
        fact = f"[[library]] is for toolchains that compile, but toolchain.kind is '{kind}'"
        problems.append(Problem(("library", 0), False, fact, "remove it"))
    evidence = [key for key in ("inputs", "depfiles", "ninja", "env") if prebuilt.get(key)]
    if evidence and not prebuilt.get("build"):
        fact = f"'prebuilt.{evidence[0]}' says what the command of 'prebuilt.build' reads, and there is none"
        problems.append(Problem(("prebuilt", evidence[0]), False, fact, 'add build = ["make"], or remove it'))
    given = [key for key in ("directory", "files") if prebuilt.get(key)]
    if kind in NINJA_KINDS and "prebuilt" not in document:
        return problems
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
    if not config.images:
        return []
    from pipeline.formats.placement import OWN_IMAGES

    problems = []
    holders: dict[str, str] = {}
    for image in config.images:
        path = ("image", image.name)
        if image.name in OWN_IMAGES:
            fact = f"'{image.name}' is the name of an image that every build has"
            problems.append(Problem(path, False, fact, "choose another name"))
        problems += _source_problems(image)
        if bool(image.partition) == (image.offset is not None):
            both = "both 'partition' and 'offset'" if image.partition else "neither 'partition' nor 'offset'"
            fact, hint = f"[image.{image.name}] has {both}", "say where it goes by one of them"
            problems.append(Problem(path, False, fact, hint))
        if image.partition and image.partition in holders:
            fact = f"images '{holders[image.partition]}' and '{image.name}' both go to partition '{image.partition}'"
            problems.append(Problem((*path, "partition"), True, fact, "give one of them another partition"))
        holders.setdefault(image.partition, image.name)
    return problems


def _identity_checks(config: DeployConfig) -> list[Problem]:
    """What an image calls its ELF file is chosen where images are made by commands of others."""
    kind, said = config.toolchain.kind, config.image_identity
    if kind in NINJA_KINDS or said == "" or (said == LOADED and kind != PREBUILT):
        return []
    fact = f"toolchain.kind is '{kind}', whose images are what their files hold"
    if kind != PREBUILT:
        fact = f"'image.identity' is '{said}', but images of kind '{kind}' always name what is loaded"
    return [Problem(("image", "identity"), False, fact, "remove the key")]


def _source_problems(image: ImageConfig) -> list[Problem]:
    """An image is a file, or a directory that is packed."""
    path = ("image", image.name)
    if bool(image.file) == bool(image.source):
        both = "both 'file' and 'from'" if image.file else "neither 'file' nor 'from'"
        hint = "say what it holds by one of them: a file, or a directory to pack"
        return [Problem(path, False, f"[image.{image.name}] has {both}", hint)]
    if image.file:
        surplus = [key for key in ("format", "options") if getattr(image, key)]
        fact = "is for a directory that is packed, but this image is a file"
        return [Problem((*path, key), False, f"'{key}' {fact}", "remove it, or write `from`") for key in surplus]
    if not image.format:
        fact = f"[image.{image.name}] says 'from' and no 'format'"
        return [Problem(path, False, fact, f"add format = one of {', '.join(IMAGE_FORMATS)}")]
    if not image.partition:
        fact = f"[image.{image.name}] is packed to fill its partition, but names none"
        return [Problem(path, False, fact, 'write partition = "..." in place of the offset')]
    known = FORMAT_OPTIONS[image.format]
    problems = []
    for key, value in image.options.items():
        at = (*path, "options", key)
        if key not in known:
            meant = did_you_mean(key, known)
            fact, hint = f"format '{image.format}' has no option '{key}'{meant}", f"use one of {', '.join(known)}"
            problems.append(Problem(at, False, fact, hint))
        elif value not in known[key]:
            fact = f"option '{key}' of format '{image.format}' is '{value}'"
            problems.append(Problem(at, True, fact, f"use one of {', '.join(known[key])}"))
    return problems


def _host_checks(config: DeployConfig) -> list[Problem]:
    """The host's program has names of its own: where it is built, and what its live tests are called."""
    host = config.host
    problems: list[Problem] = []
    if not host.declared:
        return problems
    if HOST in config.profiles:
        fact = f"a profile is called '{HOST}', and build/{HOST}/ is where the programs of [host] go"
        problems.append(Problem(("profile", HOST), False, fact, "give the profile another name"))
    if any(device.name == HOST for device in config.devices):
        fact = f"a device is called '{HOST}', which is what the program of [host] is called as a target of live tests"
        problems.append(Problem(("device", HOST), False, fact, "give the device another name"))
    return problems


def _library_checks(config: DeployConfig) -> list[Problem]:
    names = [library.name for library in config.libraries]
    return [
        Problem(("library", n, "name"), True, f"two libraries are called '{name}'", "rename one of them")
        for n, name in enumerate(names)
        if name in names[:n]
    ]


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
        problems += _placeholder_problems(n, action)
    return problems


def _placeholder_problems(n: int, action: ActionConfig) -> list[Problem]:
    """What stands for files that there are not, and what stands for nothing."""
    problems = []
    for index, word in enumerate(action.argv):
        if "{depfile}" in word and not action.depfile:
            fact = f"'{word}' stands for a depfile, but the action names none"
            hint = 'add depfile = "build/....d", or take the word out'
            problems.append(Problem(("action", n, "argv", index), True, fact, hint))
        for place, files in (("{in}", action.inputs), ("{out}", action.outputs)):
            if place in word and not files:
                fact = f"'{word}' stands for files, but the action has none"
                problems.append(Problem(("action", n, "argv", index), True, fact, "declare them"))
            elif place in word and word != place and len(files) != 1:
                fact = f"'{word}' holds {place} beside other text, but there are {len(files)} such files"
                hint = f"write {place} as a word of its own"
                problems.append(Problem(("action", n, "argv", index), True, fact, hint))
    if any("{" in re.sub(_PLACEHOLDERS, "", word) for word in action.argv):
        from pipeline.config.placeholders import OF_COMMANDS, unknown_in_command

        found = unknown_in_command(action.argv, OF_COMMANDS)
        if found is not None:
            index, fact, hint = found
            problems.append(Problem(("action", n, "argv", index), True, f"'action.{n}.argv' {fact}", hint))
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
    if chip.isa != "riscv" and config.toolchain.kind not in (PREBUILT, *NINJA_KINDS):
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
    if not config.devices and config.is_ninja and not config.makes_firmware:
        return []  # a program for this machine, which goes to no board
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
        problems += _profile_of_device(config, device)
        if device.is_virtual and device.reset.startswith(RESET_COMMAND):
            fact = f"'device.{device.name}.reset' is a command, but the port is '{device.port}', which needs none"
            problems.append(Problem(("device", device.name, "reset"), False, fact, "remove it, or set another port"))
        if device.ota_call and not device.ota.startswith("http://"):
            fact = f"'device.{device.name}.ota_call' tells a device where to pull from, but `ota` is '{device.ota}'"
            hint = 'remove it, or write an address of this machine: ota = "http://192.168.1.10"'
            problems.append(Problem(("device", device.name, "ota_call"), False, fact, hint))
        for key in ("flash_file", "timing", "rom_elf"):
            if not device.is_virtual and key in document["device"][device.name]:
                fact = f"'device.{device.name}.{key}' is for virtual boards, but the port is '{device.port}'"
                problems.append(
                    Problem(("device", device.name, key), False, fact, f'remove it, or set port = "{VIRTUAL_PORT}"')
                )
    problems.extend(_shared(config, "mac", [device.mac for device in config.devices]))
    return problems


def _profile_of_device(config: DeployConfig, device: DeviceConfig) -> list[Problem]:
    """Is there the profile that builds for it, and does that build for its chip? Of other profiles than the one that is
    meant now, its own reading tells; a device that is disabled gets no build."""
    if device.profile not in config.profiles:
        known = ", ".join(config.profiles) or "none"
        meant = did_you_mean(device.profile, config.profiles)
        fact = f"the profile '{device.profile}' of device '{device.name}' does not exist (there are: {known}){meant}"
        hint = f"add a table [profile.{device.profile}], or set the device's `profile` to an existing one"
        return [Problem(("device", device.name, "profile"), True, fact, hint)]
    if not device.enabled or device.profile != config.variant or device.chip == config.toolchain.chip:
        return []
    built = config.toolchain.chip
    fact = f"device '{device.name}' has the chip {device.chip}, but the toolchain builds for {built}"
    hint = "make `toolchain.chip` and the device's `chip` equal, or name a profile that builds for it"
    return [Problem(("device", device.name, "chip"), True, fact, hint)]


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
