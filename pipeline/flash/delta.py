"""Which sectors of a region must be written, and in which runs?

Pure: bytes or digests in, sectors and runs out. Does not know ports, journals, or how the old content came to be known;
whoever calls must have had it confirmed by the device.
Invariant: programming the runs over the content that the sectors were compared with gives exactly the image, since a
run covers every changed sector and holds the image's bytes; nothing outside the image's own sectors is in a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator

from cache.named_tuple import NamedTuple
from pipeline.chips import SECTOR
from pipeline.flash_model import Image, Region

BLOCK = 0x10000
"""What flash erases in one go where a run covers all of it; the stub does."""


class WriteCost(NamedTuple):
    """Seconds for parts of a write, to choose between runs; only the ratios matter. Flash times are the typical ones of
    Winbond's W25Q32JV data sheet (tSE, tBE2, tPP), which the parts on ESP32 modules resemble."""

    byte_s: float
    erase_sector_s: float = 0.045
    erase_block_s: float = 0.150
    program_page_s: float = 0.0004
    run_s: float = 0.010
    """Begin, first block and end of a run are three round trips."""

    @property
    def _fill_s(self) -> float:
        return SECTOR * self.byte_s + SECTOR / 256 * self.program_page_s

    def sectors_s(self, sectors: int, runs: int) -> float:
        """`sectors` erased one by one, in `runs` runs."""
        return sectors * (self.erase_sector_s + self._fill_s) + runs * self.run_s

    @property
    def block_s(self) -> float:
        """A whole aligned block in one run."""
        return self.erase_block_s + BLOCK // SECTOR * self._fill_s + self.run_s


DEFLATED = 0.65
"""What is left of firmware after deflate: a guess, between text (0.4) and code (0.75)."""


def cost_at(baud: int) -> WriteCost:
    """The cost over a UART with ten bits a byte."""
    return WriteCost(byte_s=10 / baud * DEFLATED)


# --- changed sectors --------------------------------------------------------------------------


def sectors(image: Image) -> range:
    """Flash offsets of the image's sectors. Images begin on a sector (`esp_image.check_fits`)."""
    return range(image.offset, image.end, SECTOR)


def differing(image: Image, before: bytes, after: bytes) -> tuple[int, ...]:
    """Sectors in which `after`, the image, is not what `before`, the content from the same offset on, holds. Beyond the
    end of `before` everything differs; beyond the end of the image nothing does."""
    found = []
    for at in sectors(image):
        start = at - image.offset
        wanted = after[start : start + SECTOR]
        if before[start : start + len(wanted)] != wanted:
            found.append(at)
    return tuple(found)


def blocks(image: Image) -> Iterator[Region]:
    """The spans to ask MD5s of first, when it is not known what a cut-off write left: aligned blocks of the image."""
    at = image.offset
    while at < image.end:
        end = min((at // BLOCK + 1) * BLOCK, image.end)
        yield Region(at, end - at)
        at = end


def sectors_in(span: Region) -> Iterator[Region]:
    """The spans to ask next, inside a block that differs."""
    for at in range(span.offset, span.end, SECTOR):
        yield Region(at, min(at + SECTOR, span.end) - at)


# --- runs -------------------------------------------------------------------------------------


def runs(image: Image, changed: Collection[int], cost: WriteCost) -> tuple[Region, ...]:
    """Spans to write so that every `changed` sector is; whole blocks where that is cheaper than many sectors."""
    wanted = set(changed)
    end = -(-image.end // SECTOR) * SECTOR
    for block in sorted({at // BLOCK * BLOCK for at in changed}):
        if block < image.offset or block + BLOCK > end:
            continue
        inside = range(block, block + BLOCK, SECTOR)
        there = [at for at in inside if at in wanted]
        if cost.block_s < cost.sectors_s(len(there), len(_joined(there))):
            wanted.update(inside)
    return _joined(sorted(wanted))


def written_spans(image: Image, data: bytes, runs: Iterable[Region]) -> Iterator[tuple[Region, str]]:
    """What programming `runs` of `data` wrote of the image, and its MD5."""
    for run in runs:
        end = min(run.end, image.end)
        piece = data[run.offset - image.offset : end - image.offset]
        yield Region(run.offset, end - run.offset), hashlib.md5(piece, usedforsecurity=False).hexdigest()


def _joined(ordered: Collection[int]) -> tuple[Region, ...]:
    found: list[Region] = []
    for at in ordered:
        if found and found[-1].end == at:
            found[-1] = Region(found[-1].offset, found[-1].size + SECTOR)
        else:
            found.append(Region(at, SECTOR))
    return tuple(found)
