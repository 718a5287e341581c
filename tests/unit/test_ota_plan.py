"""Which blocks cross the line: every one exactly once, and none that the device has."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from pipeline.flash.ota_plan import CHUNK_BYTES, block_digests, chunks, plan_blocks, runs

BLOCK = 64


@given(st.binary(min_size=1, max_size=500), st.binary(max_size=500), st.binary(max_size=500))
def test_every_block_is_in_one_list_and_what_is_not_sent_is_equal(image: bytes, slot: bytes, running: bytes) -> None:
    plan = plan_blocks(image, BLOCK, block_digests(slot, BLOCK), block_digests(running, BLOCK))
    total = -(-len(image) // BLOCK)
    assert sorted([*plan.kept, *plan.copied, *plan.sent]) == [*range(total)]
    parts = [image[i * BLOCK : (i + 1) * BLOCK] for i in range(total)]
    assert all(slot[i * BLOCK : (i + 1) * BLOCK] == parts[i] for i in plan.kept)
    assert all(running[i * BLOCK : (i + 1) * BLOCK] == parts[i] for i in plan.copied)
    assert plan.bytes_sent == sum(len(parts[i]) for i in plan.sent)


def test_a_digest_is_the_begin_of_the_sha256() -> None:
    assert block_digests(b"abc", BLOCK) == (hashlib.sha256(b"abc").hexdigest()[:16],)


@given(st.integers(1, 9000), st.integers(0, 3))
def test_chunks_are_the_block(size: int, index: int) -> None:
    image = bytes(n & 0xFF for n in range(size))
    found = list(chunks(image, 4096, index))
    assert b"".join(data for _, data in found) == image[index * 4096 : (index + 1) * 4096]
    assert all(0 < len(data) <= CHUNK_BYTES for _, data in found)


@given(st.lists(st.integers(0, 40), unique=True).map(sorted), st.integers(1, 8))
def test_runs_are_the_blocks_in_order(blocks: list[int], most: int) -> None:
    found = list(runs(blocks, most))
    assert [n for first, count in found for n in range(first, first + count)] == blocks
    assert all(1 <= count <= most for _, count in found)
