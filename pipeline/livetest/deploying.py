"""One deploy of one device in this process, as `doit deploy` would do it, without doit.

Knows the order of the stages, not who asks. Invariant: the transaction is ended and reported on every way out, and
the project's lock and every port are free afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.failures import fail
from pipeline.model import DEVICE_STAGES, HOST_STAGES, Failure, FailureCategory, Stage
from pipeline.run.options import Options
from pipeline.run.run import Run, load_run
from pipeline.run.stage_of import StageOf


class DoneDeploy(NamedTuple):
    """`report` as it is written beside the Markdown."""

    outcome: str
    report: dict[str, Any]


def deploy_device(root: Path, device: str, notice: Callable[[str], None]) -> DoneDeploy | Failure:
    """Build, ask, write what differs, and wait until it is ready. `notice`: lines for people."""
    run = load_run(Options(devices=(device,), builds=True), root)
    if isinstance(run, Failure):
        return run
    run.screen.on_notice = notice
    stages = [*(StageOf(stage) for stage in HOST_STAGES), *(StageOf(stage, device) for stage in DEVICE_STAGES)]
    begun = run.begin(["deploy"], stages)
    if isinstance(begun, Failure):
        run.close()
        return begun
    failure: Failure | None = None
    passed = False
    try:
        for which in stages:
            failure = _performed(run, which)
            if failure is not None:
                break
        else:
            passed = run.confirm(device)
    finally:
        ended = run.end(interrupted=not passed and failure is None, passed=passed, selection=None)
    for note in ended.notes:
        notice(note)
    if failure is not None:
        return failure
    report = next(one.report for one in ended.rendered if one.report["device"]["name"] == device)
    if not passed:
        message = f"the deploy ended as {report['outcome']}"
        return fail(FailureCategory.INTERRUPTED, stage=None, where=f"device {device}", message=message)
    return DoneDeploy(str(report["outcome"]), report)


def _performed(run: Run, which: StageOf) -> Failure | None:
    run.consider(which)
    if which.stage in HOST_STAGES:
        up_to_date = run.build.host_verdict(which.stage).up_to_date
    else:
        up_to_date = which.stage is Stage.REFLASH and run.nothing_to_write(which.device)
    if up_to_date:
        run.up_to_date(which)
        return None
    run.started(which)
    return run.execute(which).failure
