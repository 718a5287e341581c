"""Firmware that was built elsewhere: read what the build says, and make the actions that take its files over.

Reads manifests, tables and the first bytes of images; never writes beside them. Does not know the device. Invariant: a
file of the user's is only ever an input of an action; what goes to flash is the checked copy below `build/<profile>/`.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.durable import MOST, open_regular, read_file, read_text
from pipeline.chips import CHIPS
from pipeline.config.schema import Prebuilt
from pipeline.config.values import Problem
from pipeline.failures import fail
from pipeline.fastpath.watched import Watched
from pipeline.formats import manifests as fw
from pipeline.formats import otadata, partitions, placement
from pipeline.formats.manifests import Firmware, FlashFile, Manifest
from pipeline.formats.placement import Given, Misplaced, Placement
from pipeline.model import Action, Failure, FailureCategory, MatchRule, Partition, Reason, Stage
from pipeline.toolchain.builtins import COPY, OTADATA_OF_TABLE
from pipeline.toolchain.generate import image_path

BUILD_AGAIN = "build the firmware again, or correct `[prebuilt]`"


# --- what there is ----------------------------------------------------------------------------


def read_firmware(root: Path, prebuilt: Prebuilt) -> Firmware | Problem | Failure:
    """The firmware that `[prebuilt]` names; a Problem where deploy.toml is wrong about it, a Failure where the build
    is."""
    if prebuilt.files:
        return _from_files(root, prebuilt.files)
    directory = posixpath.normpath(prebuilt.directory)
    if (root / directory / fw.FLASHER_ARGS).is_file():
        return _from_esp_idf(root, directory)
    if (root / directory / fw.PLATFORMIO_APP).is_file():
        return _from_platformio(root, directory)
    return _no_build(root, directory)


def _no_build(root: Path, directory: str) -> Problem:
    path = ("prebuilt", "directory")
    if not (root / directory).is_dir():
        hint = "build the firmware first, or correct the path; it is relative to the project root"
        return Problem(path, True, f"'prebuilt.directory' is '{directory}', which does not exist", hint)
    fact = f"'{directory}' is no build: it has neither {fw.FLASHER_ARGS} (ESP-IDF) nor {fw.PLATFORMIO_APP} (PlatformIO)"
    below = [*(root / directory).glob(f"*/{fw.FLASHER_ARGS}"), *(root / directory).glob(f"*/{fw.PLATFORMIO_APP}")]
    builds = sorted(found.parent.relative_to(root).as_posix() for found in below)
    hint = f"name the build itself: {' or '.join(builds)}" if builds else "build the firmware first"
    return Problem(path, True, fact, hint)


def _from_esp_idf(root: Path, directory: str) -> Firmware | Failure:
    where = f"{directory}/{fw.FLASHER_ARGS}"
    try:
        text = read_text(root / where)
    except (OSError, UnicodeDecodeError) as error:
        return _bad(where, f"the file cannot be read: {error}")
    manifest = fw.parse_flasher_args(text, directory)
    if not isinstance(manifest, Manifest):
        return manifest
    heads = _heads(root, manifest.files, where)
    if isinstance(heads, Failure):
        return heads
    table = fw.find_table(manifest.files, heads, where)
    if isinstance(table, Failure):
        return table
    settings = (manifest.flash_mode, manifest.flash_freq, manifest.flash_size)
    in_header = _boot_settings(manifest.files, heads, manifest.chip)
    mode, freq, size = (said or header for said, header in zip(settings, in_header, strict=True))
    return Firmware("esp-idf", where, manifest.files, table, manifest.chip, mode, freq, size, patch=True)


def _from_platformio(root: Path, directory: str) -> Firmware | Failure:
    # Where the application goes is known when its table is.
    app, table = (FlashFile(0, f"{directory}/{name}") for name in (fw.PLATFORMIO_APP, fw.PLATFORMIO_TABLE))
    heads = _heads(root, (app,), directory)
    if isinstance(heads, Failure):
        return heads
    chip = fw.find_chip((app,), heads, directory)
    if isinstance(chip, Failure):
        return chip
    heads = _heads(root, (table,), directory)
    if isinstance(heads, Failure):
        return heads
    rows = partitions.decode_table(read_file(str(root / table.path)))
    if isinstance(rows, Reason):
        return _bad(table.path, f"not a partition table: {rows.subject}: {rows.before}, {rows.after}")
    name = next((name for name in fw.PLATFORMIO_OTADATA if (root / directory / name).is_file()), "")
    data = read_file(str(root / directory / name)) if name else b""
    files = fw.platformio_files(directory, chip, rows, (name, data) if name else None)
    heads = _heads(root, files, directory)
    if isinstance(heads, Failure):
        return heads
    settings = _boot_settings(files, heads, chip)
    table = table._replace(offset=fw.TABLE_OFFSET)
    return Firmware("platformio", directory, tuple(files), table, chip, *settings)


def _from_files(root: Path, listed: Mapping[str, str]) -> Firmware | Problem | Failure:
    where = "the files of [prebuilt]"
    for key, path in listed.items():
        if not (root / path).is_file():
            hint = "build the firmware first, or correct the path; it is relative to the project root"
            what = "is no regular file" if (root / path).exists() else "does not exist"
            return Problem(("prebuilt", "files", key), True, f"the file '{path}' {what}", hint)
    files = sorted(FlashFile(fw.parse_offset(key) or 0, path) for key, path in listed.items())
    heads = _heads(root, files, where)
    if isinstance(heads, Failure):
        return heads
    chip, table = fw.find_chip(files, heads, where), fw.find_table(files, heads, where)
    if isinstance(chip, Failure):
        return chip
    if isinstance(table, Failure):
        return table
    return Firmware("files", where, tuple(files), table, chip, *_boot_settings(files, heads, chip))


def _boot_settings(files: Sequence[FlashFile], heads: Mapping[str, bytes], chip: str) -> tuple[str, str, str]:
    """What the bootloader's header says of the flash."""
    boot = next((file for file in files if file.offset == CHIPS[chip].bootloader_offset), None)
    return fw.header_settings(heads[boot.path], chip) if boot is not None else ("", "", "")


