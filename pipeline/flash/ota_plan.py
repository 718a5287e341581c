"""Which blocks of an application have to cross the line, and which the device has already.

Pure: the image's bytes and the digests that the device gave, in; a plan out. Does not know how either came. Invariant:
every block of the image is in exactly one list, and one that is not sent has the digest that the device itself gave.

A digest here is the first 8 bytes of a SHA-256 in hex: enough to choose by, since the whole slot is proven by its full
SHA-256 before it is selected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from cache.named_tuple import NamedTuple

DIGEST_CHARS = 16
CHUNK_BYTES = 684
"""912 characters of base64: with its envelope a line of less than 1024."""


class OtaPlan(NamedTuple):
    """Numbers of blocks: `kept` are in the slot already, `copied` are where the running application has the same,
    `sent` have to cross the line."""

    block: int
    size: int
    kept: tuple[int, ...]
    copied: tuple[int, ...]
    sent: tuple[int, ...]

    @property
    def bytes_sent(self) -> int:
        return sum(min(self.block, self.size - index * self.block) for index in self.sent)


def block_digests(image: bytes, block: int) -> tuple[str, ...]:
    """Of every block of `image`, the last one as long as it is."""
    blocks = (image[at : at + block] for at in range(0, len(image), block))
    return tuple(hashlib.sha256(data).hexdigest()[:DIGEST_CHARS] for data in blocks)


def plan_blocks(image: bytes, block: int, slot: Sequence[str], running: Sequence[str]) -> OtaPlan:
    """`slot` and `running`: the device's digests, by block; missing ones are unknown."""
    kept, copied, sent = [], [], []
    for index, wanted in enumerate(block_digests(image, block)):
        if index < len(slot) and slot[index] == wanted:
            kept.append(index)
        elif index < len(running) and running[index] == wanted:
            copied.append(index)
        else:
            sent.append(index)
    return OtaPlan(block, len(image), tuple(kept), tuple(copied), tuple(sent))


def chunks(image: bytes, block: int, index: int) -> Iterator[tuple[int, bytes]]:
    """A block of the image in pieces that a line can hold: (where it goes, bytes)."""
    end = min(len(image), (index + 1) * block)
    for at in range(index * block, end, CHUNK_BYTES):
        yield at, image[at : min(at + CHUNK_BYTES, end)]


def runs(blocks: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Neighbours together: (first, count), `count` at most `most`."""
    first = count = 0
    for index in blocks:
        if count and index == first + count and count < most:
            count += 1
            continue
        if count:
            yield first, count
        first, count = index, 1
    if count:
        yield first, count
