"""Results elsewhere: what a store asks of a cache that other machines share.

Knows keys, results and digests; does not know transports (the clients are in `pipeline/remote/`), nor how keys are
made.
Invariants: no method raises for anything that the other side does or fails to do: that is a miss, counted, and said
once in `notes`. What is fetched is in the local store only after its bytes had their digest. An entry is believed only
if it has the form that `cache.action_result` reads and carries the signature of its key, so that nothing outside
`build/` can be named by it. Nothing waits longer than the client's own deadline, and offering never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from cache.actions import ActionResult
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest
from cache.named_tuple import NamedTuple


class RemoteCounts(NamedTuple):
    """What one run asked of the other side. `rounds`: how often it had to wait for answers (many questions asked at
    once are one round); `refused`: answers that were not what they said to be; `failed`: questions without answer;
    `declined`: results that were there and would have cost more to fetch than to make; `offered`: entries sent, after
    their blobs; `offered_bytes`: of blobs that were sent; `given_up`: entries that were not sent in time."""

    rounds: int = 0
    asked: int = 0
    found: int = 0
    fetched: int = 0
    fetched_bytes: int = 0
    offered: int = 0
    offered_bytes: int = 0
    refused: int = 0
    failed: int = 0
    declined: int = 0
    given_up: int = 0


class RemoteSpeed(NamedTuple):
    """As measured in this run; 0.0: not known yet. `latency_s`: from a question to the first byte of its answer, of the
    fastest; `bytes_per_s`: of all connections together; `silent_s`: so long nothing was answered, since the last."""

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    silent_s: float = 0.0


class RoundWatch(Protocol):
    """Follows a round for whoever could do without it. Called on threads of the client; quick, and never raises.
    `name`: the key that is asked for, or the hex digits of the blob."""

    def began(self, questions: int, end: Callable[[], None]) -> None:
        """A round of so many questions begins. `end`, from any thread: nothing of it is of use any more."""

    def is_wanted(self, name: str) -> bool:
        """Asked just before a question is sent: is it still worth asking?"""

    def received(self, name: str, size: int) -> None:
        """So many more bytes of an answer that is long."""

    def answered(self, name: str, size: int, *, came: bool) -> None:
        """An answer, of so many bytes. `came`: what was asked for is here now."""

    def ended(self) -> None:
        """The round is over, however it ended."""


class Remote(Protocol):
    """A shared cache. Called from several threads at once. A round that a `watch` ended early is no failure of the
    other side; a client that cannot say much to a watch says less."""

    def find(
        self, keys: Sequence[ActionKey], blobs: BlobStore, watch: RoundWatch | None = None
    ) -> dict[ActionKey, ActionResult]:
        """The entries of those of `keys` that the other side has: one round, however many keys. A base key's entry
        holds its candidate sets, as `cache.actions` says. What an entry holds inlined (small candidate sets) is in
        `blobs` afterwards, verified."""

    def fetch(
        self, digests: Sequence[Digest], blobs: BlobStore, patience_s: float, watch: RoundWatch | None = None
    ) -> frozenset[Digest]:
        """Bring these into `blobs`, verified, the first ones first; those that are there afterwards. One round.
        `patience_s`: after this, what has not come is not waited for any more, which is no failure of the other side
        as long as something came."""

    def offer(self, key: ActionKey, result: ActionResult, blobs: BlobStore) -> None:
        """Have the blobs of `result` and then its entry sent, in the background. Does not wait. Does nothing where
        the configuration says that results are only read."""

    def decline(self, results: int) -> None:
        """Count results that are left there since fetching them would cost more than making them."""

    def settle(self, timeout_s: float) -> None:
        """The end: let what was offered be sent for at most `timeout_s`, then give up the rest (others will make it)
        and close every connection."""

    def speed(self) -> RemoteSpeed:
        """Of this run so far."""

    def counts(self) -> RemoteCounts:
        """Of this run so far."""

    def notes(self) -> tuple[str, ...]:
        """Lines for the user, each said once: that the other side cannot be reached, is slow, or lies."""
