"""PlatformIO's build of one environment: which of its files goes where.

Its names are fixed (`firmware.bin`, `partitions.bin`...); its offsets come from ESP-IDF's manifest beside them
(`framework = espidf`), from the environment's sdkconfig, from `idedata.json`, or from the table. Pure: texts and bytes
in, files out. Invariant: a factory application beside OTA slots is only written where the build itself says so.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS
from pipeline.flash_model import Partition
from pipeline.formats.flash_file import FlashFile
from pipeline.formats.otadata import select
from pipeline.formats.partitions import app_rows, boot_row, factory_row, ota_slots, otadata_row

APP = "firmware.bin"
TABLE = "partitions.bin"
BOOTLOADER = "bootloader.bin"
OTADATA = ("ota_data_initial.bin", "boot_app0.bin")
"""Of `framework = espidf` (erased: factory, or ota_0), and Arduino's (it selects ota_0); the first that is there."""

IDEDATA = "idedata.json"
TABLE_OFFSET = 0x8000

ROLES: Mapping[str, str] = {"bootloader": BOOTLOADER, "partition_table": TABLE, "app": APP, "otadata": OTADATA[0]}
"""What ESP-IDF's manifest calls an image -> PlatformIO's name of it."""


class Said(NamedTuple):
    """Offsets that the build names; None where it does not."""

    table: int | None = None
    app: int | None = None


def sdkconfig_path(directory: str) -> str:
    """`sdkconfig.ENV` of the project whose build lies in `directory`; `""` where the directory is not PlatformIO's."""
    found = re.fullmatch(r"(.*?)/?\.pio/build/([^/]+)", directory)
    return posixpath.join(found[1], f"sdkconfig.{found[2]}") if found else ""


def said_by(sdkconfig: str, idedata: str) -> Said:
    """What the texts say (`""`: there is none); the sdkconfig is what the build was made with, so it goes first."""
    found = re.search(r"(?m)^CONFIG_PARTITION_TABLE_OFFSET=(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})\s*$", sdkconfig)
    table = int(found[1], 0) if found else None
    try:
        extra = json.loads(idedata)["extra"]
        images = {
            posixpath.basename(str(one["path"]).replace("\\", "/")): one["offset"] for one in extra["flash_images"]
        }
        app = extra.get("application_offset")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Said(table)
    return Said(table if table is not None else _number(images.get(TABLE)), _number(app))


def _number(value: Any) -> int | None:
    try:
        return int(value, 0) if isinstance(value, str) else None
    except ValueError:
        return None


def by_manifest(
    files: Sequence[FlashFile], roles: Mapping[str, int], directory: str, exists: Callable[[str], bool]
) -> list[FlashFile]:
    """The files of ESP-IDF's manifest at its offsets, under PlatformIO's names where those are there."""
    names = {offset: f"{directory}/{ROLES[role]}" for role, offset in roles.items() if role in ROLES}
    chosen = ((file, names.get(file.offset, "")) for file in files)
    return sorted(file._replace(path=name) if name and exists(name) else file for file, name in chosen)


def by_table(
    directory: str, chip: str, table: Sequence[Partition], said: Said, otadata: tuple[str, bytes] | None
) -> tuple[list[FlashFile], str]:
    """What `pio run -t upload` writes: the bootloader where the chip's ROM looks, the table, the otadata file (name,
    bytes) where the table has it, and the application: where the build says, else where that otadata starts it, else in
    the first OTA slot, beside which a factory application is a rescue that stays, else in the first app partition. And
    a note where that was a choice."""
    files = [
        FlashFile(CHIPS[chip].bootloader_offset, f"{directory}/{BOOTLOADER}"),
        FlashFile(said.table if said.table is not None else TABLE_OFFSET, f"{directory}/{TABLE}"),
    ]
    row, slots, factory = otadata_row(table), ota_slots(table), factory_row(table)
    app = next((each for each in app_rows(table) if each.offset == said.app), None)
    why = f"{IDEDATA} says so"
    if app is None and row is not None and otadata is not None:
        app, why = boot_row(table, select(otadata[1], len(slots))), f"{otadata[0]} starts it"
    elif app is None:
        app, why = next(iter((*slots, *app_rows(table))), None), "it is the first OTA slot"
    if row is not None and otadata is not None and boot_row(table, select(otadata[1], len(slots))) == app:
        files.append(FlashFile(row.offset, f"{directory}/{otadata[0]}"))
    note = ""
    if app is not None:
        files.append(FlashFile(app.offset, f"{directory}/{APP}"))
        if factory is not None and app in slots:
            note = f"the application goes to '{app.name}' ({why}); what is in '{factory.name}' stays"
    return sorted(files), note
