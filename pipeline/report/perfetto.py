"""A run as Chrome trace events, for chrome://tracing, ui.perfetto.dev and speedscope.

Pure: logs in, JSON text out. Does not know files. Source: "Trace Event Format" (JSON object format): `X` complete
events, `i` instants, `M` metadata, times in microseconds. Invariant: every event has name, ph, pid and tid; all but
metadata have ts; every `X` has a dur that is not negative.

One process for the host (stages and the workers of the pool), one for each device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.model import DEVICE_STAGES, Event
from pipeline.records import json_text
from pipeline.report.timeline import BOOT, STAGES, Instant, Slice, timeline

HOST_PID = 1
_COLOURS = {
    "failed": "terrible",
    "interrupted": "bad",
    "up-to-date": "good",
    "restored": "good",
    "restored_remote": "good",
}
"""Names of the viewer's palette; viewers that do not know them choose by name."""


def render_trace(logs: Sequence[tuple[str, Sequence[Event]]]) -> str:
    """`logs`: (device or "", events) of each transaction of one run. One event per line, for diffs."""
    rows: list[dict[str, Any]] = []
    for number, (device, events) in enumerate(logs):
        rows += _process(HOST_PID + 1 + number, device, events, with_host=number == 0)
    data = [json_text(row, sort_keys=True) for row in rows]
    # The device and the transaction, for whoever finds the file later.
    told = {device or "host": str(events[0].data.get("tx", "")) for device, events in logs if events}
    other = json_text({"transactions": told})
    return f'{{"displayTimeUnit": "ms", "otherData": {other}, "traceEvents": [\n' + ",\n".join(data) + "\n]}\n"


def _process(pid: int, device: str, events: Sequence[Event], *, with_host: bool) -> Iterator[dict[str, Any]]:
    """The events of one log. Host stages are in each log of a run; the first one's are enough."""
    laid_out = timeline(events)
    mine = [one for one in laid_out.slices if _pid(one, pid) == pid or with_host]
    instants = [one for one in laid_out.instants if device or with_host]
    lanes: dict[tuple[int, str], int] = {}
    shown: list[Slice | Instant] = [*mine, *instants]
    for one in shown:
        where = (_pid(one, pid if device else HOST_PID), one.lane)
        if where not in lanes:
            lanes[where] = _tid(one.lane)
    for process in dict.fromkeys(pid_ for pid_, _ in lanes):
        name = "host" if process == HOST_PID else f"device {device}"
        yield _metadata("process_name", process, 0, name=name)
    for (process, lane), tid in lanes.items():
        yield _metadata("thread_name", process, tid, name=lane)
        yield _metadata("thread_sort_index", process, tid, sort_index=tid)
    for part in mine:
        row = {
            "name": part.name,
            "cat": part.kind,
            "ph": "X",
            "pid": _pid(part, pid),
            "tid": _tid(part.lane),
            "ts": _us(part.start_s),
            "dur": max(0, _us(part.start_s + part.duration_s) - _us(part.start_s)),
            "args": {key: value for key, value in (("outcome", part.outcome), ("stage", part.stage)) if value},
        }
        yield row | ({"cname": _COLOURS[part.outcome]} if part.outcome in _COLOURS else {})
    for mark in instants:
        yield {
            "name": mark.name,
            "cat": "mark",
            "ph": "i",
            "s": "t",
            "pid": _pid(mark, pid if device else HOST_PID),
            "tid": _tid(mark.lane),
            "ts": _us(mark.at_s),
            "args": {"note": mark.note} if mark.note else {},
        }


def _pid(one: Slice | Instant, device_pid: int) -> int:
    if isinstance(one, Instant) or one.lane == BOOT:
        return device_pid
    return device_pid if one.stage in DEVICE_STAGES and one.lane == STAGES else HOST_PID


def _tid(lane: str) -> int:
    if lane == STAGES:
        return 1
    return 2 if lane == BOOT else 10 + int(lane.rpartition(" ")[2])


def _metadata(kind: str, pid: int, tid: int, **args: Any) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": args}


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
