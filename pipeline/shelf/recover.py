"""`doit recover`: bring back the selected boards, one after the other, and say what helped.

Knows a run's devices; what is tried is `device/recovery.py`. Invariant: no flash is written, and every board that
answered is released into its application, its port and its lease given back.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from pipeline.config.schema import DeviceConfig
from pipeline.device.remedies import RemedyResult
from pipeline.errors import DeviceError
from pipeline.flash.board_checks import board_failure
from pipeline.model import Failure
from pipeline.run.device_service import DeviceService
from pipeline.run.run import Run
from pipeline.text import visible


def recover_devices(run: Run, out: TextIO = sys.stdout) -> Sequence[Failure]:
    """Every selected device; the failures of those that need hands, or are not the boards that they should be."""
    failures = []
    for device in run.project.devices:
        boards = DeviceService(run.variants.of(device.name).build)  # the run's own speak for a transaction
        failure = _recover(run.variants.device(device.name), boards, out)
        if failure is not None:
            failures.append(failure)
    return failures


def _recover(device: DeviceConfig, boards: DeviceService, out: TextIO) -> Failure | None:
    recovery = boards.recovery(device, patient=True)
    try:
        try:
            facts = boards.open_session(device, recovery).facts
        finally:
            for attempt in recovery.attempts:
                print(f"{device.name}: {visible(attempt.line())}", file=out, flush=True)
    except DeviceError as error:
        return error.failure
    finally:
        boards.close()
    helped = [str(attempt.remedy) for attempt in recovery.attempts if attempt.result is RemedyResult.WORKED]
    how = f"recovered by {', '.join(helped)}" if helped else "answers, nothing to recover"
    print(f"{device.name}: {how}: {facts.chip}, {facts.mac}", file=out, flush=True)
    return board_failure(facts, device.mac, device.where)
