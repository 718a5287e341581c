"""How a farm's coordinator is spoken to, and what came of asking for a place: one protocol and values.

Does not know gRPC, processes or what a place is for. Invariant: a `FarmRefusal` says what a person reads: the fact with
its values, and a hint that begins with a verb.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cache.named_tuple import NamedTuple
from pipeline.formats.labgrid import PlaceSeen, ReservationSeen, ResourceSeen
from pipeline.model import FailureCategory


class FarmError(Exception):
    """The coordinator refused a call, or does not answer; the text is one fact."""


class FarmClient(Protocol):
    """A session with a coordinator, under one user's name. Every call has a deadline and raises FarmError."""

    @property
    def user(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def ended(self) -> str:
        """Why the session is over, or that nobody wants it any more; `""`: neither."""
        ...

    def place(self, name: str) -> PlaceSeen | None:
        """The place of this name or alias, as it was seen last."""
        ...

    def turns(self, place: str) -> int:
        """How often its holder was seen to change."""
        ...

    def places(self) -> Sequence[PlaceSeen]: ...
    def resources(self) -> Sequence[ResourceSeen]: ...
    def settle(self) -> None:
        """What the coordinator knew when it was asked is seen now."""
        ...

    def wait(self, happened: Callable[[], bool], timeout_s: float) -> bool:
        """Until something seen makes it true; False when the time is over, the session ended, or nobody wants it."""
        ...

    def acquire(self, place: str) -> None: ...
    def release(self, place: str, user: str) -> None:
        """If it is still acquired by this user."""
        ...

    def reserve(self, tags: Mapping[str, str]) -> ReservationSeen:
        """Ask for any place with these tags."""
        ...

    def poll(self, token: str) -> ReservationSeen:
        """How far it is; one that nobody polls for a minute ends."""
        ...

    def cancel(self, token: str) -> None: ...
    def reservations(self) -> Sequence[ReservationSeen]: ...


class FarmRefusal(NamedTuple):
    """Why a place cannot be had."""

    category: FailureCategory
    message: str
    hint: str


class HeldPlace(NamedTuple):
    """A place that is ours. `port`: what to open; `shown`: host and port of the board, for people; `kept`: whoever
    began us acquired it, and keeps it; `healed`: a run of ours that was killed had left it; `taken`: from whom it was
    taken."""

    place: str
    coordinator: str
    port: str
    shown: str
    reservation: str = ""
    kept: bool = False
    healed: bool = False
    taken: str = ""


class FarmRecord(NamedTuple):
    """What is written down of a place that is being acquired, so that the next run knows what a killed one left.
    `changed`: that of the place once it was ours; 0 until then."""

    coordinator: str
    place: str
    user: str
    changed: float = 0.0
    reservation: str = ""


class FarmRequest(NamedTuple):
    """What is wanted. `address`: of the coordinator; one of `place` and `tags`; `resource`: which of several serial
    ports; `user`: `HOST/USER`; `take`: from whoever has it; `under`: a place that this user holds already is ours to
    use; `wait_s`: how long a place with the tags is waited for; `record`: the path of our FarmRecord."""

    address: str
    user: str
    record: str
    place: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    resource: str = ""
    take: bool = False
    under: bool = False
    wait_s: float = 60.0
