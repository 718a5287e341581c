"""Results elsewhere: what a store asks of a cache that other machines share.

Knows keys, results and digests; does not know transports (the clients are in `pipeline/remote/`), nor how keys are
made.
Invariants: no method raises for anything that the other side does or fails to do: that is a miss, counted, and said
once in `notes`. What is fetched is in the local store only after its bytes had their digest. An entry is believed only
if it has the form that `cache.actions` reads, so that nothing outside `build/` can be named by it. Nothing waits longer
than the client's own deadline, and offering never waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cache.actions import ActionResult
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest
from cache.named_tuple import NamedTuple


class RemoteCounts(NamedTuple):
    """What one run asked of the other side. `rounds`: how often it had to wait for answers (many questions asked at
    once are one round); `refused`: answers that were not what they said to be; `failed`: questions without answer."""

    rounds: int = 0
    asked: int = 0
    found: int = 0
    fetched: int = 0
    fetched_bytes: int = 0
    offered: int = 0
    offered_bytes: int = 0
    refused: int = 0
    failed: int = 0


class Remote(Protocol):
    """A shared cache. Called from several threads at once."""

    def find(self, keys: Sequence[ActionKey]) -> dict[ActionKey, ActionResult]:
        """The entries of those of `keys` that the other side has: one round, however many keys. A base key's entry
        holds its candidate sets, as `cache.actions` says."""

    def fetch(self, digests: Sequence[Digest], blobs: BlobStore) -> frozenset[Digest]:
        """Bring these into `blobs`, verified; those that are there afterwards. One round."""

    def offer(self, key: ActionKey, result: ActionResult, blobs: BlobStore) -> None:
        """Have the blobs of `result` and then its entry sent, in the background. Does not wait."""

    def settle(self, timeout_s: float) -> None:
        """Let what was offered be sent for at most `timeout_s`, then give up the rest: others will compile it."""

    def counts(self) -> RemoteCounts:
        """Of this run so far."""

    def notes(self) -> tuple[str, ...]:
        """Lines for the user, each said once: that the other side cannot be reached, is slow, or lies."""
