"""Stage ttfb: wait until the device is ready, as `readiness.until` says, and no longer than `readiness.timeout_ms`.

Hands stamped bytes to `boot/watcher.py`, which decides what they mean, and sends what that asks for. Does not reset,
open or write. Invariant: it ends at the readiness deadline at the latest, with a named failure and the boot log as
detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.boot.marks import unavailable
from pipeline.boot.readiness import NO_HEALTH_HINT, UNHEALTHY_HINT, Health, read_health
from pipeline.boot.watcher import BootWatcher, Ready
from pipeline.config.until import ReadinessGate, Until, parse_until
from pipeline.events import Readiness
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Mark, MarkName, Stage, StageOutcome, StageResult

if TYPE_CHECKING:
    from pipeline.run.context import Context
    from pipeline.run.device_run import DeviceRun

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
        mac=device.facts.mac if device.facts is not None else "",
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
    note = "" if until.speaks_rpc else "the firmware was not asked which image it is: only the flash is proven"
    if ready is not None and _allowed(watcher.health):
        note = _allowed(watcher.health)
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
        modules=_modules(watcher.health),
        note=note,
    )


def _modules(health: Health | None) -> tuple[Mapping[str, Any], ...]:
    return tuple(module._asdict() for module in health.modules) if health is not None else ()


def _allowed(health: Health | None) -> str:
    """What `allow_unhealthy` let pass, if it did."""
    bad = health.bad if health is not None else ()
    return "readiness.allow_unhealthy lets these modules pass: " + ", ".join(m.name for m in bad) if bad else ""


# --- without a reset ----------------------------------------------------------------------------


def _by_request(ctx: Context, device: DeviceRun) -> StageResult:
    """From verify-flash's request to the first byte of its answer: that was the first JSON-RPC byte of this build. Only
    its health is asked now, where that is the gate."""
    answers, health, failure = device.answers, None, None
    assert answers is not None, "whoever keeps running has answered verify-flash [this is a bug]"
    polls = int(ctx.config.readiness.until == ReadinessGate.HEALTH)
    if polls:
        more = ctx.ask(device, ("health",), ctx.config.readiness.timeout_ms / 1000)
        health = read_health(more.results.get("health"))
        failure = _health_failure(ctx, device, health)
    for name, at_s in ((MarkName.FIRST_BYTE, answers.first_byte_s), (MarkName.FIRST_JSONRPC, answers.first_answer_s)):
        if at_s is not None:
            ctx.marked(device, Mark(name, at_s))
    reason = "" if failure is None else failure.category.value
    if failure is not None and health is not None:
        reason = health.reason
    note = "the device was not reset: it answered the request of verify-flash"
    verdict = Readiness(
        "failed" if failure else "passed",
        reason,
        "" if failure else ctx.images.expected_elf(),
        answers.sent_s,
        ready_at_s=None if failure else answers.first_answer_s,
        polls=polls,
        modules=_modules(health),
        note=f"{note}; {_allowed(health)}" if failure is None and _allowed(health) else note,
    )
    ctx.readiness(device, verdict)
    outcome = StageOutcome.RAN if failure is None else StageOutcome.FAILED
    return StageResult(Stage.TTFB, outcome, 0.0, counts={"polls": polls}, failure=failure)


def _health_failure(ctx: Context, device: DeviceRun, health: Health | None) -> Failure | None:
    if health is None:
        message = f"the running firmware did not answer `health` within {ctx.config.readiness.timeout_ms} ms"
        category, hint = FailureCategory.RPC_TIMEOUT, NO_HEALTH_HINT
    elif health.ok or ctx.config.readiness.allow_unhealthy:
        return None
    else:
        message, category, hint = (
            f"not every module is set up: {health.complaint}",
            FailureCategory.UNHEALTHY,
            UNHEALTHY_HINT,
        )
    return fail(category, stage=Stage.TTFB, where=device.where, message=message, hint=hint)
