"""`doit` as a child of an agent's call: its events as progress while it runs, its reports as the result.

Knows the event stream of `--json` (docs/reports.md) and asyncio; not MCP. Invariants: progress only grows and comes
before the end; a call that is cancelled ends the run as Ctrl-C would, so that ports are free, the report is written and
the next run heals what was cut off; what is kept of the output is bounded, and its end is what is kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio

from cache.named_tuple import NamedTuple
from pipeline.effects.streamed import StreamedRun
from pipeline.model import Stage

PATIENCE_S = 30.0
"""A cancelled run may take this long to let go of the board and write its report."""

KEPT_LINES = 4000

STEPS = tuple(Stage)

Tell = Callable[[float, float, str], Awaitable[None]]
"""`tell(progress, total, message)`."""


class ChildRun(NamedTuple):
    """A finished run. `reports`, `failure`, `events`: of the event stream; `out`, `err`: the last lines for people."""

    code: int
    out: str
    err: str
    reports: tuple[dict[str, Any], ...] = ()
    failure: dict[str, Any] | None = None
    events: tuple[dict[str, Any], ...] = ()


async def run_doit(
    root: Path,
    argv: Sequence[str],
    tell: Tell | None = None,
    *,
    leases: str = "",
    on_out: Callable[[bytes], None] | None = None,
) -> ChildRun:
    """Run `doit argv...` in `root`. With `--json` in `argv` its stdout is the event stream. `leases`: the value of
    HOTPLATE_LEASE; `on_out` takes the lines of stdout instead of the result. Raises OSError when it cannot be
    started."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[int, bytes] | int] = asyncio.Queue()

    def heard(is_stderr: bool, line: bytes) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, (int(is_stderr), line))

    def ended(code: int) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, code)

    env = {**os.environ, "NO_COLOR": "1", **({"HOTPLATE_LEASE": leases} if leases else {})}
    run = StreamedRun([sys.executable, "-m", "doit", *argv], root, env, heard, ended)
    gathered = _Gathered("--json" in argv, tell, on_out)
    try:
        while not isinstance(item := await queue.get(), int):
            await gathered.take(*item)
    except asyncio.CancelledError:
        run.interrupt(PATIENCE_S)
        # Whoever cancelled would cancel each further wait too; this one has a deadline of its own.
        with anyio.CancelScope(shield=True):
            while not isinstance(await queue.get(), int):
                pass
        raise
    return gathered.result(item)


class _Gathered:
    """What a run has said so far."""

    def __init__(self, is_stream: bool, tell: Tell | None, on_out: Callable[[bytes], None] | None) -> None:
        self._is_stream = is_stream
        self._tell = tell
        self._on_out = on_out
        self._texts: tuple[deque[str], deque[str]] = (deque(maxlen=KEPT_LINES), deque(maxlen=KEPT_LINES))
        self._reports: list[dict[str, Any]] = []
        self._events: list[dict[str, Any]] = []
        self._failure: dict[str, Any] | None = None
        self._progress = 0.0
        self._said = -1.0

    async def take(self, stream: int, line: bytes) -> None:
        if stream == 0 and self._on_out is not None:
            self._on_out(line)
            return
        if stream == 0 and self._is_stream:
            value = _json(line)
            if value is not None:
                await self._value(value)
                return
        self._texts[stream].append(line.decode("utf-8", "replace"))

    async def _value(self, value: dict[str, Any]) -> None:
        kind = value.get("type")
        if kind == "report":
            self._reports.append(value["report"])
        elif kind == "failure":
            self._failure = value["failure"]
        elif kind == "event":
            if value["kind"] != "action":
                self._events.append(value)
            if value["kind"] in ("stage_started", "stage_finished"):
                await self._stage(value)
        elif kind == "progress":
            part = value["done"] / value["total"] if value["total"] else 0.0
            text = f"{value['label']}: {value['done']} of {value['total']}"
            await self._say(self._progress + 0.9 * min(part, 1.0), text)

    async def _stage(self, value: dict[str, Any]) -> None:
        stage = value["data"]["stage"]
        step = float(STEPS.index(Stage(stage))) if stage in STEPS else self._progress
        on = f" on {value['device']}" if value["device"] else ""
        if value["kind"] == "stage_started":
            self._progress = max(self._progress, step)
            await self._say(self._progress, f"{stage}{on}: started")
        else:
            self._progress = max(self._progress, step + 0.95)
            await self._say(self._progress, f"{stage}{on}: {value['data']['outcome']}")

    async def _say(self, progress: float, text: str) -> None:
        # The protocol wants each to be more than the one before; several boards take turns.
        self._said = max(progress, self._said + 1e-4)
        if self._tell is not None:
            await self._tell(self._said, float(len(STEPS)), text)

    def result(self, code: int) -> ChildRun:
        out, err = ("\n".join(lines) for lines in self._texts)
        return ChildRun(code, out, err, tuple(self._reports), self._failure, tuple(self._events))


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("schema") == 1 else None
