"""Merged images: bootloader, table, applications and file systems in one file, as `esptool merge-bin` makes it.

Splits such a file by the partition table that it holds. Pure; does not know where the file came from. Invariant: the
parts lie in flash order, do not overlap, and every byte outside of them is filler (all FF, or all 00, in its gap).
"""

from __future__ import annotations

from collections.abc import Sequence

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS, SECTOR, chip_name
from pipeline.flash_model import Partition
from pipeline.formats.esp_image import IMAGE_MAGIC, ImageInfo, describe_image, image_chip_id
from pipeline.formats.partitions import APP, TABLE_DATA_SIZE, TABLE_MAGIC, TABLE_SECTOR, decode_table
from pipeline.model import Reason

LAST_TABLE = 0x40000
"""Tables are looked for up to here; ESP-IDF's default is 0x8000."""

BOOT_OFFSETS = tuple(sorted({chip.bootloader_offset for chip in CHIPS.values()}))


class ImageSpan(NamedTuple):
    """`size` bytes at `offset` in flash."""

    offset: int
    size: int


def split(base: int, data: bytes) -> tuple[ImageSpan, ...] | str | None:
    """The parts of a file that lies at `base`; None when it is one image only; a fact when it is merged and cannot be
    split."""
    boot, found = _boot_offset(base, data), _find_table(base, data)
    begins_with_table = found is not None and found[0] == base
    if found is None or (boot is None and not begins_with_table):
        return _without_table(base, data, boot) if boot is not None else None
    table_offset, rows = found
    spans = []
    if boot is not None and boot < table_offset:
        spans.append(ImageSpan(boot, _content(data[boot - base : table_offset - base])))
    in_sector = _content(data[table_offset - base : table_offset - base + TABLE_SECTOR])
    spans.append(ImageSpan(table_offset, max(in_sector, min(TABLE_DATA_SIZE, base + len(data) - table_offset))))
    for row in sorted(rows, key=lambda row: row.offset):
        inside = data[max(row.offset - base, 0) : row.end - base]
        if row.offset >= table_offset + TABLE_SECTOR and inside.strip(b"\xff"):
            spans.append(ImageSpan(row.offset, _size(row, inside)))
    return _stray(base, data, spans) or tuple(spans)


def _boot_offset(base: int, data: bytes) -> int | None:
    """Where a bootloader lies, of the places where the ROM of its own chip looks."""
    for offset in BOOT_OFFSETS:
        chip_id = image_chip_id(data[offset - base : offset - base + 64]) if offset >= base else None
        name = chip_name(chip_id) if chip_id is not None else ""
        if name in CHIPS and CHIPS[name].bootloader_offset == offset:
            return offset
    return None


def _find_table(base: int, data: bytes) -> tuple[int, tuple[Partition, ...]] | None:
    """Offset and rows of the partition table."""
    for offset in range(-(-base // SECTOR) * SECTOR, min(LAST_TABLE, base + len(data)), SECTOR):
        at = offset - base
        if data[at : at + 2] == TABLE_MAGIC:
            rows = decode_table(data[at : at + TABLE_SECTOR])
            if not isinstance(rows, Reason) and rows:
                return offset, rows
    return None


def _without_table(base: int, data: bytes, boot: int) -> str | None:
    """What is wrong with a file that has a second image behind its bootloader, though no table says where it goes."""
    info = describe_image(data[boot - base :], 0xFF)
    end = boot - base + info.size if isinstance(info, ImageInfo) else len(data)
    sectors = range(-(-end // SECTOR) * SECTOR, len(data), SECTOR)
    if all(chip_name(image_chip_id(data[at : at + 64]) or 0) not in CHIPS or data[at] != IMAGE_MAGIC for at in sectors):
        return None  # a signature may follow a bootloader
    return f"it is a merged image ({len(data)} bytes) without a partition table, so nothing says what its parts are"


def _content(data: bytes) -> int:
    """Bytes up to the last one that is not erased."""
    return len(data.rstrip(b"\xff"))


def _size(row: Partition, inside: bytes) -> int:
    """Bytes of a row that are deployed. The rest of a file system belongs to it, erased or not; an application ends
    where its image says, or behind a signature that follows."""
    if row.type != APP:
        return len(inside)
    info = describe_image(inside)
    return max(_content(inside), info.size if isinstance(info, ImageInfo) else 0)


def _stray(base: int, data: bytes, spans: Sequence[ImageSpan]) -> str:
    """A fact about bytes that belong to no part, `""` without any."""
    at = base
    for span in (*spans, ImageSpan(base + len(data), 0)):
        gap = data[at - base : span.offset - base]
        if gap.strip(b"\xff") and gap.strip(b"\0"):
            first = at + len(gap) - len(gap.lstrip(b"\xff"))
            return f"it is a merged image, and its bytes at {first:#x} belong to no partition of the table in it"
        at = max(at, span.offset + span.size)
    return ""
