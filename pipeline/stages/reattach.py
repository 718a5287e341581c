"""Stage reattach: from the loader session to a listening monitor, and only then let the chip run.

Keeps the open descriptor, sets the monitor's baud, starts the reader that stamps bytes, releases reset. Does not wait
for anything and reads nothing. A board whose firmware answered for its flash is not reset: its port is open already.
Invariant: no byte of the boot can come before the reader listens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.schema import DeviceConfig
from pipeline.model import Mark, MarkName, StageWork
from pipeline.stages.handover import Booting, InLoader, StillRunning

if TYPE_CHECKING:
    from pipeline.stages.protocols import Boards, Records


def run(
    device: DeviceConfig, board: InLoader | StillRunning, boards: Boards, records: Records
) -> tuple[StageWork, Booting | StillRunning]:
    """Hand the port over to the monitor and reset the chip into its application."""
    if isinstance(board, StillRunning):
        return StageWork(counts={"reopened": 0, "resets": 0}), board
    mac = board.session.facts.mac
    link = boards.into_monitor(device, board.session)
    port_open_s = link.now_s()
    reader = boards.reader(device, link)
    reader.start()
    released_s = link.release_reset()
    records.marked(device, Mark(MarkName.RESET_RELEASED, released_s))
    records.marked(device, Mark(MarkName.PORT_OPEN, port_open_s, "the loader's descriptor, kept open across the reset"))
    return StageWork(counts={"reopened": 0, "resets": 1}), Booting(link, reader, released_s, mac, board.proof)
