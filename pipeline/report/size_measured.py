"""From the sections of an ELF file and the shares that a map tells to a size: totals, and rows by archive or component.

Pure. Does not know files, reports or limits. Invariant: the rows of archives add up to the flash and the RAM of the
totals exactly, since what no archive accounts for is a row of its own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.formats.elf import LoadedSection
from pipeline.formats.link_map import MapShare
from pipeline.report.size import IMAGE
from pipeline.report.size_memory import BSS, CODE, DATA, IRAM, PSRAM, RESERVED, RODATA, RTC, memory_of

TOTALS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "flash_code": (CODE,),
        "flash_rodata": (RODATA,),
        "ram": (IRAM, DATA, BSS),
        "iram": (IRAM,),
        "dram": (DATA, BSS),
        "rtc": (RTC,),
        "psram": (PSRAM,),
    }
)
"""Beside `image` (the application's image, as it is written) and `flash` (every section with bytes)."""
MERGED = "(merged)"
"""Stands for an object: strings and constants that the linker made one of."""
OTHERS = "(others)"
MOST_ARCHIVES = 200
"""Rows of a report; what is smaller is one row."""


class Measured(NamedTuple):
    """One build, as it was found. `elf`, `map`: paths from the root; `note`: why there are no `shares`; `image` and
    `room`: bytes of the application's image and of its partition."""

    chip: str
    elf: str
    map: str
    note: str
    image: int
    room: int
    sections: tuple[LoadedSection, ...]
    shares: tuple[MapShare, ...] = ()


# --- from what was measured ---------------------------------------------------------------------


def size_of(measured: Measured) -> dict[str, Any]:
    """The size, without anything to compare it with."""
    memories = {section.name: memory_of(measured.chip, section) for section in measured.sections}
    rows = [(memories[section.name], section) for section in measured.sections]
    totals = {IMAGE: measured.image}
    if rows:  # else nothing is known of them
        totals["flash"] = sum(s.size for memory, s in rows if _is_in_flash(memory, s))
        totals |= {name: sum(s.size for m, s in rows if m in of) for name, of in TOTALS.items()}
    parts: dict[str, list[int]] = {}
    for name, flash, ram in _parts(measured, memories, component):
        row = parts.setdefault(name, [0, 0])
        row[0], row[1] = row[0] + flash, row[1] + ram
    kept = sorted(parts.items(), key=lambda item: (-item[1][0] - item[1][1], item[0]))
    rest = kept[MOST_ARCHIVES:]
    if rest:
        others = [sum(row[0] for _, row in rest), sum(row[1] for _, row in rest)]
        kept = [*kept[:MOST_ARCHIVES], (OTHERS, others)]
    return {
        "elf": measured.elf,
        "map": measured.map,
        "note": measured.note,
        "room": measured.room,
        "totals": [_row(name, size) for name, size in totals.items()],
        "sections": [{**_row(section.name, section.size), "memory": memory} for memory, section in rows],
        "archives": [
            {"name": name, "flash": flash, "flash_before": None, "ram": ram, "ram_before": None, "limit": None}
            for name, (flash, ram) in kept
        ],
    }


def files_of(measured: Measured) -> list[tuple[str, int, int]]:
    """(object, bytes in flash, bytes of RAM) of each, the largest first."""
    memories = {section.name: memory_of(measured.chip, section) for section in measured.sections}
    sums: dict[str, tuple[int, int]] = {}
    for name, flash, ram in _parts(measured, memories, _object):
        old = sums.get(name, (0, 0))
        sums[name] = (old[0] + flash, old[1] + ram)
    rows = [(name, flash, ram) for name, (flash, ram) in sums.items()]
    return sorted(rows, key=lambda row: (-row[1] - row[2], row[0]))


def _parts(
    measured: Measured, memories: Mapping[str, str], name_of: Callable[[MapShare], str]
) -> Iterator[tuple[str, int, int]]:
    bytes_of = {section.name: section.has_bytes for section in measured.sections}
    for share in measured.shares:
        memory = memories[share.section]
        flash = share.size if bytes_of[share.section] and memory != RESERVED else 0
        ram = share.size if memory in TOTALS["ram"] else 0
        if flash or ram:
            yield name_of(share), flash, ram


def _is_in_flash(memory: str, section: LoadedSection) -> bool:
    return section.has_bytes and memory != RESERVED


def _row(name: str, size: int) -> dict[str, Any]:
    return {"name": name, "size": size, "before": None, "limit": None}


# --- names --------------------------------------------------------------------------------------

_PRODUCTS = re.compile(r"(?:build/[^/]+/obj/[^/]+/|(?:.*/)?CMakeFiles/[^/]+\.dir/)")


def component(share: MapShare) -> str:
    """The archive's name, or for an object that is in none the directory of its source."""
    if share.archive:
        return posixpath.basename(share.archive.replace("\\", "/"))
    name = _object(share)
    return posixpath.dirname(name) or name


def _object(share: MapShare) -> str:
    """`libmain.a(main.c.obj)`, or the object as its source is called in the project. A path of this machine is none in
    a report."""
    if share.archive:
        return f"{component(share)}({share.file})"
    if share.file.startswith("<"):
        return MERGED
    name = share.file.replace("\\", "/")
    if (place := _PRODUCTS.match(name)) is not None:
        name = name[place.end() :]
    return posixpath.basename(name) if name.startswith("/") or name[1:3] == ":/" else name
