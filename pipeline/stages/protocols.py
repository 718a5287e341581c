"""What the stages use of a run, in parts as narrow as their use; `run/` puts the real ones behind them.

Holds no code. Invariant: a stage sees nothing of a run but what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.config.schema import DeployConfig, DeviceConfig
from pipeline.effects.api import Answers, FlashSession, Reader, SerialLink
from pipeline.events import Readiness
from pipeline.flash.image_set import CheckedImages
from pipeline.flash_model import Image, RegionPlan
from pipeline.formats.placement import Placement
from pipeline.model import Failure, FailureCategory, Mark, Reason, Stage, StageWork
from pipeline.stages.handover import InLoader, Journal, Proof


class StageScreen(Protocol):
    """What people see while a stage runs."""

    def progress(self, label: str, done: int, total: int) -> None: ...
    def notice(self, text: str) -> None:
        """Lines for the user, such as a compiler's warnings."""
        ...


class Images(Protocol):
    """The images as they will lie in flash. Every method raises ToolError when one cannot be read."""

    def all(self) -> tuple[Image, ...]:
        """In flash order."""
        ...

    def data(self, image: Image) -> bytes:
        """The bytes as written."""
        ...

    def check(self) -> CheckedImages:
        """Can they be flashed?"""
        ...

    def expected_elf(self) -> str:
        """`app_elf_sha256` in the application image."""
        ...


class HostBuild(Protocol):
    """The build, for the host stages. Every method raises ToolError when a tool is missing, and ConfigError."""

    @property
    def config(self) -> DeployConfig: ...
    @property
    def images(self) -> Images: ...
    def notice(self, text: str) -> None:
        """Lines for the user, such as a compiler's warnings."""
        ...

    def scan(self) -> StageWork:
        """Stamp every input and read those that moved."""
        ...

    def run_actions(self, stage: Stage, category: FailureCategory) -> StageWork:
        """Let the engine run the actions of `stage`; their failures become one of `category`."""
        ...

    def check_size(self) -> Failure | None:
        """Which limit of `[size]` the application does not keep."""
        ...

    def keep_elf(self) -> None:
        """Remember the application's ELF by the identity that the running device reports."""
        ...


class DeviceBuild(Protocol):
    """The result of the build, for the device stages."""

    @property
    def config(self) -> DeployConfig: ...
    @property
    def images(self) -> Images: ...
    @property
    def placements(self) -> tuple[Placement, ...]: ...
    @property
    def identity(self) -> Mapping[str, str]:
        """What escalates to a full flash when it moves."""
        ...

    def selects(self, otadata: bytes, wanted: bytes) -> bool:
        """Does a board with this otadata start what `wanted` would start?"""
        ...


class Boards(Protocol):
    """Ports, and what is known of the boards behind them. What talks to a board raises DeviceError."""

    def open_session(self, device: DeviceConfig) -> FlashSession:
        """A loader session, on the port that is open for this device if one is."""
        ...

    def open_link(self, device: DeviceConfig, *, reset: bool) -> SerialLink:
        """The port for a monitor, without a loader session."""
        ...

    def into_monitor(self, device: DeviceConfig, session: FlashSession) -> SerialLink:
        """The session's port at the monitor's baud; the session is spent."""
        ...

    def reader(self, device: DeviceConfig, link: SerialLink) -> Reader:
        """A reader on the link, not started."""
        ...

    def let_go(self, device: DeviceConfig) -> None:
        """Close the device's port, whatever holds it."""
        ...

    def ask(self, device: DeviceConfig, link: SerialLink, methods: Sequence[str], timeout_s: float) -> Answers:
        """Ask the running firmware, without a reset."""
        ...

    def last_mac(self, device: DeviceConfig) -> str:
        """The MAC that this device must have: of the configuration, else of the board that its loader named last."""
        ...

    def board_changed(self, device: DeviceConfig, mac: str) -> tuple[Reason, ...]:
        """Remember which board this device is; why that is news, if it is."""
        ...

    def reference(self, journal: Journal, image: Image) -> bytes | None:
        """The image that was last committed under this name and offset, if the store still has it."""
        ...

    def decoded(self, lines: Sequence[str]) -> Sequence[str]:
        """The calls behind the last panic in `lines`."""
        ...


class Records(Protocol):
    """The transaction of a device: its event log and its journal."""

    def saw_device(self, device: DeviceConfig, mac: str, port: str) -> Journal:
        """Record who answered, and where; the journal of that board. Raises DeviceError when another device of this
        run is the same board."""
        ...

    def planned(self, device: DeviceConfig, journal: Journal, proof: Proof) -> None:
        """Record the plan, and what was believed of this board before."""
        ...

    def journal_begin(self, device: DeviceConfig, board: InLoader, images: Sequence[Image]) -> None:
        """Announce the images before the first write. Raises DeviceError when that cannot be recorded."""
        ...

    def region_kept(self, device: DeviceConfig, board: InLoader, image: Image) -> None:
        """The device confirmed a region of the transaction that needed no write."""
        ...

    def region_written(self, device: DeviceConfig, board: InLoader, region: RegionPlan) -> None:
        """The device confirmed this region after it was written."""
        ...

    def journal_commit(self, device: DeviceConfig, board: InLoader, images: Sequence[Image]) -> None:
        """The device holds every image that was announced."""
        ...

    def marked(self, device: DeviceConfig, mark: Mark) -> None:
        """Record an instant of the boot."""
        ...

    def readiness(self, device: DeviceConfig, verdict: Readiness) -> None:
        """Record whether the device became ready."""
        ...
