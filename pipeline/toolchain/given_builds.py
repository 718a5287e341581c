"""What a firmware consists of that something else built: ESP-IDF's, PlatformIO's, esp-web-tools' or a list of files.

Reads manifests, tables, the first bytes of images, and whole files where several images may lie in one. Writes nothing
and does not know the device. Invariant: each file of a `Firmware` holds one image; what decided is in `deciding_files`.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from cache.durable import MOST, open_regular, read_file, read_text
from pipeline.chips import CHIPS, SECTOR
from pipeline.config.schema import Prebuilt
from pipeline.config.values import Problem
from pipeline.failures import fail
from pipeline.flash_model import Partition
from pipeline.formats import manifests as fw
from pipeline.formats import merged, packed, partitions, platformio, web_manifest
from pipeline.formats.flash_file import FilePart, FlashFile
from pipeline.formats.manifests import Firmware, Manifest
from pipeline.formats.uf2 import Flat
from pipeline.model import Failure, FailureCategory, Reason

BUILD_AGAIN = "build the firmware again, or correct `[prebuilt]`"


def read_firmware(root: Path, prebuilt: Prebuilt, made: Collection[str] = ()) -> Firmware | Problem | Failure:
    """The firmware that `[prebuilt]` names; a Problem where deploy.toml is wrong about it, a Failure where the build
    is. `made`: files that an `[[action]]` makes, which need not be there yet."""
    found = _find(root, prebuilt, made)
    rows = _rows(root, found.table) if isinstance(found, Firmware) else ()
    if not isinstance(found, Firmware) or isinstance(rows, Failure):
        return found
    return found._replace(notes=(*found.notes, *partitions.loose_rows(rows)))


def _find(root: Path, prebuilt: Prebuilt, made: Collection[str]) -> Firmware | Problem | Failure:
    if prebuilt.files:
        return _from_files(root, prebuilt.files, prebuilt.chip, made)
    directory = posixpath.normpath(prebuilt.directory)
    manifest, built = (root / directory / name for name in (fw.FLASHER_ARGS, platformio.APP))
    if manifest.is_file() and not (built.is_file() and (root / directory / platformio.TABLE).is_file()):
        return _from_esp_idf(root, directory)
    if built.is_file():
        return _from_platformio(root, directory)
    manifests = web_manifests(root, directory)
    if len(manifests) == 1 or web_manifest.NAME in manifests:
        name = web_manifest.NAME if web_manifest.NAME in manifests else next(iter(manifests))
        return _from_web_manifest(root, f"{directory}/{name}", manifests[name], prebuilt.chip)
    return _no_build(root, directory)


def web_manifests(root: Path, directory: str) -> dict[str, str]:
    """Names and texts of the JSON files in a directory that are manifests of esp-web-tools."""
    texts = {path.name: _text(path) for path in sorted((root / directory).glob("*.json"))}
    return {name: text for name, text in texts.items() if web_manifest.is_manifest(text)}


def deciding_files(prebuilt: Prebuilt, firmware: Firmware) -> list[str]:
    """Paths below the root whose presence or content decides which files are taken, beside those files."""
    if firmware.kind == "files":
        return []
    directory = posixpath.normpath(prebuilt.directory)
    names = [fw.FLASHER_ARGS, platformio.APP, platformio.TABLE, web_manifest.NAME]
    if firmware.kind == "platformio":
        names += [platformio.IDEDATA, *platformio.OTADATA]
    paths = [f"{directory}/{name}" for name in names]
    paths += [firmware.where] if firmware.kind == "esp-web-tools" else []
    sdkconfig = platformio.sdkconfig_path(directory)
    return list(dict.fromkeys([*paths, *filter(None, [sdkconfig])]))


def read_part(root: Path, file: FlashFile) -> bytes | Failure:
    """The bytes that go to flash."""
    try:
        return file.part.take(read_file(str(root / file.path)))
    except FileNotFoundError:
        return _bad(file.path, "the file does not exist")
    except OSError as error:
        return _bad(file.path, f"the file cannot be read: {error.strerror}")
    except ValueError as error:
        return _bad(file.path, str(error))


def _text(path: Path) -> str:
    """What is in a file that need not be there, `""` for one that cannot be read."""
    try:
        return read_text(path, errors="replace")
    except OSError:
        return ""


def _bad(where: str, message: str, hint: str = BUILD_AGAIN) -> Failure:
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=message, hint=hint)


# --- no build ---------------------------------------------------------------------------------


def _no_build(root: Path, directory: str) -> Problem:
    path = ("prebuilt", "directory")
    if not (root / directory).is_dir():
        hint = "build the firmware first, or correct the path; it is relative to the project root"
        return Problem(path, True, f"'prebuilt.directory' is '{directory}', which does not exist", hint)
    names = f"{fw.FLASHER_ARGS} (ESP-IDF) nor {platformio.APP} (PlatformIO)"
    fact = f"'{directory}' is no build: it has neither {names}"
    below = [*(root / directory).glob(f"*/{fw.FLASHER_ARGS}"), *(root / directory).glob(f"*/{platformio.APP}")]
    builds = sorted(found.parent.relative_to(root).as_posix() for found in below)
    hint = f"name the build itself: {' or '.join(builds)}" if builds else "build the firmware first"
    merged_image = next((each for each in images_in(root / directory) if holds_several(each)), None)
    if not builds and merged_image is not None:
        name = merged_image.relative_to(root).as_posix()
        hint = f'name the merged image in it: [prebuilt] files = {{ 0x0 = "{name}" }}'
    return Problem(path, True, fact, hint)


def images_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix in (".bin", ".uf2", ".hex") and path.is_file())


def holds_several(path: Path) -> bool:
    """Is it a UF2, a HEX file, or a merged image that begins at 0?"""
    try:
        data = read_file(str(path))
    except OSError:
        return False
    return packed.is_packed(data) or isinstance(merged.split(0, data), tuple)


# --- ESP-IDF ----------------------------------------------------------------------------------


def _from_esp_idf(root: Path, directory: str) -> Firmware | Failure:
    found = _manifest(root, directory)
    if isinstance(found, Failure):
        return found
    where, _, manifest = found
    heads = _heads(root, manifest.files, where)
    if isinstance(heads, Failure):
        return heads
    table = fw.find_table(manifest.files, heads, where)
    if isinstance(table, Failure):
        return table
    settings = (manifest.flash_mode, manifest.flash_freq, manifest.flash_size)
    in_header = _boot_settings(manifest.files, heads, manifest.chip)
    mode, freq, size = (said or header for said, header in zip(settings, in_header, strict=True))
    firmware = Firmware("esp-idf", where, manifest.files, table, manifest.chip, mode, freq, size, patch=True)
    return firmware if manifest.flash_size else _measured(root, firmware, in_header[2])


def _manifest(root: Path, directory: str) -> tuple[str, str, Manifest] | Failure:
    """Where it is, its text, and what it says."""
    where = f"{directory}/{fw.FLASHER_ARGS}"
    try:
        text = read_text(root / where)
    except (OSError, UnicodeDecodeError) as error:
        return _bad(where, f"the file cannot be read: {error}")
    manifest = fw.parse_flasher_args(text, directory, lambda path: _inside(root, path))
    return manifest if isinstance(manifest, Failure) else (where, text, manifest)


def _measured(root: Path, firmware: Firmware, header: str) -> Firmware | Failure:
    """The firmware of a build that leaves the flash size to whoever writes it: what its header says, or what its table
    needs. The board's own flash is measured before the first write."""
    rows = _rows(root, firmware.table)
    if isinstance(rows, Failure):
        return rows
    size = fw.size_for(rows, header)
    note = f"the flash size is {size}, which the partition table needs; the bootloader's header says {header}"
    notes = (*firmware.notes, note) if header and size != header else firmware.notes
    return firmware._replace(flash_size=size, header_size=header, size_open=True, notes=notes)


