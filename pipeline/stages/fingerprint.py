"""Stage fingerprint: which inputs moved since the last run?

Reads only files whose stamp moved. Does not decide what must be rebuilt; that is the verdict of compile and link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model import Stage, StageOutcome, StageResult

if TYPE_CHECKING:
    from pipeline.run.context import Context


def run(ctx: Context) -> StageResult:
    """Stamp every input, read those that moved, remember the result."""
    scan = ctx.engine_for(Stage.FINGERPRINT).scan()
    return StageResult(
        Stage.FINGERPRINT,
        StageOutcome.RAN,
        duration_s=0.0,
        reasons=scan.reasons,
        counts=dict(scan.counts),
    )
