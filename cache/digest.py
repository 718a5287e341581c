"""Digests and fingerprints: what a file *is*, and whether it *changed*.

A digest (SHA-256 and size) names content between machines; a fingerprint (xxh3-128) only answers
"did it change?" on this machine, and is about ten times cheaper.
Does not know paths, stores or keys. Invariant: a hash never travels without its size.
"""

from __future__ import annotations

import hashlib
from typing import NewType

from cache.named_tuple import NamedTuple

Fingerprint = NewType("Fingerprint", str)
"""xxh3-128 of a file's bytes, 32 lower-case hex digits."""

ActionKey = NewType("ActionKey", str)
"""SHA-256 of an action's canonical encoding and its input digests, 64 lower-case hex digits."""


class Digest(NamedTuple):
    """SHA-256 (64 lower-case hex digits) and size in bytes of one blob (as REAPI's `Digest`)."""

    hex: str
    size: int

    def __str__(self) -> str:
        return f"{self.hex}/{self.size}"


def digest_bytes(data: bytes) -> Digest:
    """The digest of `data`."""
    return Digest(hashlib.sha256(data).hexdigest(), len(data))


def fingerprint_bytes(data: bytes) -> Fingerprint:
    """The fingerprint of `data`."""
    import xxhash

    return Fingerprint(xxhash.xxh3_128_hexdigest(data))