def _rows(root: Path, table: FlashFile) -> tuple[Partition, ...] | Failure:
    data = read_part(root, table)
    if isinstance(data, Failure):
        return data
    rows = partitions.decode_table(data)
    if isinstance(rows, Reason):
        return _bad(table.path, f"not a partition table: {rows.subject}: {rows.before}, {rows.after}")
    return rows


def _inside(root: Path, path: str) -> str:
    """An absolute path relative to the root, also where one of the two is spelled through a link; `""` outside."""
    for place in (Path(path), Path(path).resolve()):
        if place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    return ""


# --- PlatformIO -------------------------------------------------------------------------------


def _from_platformio(root: Path, directory: str) -> Firmware | Failure:
    app, table = (FlashFile(0, f"{directory}/{name}") for name in (platformio.APP, platformio.TABLE))
    heads = _heads(root, (app,), directory)
    if isinstance(heads, Failure):
        return heads
    chip = fw.find_chip((app,), heads, directory)
    if isinstance(chip, Failure):
        return chip
    rows = _rows(root, table)
    if isinstance(rows, Failure):
        return rows._replace(message=f"the file '{table.path}' does not exist") if _absent(root, table) else rows
    laid = _platformio_files(root, directory, chip, rows)
    if isinstance(laid, Failure):
        return laid
    files, note = laid
    boot = f"{directory}/{platformio.BOOTLOADER}"
    if any(file.path == boot for file in files) and not (root / boot).is_file():
        fact = f"the file '{boot}' does not exist: Arduino cores before 2.0 flash the one of their own package"
        hint = (
            f"copy it to {boot} (tools/sdk/bin/bootloader_dio_40m.bin in framework-arduinoespressif32), or name all "
            "files by `[prebuilt] files`"
        )
        return _bad(directory, fact, hint)
    heads = _heads(root, files, directory)
    if isinstance(heads, Failure):
        return heads
    placed = next((file for file in files if file.path == table.path), None) or fw.find_table(files, heads, directory)
    if isinstance(placed, Failure):
        return placed
    settings = _boot_settings(files, heads, chip)
    notes = (note,) if note else ()
    firmware = Firmware("platformio", directory, tuple(files), placed, chip, *settings, notes=notes)
    return _measured(root, firmware, settings[2])


