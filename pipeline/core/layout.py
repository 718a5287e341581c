"""Where each image of a build goes: a pure reading of the partition table.

Knows what belongs into flash (bootloader, table, otadata, application) and what limits each; knows no file and no
device. Invariant: placements come in flash order, and `limit` is the room up to what is not theirs to overwrite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.images import CHIPS
from pipeline.core.model import SECTOR, MatchRule, Partition
from pipeline.core.partitions import factory_row, ota_slots, otadata_row


@dataclass(frozen=True, slots=True)
class Placement:
    """Room for one image: `name` is what reports call it, `partition` the table's row or `""`."""

    name: str
    partition: str
    offset: int
    limit: int
    match: MatchRule = MatchRule.BYTES


def place(table: Sequence[Partition], chip: str, table_offset: int) -> tuple[Placement, ...]:
    """The placements of a build. The application goes to `factory` if there is one (it boots without otadata), else to
    `ota_0`, which otadata then has to select; a table without either gives no `app`."""
    boot = CHIPS[chip].bootloader_offset
    placements = [
        Placement("bootloader", "", boot, table_offset - boot),
        Placement("partitions", "", table_offset, SECTOR),
    ]
    factory, slots, otadata = factory_row(table), ota_slots(table), otadata_row(table)
    app = factory or (slots[0] if slots else None)
    if app is not None:
        placements.append(Placement("app", app.name, app.offset, app.size))
        if otadata is not None and factory is None:
            placements.append(Placement("otadata", otadata.name, otadata.offset, otadata.size, MatchRule.OTADATA))
    return tuple(sorted(placements, key=lambda p: p.offset))
