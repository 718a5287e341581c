"""Directories as images for flash: `[image.NAME] from = "web/"` as actions, and the builtins that pack them.

Knows the field's packages (littlefs-python, fatfs-ng, esp-idf-nvs-partition-gen), which are imported when something is
packed. Bytes in, bytes out: times, random numbers and the order of a directory are in no image. Invariant: the same
files give the same bytes, on every machine, and what does not fit is refused before anything is opened.
"""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig, ImageConfig
from pipeline.config.values import FORMAT_OPTIONS
from pipeline.effects.packages import package_dir
from pipeline.engine.results import Builtin, BuiltinCall, BuiltinError
from pipeline.errors import ConfigError, ToolError
from pipeline.failures import fail
from pipeline.fastpath.watched import Watched
from pipeline.formats import fat as fat_format
from pipeline.formats import spiffs as spiffs_format
from pipeline.formats.placement import Placement
from pipeline.model import Action, FailureCategory, Stage
from pipeline.toolchain.builtins import quiet_esptool
from pipeline.toolchain.config_places import config_failure_at
from pipeline.toolchain.distribution import package_places, version_of
from pipeline.toolchain.globs import Listing
from pipeline.toolchain.placements import PACKED

LITTLEFS, SPIFFS, FAT, NVS = "littlefs@1", "spiffs@1", "fat@1", "nvs@1"
_NVS_PAGE = 4096


class Packer(NamedTuple):
    """How a format is packed: the builtin, and the package that does it (module, distribution as its directory is
    called, name to install), none where we do it."""

    builtin: str
    module: str = ""
    distribution: str = ""
    install: str = ""


PACKERS: Mapping[str, Packer] = MappingProxyType(
    {
        "littlefs": Packer(LITTLEFS, "littlefs", "littlefs_python", "littlefs-python"),
        "spiffs": Packer(SPIFFS),
        "fat": Packer(FAT, "fatfs", "fatfs_ng", "fatfs-ng"),
        "nvs": Packer(NVS, "esp_idf_nvs_partition_gen", "esp_idf_nvs_partition_gen", "esp-idf-nvs-partition-gen"),
    }
)


def pack_actions(
    root: Path, config: DeployConfig, listing: Listing, profile: str, placed: Sequence[Placement]
) -> tuple[tuple[Action, ...], Watched]:
    """One action per directory, and what decides that its packer is found. Raises ToolError when a package is missing,
    ConfigError when there is nothing to pack."""
    room = {one.name: one.limit for one in placed}
    actions, watched = [], Watched({})
    for image in config.images:
        if not image.source:
            continue
        packer = PACKERS[image.format]
        if packer.module:
            watched = watched.with_more(package_places((packer.module,)))
        params = {
            **{key: values[0] for key, values in FORMAT_OPTIONS[image.format].items()},
            **image.options,
            "size": str(room[image.name]),
            "root": image.source.rstrip("/"),
            "package": _version(root, config, image, packer),
        }
        actions.append(
            Action(
                f"pack {image.name}",
                Stage.LINK,
                _files(root, config, listing, image),
                (PACKED.format(image.name),),
                builtin=packer.builtin,
                params=tuple(sorted(params.items())),
                profile=profile,
            )
        )
    return tuple(actions), watched


def _version(root: Path, config: DeployConfig, image: ImageConfig, packer: Packer) -> str:
    """Of the package: it makes the bytes, so it is part of the key."""
    if not packer.module:
        return ""
    directory = package_dir(packer.module)
    if directory is not None:
        return f"{packer.install} {version_of(packer.distribution, directory)}"
    where = config_failure_at(root, config, ("image", image.name, "format"), "", "").where
    raise ToolError(
        fail(
            FailureCategory.TOOLCHAIN_MISSING,
            stage=None,
            where=where,
            message=f"format '{image.format}' is packed by {packer.install}, which is not installed for this Python",
            hint=f"install it with: pip install 'hotplate[fs]' (or {packer.install})",
        )
    )


def _files(root: Path, config: DeployConfig, listing: Listing, image: ImageConfig) -> tuple[str, ...]:
    source = posixpath.normpath(image.source)
    below = f"{source}/"
    if image.format == "nvs" and (listing.is_file(source) or source in listing.products):
        return (source,)
    made = [path for path in listing.products if path.startswith(below)]
    found = sorted({*listing.files_below(source), *made})
    if not found:
        there = (root / source).is_dir()
        message = f"'{image.source}' {'holds no file' if there else 'is no directory'}"
        hint = "put the files there, or declare the [[action]] that makes them"
        raise ConfigError(config_failure_at(root, config, ("image", image.name, "from"), message, hint))
    return tuple(found)


