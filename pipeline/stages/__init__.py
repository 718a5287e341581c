"""The stages, one file each; loaded when they run, so that listing tasks loads none of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

from pipeline.model import Stage, StageResult

if TYPE_CHECKING:
    from pipeline.run.context import Context
    from pipeline.run.device_run import DeviceRun


def load(stage: Stage) -> Callable[[Context], StageResult]:
    """`run(ctx)` of a host stage."""
    return cast("Callable[[Context], StageResult]", import_module(_module(stage)).run)


def load_device(stage: Stage) -> Callable[[Context, DeviceRun], StageResult]:
    """`run(ctx, device)` of a device stage."""
    return cast("Callable[[Context, DeviceRun], StageResult]", import_module(_module(stage)).run)


def _module(stage: Stage) -> str:
    return f"pipeline.stages.{stage.replace('-', '_')}"
