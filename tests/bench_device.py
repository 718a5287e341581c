"""A board that keeps running between deploys, and the device stages run on it in this process.

`DeviceBench.deploy` does what `doit verify-flash reflash reattach ttfb` does, without a process, and gives the report.
The board is real to everybody: its flash is read and changed directly only where a test plays "somebody else".
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config.schema import DeviceConfig
from pipeline.effects.host import Revision
from pipeline.flash_model import Image
from pipeline.model import DEVICE_STAGES, Failure, Stage
from pipeline.run.build import Build
from pipeline.run.options import Options
from pipeline.run.run import Run, load_run
from pipeline.run.stage_of import StageOf
from pipeline.run.transactions import RunFacts
from virtualboard.port import DEFAULT_MAC, VirtualPort, open_virtual

SECTOR = 0x1000
APP = 0x10000


class Killed(BaseException):
    """The deploying process was killed: nothing of it runs any more."""


class HeldPort:
    """A port whose board stays powered when a client lets go. `kill_after`: bytes until the client is killed."""

    def __init__(self, port: VirtualPort) -> None:
        self.__dict__.update(_port=port, kill_after=None, written=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            self.__dict__[name] = value
        else:
            setattr(self._port, name, value)

    def write(self, data: bytes) -> int:
        if self.kill_after is not None:
            left = self.kill_after - self.written
            if left <= len(data):
                self._port.write(data[: max(left, 0)])
                self.__dict__["kill_after"] = None
                raise Killed
        self.__dict__["written"] += len(data)
        return int(self._port.write(data))

    def close(self) -> None:
        self._port.setDTR(False)
        self._port.setRTS(False)

    def open(self) -> None:
        self._port.reset_input_buffer()


class DeviceBench:
    """A built project in `root` and its board. `boards` by MAC; `plug` chooses who is on the port."""

    def __init__(self, root: Path, **board: Any) -> None:
        self.root = root
        self._options = board
        self._numbers = itertools.count(1)
        self.boards: dict[str, HeldPort] = {}
        self.plug(DEFAULT_MAC)

    def plug(self, mac: str) -> None:
        """Another board on the same port, as it was left."""
        if mac not in self.boards:
            path = self.root / f"{mac.replace(':', '')}.flash"
            self.boards[mac] = HeldPort(open_virtual("esp32c3", path, mac, **self._options))
        self.port = self.boards[mac]

    def close(self) -> None:
        for port in self.boards.values():
            port._port.close()

    # --- deploys --------------------------------------------------------------------------------

    def context(self, **options: Any) -> Run:
        context = load_run(Options(**options), self.root)
        assert not isinstance(context, Failure), context
        context.boards._open_port = self._open  # type: ignore[method-assign]
        return context

    def _open(self, device: DeviceConfig) -> Any:
        self.port.timeout = 3
        self.port.baudrate = 115200
        self.port.setDTR(True)
        self.port.setRTS(True)
        return self.port

    def deploy(self, level: str = "md5", only: Sequence[Stage] = DEVICE_STAGES, region: str = "") -> dict[str, Any]:
        """One run; its report. With `region`, verify-flash and then that region alone."""
        context = self.context(verify=level)
        (device,) = context.project.devices
        facts = RunFacts(("deploy",), context.project.profile, "zig", Revision, 0, 0)
        context.transactions.begin([(device.name, "virtual:")], facts)
        try:
            for stage in only if not region else (Stage.VERIFY_FLASH,):
                if stage is Stage.REFLASH and context.nothing_to_write(device.name):
                    continue
                if not context.execute(StageOf(stage, device.name)).ok:
                    break
            else:
                if region and not context.nothing_to_write(device.name, region):
                    context.execute(StageOf(Stage.REFLASH, device.name, region))
                elif Stage.TTFB in only:
                    context.confirm(device.name)
        except Killed:
            # No report, no reset, nothing said: only what the kernel does for a dead process, its locks and its files.
            context.records.close()
            for lease in context.boards._leases.values():
                lease.release()
            for log in context.transactions._logs:
                log.log.close()
            raise
        (rendered,) = context.end(interrupted=False, passed=False, selection=None).rendered
        return rendered.report

    # --- what everybody can see -----------------------------------------------------------------

    @cached_property
    def build(self) -> Build:
        """For looking at the project; deploys have a run of their own."""
        return self.context().build

    @property
    def images(self) -> tuple[Image, ...]:
        self.build.images.forget()
        return self.build.images.all()

    def image(self, name: str) -> Image:
        return next(image for image in self.images if image.name == name)

    def holds(self, image: Image) -> bool:
        """Does the board's flash hold the image, byte for byte?"""
        flash: bytes = self.port.board.flash.read(image.offset, image.size)
        return hashlib.md5(flash).hexdigest() == image.md5

    @property
    def all_there(self) -> bool:
        return all(self.holds(image) for image in self.images)

    # --- somebody else --------------------------------------------------------------------------

    def poke(self, offset: int, data: bytes) -> None:
        """Another tool's write: sectors erased and programmed anew."""
        flash = self.port.board.flash
        first = offset // SECTOR * SECTOR
        end = -(-(offset + len(data)) // SECTOR) * SECTOR
        content = bytearray(flash.read(first, end - first))
        content[offset - first : offset - first + len(data)] = data
        flash.erase(first, end - first)
        flash.program(first, bytes(content))

    def flip(self, offset: int) -> None:
        self.poke(offset, bytes([self.port.board.flash.read(offset, 1)[0] ^ 0x40]))

    def reset(self) -> None:
        """Press the reset button and let the firmware come up: until it is silent, or resets for ever."""
        self.port.setDTR(False)
        self.port.setRTS(True)
        self.port.setRTS(False)
        self.port.timeout = 0.5
        deadline_s = self.port.now_s() + 3
        while self.port.read(4096) and self.port.now_s() < deadline_s:
            pass

    def journals(self) -> Iterator[Path]:
        yield from sorted((self.root / ".deploy/devices.v1").glob("*.log"))


def reasons(report: dict[str, Any]) -> list[str]:
    """Kinds of the reasons of a report."""
    return [reason["kind"] for reason in report["reasons"]]


def edit_app(root: Path, change: bytes, at: int) -> None:
    """Other bytes in the application's image file, as another build would have them (its hash no longer fits)."""
    path = next((root / "build").rglob("app.bin"))
    data = bytearray(path.read_bytes())
    data[at : at + len(change)] = change
    path.write_bytes(data)