def _absent(root: Path, file: FlashFile) -> bool:
    return not (root / file.path).exists()


def _platformio_files(
    root: Path, directory: str, chip: str, rows: Sequence[Partition]
) -> tuple[list[FlashFile], str] | Failure:
    """The files, and what was chosen among several possibilities."""
    if (root / directory / fw.FLASHER_ARGS).is_file():
        found = _manifest(root, directory)
        if isinstance(found, Failure):
            return found
        _, text, manifest = found
        roles = fw.manifest_roles(text)
        return platformio.by_manifest(manifest.files, roles, directory, lambda path: (root / path).is_file()), ""
    sdkconfig = platformio.sdkconfig_path(directory)
    said = platformio.said_by(
        _text(root / sdkconfig) if sdkconfig else "", _text(root / directory / platformio.IDEDATA)
    )
    name = next((name for name in platformio.OTADATA if (root / directory / name).is_file()), "")
    otadata: tuple[str, bytes] | None = None
    if name:
        data = read_part(root, FlashFile(0, f"{directory}/{name}"))
        if isinstance(data, Failure):
            return data
        otadata = (name, data)
    return platformio.by_table(directory, chip, rows, said, otadata)


# --- lists of files -----------------------------------------------------------------------------


def _from_files(
    root: Path, listed: Mapping[str, str], chip: str, made: Collection[str]
) -> Firmware | Problem | Failure:
    absent = [path for path in listed.values() if not (root / path).is_file()]
    for key, path in listed.items():
        if path in absent and path not in made:
            hint = "build the firmware first, or correct the path; it is relative to the project root"
            what = "is no regular file" if (root / path).exists() else "does not exist"
            return Problem(("prebuilt", "files", key), True, f"the file '{path}' {what}", hint)
    files = sorted(FlashFile(fw.parse_offset(key) or 0, path) for key, path in listed.items())
    found = _assembled(root, "files", "the files of [prebuilt]", files, chip, absent)
    if isinstance(found, Failure) and absent:
        names = ", ".join(absent)
        hint = f"make {names} first: by `[prebuilt] build`, whose command runs before anything is read"
        return found._replace(message=f"{found.message} ({names} is still to be made by an [[action]])", hint=hint)
    return found


def _from_web_manifest(root: Path, where: str, text: str, chip: str) -> Firmware | Failure:
    files = web_manifest.parse_manifest(text, where, chip)
    if isinstance(files, Failure):
        return files
    return _assembled(root, "esp-web-tools", where, files, chip)


