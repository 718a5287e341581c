"""From `deploy.toml` and the partition table to where everything goes in flash.

Reads the table (a CSV, or the binary one of a firmware that was built elsewhere). Does not know how images are made.
Invariant: what has no place raises a ConfigError that names the line of deploy.toml, or the file, that asks for it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from cache.durable import MOST_TEXT, read_file
from pipeline.chips import CHIPS
from pipeline.config.schema import DeployConfig, Prebuilt
from pipeline.errors import ConfigError
from pipeline.failures import fail
from pipeline.flash_model import Partition
from pipeline.formats.partitions import decode_csv, parse_csv
from pipeline.formats.placement import APPLICATION, Given, Misplaced, Placement, add_given, place
from pipeline.model import Failure, FailureCategory
from pipeline.toolchain.config_places import config_failure_at

if TYPE_CHECKING:
    from pipeline.config.values import Problem
    from pipeline.formats.manifests import Firmware

PACKED = "build/packed/{}.bin"
"""Where the image of a directory is made; the same in every profile, since no profile changes it."""


def find_firmware(root: Path, section: Prebuilt, made: Collection[str] = ()) -> Firmware | Problem | Failure:
    """What `[prebuilt]` names below `root`; `made`: outputs of `[[action]]` tables."""
    from pipeline.toolchain.given_builds import read_firmware

    try:
        return read_firmware(root, section, made)
    except OSError as error:  # a name of 300 characters, a directory that is closed to us
        path = str(error.filename or section.directory).removeprefix(f"{root}/")
        message = f"'{path[:80]}' cannot be looked at: {error.strerror}"
        hint = "correct the path, or make it readable"
        category = FailureCategory.CONFIG_ERROR
        return fail(category, stage=None, where="deploy.toml: prebuilt", message=message, hint=hint)


def read_table(root: Path, config: DeployConfig) -> tuple[Partition, ...]:
    """The partition table. Raises ConfigError when it is missing or wrong."""
    if config.firmware is not None:
        from pipeline.toolchain import prebuilt

        rows = prebuilt.read_table(root, config.firmware, config.flash.size_bytes)
    elif config.is_ninja:
        return ()
    else:
        rows = _read_csv(root, config)
    if isinstance(rows, Failure):
        raise ConfigError(rows)
    return rows


def _read_csv(root: Path, config: DeployConfig) -> tuple[Partition, ...] | Failure:
    path = config.partitions.table
    try:
        data = read_file(str(root / path), most=MOST_TEXT)
    except OSError as error:
        message = f"the partition table '{path}' cannot be read: {error.strerror}"
        hint = "correct the path, or write the table"
        return config_failure_at(root, config, ("partitions", "table"), message, hint)
    text = decode_csv(data, path)
    if isinstance(text, Failure):
        return text
    return parse_csv(
        text,
        path,
        flash_size=config.flash.size_bytes,
        table_offset=config.partitions.offset,
        boot_offset=CHIPS[config.toolchain.chip].bootloader_offset,
    )


def place_all(root: Path, config: DeployConfig, table: tuple[Partition, ...]) -> tuple[Placement, ...]:
    """Where everything goes. Raises ConfigError when something has no place."""
    chip, flash_size = config.toolchain.chip, config.flash.size_bytes
    if config.firmware is not None:
        from pipeline.toolchain import prebuilt

        placed = prebuilt.placements(root, config.firmware, table, chip, flash_size)
        if isinstance(placed, Failure):
            raise ConfigError(placed)
    elif config.is_ninja:
        return ()
    else:
        placed = place(table, chip, config.partitions.offset)
        if all(one.name != APPLICATION for one in placed):
            message = f"'{config.partitions.table}' has neither a factory partition nor ota_0: nothing would be started"
            hint = "add a row of type app and subtype factory or ota_0"
            raise ConfigError(config_failure_at(root, config, ("partitions", "table"), message, hint))
    given = [
        Given(image.name, image.file or PACKED.format(image.name), image.partition, image.offset)
        for image in config.images
    ]
    found = add_given(table, placed, given, flash_size)
    if isinstance(found, Misplaced):
        key = "partition" if found.given.partition else "offset"
        path = ("image", found.given.name, key)
        raise ConfigError(config_failure_at(root, config, path, found.message, found.hint))
    return found
