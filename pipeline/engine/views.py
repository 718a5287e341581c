"""What whoever decides about actions asks about files, records and the cache: the questions, without an answer.

`look` answers for everything that a run asks before it does anything, `observation` for what it must do something
about, `forecast` for what a run would do. Types alone: no run loads this module. Does not know what follows from an
answer (`decision`). Invariant: a view tells what is; no question changes a file, a record or what the cache holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from cache.actions import ActionResult
from cache.digest import ActionKey
from cache.stamps import Entry
from pipeline.engine.build_log import Record
from pipeline.engine.candidates import CandidateSet, IdentifiedSet
from pipeline.engine.keys import KeyDifference, Keyed
from pipeline.engine.record_rows import Inputs
from pipeline.model import Action, Tool


class MovedView(Protocol):
    """Answers about files that tell whether anything moved since the last recorded run."""

    tools: Mapping[str, Tool]

    def record(self, action: Action) -> Record | None: ...

    def entry(self, path: str) -> Entry | None:
        """What the file holds; None when it is missing, or moved and nobody read it yet. May raise OSError."""
        ...

    @property
    def believed(self) -> Collection[str]:
        """Files that certainly are what the records of those who read them say."""
        ...

    def is_present(self, path: str) -> bool:
        """Is there a file that a compiler would open?"""
        ...

    def first_present(self, paths: Sequence[str]) -> str:
        """The first of these for which `is_present`, `""` if there is none. Many actions ask about the same ones."""
        ...

    def is_made(self, path: str) -> bool:
        """Does an action make it?"""
        ...

    def is_made_alone(self, path: str) -> bool:
        """Does an action make it that certainly writes nothing but its outputs?"""
        ...

    def ran_ns(self, action: Action) -> int:
        """Up to which mtime of its inputs the last run of a statement counts."""
        ...

    def newest_ns(self, observed: Inputs) -> int:
        """The latest mtime of these files, 0 without any."""
        ...

    def is_told(self, action: Action, newest_ns: int) -> bool:
        """Would ninja take a statement for up to date that needs nothing newer than that?"""
        ...

    def once(self, shared: object, ask: Callable[[], KeyDifference | None]) -> KeyDifference | None:
        """What `ask` gives about an object that many actions share; may be remembered."""
        ...


class ActionView(MovedView, Protocol):
    """Answers that also tell what to do. `symbols`: what placeholders stand for on this machine."""

    symbols: Mapping[str, str]

    def is_there(self, path: str, sha256: str, executable: bool) -> bool:
        """Is this output in place?"""
        ...

    def is_key_kept(self, action: Action) -> bool:
        """Is the key of an action the recorded one for certain, when nothing but outputs was seen to have moved?"""
        ...

    def candidates(self, base: ActionKey) -> Iterable[CandidateSet]:
        """The sets that the cache knows for a base key."""
        ...

    def identify(self, candidate: CandidateSet) -> IdentifiedSet | None:
        """The set with its files' content, None when it cannot apply."""
        ...

    def result_key(self, keyed: Keyed, found: IdentifiedSet) -> ActionKey:
        """The key of the result of what is read."""
        ...

    def with_options(self, action: Action, record: Record) -> IdentifiedSet | None:
        """What the action read, if nothing of that moved but an option header, and in nothing that counts for it."""
        ...

    def explain_option(self, action: Action, record: Record, moved: KeyDifference) -> KeyDifference | None:
        """Of an option header that moved, the option that counts for the action, None if none does; else what moved."""
        ...

    def stored(self, key: ActionKey) -> ActionResult | None:
        """The result under a full key."""
        ...

    def products(self, paths: tuple[str, ...]) -> Collection[str]:
        """The outputs of users' actions that these paths lead to, by whatever name."""
        ...

    def made_elsewhere(self, action: Action) -> CandidateSet | None:
        """What a statement read when ninja ran it, if ninja did that after us and would not do it again."""
        ...

    def waits_for(self, paths: Iterable[str]) -> str:
        """The first of these whose content depends on an action that would run first, `""` if there is none."""
        ...
