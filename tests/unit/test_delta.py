"""Which sectors, in which runs: any content plus the runs gives the image, and no run writes more than it pays for."""

from __future__ import annotations

import hashlib
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.digest import digest_bytes
from pipeline.chips import SECTOR
from pipeline.flash.delta import BLOCK, WriteCost, blocks, cost_at, differing, runs, sectors, sectors_in
from pipeline.flash_model import Image, Region

COST = cost_at(460800)


def image(data: bytes, offset: int = 0x10000) -> Image:
    md5 = hashlib.md5(data).hexdigest()
    return Image("app", "ota_0", offset, len(data), 0x200000, "build/app.bin", digest_bytes(data), md5)


def program(before: bytes, target: Image, data: bytes, written: tuple[Region, ...]) -> bytes:
    """What flash holds afterwards: each run erases its sectors and programs the image's bytes."""
    flash = bytearray(before.ljust(-(-target.size // SECTOR) * SECTOR, b"\xff"))
    for run in written:
        start = run.offset - target.offset
        flash[start : start + run.size] = data[start : start + run.size].ljust(run.size, b"\xff")
    return bytes(flash[: target.size])


contents = st.tuples(
    st.integers(0, 40),  # whole sectors
    st.integers(0, SECTOR // 4 - 1),
    st.integers(0, 2**32),
).map(lambda t: bytes((t[2] >> (i % 24)) & 0xFF for i in range(0, 256)) * 16 * t[0] + b"tail" * t[1])


@settings(deadline=None, max_examples=60)
@given(
    contents.filter(bool), contents, st.lists(st.integers(0, 41 * SECTOR), max_size=12), st.sampled_from([0, 0x9000])
)
def test_any_content_plus_the_runs_gives_the_image(after: bytes, other: bytes, edits: list[int], shift: int) -> None:
    target = image(after, 0x10000 + shift)
    edited = bytearray(after)
    for at in edits:
        if at < len(edited):
            edited[at] ^= 1
    for before in (bytes(edited), other, bytes(edited)[: len(after) // 2]):
        changed = differing(target, before, after)
        written = runs(target, changed, COST)
        assert program(before, target, after, written) == after
        covered = {at for run in written for at in range(run.offset, run.end, SECTOR)}
        assert set(changed) <= covered <= set(sectors(target)), "nothing outside the image's own sectors"
        assert all(a.end < b.offset for a, b in itertools.pairwise(written)), "apart, and in order"


def test_equal_content_needs_no_run() -> None:
    data = b"firmware" * 4000
    assert runs(image(data), differing(image(data), data, data), COST) == ()
    assert differing(image(data), data + b"what was behind it", data) == ()


def test_one_byte_is_one_sector() -> None:
    data = bytes(10 * SECTOR)
    before = bytearray(data)
    before[5 * SECTOR + 7] = 1
    assert runs(image(data), differing(image(data), bytes(before), data), COST) == (
        Region(0x10000 + 5 * SECTOR, SECTOR),
    )


def test_a_shorter_reference_leaves_the_rest_to_be_written() -> None:
    data = bytes(3 * SECTOR)
    assert differing(image(data), data[: SECTOR + 100], data) == (0x10000 + SECTOR, 0x10000 + 2 * SECTOR)


def test_most_of_a_block_is_written_as_a_block() -> None:
    data = bytes(3 * BLOCK)
    target = image(data)
    few = [0x20000 + n * SECTOR for n in (0, 5, 9)]
    most = [0x20000 + n * SECTOR for n in range(16) if n != 7]
    assert len(runs(target, few, COST)) == 3
    assert runs(target, most, COST) == (Region(0x20000, BLOCK),), "one block erase is cheaper than 15 of sectors"
    assert len(runs(target, most, WriteCost(byte_s=1.0))) == 2, "not over a line on which the 16th sector costs more"


def test_a_block_that_reaches_beyond_the_image_is_never_filled_up() -> None:
    target = image(bytes(BLOCK - SECTOR), 0x11000)
    changed = list(sectors(target))[:-1]
    assert runs(target, changed, COST) == (Region(0x11000, 14 * SECTOR),)


@given(st.integers(1, 5 * BLOCK), st.integers(0, 40))
def test_blocks_and_their_sectors_are_the_image(size: int, sector: int) -> None:
    target = image(bytes(size), sector * SECTOR)
    spans = list(blocks(target))
    assert [span.offset for span in spans[1:]] == [span.end for span in spans[:-1]]
    assert (spans[0].offset, spans[-1].end) == (target.offset, target.end)
    assert all(span.offset % BLOCK == 0 for span in spans[1:])
    inner = [piece for span in spans for piece in sectors_in(span)]
    assert [piece.offset for piece in inner] == list(sectors(target)) and inner[-1].end == target.end
