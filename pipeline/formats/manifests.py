"""Firmware that was built elsewhere: which file goes where, and what the build says about chip and flash.

Reads ESP-IDF's `flasher_args.json` (both spellings of its keys: `write_flash_args` and `write-flash-args`), and judges
the first bytes of files. Does not know how a file is opened.
Invariant: paths are relative to the project's root and inside it; a `Firmware` names exactly one partition table.
"""

from __future__ import annotations

import itertools
import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS, FLASH_MODES, FLASH_SIZES, chip_name, flash_freq_name, flash_size_bytes
from pipeline.failures import fail
from pipeline.flash_model import Partition
from pipeline.formats.esp_image import HEADER_SIZE, IMAGE_MAGIC, image_chip_id, is_esp8266
from pipeline.formats.flash_file import FlashFile
from pipeline.formats.partitions import TABLE_MAGIC
from pipeline.model import Failure, FailureCategory

FLASHER_ARGS = "flasher_args.json"
HEAD_SIZE = HEADER_SIZE
"""Bytes from the beginning of each file that are enough to tell what it is."""

_UNSAID = ("keep", "detect")
"""Values of flash settings that leave the header as it is."""


class Firmware(NamedTuple):
    """`where` names the build in messages. `chip` and the flash settings are `""` where the build does not say.
    `patch`: the settings go into the bootloader's header, as esptool would do it. `header_size`: the flash size in that
    header; `size_open`: deploy.toml may say another one, which then goes into the header. `notes`: what was chosen, for
    people."""

    kind: Literal["esp-idf", "platformio", "files", "esp-web-tools"]
    where: str
    files: tuple[FlashFile, ...]
    table: FlashFile
    chip: str
    flash_mode: str = ""
    flash_freq: str = ""
    flash_size: str = ""
    patch: bool = False
    header_size: str = ""
    size_open: bool = False
    notes: tuple[str, ...] = ()


class Manifest(NamedTuple):
    """What a `flasher_args.json` says."""

    files: tuple[FlashFile, ...]
    chip: str
    flash_mode: str
    flash_freq: str
    flash_size: str


def _bad(where: str, message: str, hint: str) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


# --- ESP-IDF ----------------------------------------------------------------------------------

REBUILD = "build it again: idf.py build"


Inside = Callable[[str], str]
"""An absolute path -> the same relative to the project's root, `""` for one outside."""


def parse_flasher_args(text: str, directory: str, inside: Inside = lambda _: "") -> Manifest | Failure:
    """The manifest of the ESP-IDF build in `directory` (relative to the project's root). `inside` is asked about
    absolute paths in it."""
    where = f"{directory}/{FLASHER_ARGS}"
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        return _bad(f"{where}:{error.lineno}:{error.colno}", f"the file is not whole: {error.msg}", REBUILD)
    except (ValueError, RecursionError) as error:
        return _bad(where, f"the file cannot be read: {error}", REBUILD)
    if not isinstance(document, dict):
        return _bad(where, f"the file holds {type(document).__name__}, not an object", REBUILD)
    document = _underscored(document)
    listed = document.get("flash_files")
    if not isinstance(listed, dict) or not listed:
        return _bad(where, "'flash_files' is missing or empty, so nothing says what goes where", REBUILD)
    files = _flash_files(listed, directory, where, inside)
    if isinstance(files, Failure):
        return files
    encrypted = _encrypted(document)
    if encrypted:
        hint = "build without flash encryption: it is not supported"
        return _bad(where, f"{encrypted} is to be written encrypted", hint)
    arguments = document.get("write_flash_args")
    settings = {**_options(arguments), **_texts(_underscored(document.get("flash_settings")))}
    extra = _texts(_underscored(document.get("extra_esptool_args")))
    chip = extra.get("chip", "")
    if chip not in CHIPS:
        fact = f"'extra_esptool_args.chip' is '{chip}', which this version does not know" if chip else "names no chip"
        return _bad(where, fact, f"build for one of {', '.join(CHIPS)}")
    wanted = ("flash_mode", "flash_freq", "flash_size")
    said = ["" if settings.get(key, "") in _UNSAID else settings.get(key, "") for key in wanted]
    known = (FLASH_MODES, CHIPS[chip].flash_freqs, FLASH_SIZES)
    for key, value, allowed in zip(wanted, said, known, strict=True):
        if value and value not in allowed:
            return _bad(where, f"'{key}' is '{value}', but {chip} has {', '.join(allowed)}", REBUILD)
    return Manifest(files, chip, *said)


def manifest_roles(text: str) -> dict[str, int]:
    """What a manifest (which `parse_flasher_args` took) calls its images -> their offsets: `app`, `partition_table`."""
    named = ((name, value) for name, value in _underscored(json.loads(text)).items() if isinstance(value, dict))
    found = {name: parse_offset(str(value.get("offset", ""))) for name, value in named if "file" in value}
    return {name: offset for name, offset in found.items() if offset is not None}