# --- builtins ---------------------------------------------------------------------------------


def _named(call: BuiltinCall) -> dict[str, bytes]:
    """The files by their names below the directory."""
    root = posixpath.normpath(call.params["root"])
    return {path.removeprefix(f"{root}/"): data for path, data in zip(call.paths, call.inputs, strict=True)}


def _too_much(call: BuiltinCall, what: str) -> BuiltinError:
    total = sum(map(len, call.inputs))
    fact = f"{what}: its {len(call.inputs)} files have {total} bytes, the partition {call.params['size']}"
    return BuiltinError(call.params["root"], fact, "remove files, or enlarge the partition in the table")


def pack_littlefs(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """Files -> LittleFS. Parameters: `size`, `root`, `block_size`, `name_max`, `disk_version`; `package` for the key
    alone."""
    from littlefs import LittleFS, LittleFSError

    size, block = int(call.params["size"]), int(call.params["block_size"])
    major, minor = map(int, call.params["disk_version"].split("."))
    name_max = int(call.params["name_max"])
    if size < 2 * block:
        return _too_much(call, f"LittleFS needs two blocks of {block} bytes")
    for name in _named(call):
        part = max(name.split("/"), key=lambda part: len(part.encode()))
        if len(part.encode()) > name_max:
            fact = f"'{part}' has {len(part.encode())} bytes, but `name_max` is {name_max}"
            return BuiltinError(f"{call.params['root']}/{name}", fact, "rename it, or raise options.name_max")
    volume = LittleFS(
        mount=False,
        block_size=block,
        block_count=size // block,
        name_max=name_max,
        disk_version=major << 16 | minor,
    )
    try:
        volume.format()
        volume.mount()
        for name, data in sorted(_named(call).items()):
            directory = posixpath.dirname(name)
            if directory:
                volume.makedirs(directory, exist_ok=True)
            with volume.open(name, "wb") as file:
                file.write(data)
        volume.unmount()
    except (LittleFSError, OSError) as error:
        return _too_much(call, f"LittleFS cannot hold it ({error})")
    return [bytes(volume.context.buffer).ljust(size, b"\xff")]


def pack_spiffs(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """Files -> SPIFFS. Parameters: `size`, `root`, `page_size`, `name_length`, `meta_length`."""
    keys = ("page_size", "name_length", "meta_length")
    settings = spiffs_format.SpiffsSettings(*(int(call.params[key]) for key in keys))
    made = spiffs_format.pack(_named(call), int(call.params["size"]), settings)
    if isinstance(made, str):
        return BuiltinError(call.params["root"], made, "rename or remove files, or enlarge the partition")
    return [made]


_ONE_VOLUME = threading.Lock()
"""FatFs keeps its volumes in one table for the process."""


def pack_fat(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """Files -> FAT, as ESP-IDF mounts it. Parameters: `size`, `root`, `wear_levelling`; `package` for the key."""
    size, levelled = int(call.params["size"]), call.params["wear_levelling"] == "true"
    sectors = fat_format.fat_sectors(size) if levelled else size // fat_format.SECTOR
    if sectors < fat_format.LEAST_SECTORS:
        more = (size // fat_format.SECTOR - sectors + fat_format.LEAST_SECTORS) * fat_format.SECTOR
        fact = f"the partition has {size} bytes, but a FAT needs {more}"
        return BuiltinError(call.params["root"], fact, "enlarge the partition, or use littlefs")
    with _ONE_VOLUME:
        volume = _fat_volume(call, sectors)
    if isinstance(volume, BuiltinError):
        return volume
    plain = fat_format.without_times(volume)
    return [fat_format.levelled(plain, size) if levelled else plain.ljust(size, b"\xff")]


def _fat_volume(call: BuiltinCall, sectors: int) -> bytes | BuiltinError:
    from fatfs import RamDisk, create_extended_partition
    from fatfs.wrapper import FatFSException, pyf_mkfs

    storage = bytearray(b"\xff" * sectors * fat_format.SECTOR)
    volume = create_extended_partition(RamDisk(storage, sector_size=fat_format.SECTOR, sector_count=sectors))
    code = pyf_mkfs(volume._adjust_path(""), workarea_size=fat_format.SECTOR)
    if code:
        return _too_much(call, f"FatFs cannot format {sectors} sectors (its error {code})")
    try:
        volume.mount()
        try:
            for name, data in sorted(_named(call).items()):
                directory = posixpath.dirname(name)
                if directory:
                    volume.makedirs(f"/{directory}", exist_ok=True)
                volume.write_file(f"/{name}", data)
                if volume.read_file(f"/{name}") != data:  # a full volume takes what fits, and says nothing
                    return _too_much(call, f"FAT cannot hold '{name}'")
        finally:
            volume.unmount()
    except (FatFSException, OSError, ValueError) as error:
        return _too_much(call, f"FAT cannot hold it ({error})")
    return bytes(storage)


def pack_nvs(call: BuiltinCall) -> Sequence[bytes] | BuiltinError:
    """A CSV file of ESP-IDF's NVS generator, and the files that it names -> NVS. Parameters: `size`, `root`, `version`;
    `package` for the key."""
    import csv
    import io

    tables = [n for n, path in enumerate(call.paths) if path.endswith(".csv")]
    root, size = call.params["root"], int(call.params["size"])
    if len(tables) != 1:
        names = ", ".join(call.paths[n] for n in tables) or "none"
        return BuiltinError(
            root, f"NVS is made of one CSV file, and there are: {names}", "keep one, or name it in `from`"
        )
    if size < 3 * _NVS_PAGE or size % _NVS_PAGE:
        fact = f"the partition has {size} bytes, but NVS needs three or more whole pages of {_NVS_PAGE}"
        return BuiltinError(root, fact, "enlarge the partition")
    path = call.paths[tables[0]]
    try:
        text = call.inputs[tables[0]].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return BuiltinError(path, f"it is not UTF-8 ({error})", "save it as UTF-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    wanted = {"key", "type", "encoding", "value"}
    if not rows or not wanted <= set(rows[0]):
        return BuiltinError(path, "the first line is not key,type,encoding,value", "write that line first")
    return _nvs(call, path, rows, size)


def _nvs(
    call: BuiltinCall, path: str, rows: Sequence[Mapping[str, str | None]], size: int
) -> Sequence[bytes] | BuiltinError:
    import io
    import tempfile

    from esp_idf_nvs_partition_gen import nvs_partition_gen as nvs

    quiet_esptool()  # its logger is the package's too
    out = io.BytesIO()
    version = nvs.Page.VERSION1 if call.params["version"] == "1" else nvs.Page.VERSION2
    folder = posixpath.dirname(path)
    files = dict(zip(call.paths, call.inputs, strict=True))
    with tempfile.TemporaryDirectory(prefix="hotplate-nvs-") as scratch:
        store = nvs.nvs_open(out, size - _NVS_PAGE, version)
        for number, row in enumerate(rows, 1):
            key, kind, encoding, value = (row.get(name) or "" for name in ("key", "type", "encoding", "value"))
            if len(key) > 15:
                fact = f"the key '{key}' of entry {number} has {len(key)} characters, but NVS takes 15"
                return BuiltinError(path, fact, "shorten it")
            if kind == "file":
                data = files.get(posixpath.normpath(posixpath.join(folder, value)))
                if data is None:
                    fact = (
                        f"entry {number} ('{key}') names the file '{value}', which is not below {call.params['root']}"
                    )
                    return BuiltinError(path, fact, "put it there, and let `from` name the directory")
                value = str(Path(scratch) / f"{number}")
                Path(value).write_bytes(data)
            try:
                nvs.write_entry(store, key, kind, encoding, value)
            except (nvs.InsufficientSizeError, nvs.PageFullError):
                return _too_much(call, f"NVS cannot hold entry {number} ('{key}')")
            except (Exception, SystemExit) as error:  # the package lets what Python says of a bad value through
                fact = f"entry {number} ('{key}', {kind}, {encoding}): {error}"
                return BuiltinError(path, fact, "correct it; see ESP-IDF's NVS Partition Generator")
        nvs.nvs_close(store)
    return [out.getvalue()]


FILESYSTEMS: Mapping[str, Builtin] = MappingProxyType(
    {LITTLEFS: pack_littlefs, SPIFFS: pack_spiffs, FAT: pack_fat, NVS: pack_nvs}
)
"""name@version -> function."""
