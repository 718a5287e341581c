"""Stage ttfb: wait for the first valid JSON-RPC message that carries this build's app_elf_sha256.

Consumes stamped bytes; what they mean is decided by `core/boot.py`. Does not reset, open or write.
Invariant: it ends at the readiness deadline at the latest, with a named failure and the boot log as detail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.boot import BootWatcher
from pipeline.core.model import Failure, MarkName, Stage, StageOutcome, StageResult

if TYPE_CHECKING:
    from pipeline.context import Context
    from pipeline.device_run import DeviceRun

POLL_S = 0.25
"""Longest single wait, so that Ctrl-C is answered promptly on every platform."""


def run(ctx: Context, device: DeviceRun) -> StageResult:
    """Feed the watcher until it has a verdict."""
    reader, link = device.reader, device.link
    assert reader is not None and link is not None, "ttfb runs only after reattach [this is a bug]"
    timeout_s = ctx.config.readiness.timeout_ms / 1000
    watcher = BootWatcher(ctx.images.expected_elf(), device.reset_released_s, timeout_s, where=device.where)
    while watcher.verdict is None:
        at_s, data = reader.poll(min(POLL_S, max(0.0, watcher.deadline_s - link.now_s())))
        watcher.feed(at_s, data)
        watcher.expire(at_s)
    for mark in watcher.marks:
        if mark.name is not MarkName.RESET_RELEASED:
            ctx.marked(device, mark)
    verdict = watcher.verdict
    failure = verdict if isinstance(verdict, Failure) else None
    ctx.readiness(device, failure, "" if isinstance(verdict, Failure) else verdict.app_elf_sha256)
    outcome = StageOutcome.RAN if failure is None else StageOutcome.FAILED
    return StageResult(Stage.TTFB, outcome, 0.0, failure=failure)
