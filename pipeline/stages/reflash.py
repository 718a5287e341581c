"""Stage reflash: write the regions that verify-flash found different, and nothing else.

Journals begin, each written region and the commit, so that a write that was cut off is known next time. The flasher
verifies each piece by the device's own MD5; a region's final MD5 is read once more over the whole of it.
Does not decide what to write. Invariant: a region that is journalled as written has been confirmed by the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.failures import fail
from pipeline.core.model import FailureCategory, Stage, StageOutcome, StageResult
from pipeline.effects.api import SLOWER_BAUD

if TYPE_CHECKING:
    from pipeline.context import Context
    from pipeline.device_run import DeviceRun


def run(ctx: Context, device: DeviceRun) -> StageResult:
    """Program the plan's runs region by region."""
    session, plan = device.session, device.plan
    assert session is not None and plan is not None, "reflash runs only after verify-flash [this is a bug]"
    written = 0
    ctx.journal_begin(device)
    for region in plan.writes:
        image = region.image
        written += session.write(image, ctx.images.data(image), region.runs, ctx.progress)
        after = session.md5(image.offset, image.size)
        if after != image.md5:
            failure = fail(
                FailureCategory.VERIFY_MISMATCH,
                stage=Stage.REFLASH,
                where=device.where,
                message=f"{image.name} at {image.offset:#x} was written but reads back as MD5 {after}, not {image.md5}",
            )
            return StageResult(Stage.REFLASH, StageOutcome.FAILED, 0.0, failure=failure)
        ctx.region_written(device, region)
    ctx.journal_commit(device)
    slower = [reason for reason in session.reasons if reason.kind == SLOWER_BAUD]
    if slower:
        ctx.notice(f"note: flashed at {slower[-1].after} baud: the line did not take {slower[0].before}")
    return StageResult(
        Stage.REFLASH,
        StageOutcome.RAN,
        0.0,
        reasons=session.reasons,
        counts={
            "regions_written": len(plan.writes),
            "bytes_written": written,
            "round_trips": session.round_trips,
        },
    )
