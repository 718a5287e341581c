"""Stage reattach: from the loader session to a listening monitor, and only then let the chip run.

Keeps the open descriptor, sets the monitor's baud, starts the reader that stamps bytes, releases reset. Does not wait
for anything and reads nothing. A board whose firmware answered for its flash is not reset: its port is open already.
Invariant: no byte of the boot can come before the reader listens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model import Mark, MarkName, Stage, StageOutcome, StageResult

if TYPE_CHECKING:
    from pipeline.run.context import Context
    from pipeline.run.device_run import DeviceRun


def run(ctx: Context, device: DeviceRun) -> StageResult:
    """Hand the port over to the monitor and reset the chip into its application."""
    if device.keeps_running:
        return StageResult(Stage.REATTACH, StageOutcome.RAN, 0.0, counts={"reopened": 0, "resets": 0})
    session = device.session
    assert session is not None, "reattach runs only after verify-flash [this is a bug]"
    link = device.link = session.into_monitor(device.config.monitor_baud)
    device.session = None
    port_open_s = link.now_s()
    device.reader = ctx.reader(device)
    device.reader.start()
    released_s = link.release_reset()
    ctx.marked(device, Mark(MarkName.RESET_RELEASED, released_s))
    ctx.marked(device, Mark(MarkName.PORT_OPEN, port_open_s, "the loader's descriptor, kept open across the reset"))
    device.reset_released_s = released_s
    return StageResult(Stage.REATTACH, StageOutcome.RAN, 0.0, counts={"reopened": 0, "resets": 1})
