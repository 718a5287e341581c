"""One run of updates without a cable: build, then each device in turn, with a transaction and a report each.

Knows the order; not doit, and not how an update goes. Invariant: every device's transaction is ended and reported on
every way out, and the project's lock and every port are free afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.schema import DeviceConfig
from pipeline.model import DEVICE_STAGES, HOST_STAGES, Failure
from pipeline.run.options import Options
from pipeline.run.run import Run, load_run
from pipeline.run.screen import Screen
from pipeline.run.stage_of import StageOf
from pipeline.run.transactions import Rendered
from pipeline.shelf.ota import OtaUpdate
from pipeline.shelf.pushed_ota import PushedUpdate, is_pushed


def update_devices(root: Path, options: Options, screen: Screen) -> Sequence[Rendered] | Failure:
    """Build, then update the selected devices. The reports, or why the run did not begin."""
    run = load_run(options._replace(builds=True), root)
    if isinstance(run, Failure):
        return run
    run.screen.on_notice, run.screen.on_progress = screen.on_notice, screen.on_progress
    devices = run.project.devices
    stages = [
        *map(StageOf, HOST_STAGES),
        *(StageOf(stage, device.name) for device in devices for stage in DEVICE_STAGES),
    ]
    begun = run.begin(["ota"], stages)
    if isinstance(begun, Failure):
        run.close()
        return begun
    finished = False
    try:
        if _built(run):
            for device in devices:
                _update(run, device)
        finished = True
    finally:
        ended = run.end(interrupted=not finished, passed=False, selection=None)
    for note in ended.notes:
        screen.notice(note)
    return ended.rendered


def _built(run: Run) -> bool:
    for which in map(StageOf, HOST_STAGES):
        run.consider(which)
        if run.build.host_verdict(which.stage).up_to_date:
            run.up_to_date(which)
            continue
        run.started(which)
        if run.execute(which).failure is not None:
            return False
    return True


def _update(run: Run, device: DeviceConfig) -> None:
    pushed = is_pushed(device.ota)
    target = device._replace(port=device.ota) if device.ota and not pushed else device
    update = (PushedUpdate if pushed else OtaUpdate)(run, device, target)
    try:
        update.perform()
    finally:
        update.close()
        run.boards.done_with(target)