def _underscored(value: Any) -> dict[str, Any]:
    """An object with `_` in its keys, whatever the version of ESP-IDF wrote; empty when it is none."""
    if not isinstance(value, dict):
        return {}
    return {key.replace("-", "_"): item for key, item in value.items()}


def _texts(value: Mapping[str, Any]) -> dict[str, str]:
    return {key: item for key, item in value.items() if isinstance(item, str)}


def _options(words: Any) -> dict[str, str]:
    """`["--flash-mode", "dio"]` as `{"flash_mode": "dio"}`."""
    if not isinstance(words, list):
        return {}
    texts = [str(word) for word in words]
    return {
        word.removeprefix("--").replace("-", "_"): value
        for word, value in itertools.pairwise(texts)
        if word.startswith("--") and not value.startswith("--")
    }


def _flash_files(
    listed: Mapping[str, Any], directory: str, where: str, inside: Inside
) -> tuple[FlashFile, ...] | Failure:
    files = []
    for key, name in listed.items():
        offset = parse_offset(key)
        if offset is None:
            return _bad(where, f"'flash_files' has the offset '{key}', which is not a number", REBUILD)
        if not isinstance(name, str) or not name:
            return _bad(where, f"'flash_files' has no file at {key}", REBUILD)
        path = posixpath.normpath(posixpath.join(directory, name.replace("\\", "/")))
        if path.startswith("/") or re.match("[A-Za-z]:", name):
            path = inside(name) or path
        if path.startswith(("/", "../")):
            return _bad(where, f"'{name}' lies outside the project", "build inside the project, or link to it there")
        files.append(FlashFile(offset, path))
    return tuple(sorted(files))


def _encrypted(document: Mapping[str, Any]) -> str:
    """What is marked to be written encrypted, `""` for nothing. ESP-IDF writes the flag as a string."""
    arguments = document.get("write_flash_args")
    if isinstance(arguments, list) and "--encrypt" in arguments:
        return "everything"
    marked = (key for key, value in document.items() if isinstance(value, dict) and _truth(value.get("encrypted")))
    return next(marked, "")


def _truth(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def parse_offset(text: str) -> int | None:
    """`0x10000` or `65536`; None for anything else."""
    try:
        offset = int(text, 16 if text[:2] in ("0x", "0X") else 10)
    except ValueError:
        return None
    return offset if 0 <= offset <= 0xFFFFFFFF else None


# --- any files --------------------------------------------------------------------------------


def find_table(files: Sequence[FlashFile], heads: Mapping[str, bytes], where: str) -> FlashFile | Failure:
    """The one file that is a partition table."""
    tables = [file for file in files if heads[file.label].startswith(TABLE_MAGIC)]
    if len(tables) == 1:
        return tables[0]
    if tables:
        names = " and ".join(f"{file.path} at {file.offset:#x}" for file in tables)
        return _bad(where, f"{names} are both partition tables", "keep one of them")
    names = ", ".join(file.label for file in files)
    hint = "add the partition table, such as 0x8000: without it nothing says what fits where"
    return _bad(where, f"none of these files is a partition table: {names}", hint)


def find_chip(files: Sequence[FlashFile], heads: Mapping[str, bytes], where: str) -> str | Failure:
    """The chip for which the first image among the files was made."""
    for file in files:
        if is_esp8266(heads[file.label]):
            fact = "the image is for the ESP8266, which has no partition table and another boot ROM"
            return _bad(file.path, fact, f"build for one of {', '.join(CHIPS)}")
        chip_id = image_chip_id(heads[file.label])
        if chip_id is not None:
            name = chip_name(chip_id)
            if name in CHIPS:
                return name
            return _bad(file.path, f"the image is for {name}, which this version does not know", "check the file")
    names = ", ".join(file.label for file in files)
    return _bad(where, f"none of these files is an image of an ESP32 program: {names}", "add the application's image")


def size_for(table: Sequence[Partition], header: str) -> str:
    """The flash size of the header, or the smallest one that holds the table where that is larger: what a header says
    is often a default, and the board's own flash is measured before anything is written."""
    end = max((row.end for row in table), default=0)
    needed = next((size for size in FLASH_SIZES if flash_size_bytes(size) >= end), FLASH_SIZES[-1])
    return max(needed, header, key=flash_size_bytes) if header else needed


def header_settings(head: bytes, chip: str) -> tuple[str, str, str]:
    """Flash mode, frequency and size in an image's header; `""` for what is no known value."""
    if len(head) < HEADER_SIZE or head[0] != IMAGE_MAGIC:
        return "", "", ""
    mode = FLASH_MODES[head[2]] if head[2] < len(FLASH_MODES) else ""
    size = FLASH_SIZES[head[3] >> 4] if head[3] >> 4 < len(FLASH_SIZES) else ""
    return mode, flash_freq_name(chip, head[3] & 0xF), size
