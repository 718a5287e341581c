"""The states of an action in one run of a stage, and which may follow which.

Values only. Does not know what brings an action from one to the next (`scheduler`). Invariant: an action that ended
stays as it is; a run in which every action ended without FAILED or NOT_RUN brought its stage up to date.

    WAITING   an action that it needs has not ended well
    READY     nothing that it needs is missing; whether it is up to date is asked next
    QUEUED    it must be executed: a worker has it or is about to
    then it ends: UP_TO_DATE as it was, RESTORED from the cache, EXECUTED, FAILED, or NOT_RUN since another one failed
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class ActionState(StrEnum):
    """The values of those that end an action are counters of a run and words of its log."""

    __hash__ = str.__hash__  # not that of `Enum`, which is Python: each action asks what may follow what

    WAITING = "waiting"
    READY = "ready"
    QUEUED = "queued"
    UP_TO_DATE = "up_to_date"
    RESTORED = "restored"
    EXECUTED = "executed"
    FAILED = "failed"
    NOT_RUN = "not_run"


_S = ActionState

TRANSITIONS: Mapping[ActionState, frozenset[ActionState]] = MappingProxyType(
    {
        _S.WAITING: frozenset({_S.READY}),
        _S.READY: frozenset({_S.QUEUED, _S.UP_TO_DATE, _S.RESTORED, _S.FAILED}),
        # By the time that a worker comes to it, a file may have become what it was.
        _S.QUEUED: frozenset({_S.UP_TO_DATE, _S.RESTORED, _S.EXECUTED, _S.FAILED, _S.NOT_RUN}),
        **dict.fromkeys((_S.UP_TO_DATE, _S.RESTORED, _S.EXECUTED, _S.FAILED, _S.NOT_RUN), frozenset[_S]()),
    }
)
