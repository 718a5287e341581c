"""The executor of one run: opened when something must be compiled, and given up at the end.

Knows the configuration, the environment, the screen, and which compilers can be sent. Does not know how commands
travel. Invariants: a run that compiles nothing loads and opens nothing; each line about the other side is said once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipeline.config.schema import ExecutionConfig
from pipeline.effects.api import Clock
from pipeline.model import Action, Tool

if TYPE_CHECKING:
    from pipeline.effects.executor import Executor, FarWork
    from pipeline.engine.results import SharedCounts


class FarExecution:
    """Of all builds of a run. `notice`: where lines for the user go."""

    def __init__(self, settings: ExecutionConfig, clock: Clock, notice: Callable[[str], None]) -> None:
        self._settings, self._clock, self._notice = settings, clock, notice
        self._opened = False
        self._executor: Executor | None = None
        self._said = 0

    def work(self, tools: Mapping[str, Tool]) -> FarWork | None:
        """For actions with these tools; None without an executor."""
        if self._settings.remote and not self._opened:
            self._opened = True
            from pipeline.remote.opening import open_executor

            found = open_executor(self._settings, os.environ, self._clock)
            if isinstance(found, str):
                self._notice(f"note: {found}")
            else:
                self._executor = found
        if self._executor is None:
            return None
        from pipeline.effects.executor import FarWork

        return FarWork(self._executor, _Programs(tools).of)

    def tell(self) -> None:
        """What there is to say by now."""
        if self._executor is not None:
            notes = self._executor.notes()
            for note in notes[self._said :]:
                self._notice(f"note: {note}")
            self._said = len(notes)

    def close(self) -> None:
        """The end."""
        if self._executor is not None:
            self.tell()
            self._executor.cancel()


class _Programs:
    """What compiles rely on, once per language: to read it costs as much as a small compile."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._known: dict[tuple[str, str], Mapping[str, str] | None] = {}

    def of(self, action: Action) -> Mapping[str, str] | None:
        """None for an action that is not to go."""
        from pipeline.toolchain import gcc

        what = (action.argv[0], os.path.splitext(action.inputs[0])[1])  # noqa: PTH122
        if what not in self._known:
            try:
                self._known[what] = gcc.relied_on(action, self._tools)
            except OSError:
                self._known[what] = None
        return self._known[what]


def far_lines(counts: SharedCounts) -> list[str]:
    """What other machines did in a stage."""
    if not counts.executed:
        return []
    noun = "action" if counts.executed == 1 else "actions"
    return [f"{counts.executed} {noun} executed by other machines"]
