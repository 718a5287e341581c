"""What a stage asks other machines for: what the store here lacks, many actions at once, while everything else goes on.

Knows which actions were missed, and which are asked for. Does not know transports or what answers are worth
(`shared_results`, `inquiry`), nor what is to be done about an answer (`scheduler`). Invariant: each action that is
asked for is given back once, told of or to be made here; when a stage ends, nothing is asked for any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cache.digest import ActionKey
from pipeline.engine.action_runner import ActionRunner
from pipeline.engine.inquiry import Inquiry
from pipeline.engine.keys import Keyed


class AskedElsewhere:
    """Only the thread that decides touches it; the asking itself has a thread of its own. Actions are known by their
    numbers in the stage. `told(keyed, is_here)` is called on any thread."""

    def __init__(self, runner: ActionRunner, told: Callable[[Keyed, bool], None]) -> None:
        self._runner, self._told = runner, told
        self._missed: list[tuple[int, Keyed]] = []
        """Not in the store here, and not asked for yet."""
        self._inquiry: Inquiry | None = None
        self._awaited: dict[ActionKey, int] = {}
        """What was asked for and not given back yet, by base key."""

    def may_have(self, keyed: Keyed) -> bool:
        """Is there somebody to ask for it?"""
        return self._runner.shared is not None and self._runner.shared.may_have(keyed)

    def miss(self, number: int, keyed: Keyed) -> None:
        """To be asked for, with the next ones."""
        self._missed.append((number, keyed))

    def forget_missed(self) -> None:
        """They are not wanted any more."""
        self._missed.clear()

    @property
    def is_asking(self) -> bool:
        return self._inquiry is not None

    @property
    def has_more(self) -> bool:
        """Is something missed that may come?"""
        return bool(self._missed) or self.is_asking

    @property
    def is_ready(self) -> bool:
        """Is there something to ask for, and nobody asking?"""
        return bool(self._missed) and not self.is_asking

    def ask(self) -> list[int]:
        """For all that is missing by now at once. Those that need not be asked for, as they are the same as another."""
        assert self._runner.shared is not None  # else nothing is missing
        missed, self._missed = self._missed, []
        self._awaited = {keyed.base: number for number, keyed in missed}
        inquiry = self._inquiry = self._runner.shared.inquiry([keyed for _, keyed in missed], self._told)

        def ask() -> None:
            try:
                self._runner.bring(inquiry)
            finally:
                for keyed in inquiry.waiting():
                    inquiry.settle(keyed, is_here=False)

        threading.Thread(target=ask, daemon=True, name="asking other machines").start()
        return [number for number, keyed in missed if self._awaited[keyed.base] != number]

    def take(self, keyed: Keyed) -> int | None:
        """This one was told of; None if it is not wanted any more."""
        number = self._awaited.pop(keyed.base, None)
        if number is not None and not self._awaited:
            self.end()
        return number

    def spare(self, now_s: float, *, is_idle: bool) -> int | None:
        """One that is asked for and is to be made here meanwhile, since answers come too slowly."""
        if self._inquiry is None or self._runner.shared is None:
            return None
        keyed = self._runner.shared.spare(self._inquiry, now_s, is_idle=is_idle)
        return None if keyed is None else self.take(keyed)

    def end(self) -> None:
        """All of it is here, is being made, or is of no use any more."""
        self._awaited.clear()
        if self._inquiry is not None and self._runner.shared is not None:
            inquiry, self._inquiry = self._inquiry, None
            self._runner.shared.end(inquiry)
