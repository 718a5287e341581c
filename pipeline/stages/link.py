"""Stage link: link, strip, turn ELF files into images, encode the partition table; then check that all of it fits.

Does not know the linker, esptool or the board. Invariant: when it ends well, every image exists, is for the configured
chip and fits its partition, so that no later stage opens a port for something that cannot be flashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model import FailureCategory, Stage, StageWork

if TYPE_CHECKING:
    from pipeline.stages.protocols import HostBuild


def run(build: HostBuild) -> StageWork:
    """Link what moved and check the images."""
    work = build.run_actions(Stage.LINK, FailureCategory.LINK_ERROR)
    if work.failure is not None:
        return work
    checked = build.images.check()
    if checked.failure is not None:
        return work._replace(failure=checked.failure)
    over = build.check_size()
    if over is not None:
        return work._replace(failure=over)
    build.keep_elf()
    for note in build.config.firmware.notes if build.config.firmware is not None else ():
        build.notice(f"note: {note}")
    return work._replace(reasons=work.reasons + checked.warnings)