def _heads(root: Path, files: Sequence[FlashFile], where: str) -> dict[str, bytes] | Failure:
    """The first bytes of each file."""
    heads = {}
    for file in files:
        try:
            handle, status = open_regular(str(root / file.path))
            with os.fdopen(handle, "rb") as stream:
                heads[file.path] = stream.read(fw.HEAD_SIZE)
            if status.st_size > MOST:
                return _bad(file.path, f"the file has {status.st_size} bytes, and no flash has more than {MOST}")
        except FileNotFoundError:
            return _bad(where, f"the file '{file.path}' does not exist")
        except OSError as error:
            return _bad(file.path, f"the file cannot be read: {error.strerror}")
    return heads


def _bad(where: str, message: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=BUILD_AGAIN)


# --- where it goes ----------------------------------------------------------------------------


def read_table(root: Path, firmware: Firmware, flash_size: int) -> tuple[Partition, ...] | Failure:
    """The partition table of the firmware, which is one of its files."""
    path = firmware.table.path
    try:
        data = read_file(str(root / path))
    except OSError as error:
        return _bad(path, f"the partition table cannot be read: {error.strerror}")
    return partitions.read_table(data, path, flash_size=flash_size, table_offset=firmware.table.offset)


def placements(
    root: Path, firmware: Firmware, table: Sequence[Partition], chip: str, flash_size: int
) -> tuple[Placement, ...] | Failure:
    """Where the firmware's files go."""
    files = [Given("", file.path, offset=file.offset) for file in firmware.files]
    row = partitions.otadata_row(table)
    given = next((file.path for file in firmware.files if row is not None and file.offset == row.offset), "")
    selected = None
    if given:
        try:
            data = read_file(str(root / given))
        except OSError as error:
            return _bad(given, f"the file cannot be read: {error.strerror}")
        selected = otadata.select(data, len(partitions.ota_slots(table)))
        active = otadata.active_entry(data)
        if active is not None and active.state not in otadata.LASTING:
            state = next((known.name for known in otadata.OtaState if known == active.state), str(active.state))
            fact = f"the otadata selects a slot in state {state}: a bootloader with roll-back would soon leave it"
            hint = "give otadata whose state is VALID or UNDEFINED, or leave the file out: then it is made"
            return fail(FailureCategory.CONFIG_ERROR, stage=None, where=given, message=fact, hint=hint)
    started = placement.started_row(table, files, selected, has_otadata=bool(given))
    if isinstance(started, Misplaced):
        return _misplaced(started, firmware.where)
    found = placement.place_firmware(table, chip, firmware.table.offset, files, started, flash_size)
    if isinstance(found, Misplaced):
        return _misplaced(found, found.given.path)
    return found


