"""A run as NDJSON: one JSON object per line, as it happens, for programs that started it.

Pure: values in, lines out. Does not know stdout. Invariant: every line is a JSON object with `schema` and `type`, in
ASCII; lines of a type that a reader does not know may be skipped.

    {"schema":1,"type":"event","tx":..,"device":..,"kind":..,"at":..,"since_s":..,"data":{..}}   as in the run log
    {"schema":1,"type":"report","tx":..,"device":..,"path":..,"report":{..}}                    last, one per device
    {"schema":1,"type":"failure","failure":{..}}                                                the run did not begin
    {"schema":1,"type":"progress","label":..,"done":..,"total":..}                              of a long step
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.model import Event, Failure
from pipeline.records import json_text
from pipeline.report.document import failure_json

STREAM_SCHEMA = 1


def event_line(tx: str, device: str, event: Event) -> str:
    """An event of the log of `tx`; a host-only run has no device."""
    row = {"tx": tx, "device": device, "kind": event.kind.value, "at": event.at, "since_s": event.since_s}
    return _line("event", {**row, "data": event.data})


def report_line(report: Mapping[str, Any], path: str | None) -> str:
    """A finished transaction; `path` of its JSON, `None` when it could not be written."""
    row = {"tx": report["transaction_id"], "device": report["device"]["name"], "path": path, "report": report}
    return _line("report", row)


def failure_line(failure: Failure) -> str:
    """Why no run began: bad configuration, or a lock that could not be had."""
    return _line("failure", {"failure": failure_json(failure)})


def progress_line(label: str, done: int, total: int) -> str:
    """How far something has come, such as the write of an image in bytes."""
    return _line("progress", {"label": label, "done": done, "total": total})


def _line(kind: str, row: Mapping[str, Any]) -> str:
    return json_text({"schema": STREAM_SCHEMA, "type": kind, **row}, separators=(",", ":")) + "\n"
