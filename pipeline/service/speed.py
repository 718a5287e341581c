"""What makes runs faster while a service is there: verdicts from memory, and a runner that has everything loaded.

Knows how to put them into a service. Invariant: neither is needed for a right answer; where one cannot be (another
system, no more instances of inotify), the service does without, says why, and clients work alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.service.runner_keeper import RunnerKeeper
from pipeline.service.server import Service
from pipeline.service.verdict_desk import VerdictDesk


class Speed:
    """Both, for one service. `directory`: the runtime directory; `say`: into the service's log."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, service: Service, directory: str, say: Callable[[str], None]
    ) -> None:
        self._desk: VerdictDesk | None = None
        self._keeper: RunnerKeeper | None = None
        try:
            self._desk = VerdictDesk(loop)
            service.verdict = self._desk.judge
            service.more["verdicts"] = lambda: dict(self._desk.counts) if self._desk is not None else {}
        except OSError as error:
            say(f"no verdicts from memory: {error.strerror or error}")
        try:
            self._keeper = RunnerKeeper(loop, directory)
            service.more["runner_pid"] = lambda: self._keeper.pid if self._keeper is not None else 0
        except OSError as error:
            say(f"no runner: {error.strerror or error}")

    def close(self) -> None:
        """Idempotent."""
        if self._keeper is not None:
            self._keeper.close()
        if self._desk is not None:
            self._desk.close()
