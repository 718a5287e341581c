"""An event log that grows, read as it does; and how its run stands.

Knows one file and the events. Does not know who writes it. Invariant: any prefix of a log gives a state, each event
counts once, and a damaged line ends what can be said without ending anything else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cache.durable import open_regular
from pipeline.events import (
    RUN_LOG_HEADER,
    RegionDone,
    RunFinished,
    RunStarted,
    StageStarted,
    decode_log,
    payload,
)
from pipeline.model import Event, Failure, Stage, StageOutcome, StageResult
from pipeline.report.document import failure_json

MOST_AT_ONCE = 1 << 20
"""Bytes that one look reads."""


class LogTail:
    """What comes to `path`, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._offset = 0

    def read(self) -> list[Event]:
        """The events that are whole and new."""
        try:
            handle = open_regular(self._path, follow=False)[0]
        except OSError:
            return []
        try:
            data = os.pread(handle, MOST_AT_ONCE, self._offset)
        except OSError:
            return []
        finally:
            os.close(handle)
        whole = data[: data.rfind(b"\n") + 1]
        first = self._offset == 0
        self._offset += len(whole)
        return decode_log(whole if first else RUN_LOG_HEADER + whole)[0] if whole else []


class RunProgress:
    """Feed it the events of one log."""

    def __init__(self, tx: str, device: str) -> None:
        self._tx = tx
        self._device = device
        self._started_at = ""
        self._limits: dict[str, int] = {}
        self._stages: dict[Stage, dict[str, Any]] = {}
        self._regions: list[dict[str, Any]] = []
        self._failure: Failure | None = None
        self._outcome: str | None = None
        self.ended = False

    def hear(self, event: Event) -> None:
        """The next event."""
        match payload(event):
            case RunStarted() as started:
                self._started_at = event.at
                self._limits = dict(started.budget_ms)
            case StageStarted(stage):
                self._stages[stage] = {"outcome": "running", "duration_ms": None}
            case StageResult() as result:
                ms = round(result.duration_s * 1000)
                self._stages[result.stage] = {"outcome": result.outcome.value, "duration_ms": ms}
                self._failure = self._failure or result.failure
            case RegionDone() as done:
                self._regions.append(done._asdict())
            case Failure() as failure:
                self._failure = self._failure or failure
            case RunFinished(outcome):
                self._outcome = None if outcome is None else outcome.value
                self.ended = True

    def state(self) -> dict[str, Any]:
        """Every stage in order, with what is known of it."""
        unknown = {"outcome": StageOutcome.NOT_RUN.value, "duration_ms": None}
        return {
            "tx": self._tx,
            "device": self._device,
            "started_at": self._started_at,
            "stages": [
                {"stage": stage.value, "limit_ms": self._limits.get(stage.value), **self._stages.get(stage, unknown)}
                for stage in Stage
            ],
            "regions": self._regions,
            "failure": self._failure and failure_json(self._failure),
            "outcome": self._outcome,
        }
