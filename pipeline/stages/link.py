"""Stage link: link, strip, turn ELF files into images, encode the partition table; then check that all of it fits.

Does not know the linker, esptool or the board. Invariant: when it ends well, every image exists, is for the configured
chip and fits its partition, so that no later stage opens a port for something that cannot be flashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model import FailureCategory, Stage, StageOutcome, StageResult

if TYPE_CHECKING:
    from pipeline.run.context import Context


def run(ctx: Context) -> StageResult:
    """Link what moved and check the images."""
    result = ctx.run_actions(Stage.LINK, FailureCategory.LINK_ERROR)
    if result.failure is not None:
        return result
    checked = ctx.images.check()
    if checked.failure is not None:
        return result._replace(outcome=StageOutcome.FAILED, failure=checked.failure)
    ctx.keep_elf()
    for note in ctx.config.firmware.notes if ctx.config.firmware is not None else ():
        ctx.notice(f"note: {note}")
    return result._replace(reasons=result.reasons + checked.warnings)