def _misplaced(found: Misplaced, where: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=found.message, hint=found.hint)


# --- actions ----------------------------------------------------------------------------------


def firmware_actions(
    root: Path, firmware: Firmware, table: Sequence[Partition], placed: Sequence[Placement], out: str, profile: str
) -> tuple[Action, ...]:
    """What `given_actions` does not cover: otadata that nobody gave, and the ELF that lies beside the application."""
    actions = []
    app = next(one for one in placed if one.name == placement.APPLICATION)
    slots = [row.name for row in partitions.ota_slots(table)]
    if any(one.match is MatchRule.OTADATA and not one.source for one in placed):
        params = (("slot", str(slots.index(app.partition))),) if app.partition in slots else ()
        made = image_path(out, placement.OTADATA_IMAGE)
        source = (firmware.table.path,)
        actions.append(
            Action("otadata", Stage.LINK, source, (made,), builtin=OTADATA_OF_TABLE, params=params, profile=profile)
        )
    elf = elf_beside(app.source)
    if (root / elf).is_file():
        made = elf_beside(image_path(out, placement.APPLICATION))
        actions.append(Action("elf app", Stage.LINK, (elf,), (made,), builtin=COPY, profile=profile))
    return tuple(actions)


def elf_beside(path: str) -> str:
    """`build/blink.elf` for `build/blink.bin`: ESP-IDF, PlatformIO and Arduino leave both in one directory."""
    return f"{path.removesuffix('.bin')}.elf"


def header_params(firmware: Firmware, chip: str) -> tuple[tuple[str, str], ...]:
    """Parameters of the bootloader's image: how many segments its ROM takes, and the flash settings for its header of a
    build that asks for them."""
    segments = (("max_segments", str(CHIPS[chip].rom.segments)),)
    if not firmware.patch:
        return segments
    said = {"flash_mode": firmware.flash_mode, "flash_freq": firmware.flash_freq, "flash_size": firmware.flash_size}
    return (*segments, ("chip", chip), *((key, value) for key, value in said.items() if value))


def watched(root: Path, prebuilt: Prebuilt, firmware: Firmware, placed: Sequence[Placement]) -> Watched:
    """What decided about the files beside their content."""
    directory = root / prebuilt.directory
    app = next(one for one in placed if one.name == placement.APPLICATION)
    maybe = [root / elf_beside(app.source)]
    if firmware.kind == "esp-idf":
        maybe.append(root / firmware.where)
    elif firmware.kind == "platformio":
        maybe += [directory / name for name in (fw.FLASHER_ARGS, *fw.PLATFORMIO_OTADATA)]
    there = tuple(str(path) for path in maybe if path.exists())
    return Watched({}, tuple(str(path) for path in maybe if not path.exists()), there)
