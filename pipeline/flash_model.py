"""What a board's flash is to hold, and what is to be written for that: values for whoever makes or places images.

Bytes and offsets as in the flash itself. Knows no chip, no port and no format. Invariant: no value holds the bytes.
"""

from __future__ import annotations

from enum import StrEnum

from cache.digest import Digest
from cache.named_tuple import NamedTuple
from pipeline.model import Reason, RegionAction


class Partition(NamedTuple):
    """One row of the partition table (ESP-IDF's format). `type` and `subtype` are the raw numbers."""

    name: str
    type: int
    subtype: int
    offset: int
    size: int
    flags: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.size


class MatchRule(StrEnum):
    """When does a region of the device match its image? `OTADATA`: when it selects the slot that holds the image."""

    BYTES = "bytes"
    OTADATA = "otadata"


class Image(NamedTuple):
    """Bytes destined for flash *as written* (header patched, padded to 4). `path` is the file that holds them.

    `limit` is the room at `offset` (its partition's size, or up to the next region); `partition` is the row's name or
    `""` for the bootloader and the table itself."""

    name: str
    partition: str
    offset: int
    size: int
    limit: int
    path: str
    digest: Digest
    md5: str
    match: MatchRule = MatchRule.BYTES

    @property
    def end(self) -> int:
        return self.offset + self.size


class Region(NamedTuple):
    """A sector-aligned span of flash."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


class RegionPlan(NamedTuple):
    """What to do with one image's region, and why."""

    image: Image
    action: RegionAction
    runs: tuple[Region, ...]
    device_md5_before: str
    reason: Reason | None = None

    @property
    def bytes_to_write(self) -> int:
        return sum(min(run.end, self.image.end) - run.offset for run in self.runs)


class FlashPlan(NamedTuple):
    """A pure result: `regions` covers every image exactly once. `full` says that escalation asked for everything."""

    regions: tuple[RegionPlan, ...]
    full: bool = False
    reasons: tuple[Reason, ...] = ()

    @property
    def writes(self) -> tuple[RegionPlan, ...]:
        return tuple(r for r in self.regions if r.action is not RegionAction.KEPT)

    @property
    def bytes_to_write(self) -> int:
        return sum(r.bytes_to_write for r in self.writes)


class DeviceFacts(NamedTuple):
    """What the loader said about the board in this session; never remembered from an earlier one."""

    chip: str
    mac: str
    chip_id: int | None
    revision: int
    flash_size: int
    flash_encryption: bool
    secure_boot: bool
