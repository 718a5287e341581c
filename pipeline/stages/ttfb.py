"""Stage ttfb: wait until the device is ready, as `readiness.until` says, and no longer than `readiness.timeout_ms`.

Hands stamped bytes to `core/boot.py`, which decides what they mean, and sends what that asks for. Does not reset, open
or write. Invariant: it ends at the readiness deadline at the latest, with a named failure and the boot log as detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.core.boot import BootWatcher, Ready
from pipeline.core.events import Readiness
from pipeline.core.failures import fail
from pipeline.core.marks import unavailable
from pipeline.core.model import Failure, FailureCategory, Mark, MarkName, Stage, StageOutcome, StageResult
from pipeline.core.readiness import Until, parse_until
from pipeline.effects.api import Answers

if TYPE_CHECKING:
    from pipeline.context import Context
    from pipeline.device_run import DeviceRun

BOOT_MARKS = (MarkName.ROM_BANNER, MarkName.APP_START, MarkName.FIRST_LINE)

POLL_S = 0.25
"""Longest single wait, so that Ctrl-C is answered promptly on every platform."""


def run(ctx: Context, device: DeviceRun) -> StageResult:
    """Feed the watcher until it has a verdict; ask, where the board was not reset."""
    if device.keeps_running:
        return _by_request(ctx, device)
    settings = ctx.config.readiness
    until = parse_until(settings.until)
    assert isinstance(until, Until), "deploy.toml was checked when it was read [this is a bug]"
    expected = ctx.images.expected_elf() if until.speaks_rpc else ""
    watcher = BootWatcher(
        expected,
        device.reset_released_s,
        settings.timeout_ms / 1000,
        where=device.where,
        until=until,
        allow_unhealthy=settings.allow_unhealthy,
    )
    _watch(ctx, device, watcher, until)
    for mark in watcher.marks:
        if mark.name is not MarkName.RESET_RELEASED:
            ctx.marked(device, mark)
    verdict = watcher.verdict
    failure = verdict if isinstance(verdict, Failure) else None
    if failure is not None and failure.category is FailureCategory.PANIC:
        failure = _with_backtrace(failure, ctx.decoded(watcher.lines))
    ctx.readiness(device, _readiness(watcher, until, device.config.port))
    outcome = StageOutcome.RAN if failure is None else StageOutcome.FAILED
    counts = {"polls": watcher.polls}
    if watcher.health is not None and watcher.health.heap_free is not None:
        counts["heap_free"] = watcher.health.heap_free
    return StageResult(Stage.TTFB, outcome, 0.0, counts=counts, failure=failure)


def _watch(ctx: Context, device: DeviceRun, watcher: BootWatcher, until: Until) -> None:
    reader, link = device.reader, device.link
    assert reader is not None and link is not None, "ttfb runs only after reattach [this is a bug]"
    waits = gaps = 0
    while watcher.verdict is None:
        if request := watcher.request(link.now_s()):
            link.write(request)
        at_s, data = reader.poll(min(POLL_S, max(0.0, watcher.deadline_s - link.now_s())))
        while gaps < len(link.gaps) and link.gaps[gaps].back_s <= at_s:
            watcher.reenumerated(*link.gaps[gaps])
            gaps += 1
        watcher.feed(at_s, data)
        watcher.expire(at_s)
        if not data:
            waits += 1
            ctx.progress(f"waiting for {until.text}", waits, 0)


def _with_backtrace(failure: Failure, trace: Sequence[str]) -> Failure:
    """The calls that led to the panic, below its log."""
    return failure._replace(detail="\n".join([failure.detail, "", *trace])) if trace else failure


def _readiness(watcher: BootWatcher, until: Until, port: str) -> Readiness:
    """What the report says of the gate. Only what the device itself said about its image is reported as such."""
    verdict = watcher.verdict
    ready = verdict if isinstance(verdict, Ready) else None
    bad = watcher.health.bad if watcher.health is not None else ()
    note = "" if until.speaks_rpc else "the firmware was not asked which image it is: only the flash is proven"
    if ready is not None and bad:
        note = "readiness.allow_unhealthy lets these modules pass: " + ", ".join(module.name for module in bad)
    missing = unavailable(port, until)
    if ready is not None:
        seen = {mark.name for mark in watcher.marks}
        early = f"readiness.until '{until.text}' was met before it"
        missing |= {name.value: early for name in BOOT_MARKS if name not in seen and name.value not in missing}
    return Readiness(
        "passed" if ready is not None else "failed",
        watcher.reason,
        ready.app_elf_sha256 if ready is not None else "",
        unavailable=missing,
        ready_at_s=ready.at_s if ready is not None else None,
        polls=watcher.polls,
        modules=tuple(module._asdict() for module in watcher.health.modules) if watcher.health is not None else (),
        note=note,
    )


# --- without a reset ----------------------------------------------------------------------------


def _by_request(ctx: Context, device: DeviceRun) -> StageResult:
    """From a request to the first byte of its answer, by the build that verify-flash met."""
    until = ctx.config.readiness.until
    methods = ("info", "health") if until == "rpc:health" else ("info",)
    answers = ctx.ask(device, methods, ctx.config.readiness.timeout_ms / 1000)
    for name, at_s in ((MarkName.FIRST_BYTE, answers.first_byte_s), (MarkName.FIRST_JSONRPC, answers.first_answer_s)):
        if at_s is not None:
            ctx.marked(device, Mark(name, at_s))
    failure = _answer_failure(ctx, device, answers, methods)
    verdict = Readiness(
        "failed" if failure else "passed",
        failure.category.value if failure else "",
        "" if failure else ctx.images.expected_elf(),
        answers.sent_s,
        ready_at_s=None if failure else answers.first_answer_s,
        polls=len(methods),
        note="the device was not reset: it answered a request",
    )
    ctx.readiness(device, verdict)
    outcome = StageOutcome.RAN if failure is None else StageOutcome.FAILED
    return StageResult(Stage.TTFB, outcome, 0.0, counts={"polls": len(methods)}, failure=failure)


def _answer_failure(ctx: Context, device: DeviceRun, answers: Answers, methods: Sequence[str]) -> Failure | None:
    missing = [method for method in methods if not isinstance(answers.results.get(method), Mapping)]
    if missing:
        message = f"the running firmware did not answer {missing[0]} within {ctx.config.readiness.timeout_ms} ms"
        return fail(FailureCategory.RPC_TIMEOUT, stage=Stage.TTFB, where=device.where, message=message)
    reported, expected = answers.results["info"].get("app_elf_sha256"), ctx.images.expected_elf()
    if reported != expected:
        message = f"the device runs app_elf_sha256 {str(reported)[:64]!a}, this build is {expected!r}"
        return fail(FailureCategory.WRONG_IMAGE, stage=Stage.TTFB, where=device.where, message=message)
    healthy = "health" not in methods or answers.results["health"].get("ok") is True
    if not healthy and not ctx.config.readiness.allow_unhealthy:
        message = "the running firmware says that it is not healthy"
        return fail(FailureCategory.UNHEALTHY, stage=Stage.TTFB, where=device.where, message=message)
    return None
