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
from pipeline.config.schema import DeviceConfig
from pipeline.config.schema import ReadinessConfig as Settings
from pipeline.config.until import ReadinessGate, Until, parse_until
from pipeline.events import Readiness
from pipeline.failures import fail
from pipeline.formats.placement import APPLICATION
from pipeline.model import Failure, FailureCategory, Mark, MarkName, Stage, StageWork
from pipeline.stages.handover import Booting, Confirmed, StillRunning

if TYPE_CHECKING:
    from pipeline.stages.protocols import Boards, DeviceBuild, Records, StageScreen

BOOT_MARKS = (MarkName.ROM_BANNER, MarkName.APP_START, MarkName.FIRST_LINE)

POLL_S = 0.25
"""Longest single wait, so that Ctrl-C is answered promptly on every platform."""


def run(
    device: DeviceConfig,
    board: Booting | StillRunning,
    boards: Boards,
    records: Records,
    build: DeviceBuild,
    screen: StageScreen,
    app_offset: int | None,
) -> tuple[StageWork, Confirmed | None]:
    """Feed the watcher until it has a verdict; ask, where the board was not reset. `app_offset`: where in flash the
    application lies that is to start (bytes); None where only the device knows."""
    if isinstance(board, StillRunning):
        work = _by_request(device, board, boards, records, build)
        return work, None if work.failure is not None else Confirmed(board.proof)
    settings = build.config.readiness
    until = parse_until(settings.until)
    assert isinstance(until, Until), "deploy.toml was checked when it was read [this is a bug]"
    expected = build.images.expected_elf() if until.speaks_rpc else ""
    watcher = BootWatcher(
        expected,
        board.reset_released_s,
        settings.timeout_ms / 1000,
        where=device.where,
        until=until,
        allow_unhealthy=settings.allow_unhealthy,
        app_offset=app_offset,
        mac=board.mac,
    )
    _watch(board, watcher, until, screen)
    for mark in watcher.marks:
        if mark.name is not MarkName.RESET_RELEASED:
            records.marked(device, mark)
    verdict = watcher.verdict
    failure = verdict if isinstance(verdict, Failure) else None
    if failure is not None and failure.category is FailureCategory.PANIC:
        failure = _with_backtrace(failure, boards.decoded(watcher.lines))
    records.readiness(device, _readiness(watcher, until, device.port, board.proof.level))
    counts = {"polls": watcher.polls}
    if watcher.health is not None and watcher.health.heap_free is not None:
        counts["heap_free"] = watcher.health.heap_free
    ended_s = verdict.at_s if isinstance(verdict, Ready) else board.link.now_s()
    # A board in this process stands still while nobody reads.
    boot_s = ended_s - board.reset_released_s if board.link.real_time else None
    work = StageWork(counts=counts, failure=failure, boot_s=boot_s)
    return work, None if failure is not None else Confirmed(board.proof)


def placed_app(build: DeviceBuild) -> int | None:
    """Where a deploy by cable puts the application."""
    return next((image.offset for image in build.images.all() if image.name == APPLICATION), None)


def _watch(board: Booting, watcher: BootWatcher, until: Until, screen: StageScreen) -> None:
    reader, link = board.reader, board.link
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
            screen.progress(f"waiting for {until.text}", waits, 0)


def _with_backtrace(failure: Failure, trace: Sequence[str]) -> Failure:
    """The calls that led to the panic, below its log."""
    return failure._replace(detail="\n".join([failure.detail, "", *trace])) if trace else failure


def _readiness(watcher: BootWatcher, until: Until, port: str, level: str) -> Readiness:
    """What the report says of the readiness gate. Only what the device itself said about its image is reported as
    such. `level`: that of the verify ladder on which the writes before it rest."""
    verdict = watcher.verdict
    ready = verdict if isinstance(verdict, Ready) else None
    proven = "nothing proves that it is the one that was sent" if level == "journal" else "only the flash is proven"
    note = "" if until.speaks_rpc else f"the firmware was not asked which image it is: {proven}"
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


def _by_request(
    device: DeviceConfig, board: StillRunning, boards: Boards, records: Records, build: DeviceBuild
) -> StageWork:
    """From verify-flash's request to the first byte of its answer: that was the first JSON-RPC byte of this build. Only
    its health is asked now, where that is the readiness gate."""
    answers, health, failure = board.answers, None, None
    settings = build.config.readiness
    polls = int(settings.until == ReadinessGate.HEALTH)
    if polls:
        more = boards.ask(device, board.link, ("health",), settings.timeout_ms / 1000)
        health = read_health(more.results.get("health"))
        failure = _health_failure(settings, device.where, health)
    for name, at_s in ((MarkName.FIRST_BYTE, answers.first_byte_s), (MarkName.FIRST_JSONRPC, answers.first_answer_s)):
        if at_s is not None:
            records.marked(device, Mark(name, at_s))
    reason = "" if failure is None else failure.category.value
    if failure is not None and health is not None:
        reason = health.reason
    note = "the device was not reset: it answered the request of verify-flash"
    verdict = Readiness(
        "failed" if failure else "passed",
        reason,
        "" if failure else build.images.expected_elf(),
        answers.sent_s,
        ready_at_s=None if failure else answers.first_answer_s,
        polls=polls,
        modules=_modules(health),
        note=f"{note}; {_allowed(health)}" if failure is None and _allowed(health) else note,
    )
    records.readiness(device, verdict)
    return StageWork(counts={"polls": polls}, failure=failure)


def _health_failure(settings: Settings, where: str, health: Health | None) -> Failure | None:
    if health is None:
        message = f"the running firmware did not answer `health` within {settings.timeout_ms} ms"
        category, hint = FailureCategory.RPC_TIMEOUT, NO_HEALTH_HINT
    elif health.ok or settings.allow_unhealthy:
        return None
    else:
        message, category, hint = (
            f"not every module is set up: {health.complaint}",
            FailureCategory.UNHEALTHY,
            UNHEALTHY_HINT,
        )
    return fail(category, stage=Stage.TTFB, where=where, message=message, hint=hint)
