"""Stage reflash: write the sectors that verify-flash planned, and nothing else.

Journals begin, each written region and the commit, so that a write that was cut off is known next time. A region's MD5
is read once more over the whole of it after its last run. An explicit region (`reflash:bench:app`) is a transaction of
its own: the journal and the outcome say nothing of the others.
Does not decide what to write. Invariant: a region that is journalled as written has been confirmed by the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.effects.api import SLOWER_BAUD, FlashSession
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, RegionPlan, Stage, StageOutcome, StageResult
from pipeline.text import did_you_mean

if TYPE_CHECKING:
    from pipeline.run.context import Context
    from pipeline.run.device_run import DeviceRun


def run(ctx: Context, device: DeviceRun, region: str = "") -> StageResult:
    """Program what is still to be written; of `region` alone if it is named."""
    session, plan = device.session, device.plan
    assert session is not None and plan is not None, "reflash runs only after verify-flash [this is a bug]"
    writes = device.pending(region)
    images = [write.image for write in writes] if region else [each.image for each in plan.regions]
    written, known = 0, len(session.reasons)
    ctx.journal_begin(device, images)
    for image in images:
        if all(image is not write.image for write in writes):
            ctx.region_kept(device, image)
    for write in writes:
        written += session.write(write.image, ctx.images.data(write.image), write.runs, ctx.progress)
        failure = _mismatch(session, write, device.where)
        if failure is not None:
            return StageResult(Stage.REFLASH, StageOutcome.FAILED, 0.0, failure=failure)
        ctx.region_written(device, write)
    ctx.journal_commit(device, images)
    slower = [reason for reason in session.reasons if reason.kind == SLOWER_BAUD]
    if slower:
        ctx.notice(f"note: flashed at {slower[-1].after} baud: the line did not take {slower[0].before}")
    counts = {"regions_written": len(writes), "bytes_written": written, "round_trips": session.round_trips}
    return StageResult(Stage.REFLASH, StageOutcome.RAN, 0.0, reasons=session.reasons[known:], counts=counts)


def run_region(ctx: Context, device: DeviceRun, region: str) -> StageResult:
    """Program one region, named by the user."""
    assert device.plan is not None, "reflash runs only after verify-flash [this is a bug]"
    names = [each.image.name for each in device.plan.regions]
    if region in names:
        return run(ctx, device, region)
    failure = fail(
        FailureCategory.CONFIG_ERROR,
        stage=Stage.REFLASH,
        where=f"reflash:{device.name}:{region}",
        message=f"there is no region '{region}'{did_you_mean(region, names)}",
        hint=f"choose one of {', '.join(names)}",
    )
    return StageResult(Stage.REFLASH, StageOutcome.FAILED, 0.0, failure=failure)


def _mismatch(session: FlashSession, write: RegionPlan, where: str) -> Failure | None:
    image = write.image
    after = session.md5(image.offset, image.size)
    if after == image.md5:
        return None
    return fail(
        FailureCategory.VERIFY_MISMATCH,
        stage=Stage.REFLASH,
        where=where,
        message=f"{image.name} at {image.offset:#x} was written but reads back as MD5 {after}, not {image.md5}",
    )
