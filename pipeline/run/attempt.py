"""Run a stage, and make a result of whatever it raises.

Knows which failures are a stage's own. Does not know stages, boards or records. Invariant: only what ends a process
(Ctrl-C) or a lane passes through.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import DeployError
from pipeline.failures import fail
from pipeline.model import DEVICE_STAGES, FailureCategory, Stage, StageWork


def attempt(stage: Stage, where: str, work: Callable[[], StageWork]) -> StageWork:
    """What `work`, which is `stage`, says of itself. `where`: how a failure that nobody foresaw is placed."""
    try:
        return work()
    except DeployError as error:
        failure = error.failure
        # A session serves several stages, and a tool is missed by whichever needs it first: only we know which.
        host_wide = failure.stage is None and failure.category is not FailureCategory.CONFIG_ERROR
        if host_wide or (failure.stage in DEVICE_STAGES and stage in DEVICE_STAGES):
            failure = failure._replace(stage=stage)
        return StageWork(failure=failure)
    except Exception as error:
        import traceback

        failure = fail(
            FailureCategory.UNKNOWN,
            stage=stage,
            where=where,
            message=f"{type(error).__name__}: {error} [this is a bug]",
            detail=traceback.format_exc(),
        )
        return StageWork(failure=failure)
