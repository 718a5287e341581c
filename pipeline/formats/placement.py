"""Where each image of a build goes: a pure reading of the partition table.

Knows what belongs into flash (bootloader, table, otadata, application, and what was declared beside them) and what
limits each; reads no file and no device. Invariant: placements come in flash order, their names are different and fit
into the name of a file, and `limit` is the room up to what is not theirs to overwrite.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS, SECTOR
from pipeline.flash_model import MatchRule, Partition
from pipeline.formats.flash_file import WHOLE, FilePart
from pipeline.formats.partitions import APP, app_rows, factory_row, ota_slots, otadata_row
from pipeline.text import did_you_mean

OWN_IMAGES = ("bootloader", "partitions", "app", "otadata")
"""Names that `[image.NAME]` cannot have: what every build has."""
BOOTLOADER, TABLE, APPLICATION, OTADATA_IMAGE = OWN_IMAGES


class Placement(NamedTuple):
    """Room for one image: `name` is what reports call it, `partition` the table's row or `""`. `program`: its header
    names a chip. `source`: the given file that it holds (`part` of it), `""` for what a toolchain makes."""

    name: str
    partition: str
    offset: int
    limit: int
    match: MatchRule = MatchRule.BYTES
    program: bool = False
    source: str = ""
    part: FilePart = WHOLE


class Given(NamedTuple):
    """A file for flash: `name` as it was declared, `""` to be named after its partition. Exactly one of `partition` and
    `offset` says where."""

    name: str
    path: str
    partition: str = ""
    offset: int | None = None
    part: FilePart = WHOLE


class Misplaced(NamedTuple):
    """Why a given file cannot go where it shall: `given`, a fact, and a hint."""

    given: Given
    message: str
    hint: str


def place(table: Sequence[Partition], chip: str, table_offset: int) -> tuple[Placement, ...]:
    """The placements of what a toolchain builds. The application goes to `factory` if there is one (erased otadata
    starts it), else to `ota_0`, which otadata then has to select; a table without either gives no `app`. Otadata is
    ours wherever the table has it: a board that was once updated over the air would start something else."""
    boot = CHIPS[chip].bootloader_offset
    placements = [
        Placement(BOOTLOADER, "", boot, table_offset - boot, program=True),
        Placement(TABLE, "", table_offset, SECTOR),
    ]
    factory, slots, otadata = factory_row(table), ota_slots(table), otadata_row(table)
    app = factory or (slots[0] if slots else None)
    if app is not None:
        placements.append(_application(table, app))
    if otadata is not None:
        placements.append(Placement(OTADATA_IMAGE, otadata.name, otadata.offset, otadata.size, MatchRule.OTADATA))
    return tuple(sorted(placements, key=lambda p: p.offset))


# --- given files ------------------------------------------------------------------------------


def started_row(
    table: Sequence[Partition], files: Sequence[Given], selected: int | None, *, has_otadata: bool
) -> Partition | Misplaced:
    """The row that the bootloader starts, of a firmware with these files. With otadata among them it is the row that
    this selects (`selected`: its slot, None for nothing); else the first app row, factory before slots, with a file."""
    slots, offsets = ota_slots(table), {file.offset for file in files}
    order = [row for row in (factory_row(table), *slots, *app_rows(table)) if row is not None]
    if has_otadata:
        started = slots[selected] if selected is not None else next(iter(order), None)
    else:
        started = next((row for row in order if row.offset in offsets), None)
    if started is None:
        return Misplaced(files[0], "no file lies at the offset of an app partition", "add the application's image")
    if started.offset not in offsets:
        fact = f"otadata starts '{started.name}' at {started.offset:#x}, but no file lies there"
        return Misplaced(files[0], fact, "add the application's image at that offset, or other otadata")
    return started


def place_firmware(
    table: Sequence[Partition],
    chip: str,
    table_offset: int,
    files: Sequence[Given],
    started: Partition,
    flash_size: int,
) -> tuple[Placement, ...] | Misplaced:
    """The placements of files with offsets. Otadata that starts `started` is added where the table has room for it and
    no file is given: the board's own may start what was once put there over the air."""
    boot, otadata = CHIPS[chip].bootloader_offset, otadata_row(table)
    known = {
        boot: Placement(BOOTLOADER, "", boot, table_offset - boot, program=True),
        table_offset: Placement(TABLE, "", table_offset, SECTOR),
        started.offset: _application(table, started),
    }
    if otadata is not None:
        row = Placement(OTADATA_IMAGE, otadata.name, otadata.offset, otadata.size, MatchRule.OTADATA)
        known[otadata.offset] = row
    placed: list[Placement] = []
    for file in files:
        role = known.pop(file.offset, None) if file.offset is not None else None
        found = (
            role._replace(source=file.path, part=file.part)
            if role is not None
            else _place_one(table, file, placed, flash_size)
        )
        if isinstance(found, Misplaced):
            return found
        placed.append(found)
    placed += [row for row in known.values() if row.match is MatchRule.OTADATA]
    return tuple(sorted(placed, key=lambda p: p.offset))


