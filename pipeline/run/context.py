"""The attributes of a run under the names that they had before it was divided into project, build and boards.

For callers that have not been moved yet, and for nothing else. Invariant: holds no code of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.schema import DeployConfig
from pipeline.device.serial_link import PortLink
from pipeline.effects.api import FlashSession
from pipeline.effects.process import SystemProcessRunner
from pipeline.formats.placement import Placement
from pipeline.model import Failure, Partition, Stage, Verdict
from pipeline.run.built_images import BuiltImages
from pipeline.run.device_run import DeviceRun
from pipeline.run.options import Options
from pipeline.run.project import CONFIG_FILE, STATE_DIR, load_project
from pipeline.run.run import Run
from pipeline.run.transactions import Transactions
from pipeline.toolchain.build import Toolchain

if TYPE_CHECKING:
    from pipeline.engine.engine import Engine

__all__ = ["CONFIG_FILE", "STATE_DIR", "Context", "load_context"]


class Context(Run):
    @property
    def root(self) -> Path:
        return self.project.root

    @property
    def config(self) -> DeployConfig:
        return self.project.config

    @property
    def profile(self) -> str:
        return self.project.profile

    @property
    def options(self) -> Options:
        return self.project.options

    @property
    def state_dir(self) -> Path:
        return self.project.state_dir

    @property
    def cache_dir(self) -> Path:
        return self.project.cache_dir

    @property
    def table(self) -> tuple[Partition, ...]:
        return self.project.table

    @property
    def placements(self) -> tuple[Placement, ...]:
        return self.project.placements

    @property
    def devices(self) -> tuple[DeviceRun, ...]:
        return tuple(DeviceRun(device.name, device) for device in self.project.devices)

    @property
    def toolchain(self) -> Toolchain:
        return self.build.toolchain

    @property
    def runner(self) -> SystemProcessRunner:
        return self.build.runner

    @property
    def engine(self) -> Engine:
        return self.build.engine

    @property
    def images(self) -> BuiltImages:
        return self.build.images

    @property
    def run(self) -> Transactions:
        return self.transactions

    def host_verdict(self, stage: Stage) -> Verdict:
        return self.build.host_verdict(stage)

    def toolchain_name(self) -> str:
        return self.build.toolchain_name()

    def open_session(self, device: DeviceRun) -> FlashSession:
        return self.boards.open_session(device.config)

    def open_link(self, device: DeviceRun, *, reset: bool) -> PortLink:
        return self.boards.open_link(device.config, reset=reset)

    def decoded(self, lines: Sequence[str], running: str = "") -> Sequence[str]:
        return self.boards.decoded(lines, running)


def load_context(options: Options, root: Path | None = None) -> Context | Failure:
    found = load_project(options, root)
    return found if isinstance(found, Failure) else Context(found)
