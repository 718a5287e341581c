"""A project with a past: event logs, reports and a history as runs leave them, made by the same code."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.effects.run_log import RunLog
from pipeline.events import (
    ActionDone,
    DeviceSeen,
    Payload,
    PlanMade,
    PlannedRegion,
    Readiness,
    RegionDone,
    RunFinished,
    RunStarted,
    StageStarted,
    When,
    event,
    format_tx,
)
from pipeline.failures import fail
from pipeline.model import (
    DeployOutcome,
    FailureCategory,
    Mark,
    MarkName,
    RegionAction,
    Stage,
    StageOutcome,
    StageResult,
)
from pipeline.records import json_text
from pipeline.report.document import build_report
from pipeline.report.markdown import HISTORY, encode_history, history_row, render_markdown
from pipeline.run.transactions import RUNS

LIMITS = {
    "total": 4000,
    "startup": 200,
    "dispatch": 100,
    "fingerprint": 500,
    "verify-flash": 1500,
    "reattach": 700,
    "ttfb": 1000,
}
MODULES = (
    {"name": "blink", "setup_ok": True, "at_fault": False, "held": 0, "health": "every 500 ms"},
    {"name": "sampler", "setup_ok": False, "at_fault": False, "held": 512, "health": "no sensor at 0x76"},
)
SHOWN_MARKS = (
    (MarkName.RESET_RELEASED, 0.0),
    (MarkName.PORT_OPEN, 0.0),
    (MarkName.FIRST_BYTE, 0.021),
    (MarkName.ROM_BANNER, 0.022),
    (MarkName.APP_START, 0.290),
    (MarkName.FIRST_JSONRPC, 0.342),
)


def write_past(root: Path, device: str, count: int, seed: int = 7) -> list[str]:
    """`count` deploys, the newest at noon of 2026-11-28; their transaction ids, oldest first."""
    draw = random.Random(seed)
    (root / "reports").mkdir(parents=True, exist_ok=True)
    runs = root / ".deploy" / RUNS
    lines, names = [], []
    newest = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
    for number in range(count):
        at = newest - timedelta(hours=5 * (count - 1 - number))
        utc = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        tx = format_tx(utc, f"{seed:02x}{number:04x}"[-6:])
        payloads = _payloads(tx, device, number, draw)
        log = RunLog.create(runs, tx)
        for since_s, said in payloads:
            log.append(event(said, When(utc, since_s)))
        log.close()
        report = build_report(log.events)
        (root / "reports" / f"{tx}.md").write_text(render_markdown(report))
        (root / "reports" / f"{tx}.json").write_text(json_text(report, indent=2))
        lines.append(encode_history(history_row(report, tx, "machine", "0.1.0")))
        names.append(tx)
    with (root / "reports" / HISTORY).open("ab") as file:
        file.writelines(lines)
    return names


def _payloads(tx: str, device: str, number: int, draw: random.Random) -> list[tuple[float, Payload]]:
    built, failed = number % 4 == 3, number % 17 == 11
    said: list[tuple[float, Payload]] = [(0.0, _started(tx, device))]
    at_s = 0.002
    if built:
        for index in range(9):
            length_s = draw.uniform(0.04, 0.3)
            began_s = 0.012 + 0.11 * (index // 2)
            how = "restored" if index == 4 else "executed"
            name = f"compile firmware/modules/part{index}.c"
            said.append((0.5, ActionDone(name, Stage.COMPILE, how, index % 2, began_s, length_s)))
    for stage in Stage:
        length_s = _length_s(stage, draw, built=built)
        ran = stage.value in ("verify-flash", "reattach", "ttfb") or (built and stage is not Stage.FINGERPRINT)
        said.append((at_s, StageStarted(stage)))
        if stage is Stage.VERIFY_FLASH:
            said.append((at_s + length_s / 2, DeviceSeen(device, "7c:df:a1:00:11:22", "esp32c3", "/dev/ttyUSB0")))
            said.append((at_s + length_s / 2, _plan(number, built=built)))
        if stage is Stage.REFLASH and built:
            said.append((at_s + length_s, RegionDone("app", RegionAction.DELTA, 8192)))
        if stage is Stage.TTFB:
            said += [(at_s, Mark(name, at_s + mark_s)) for name, mark_s in SHOWN_MARKS]
            said.append((at_s + length_s, Readiness("passed", app_elf_sha256="3f" * 32, modules=MODULES)))
        at_s += length_s
        if failed and stage is Stage.TTFB:
            said += _failed(at_s, device, length_s)
            return said
        how = StageOutcome.RAN if ran else StageOutcome.UP_TO_DATE
        counts = {"compiled": 9 if built else 0, "restored": 0} if stage is Stage.COMPILE else {}
        counts |= {"bytes_written": 8192 if built else 0} if stage is Stage.REFLASH else {}
        said.append((at_s, StageResult(stage, how, length_s, counts=counts)))
    outcome = DeployOutcome.DELTA_FLASHED if built else DeployOutcome.VERIFIED_UNCHANGED
    return [*said, (at_s + 0.004, RunFinished(outcome))]


def _failed(at_s: float, device: str, length_s: float) -> list[tuple[float, Payload]]:
    failure = fail(
        FailureCategory.PANIC,
        stage=Stage.TTFB,
        where=f"device {device} on /dev/ttyUSB0",
        message="the firmware panicked: Load access fault at 0x42001234",
        detail="Guru Meditation Error: Core 0 panic'ed (Load access fault).\nsampler_setup at sampler.c:42",
    )
    result = StageResult(Stage.TTFB, StageOutcome.FAILED, length_s, failure=failure)
    return [(at_s, failure), (at_s, result), (at_s + 0.01, RunFinished(DeployOutcome.FAILED))]


def _started(tx: str, device: str) -> RunStarted:
    return RunStarted(
        tx=tx,
        device=device,
        port="/dev/ttyUSB0",
        profile="local-fast",
        targets=("deploy",),
        git_sha="0123abc",
        git_dirty=False,
        toolchain="zig 0.17.0",
        verify_level="md5",
        readiness_until="rpc:health",
        readiness_timeout_ms=5000,
        budget_ms=LIMITS,
        report_path=f"reports/{tx}.md",
        startup_ms=130,
        dispatch_ms=34,
        run=tx,
    )


def _length_s(stage: Stage, draw: random.Random, *, built: bool) -> float:
    usual = {
        Stage.FINGERPRINT: 0.004,
        Stage.COMPILE: 0.62 if built else 0.001,
        Stage.LINK: 0.11 if built else 0.001,
        Stage.VERIFY_FLASH: 0.41,
        Stage.REFLASH: 0.52 if built else 0.001,
        Stage.REATTACH: 0.02,
        Stage.TTFB: 0.36,
    }
    return round(usual[stage] * draw.uniform(0.9, 1.5), 4)


def _plan(number: int, *, built: bool) -> PlanMade:
    action = RegionAction.DELTA if built else RegionAction.KEPT
    rows = (
        PlannedRegion("bootloader", 0, 12_288, "11" * 32, "22" * 16, "22" * 16, RegionAction.KEPT),
        PlannedRegion("partitions", 0x8000, 3072, "33" * 32, "44" * 16, "44" * 16, RegionAction.KEPT),
        PlannedRegion("app", 0x10000, 131_072 + 640 * (number // 4), "55" * 32, "66" * 16, "77" * 16, action),
    )
    return PlanMade(rows, False, (), "md5")