def add_given(
    table: Sequence[Partition], placed: Sequence[Placement], given: Sequence[Given], flash_size: int
) -> tuple[Placement, ...] | Misplaced:
    """`placed` and the given files beside them."""
    together = list(placed)
    for one in given:
        found = _place_one(table, one, together, flash_size)
        if isinstance(found, Misplaced):
            return found
        other = next((p for p in together if p.offset == found.offset or (p.partition == one.partition != "")), None)
        if other is not None:
            place = f"the partition '{other.partition}'" if other.partition else f"the flash at {other.offset:#x}"
            return Misplaced(one, f"{place} already holds '{other.name}'", "choose another partition or offset")
        together.append(found)
    return tuple(sorted(together, key=lambda p: p.offset))


def _place_one(
    table: Sequence[Partition], given: Given, placed: Sequence[Placement], flash_size: int
) -> Placement | Misplaced:
    row, offset = _row_of(table, given)
    if given.partition and row is None:
        names = [row.name for row in table]
        meant = did_you_mean(given.partition, names)
        fact = f"the table has no partition '{given.partition}'{meant}"
        return Misplaced(given, fact, f"use one of {', '.join(names)}")
    if row is not None and row.type == APP and offset != row.offset:
        fact = f"{offset:#x} lies within the app partition '{row.name}', which begins at {row.offset:#x}"
        return Misplaced(given, fact, f"put it at {row.offset:#x}, where it would be started")
    end = row.end if row is not None else min([r.offset for r in table if r.offset > offset], default=flash_size)
    if offset >= min(end, flash_size):
        fact = f"{offset:#x} is not within the flash, which ends at {flash_size:#x}"
        return Misplaced(given, fact, "correct the offset, or `flash.size` in deploy.toml")
    label = row.name if row is not None else ""
    fits = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", label) and label not in OWN_IMAGES
    taken = {one.name for one in placed}
    name = given.name or (label if fits and label not in taken else f"at-{offset:#x}")
    is_otadata = row is not None and row == otadata_row(table)
    return Placement(
        name,
        label,
        offset,
        room(table, row, offset) if row is not None else end - offset,
        MatchRule.OTADATA if is_otadata else MatchRule.BYTES,
        program=row is not None and row.type == APP,
        source=given.path,
        part=given.part,
    )


def _application(table: Sequence[Partition], row: Partition) -> Placement:
    return Placement(APPLICATION, row.name, row.offset, room(table, row, row.offset), program=True)


def room(table: Sequence[Partition], row: Partition, offset: int) -> int:
    """Bytes from `offset` to the end of its row. A sector that another row begins in is not this row's to erase (tables
    of ESP-IDF before 5.0 have such rows)."""
    last = row.end // SECTOR * SECTOR
    shared = any(row.end <= other.offset < last + SECTOR for other in table if other != row)
    return (last if row.end % SECTOR and shared else row.end) - offset


def _row_of(table: Sequence[Partition], given: Given) -> tuple[Partition | None, int]:
    if given.offset is None:
        row = next((row for row in table if row.name == given.partition), None)
        return row, row.offset if row is not None else 0
    return next((row for row in table if row.offset <= given.offset < row.end), None), given.offset
