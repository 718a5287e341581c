"""Why a console's port cannot be had: the failures, in words.

Pure. Does not know when which of them is true. Invariant: each names the device, and what to do next.
"""

from __future__ import annotations

from pipeline.client.protocol import Holder
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Stage


def lent_to(where: str, holder: Holder) -> Failure:
    """Somebody has it."""
    return _no(FailureCategory.PORT_BUSY, where, f"the port is lent to {holder.text}", "wait until that has ended")


def taken_by(where: str, holder: Holder) -> Failure:
    """Somebody took it from whoever is told this."""
    message = f"the port was taken by {holder.text}"
    return _no(FailureCategory.PORT_BUSY, where, message, "run again when that has ended")


def still_gone(where: str) -> Failure:
    """It vanished."""
    message = "the port vanished, and has not come back"
    return _no(FailureCategory.PORT_MISSING, where, message)


def not_open(where: str) -> Failure:
    """Asked of a port that is not there."""
    message, hint = "the port is not open", "wait for the board to come back, or plug it in"
    return _no(FailureCategory.PORT_MISSING, where, message, hint)


def lives_in_runs(where: str, what: str) -> Failure:
    """An in-process board has no port to `what`."""
    message = f"there is no port to {what}: this board lives in the runs themselves"
    return _no(FailureCategory.CONFIG_ERROR, where, message, "deploy to it; what it says then is shown here")


def _no(category: FailureCategory, where: str, message: str, hint: str | None = None) -> Failure:
    return fail(category, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=hint)
