"""Digests and fingerprints: what a file *is*, and whether it *changed*.

A digest (SHA-256 and size) names content between machines; a fingerprint (xxh3-128) only answers
"did it change?" on this machine, and is about ten times cheaper.
Does not know paths, stores or keys. Invariant: a hash never travels without its size.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import NewType

from cache.named_tuple import NamedTuple

Fingerprint = NewType("Fingerprint", str)
"""xxh3-128 of a file's bytes, 32 lower-case hex digits."""

ActionKey = NewType("ActionKey", str)
"""SHA-256 of an action's canonical encoding and its input digests, 64 lower-case hex digits."""

_HEX_64 = re.compile("[0-9a-f]{64}").fullmatch
_ALL_HEX = re.compile("[0-9a-f]*").fullmatch


class Digest(NamedTuple):
    """SHA-256 (64 lower-case hex digits) and size in bytes of one blob (as REAPI's `Digest`)."""

    hex: str
    size: int

    def __str__(self) -> str:
        return f"{self.hex}/{self.size}"


MAX_BLOB_BYTES = 1 << 32
"""More than any image, object or ELF file has; what says to be larger is not believed, and not stored."""


def is_sound(digest: Digest) -> bool:
    """Can that be the digest of a blob? Type checkers do not see what was read from a file of somebody else's."""
    size = digest.size
    return size.__class__ is int and 0 <= size <= MAX_BLOB_BYTES and is_hex_name(digest.hex)


def is_hex_name(name: object) -> bool:
    """Is that 64 lower-case hex digits, as the text of a SHA-256 is?"""
    return name.__class__ is str and _HEX_64(name) is not None


def are_hex_names(names: Collection[str]) -> bool:
    """`is_hex_name` of all of these strings, for the price of a few."""
    return set(map(len, names)) <= {64} and _ALL_HEX("".join(names)) is not None


def digest_bytes(data: bytes) -> Digest:
    """The digest of `data`."""
    return Digest(hashlib.sha256(data).hexdigest(), len(data))


def fingerprint_bytes(data: bytes) -> Fingerprint:
    """The fingerprint of `data`."""
    import xxhash

    return Fingerprint(xxhash.xxh3_128_hexdigest(data))
