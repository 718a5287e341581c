"""The stages, one file each; loaded when they run, so that listing tasks loads none of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

from pipeline.model import Stage, StageWork

if TYPE_CHECKING:
    from pipeline.stages.protocols import HostBuild


def load(stage: Stage) -> Callable[[HostBuild], StageWork]:
    """`run(build)` of a host stage."""
    module = import_module(f"pipeline.stages.{stage.replace('-', '_')}")
    return cast("Callable[[HostBuild], StageWork]", module.run)
