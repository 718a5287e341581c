"""The runs whose reports are pinned in this directory, as events. No files, no clock.

After a wanted change of the layout: `python -m tests.golden.scenarios` writes the pages again; read the diff.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pipeline.events import (
    ActionDone,
    DeviceSeen,
    FingerprintRow,
    Fingerprints,
    Payload,
    PlanMade,
    PlannedRegion,
    Readiness,
    RegionDone,
    RunFinished,
    RunStarted,
    Sized,
    StageStarted,
    When,
    event,
)
from pipeline.failures import fail
from pipeline.model import (
    DeployOutcome,
    Event,
    FailureCategory,
    Mark,
    MarkName,
    Reason,
    RegionAction,
    Stage,
    StageOutcome,
    StageResult,
)

HERE = Path(__file__).parent
SHA = "c0ffee" + "0" * 58
BUDGET = {"total": 4000, "startup": 200, "dispatch": 100, "fingerprint": 500, "verify-flash": 1500, "ttfb": 1000}


class Script:
    """Collects events of a run whose clock moves only by `spend`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.us = 0

    def say(self, *items: Payload) -> None:
        at = f"2026-11-21T08:30:{self.us // 1_000_000:02d}.{self.us // 1000 % 1000:03d}Z"
        self.events += [event(item, When(at, self.us / 1e6)) for item in items]

    def stage(
        self, stage: Stage, us: int, *inside: Payload, outcome: StageOutcome = StageOutcome.RAN, **counts: int
    ) -> None:
        self.say(StageStarted(stage))
        self.us += us
        self.say(*inside)
        self.say(StageResult(stage, outcome, us / 1e6, counts=counts))


def start(script: Script) -> None:
    script.us = 181_250
    script.say(
        RunStarted(
            tx="tx-20261121-083000-beef",
            device="bench",
            port="virtual:",
            profile="local-fast",
            targets=("deploy",),
            git_sha="d895f66",
            git_dirty=True,
            toolchain="zig 0.17.0",
            verify_level="md5",
            readiness_until="rpc:ready",
            readiness_timeout_ms=5000,
            budget_ms=BUDGET,
            report_path="reports/tx-20261121-083000-beef.md",
            startup_ms=142,
            dispatch_ms=39,
        )
    )


def host(script: Script, *, changed: bool) -> None:
    ran = StageOutcome.RAN if changed else StageOutcome.UP_TO_DATE
    rows = (
        FingerprintRow("app", "11" * 16, ("22" if changed else "11") * 16, "11" * 16),
        FingerprintRow("infra", "33" * 16, "33" * 16, "33" * 16),
    )
    moved = ("firmware/core/rpc.c",) if changed else ()
    script.stage(Stage.FINGERPRINT, 12_345, Fingerprints(rows, moved), outcome=ran, inputs=31, changed=int(changed))
    script.say(StageStarted(Stage.COMPILE))
    if changed:
        began_s = script.us / 1e6
        script.say(ActionDone("compile rpc.c", Stage.COMPILE, "executed", 0, began_s + 0.001, 0.4))
        script.say(ActionDone("compile <a & b>.c", Stage.COMPILE, "restored", 1, began_s + 0.002, 0.015))
    script.us += 431_999 if changed else 901
    reasons = (Reason("input", "firmware/core/rpc.c", "1111", "2222"),) if changed else ()
    us = 431_999 if changed else 901
    counts = {"compiled": int(changed), "restored": 0}
    script.say(StageResult(Stage.COMPILE, ran, us / 1e6, reasons, counts))
    script.stage(Stage.LINK, 88_888 if changed else 700, outcome=ran, linked=int(changed))


def plan(*, changed: bool, table: RegionAction = RegionAction.KEPT) -> PlanMade:
    delta = RegionAction.DELTA if changed else RegionAction.KEPT
    rows = (
        PlannedRegion("bootloader", 0x0, 20_000, "b0" * 32, "b1" * 16, "b1" * 16, RegionAction.KEPT),
        PlannedRegion("partitions", 0x8000, 0xC00, "c0" * 32, "c1" * 16, "c1" * 16, table),
        PlannedRegion("otadata", 0xE000, 0x2000, "d0" * 32, "d1" * 16, "d9" * 16, RegionAction.KEPT, "selects slot 0"),
        PlannedRegion("app", 0x10000, 70_000, "a0" * 32, "a1" * 16, ("a9" if changed else "a1") * 16, delta),
    )
    return PlanMade(rows, full=False, reasons=(), verified_by="md5")


def verify(script: Script, *, changed: bool, table: RegionAction = RegionAction.KEPT) -> None:
    seen = DeviceSeen("bench", "7c:df:a1:00:11:22", "esp32c3", "virtual:")
    script.stage(Stage.VERIFY_FLASH, 240_001, seen, plan(changed=changed, table=table), regions=4, round_trips=9)


def boot(script: Script) -> None:
    script.stage(
        Stage.REATTACH,
        10_500,
        Mark(MarkName.RESET_RELEASED, 100.0),
        Mark(MarkName.PORT_OPEN, 99.998, "kept open"),
        attempts=1,
    )
    marks = {"first_byte": 0.0012, "rom_banner": 0.0012, "app_start": 0.0319, "first_line": 0.0012}
    script.stage(
        Stage.TTFB,
        35_700,
        *(Mark(MarkName(name), 100.0 + at_s) for name, at_s in marks.items()),
        Mark(MarkName.FIRST_JSONRPC, 100.0319),
        Readiness("passed", app_elf_sha256=SHA),
    )


