"""Stage compile: one action per translation unit, restored from the cache or executed.

The engine does the work; this says what it means when one fails. Does not know the compiler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model import FailureCategory, Stage, StageWork

if TYPE_CHECKING:
    from pipeline.stages.protocols import HostBuild


def run(build: HostBuild) -> StageWork:
    """Bring every object up to date. A failure carries the compiler's own `file:line:col: error:` lines."""
    return build.run_actions(Stage.COMPILE, FailureCategory.COMPILE_ERROR)