def _assembled(
    root: Path,
    kind: Literal["files", "esp-web-tools"],
    where: str,
    listed: Sequence[FlashFile],
    chip: str = "",
    absent: Collection[str] = (),
) -> Firmware | Failure:
    """The firmware of files with offsets, merged images among them taken apart. `chip`: what deploy.toml says, for
    where no image says it yet; `absent`: files that are still to be made."""
    files: list[FlashFile] = []
    for file in listed:
        parts = [file] if file.path in absent else _parts(root, file, where)
        if isinstance(parts, Failure):
            return parts
        files += parts
    files.sort()
    heads = _heads(root, [file for file in files if file.path not in absent], where)
    if isinstance(heads, Failure):
        return heads
    heads |= {file.label: b"" for file in files if file.path in absent}
    found, table = fw.find_chip(files, heads, where), fw.find_table(files, heads, where)
    if isinstance(found, Failure) and not (absent and chip):
        return found
    chip = chip if isinstance(found, Failure) else found
    if isinstance(table, Failure):
        return table
    settings = _boot_settings(files, heads, chip)
    return Firmware(kind, where, tuple(files), table, chip, *settings, header_size=settings[2], size_open=True)


def _parts(root: Path, file: FlashFile, where: str) -> list[FlashFile] | Failure:
    """The images in a file: itself, or those of a merged one."""
    try:
        with _opened(root / file.path) as stream:
            data = stream.read(SECTOR + 1)
            is_packed = packed.is_packed(data)
            # One image lies anywhere; several begin where a bootloader or a table does.
            if not is_packed and (len(data) <= SECTOR or not _may_be_merged(file.offset, data)):
                return [file]
            data += stream.read()
        base, flat = (file.offset, data) if not is_packed else _unpacked(file, data)
    except FileNotFoundError:
        return _bad(where, f"the file '{file.path}' does not exist")
    except OSError as error:
        return _bad(file.path, f"the file cannot be read: {error.strerror}")
    except ValueError as error:
        return _bad(file.path, str(error))
    spans = merged.split(base, flat)
    if isinstance(spans, str):
        return _bad(
            file.path, spans, "name the images that it was made of, each with its offset, in `[prebuilt] files`"
        )
    if spans is None:
        return [FlashFile(base, file.path, FilePart(packed=True))] if is_packed else [file]
    return [FlashFile(each.offset, file.path, FilePart(each.offset - base, each.size, is_packed)) for each in spans]


def _opened(path: Path) -> BinaryIO:
    """A regular file of a size that a flash can have. Raises OSError for anything else."""
    handle, status = open_regular(str(path))
    if status.st_size > MOST:
        os.close(handle)
        raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, and no flash has more than {MOST}", str(path))
    return os.fdopen(handle, "rb")


def _may_be_merged(offset: int, head: bytes) -> bool:
    return offset <= max(merged.BOOT_OFFSETS) or head.startswith(partitions.TABLE_MAGIC)


def _unpacked(file: FlashFile, data: bytes) -> Flat:
    """What a packed file holds, which says itself where it goes. Raises ValueError where the list says something
    else."""
    if file.offset:
        raise ValueError(f"it says itself where it goes, so it is to be named at 0x0, not at {file.offset:#x}")
    return packed.unpack(data)


# --- the first bytes ----------------------------------------------------------------------------


def _heads(root: Path, files: Sequence[FlashFile], where: str) -> dict[str, bytes] | Failure:
    """The first bytes of each file."""
    heads = {}
    for file in files:
        try:
            if file.part.packed:
                heads[file.label] = file.part.take(read_file(str(root / file.path)))[: fw.HEAD_SIZE]
                continue
            with _opened(root / file.path) as stream:
                stream.seek(file.part.start)
                heads[file.label] = stream.read(fw.HEAD_SIZE)
        except FileNotFoundError:
            return _bad(where, f"the file '{file.path}' does not exist")
        except OSError as error:
            return _bad(file.path, f"the file cannot be read: {error.strerror}")
        except ValueError as error:
            return _bad(file.path, str(error))
    return heads


def _boot_settings(files: Sequence[FlashFile], heads: Mapping[str, bytes], chip: str) -> tuple[str, str, str]:
    """What the bootloader's header says of the flash."""
    boot = next((file for file in files if file.offset == CHIPS[chip].bootloader_offset), None)
    return fw.header_settings(heads[boot.label], chip) if boot is not None else ("", "", "")