def unchanged() -> list[Event]:
    script = Script()
    start(script)
    host(script, changed=False)
    verify(script, changed=False)
    script.stage(Stage.REFLASH, 40, outcome=StageOutcome.UP_TO_DATE, regions_written=0, bytes_written=0)
    boot(script)
    script.us += 3_010
    script.say(RunFinished(DeployOutcome.VERIFIED_UNCHANGED))
    return script.events


def size() -> dict[str, object]:
    """A program that grew, one whose name steers a page, and one that went."""
    rows = (("image", 70_000, 69_984), ("flash", 20_400, 20_384), ("ram", 5_000, 5_000), ("rtc", 0, 0))
    archives = (
        ("libcore.a", 15_000, 14_000, 4_000, 4_000),
        ("lib|x`.a", 5_400, 6_368, 1_000, 984),
        ("gone", 0, 16, 0, 16),
    )
    names = ("name", "flash", "flash_before", "ram", "ram_before")
    return {
        "elf": "build/local-fast/app.elf",
        "map": "build/local-fast/app.map",
        "note": "",
        "room": 0x140000,
        "totals": [
            {"name": name, "size": now, "before": before, "limit": 4_096 if name == "ram" else None}
            for name, now, before in rows
        ],
        "sections": [
            {"name": ".flash.text", "size": 20_400, "before": 20_384, "limit": None, "memory": "flash_code"},
            {"name": ".bss", "size": 5_000, "before": 5_000, "limit": 6_000, "memory": "dram_bss"},
        ],
        "archives": [{**dict(zip(names, row, strict=True)), "limit": None} for row in archives],
    }


def success() -> list[Event]:
    script = Script()
    start(script)
    host(script, changed=True)
    verify(script, changed=True)
    done = RegionDone("app", RegionAction.DELTA, 8192)
    script.stage(Stage.REFLASH, 150_150, done, regions_written=1, bytes_written=8192)
    boot(script)
    script.us += 3_010
    script.say(Sized(size()), RunFinished(DeployOutcome.DELTA_FLASHED))
    return script.events


def failure() -> list[Event]:
    script = Script()
    start(script)
    host(script, changed=True)
    verify(script, changed=True)
    done = RegionDone("app", RegionAction.DELTA, 8192)
    script.stage(Stage.REFLASH, 150_150, done, regions_written=1, bytes_written=8192)
    script.stage(Stage.REATTACH, 10_500, Mark(MarkName.RESET_RELEASED, 100.0))
    script.say(StageStarted(Stage.TTFB))
    script.us += 260_000
    panic = fail(
        FailureCategory.PANIC,
        stage=Stage.TTFB,
        where="device bench on virtual:",
        message="the firmware crashed while booting: Guru Meditation Error: Core  0 panic'ed (Load access fault)",
        detail="ESP-ROM:esp32c3-api1-20210207\n```not a fence\nGuru Meditation Error: Core  0 panic'ed\n\x1b[31mred",
    )
    script.say(Mark(MarkName.FIRST_BYTE, 100.0012), Mark(MarkName.ROM_BANNER, 100.0012))
    script.say(Readiness("failed", "panic"))
    script.say(StageResult(Stage.TTFB, StageOutcome.FAILED, 0.26, failure=panic), panic)
    script.say(RunFinished(DeployOutcome.FAILED))
    return script.events


def interrupted() -> list[Event]:
    script = Script()
    start(script)
    script.say(StageStarted(Stage.FINGERPRINT))
    script.us += 12_345
    script.say(StageResult(Stage.FINGERPRINT, StageOutcome.RAN, 0.012345, counts={"inputs": 31, "changed": 1}))
    script.say(StageStarted(Stage.COMPILE))
    script.us += 200_000
    stop = fail(FailureCategory.INTERRUPTED, stage=Stage.COMPILE, where="device bench", message="stopped by Ctrl-C")
    script.say(StageResult(Stage.COMPILE, StageOutcome.INTERRUPTED, 0.2), stop, RunFinished(DeployOutcome.INTERRUPTED))
    return script.events


def killed() -> list[Event]:
    """`kill -9` in the middle of writing two regions: the log just ends."""
    script = Script()
    start(script)
    host(script, changed=True)
    verify(script, changed=True, table=RegionAction.WRITTEN)
    script.say(StageStarted(Stage.REFLASH))
    script.us += 90_000
    script.say(RegionDone("partitions", RegionAction.WRITTEN, 0xC00))
    return script.events


Name = Literal["success", "unchanged", "failure", "interrupted", "killed"]
RUNS = {"success": success, "unchanged": unchanged, "failure": failure, "interrupted": interrupted, "killed": killed}


def pages(name: str) -> dict[str, str]:
    """File name -> content of one run's golden files."""
    from pipeline.report.document import build_report
    from pipeline.report.markdown import last_line, render_markdown
    from pipeline.report.terminal import TerminalLook, stage_table

    report = build_report(RUNS[name]())
    screen = [*stage_table(report, TerminalLook(tty=False, colour=False, columns=80)), last_line(report)]
    return {
        f"report_{name}.md": render_markdown(report),
        f"report_{name}.json": json.dumps(report, indent=2, ensure_ascii=True) + "\n",
        f"screen_{name}.txt": "\n".join(screen) + "\n",
    }


if __name__ == "__main__":
    from tests.golden.exports import exports

    for run in RUNS:
        for file, text in pages(run).items():
            (HERE / file).write_text(text, encoding="utf-8")
    for file, text in exports().items():
        (HERE / file).write_text(text, encoding="utf-8")
