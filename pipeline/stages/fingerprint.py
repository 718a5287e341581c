"""Stage fingerprint: which inputs moved since the last run?

Reads only files whose stamp moved. Does not decide what must be rebuilt; that is the verdict of compile and link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model import StageWork

if TYPE_CHECKING:
    from pipeline.stages.protocols import HostBuild


def run(build: HostBuild) -> StageWork:
    """Stamp every input, read those that moved, remember the result."""
    return build.scan()
