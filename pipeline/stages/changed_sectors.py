"""Which sectors of the regions that differ have to be written? Asks the device, never a memory of it alone.

Two sources, both confirmed by the device's own MD5 in this session: the image that was last committed to this board
(its MD5 over the region must be what the device computed), and, for a region that a cut-off write left unknown, MD5s of
its blocks and sectors against the planned image. Where neither holds there is no delta, and the region is written
whole.
Does not write and does not decide about regions that match.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.chips import SECTOR
from pipeline.effects.api import FlashSession
from pipeline.flash import delta
from pipeline.flash.plan import Delta
from pipeline.flash_model import Image, MatchRule, Region
from pipeline.model import Reason
from pipeline.stages.handover import Journal

if TYPE_CHECKING:
    from pipeline.stages.protocols import Boards, DeviceBuild


def find_deltas(
    boards: Boards, build: DeviceBuild, session: FlashSession, journal: Journal, md5s: Mapping[str, str]
) -> dict[str, Delta]:
    """For each image whose region differs and whose content is known well enough: the runs that suffice."""
    cost = delta.cost_at(session.baud)
    found: dict[str, Delta] = {}
    for image in build.images.all():
        if image.match is not MatchRule.BYTES or md5s[image.name] == image.md5:
            continue
        after = build.images.data(image)
        changed = _since_reference(boards.reference(journal, image), image, after, md5s[image.name], session)
        kind = "changed-since-commit"
        if changed is None and image.name in journal.state.unknown:
            opened = journal.state.open
            changed, kind = _by_block(image, after, session), opened.kind if opened is not None else "write-was-cut-off"
        if changed is not None:
            count = -(-image.size // SECTOR)
            reason = Reason(kind, image.name, md5s[image.name], f"{len(changed)} of {count} sectors differ")
            found[image.name] = Delta(delta.runs(image, changed, cost), reason)
    return found


def _since_reference(
    before: bytes | None, image: Image, after: bytes, device_md5: str, session: FlashSession
) -> tuple[int, ...] | None:
    """Sectors that differ from the reference; None when it is missing, or not what the device holds."""
    if before is None:
        return None
    if len(before) >= image.size:
        held = device_md5 == _md5(before[: image.size])
    else:
        held = session.md5(image.offset, len(before)) == _md5(before)
    return delta.differing(image, before, after) if held else None


def _by_block(image: Image, after: bytes, session: FlashSession) -> tuple[int, ...]:
    """Sectors that differ, by MD5 of blocks, and of sectors in the blocks that differ. Sixteen questions cost a tenth
    of writing their block, and after a write that stopped somewhere they save half of it on average."""

    def differs(span: Region) -> bool:
        start = span.offset - image.offset
        return session.md5(span.offset, span.size) != _md5(after[start : start + span.size])

    wrong = [span for span in delta.blocks(image) if differs(span)]
    return tuple(sector.offset for span in wrong for sector in delta.sectors_in(span) if differs(sector))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
