"""From finished runs to results: pure.

Reports, event streams and text in, values of `results.py` out. Does not know processes, files or MCP. Invariant: a
crash line of a device is in the answer whatever the bounds are, and what was left out is counted.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from pipeline.agent.child_runs import ChildRun
from pipeline.agent.results import (
    BuildResult,
    DeployResult,
    DeviceResult,
    Diagnostic,
    LogLine,
    MonitorResult,
    RegionProof,
    SizedImage,
    TextResult,
    ToolProblem,
)
from pipeline.boot.console_events import ConsoleEvent, ConsoleEventKind, ConsoleListener
from pipeline.flash_model import Partition

DETAIL_CHARS = 6000
NOTE_LINES = 40
MOST_DIAGNOSTICS = 100
LINE_CHARS = 2000
"""Of one line of a device; a longer one is cut, with its length."""

CRASH_LINES = 2000
"""Of a device that crashes again and again; older ones are counted among those left out."""

_DIAGNOSTIC = re.compile(r"^(?:\| )?(.+?):(\d+):(\d+): (?:fatal )?(error|warning): (.*)$", re.M)
_CRASH = (ConsoleEventKind.RESET, ConsoleEventKind.PANIC, ConsoleEventKind.BACKTRACE)


def problem(failure: Mapping[str, Any] | None) -> ToolProblem | None:
    """Of a report or of the stream."""
    if failure is None:
        return None
    detail = _cut(str(failure.get("detail") or ""), DETAIL_CHARS)
    return ToolProblem.model_validate({**failure, "detail": detail})


def deploy_result(run: ChildRun) -> DeployResult:
    """Of a run with a device stage."""
    counts = _counts(run)
    devices = [_device(report) for report in run.reports]
    failures = [run.failure, *(report["failure"] for report in run.reports)]
    return DeployResult(
        ok=run.code == 0,
        exit_code=run.code,
        devices=devices,
        failure=problem(run.failure),
        diagnostics=_diagnostics(failures, run.err),
        notes=_notes(run),
        **counts,
    )


def build_result(run: ChildRun) -> BuildResult:
    """Of `compile link`."""
    failures = [run.failure, *(event["data"] for event in run.events if event["kind"] == "failure")]
    failure = next((found for found in failures if found), None)
    finished = [event["data"] for event in run.events if event["kind"] == "stage_finished"]
    return BuildResult(
        ok=run.code == 0,
        exit_code=run.code,
        up_to_date=run.code == 0 and all(stage["outcome"] == "up-to-date" for stage in finished),
        duration_ms=round(1000 * sum(stage.get("duration_s") or 0.0 for stage in finished)),
        failure=problem(failure),
        diagnostics=_diagnostics(failures, run.err),
        notes=_notes(run),
        **_counts(run),
    )


def text_result(run: ChildRun) -> TextResult:
    """Of a view."""
    return TextResult(ok=run.code == 0, exit_code=run.code, text=run.out, error=run.err if run.code else "")


class HeardLog:
    """What a device said, bounded: the last `most` lines that hold `wanted`, and every line of a crash up to
    CRASH_LINES."""

    def __init__(self, most: int, wanted: str = "") -> None:
        self._listener = ConsoleListener()
        self._wanted = wanted
        self._heard = 0
        self._last: deque[tuple[int, LogLine]] = deque(maxlen=most)
        self._crash: deque[tuple[int, LogLine]] = deque(maxlen=CRASH_LINES)
        self.crashed = False

    def feed(self, line: bytes) -> None:
        """A line, without its end."""
        self._take(self._listener.feed(0.0, line + b"\n"))

    def end(self) -> tuple[list[LogLine], int]:
        """What is kept, in order, and how many lines are not."""
        # A pause of the link is what ends a panic without an end of its own.
        self._take(self._listener.feed(1e9, b""))
        kept = [line for _, line in sorted([*self._last, *self._crash], key=itemgetter(0))]
        return kept, self._heard - len(kept)

    def _take(self, events: Sequence[ConsoleEvent]) -> None:
        for event in events:
            crash = event.kind in _CRASH
            self.crashed |= crash and event.kind is not ConsoleEventKind.RESET
            for text in event.lines if crash and event.lines else (event.text,):
                self._heard += 1
                line = (self._heard, LogLine(kind=event.kind.value, text=_cut(text, LINE_CHARS)))
                if crash:
                    self._crash.append(line)
                elif self._wanted in text:
                    self._last.append(line)


def monitor_result(device: str, heard: HeardLog, said: ChildRun) -> MonitorResult:
    """Of `doit monitor`, whose stdout `heard` has taken."""
    lines, omitted = heard.end()
    decoded = [line.removeprefix("| ") for line in said.err.splitlines() if line.startswith("| ")]
    return MonitorResult(
        ok=said.code == 0,
        exit_code=said.code,
        device=device,
        lines=lines,
        omitted=omitted,
        crashed=heard.crashed,
        decoded=decoded[:NOTE_LINES],
        error=said.err if said.code else "",
    )


def short_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """With at most 20 reasons, and how many there were."""
    reasons = report.get("reasons", [])
    stages = [{**stage, "reasons": stage["reasons"][:5]} for stage in report.get("stages", [])]
    return {**report, "reasons": reasons[:20], "reasons_count": len(reasons), "stages": stages}


def sized(report: Mapping[str, Any], table: Sequence[Partition]) -> list[SizedImage]:
    """The images of a deploy, beside the partitions that they lie in."""
    found = []
    for region in report["regions"]:
        room = next((p.size for p in table if p.offset <= region["offset"] < p.offset + p.size), None)
        free = None if room is None else room - region["size"]
        size, offset = region["size"], region["offset"]
        found.append(SizedImage(name=region["name"], offset=offset, size=size, partition_size=room, free=free))
    return found


def _device(report: Mapping[str, Any]) -> DeviceResult:
    device, readiness = report["device"], report["readiness"]
    budget: Mapping[str, Any] = next((row for row in report["budget"]["phases"] if row["phase"] == "total"), {})
    return DeviceResult(
        device=device["name"],
        transaction_id=report["transaction_id"],
        outcome=report["outcome"],
        chip=device["chip"],
        mac=device["mac"] or "",
        port=device["port"],
        verified_by=report["plan"]["verified_by"] or "",
        readiness=readiness["status"],
        app_elf_sha256=readiness["app_elf_sha256"] or "",
        regions=[RegionProof.model_validate(region) for region in report["regions"]],
        total_ms=budget.get("measured_ms"),
        bytes_written=report["totals"]["bytes_written"] or 0,
        report_path=report["report_path"],
        failure=problem(report["failure"]),
    )


def _counts(run: ChildRun) -> dict[str, int]:
    """The host's stages are said once per device."""
    counts = dict.fromkeys(("compiled", "restored", "linked"), 0)
    seen = set()
    for event in run.events:
        data = event["data"]
        if event["kind"] == "stage_finished" and data["stage"] in ("compile", "link") and data["stage"] not in seen:
            seen.add(data["stage"])
            for name in counts:
                counts[name] += data["counts"].get(name) or 0
    return counts


def _diagnostics(failures: Sequence[Mapping[str, Any] | None], err: str) -> list[Diagnostic]:
    texts = [f"{one.get('where')}: error: {one.get('message')}\n{one.get('detail') or ''}" for one in failures if one]
    found: dict[tuple[str, ...], None] = {}
    for text in [*texts, err]:
        found.update(dict.fromkeys(match.groups() for match in _DIAGNOSTIC.finditer(text)))
    rows = list(found)[:MOST_DIAGNOSTICS]
    return [
        Diagnostic(path=path, line=int(line), column=int(column), severity=severity, text=text)
        for path, line, column, severity, text in rows
    ]


def _notes(run: ChildRun) -> list[str]:
    return [_cut(line, LINE_CHARS) for line in run.err.splitlines()[-NOTE_LINES:] if line.strip()]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
