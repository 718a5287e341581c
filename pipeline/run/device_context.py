"""The device half of the composition root: ports, loader sessions, journals, and what a run records of its boards.

Puts real ports and esptool behind the protocols that the stages see. Does not decide what is compared or written, and
does not know doit.
Invariant: creating it opens no port; a region is journalled as written only after the device confirmed it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.durable import read_text
from pipeline import events
from pipeline.config.schema import DeployConfig
from pipeline.device.journal_file import DeviceJournal
from pipeline.device.serial_link import PortLink, reader_for
from pipeline.effects.api import Answers, FlashSession, Reader
from pipeline.effects.clock import SystemClock
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import DeviceFacts, FailureCategory, Image, Mark, Reason, RegionPlan, Stage
from pipeline.run.device_run import DeviceRun
from pipeline.run.transactions import Run

if TYPE_CHECKING:
    from cache.store import Store
    from pipeline.run.built_images import BuiltImages


class DeviceContext:
    """What the device stages may use beside the build; `Context` is one."""

    root: Path
    config: DeployConfig
    clock: SystemClock
    state_dir: Path
    devices: tuple[DeviceRun, ...]
    run: Run
    _owners: dict[str, str]
    """MAC -> name of the device of this run that is the board."""
    _asked = 0
    """Questions so far: part of their ids."""

    if TYPE_CHECKING:

        @property
        def images(self) -> BuiltImages: ...

        @property
        def cache_dir(self) -> Path: ...

        def toolchain_name(self) -> str: ...

    # --- ports and sessions ---------------------------------------------------------------------

    def open_session(self, device: DeviceRun) -> FlashSession:
        """A loader session with the board, on the port of `device.link` if that is open. Raises DeviceError."""
        from pipeline.device import session

        held, device.link = device.link, None
        port = held.give_port() if isinstance(held, PortLink) else self._open_port(device)
        return session.connect(
            port,
            device.config.chip,
            device.where,
            lambda: self._link(device, port),
            self.config.flash.size_bytes,
            self._reset(device, port),
            device.config.baud,
        )

    def _reset(self, device: DeviceRun, port: Any) -> str:
        if device.config.reset != "auto":
            return device.config.reset
        usb = getattr(port, "usb", None)  # only a serial port of this machine knows
        if usb is not None and usb.native:
            return "usb"
        return "instant" if device.config.is_virtual else "classic"

    def open_link(self, device: DeviceRun, *, reset: bool) -> PortLink:
        """The device's port for a monitor, without a loader session. Raises DeviceError."""
        link = self._link(device, self._open_port(device))
        link.set_baud(device.config.monitor_baud)
        if reset:
            link.release_reset()
        return link

    def _open_port(self, device: DeviceRun) -> Any:
        from pipeline.device.ports import open_port

        return open_port(device.name, device.config, self.root, self.clock, self.config.flash.size_bytes)

    def _link(self, device: DeviceRun, port: Any) -> PortLink:
        from pipeline.device.ports import reopen

        virtual = device.config.is_virtual
        return PortLink(
            port,
            device.config.port,
            device.where,
            self.clock.now_s,
            real_time=not virtual,
            reopen=lambda: reopen(port),
            pause=port.clock.wait if virtual else time.sleep,
            usb_lines=self._reset(device, port) == "usb",
        )

    def reader(self, device: DeviceRun) -> Reader:
        """A reader on the device's link, not started."""
        assert isinstance(device.link, PortLink)
        return reader_for(device.link)

    def ask(self, device: DeviceRun, methods: Sequence[str], timeout_s: float) -> Answers:
        """Ask the running firmware over the device's open link, without a reset. Raises DeviceError."""
        from pipeline.device.rpc_client import ask

        assert device.link is not None
        self._asked += 1
        return ask(device.link, methods, f"{self.run.transaction(device.name)[-6:]}-{self._asked}", timeout_s)

    # --- what is known of a board ---------------------------------------------------------------

    def last_mac(self, device: DeviceRun) -> str:
        """The MAC that this device must have: of the configuration, else of the board that its loader named last."""
        if device.config.mac:
            return device.config.mac
        try:
            return read_text(self._mac_file(device)).strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def board_changed(self, device: DeviceRun) -> tuple[Reason, ...]:
        """Remember which board this device is; why that is news, if it is."""
        from cache.durable import write_atomic

        assert device.facts is not None
        last, mac = self.last_mac(device), device.facts.mac
        if last == mac:
            return ()
        with contextlib.suppress(OSError):
            write_atomic(self._mac_file(device), f"{mac}\n".encode(), durable=False)
        return (Reason("board-changed", device.name, last, mac),) if last else ()

    def _mac_file(self, device: DeviceRun) -> Path:
        return self.state_dir / "devices.v1" / f"{device.name}.mac"

    def saw_device(self, device: DeviceRun, mac: str, facts: DeviceFacts | None = None) -> None:
        """Record who answered: the loader (`facts`), or the firmware. Raises DeviceError when another device of this
        run is the same board: the two would write over each other."""
        owner = self._owners.setdefault(mac, device.name)
        if owner != device.name:
            message = f"the board has the MAC {mac}, and so has that of device '{owner}' in this run"
            hint = f"correct the `port` of '{device.name}' or '{owner}'; virtual boards need a `mac` of their own each"
            failure = fail(
                FailureCategory.WRONG_DEVICE, stage=Stage.VERIFY_FLASH, where=device.where, message=message, hint=hint
            )
            raise DeviceError(failure)
        device.facts = facts
        device.journal = DeviceJournal(self.state_dir / "devices.v1", mac)
        self.run.say(events.DeviceSeen(device.name, mac, device.config.chip, device.port_shown), device.name)

    @property
    def identity(self) -> Mapping[str, str]:
        """What escalates to a full flash when it moves: the flash settings and the toolchain of this build."""
        flash = self.config.flash
        return {"flash": f"{flash.mode} {flash.freq} {flash.size}", "toolchain": self.toolchain_name()}

    @property
    def _store(self) -> Store:
        from cache.store import Store

        return Store(self.cache_dir, self.config.cache.max_bytes)

    def reference(self, device: DeviceRun, image: Image) -> bytes | None:
        """The image that was last committed to this board under this name and offset, if the store still has it."""
        from cache.digest import Digest

        assert device.journal is not None
        last = device.journal.state.committed.get(image.name)
        if last is None or last.offset != image.offset:
            return None
        with contextlib.suppress(OSError):
            return self._store.blobs.read(Digest(last.sha256, last.size))
        return None

    def _keep_references(self, images: Sequence[Image]) -> None:
        """Store the images that the next delta starts from. A store that cannot be written costs that delta only."""
        store = self._store
        with contextlib.suppress(OSError), store.in_use():
            for image in images:
                store.blobs.put_bytes(self.images.data(image))

    # --- plan, journal, report --------------------------------------------------------------------

    def planned(self, device: DeviceRun) -> None:
        """Record the plan, and what we believed of this board before."""
        assert device.plan is not None
        self.run.say(events.plan_made(device.plan, device.verified_by), device.name)
        self._say_fingerprints(device, written=frozenset())
        if not device.plan.writes and not device.keeps_running:
            self._journal_verified(device)

    def _say_fingerprints(self, device: DeviceRun, *, written: frozenset[str]) -> None:
        """`written`: names of the images that the journal now holds."""
        assert device.plan is not None and device.journal is not None
        rows = []
        for region in device.plan.regions:
            name, current = region.image.name, region.image.digest.hex
            believed = device.journal.state.believed(name)
            previous = believed.sha256 if believed is not None else ""
            rows.append(events.FingerprintRow(name, previous, current, current if name in written else previous))
        self.run.say(events.Fingerprints(tuple(rows), self.changed_inputs), device.name)

    @property
    def changed_inputs(self) -> tuple[str, ...]:
        """Paths that this run's fingerprint stage found moved."""
        results = (r for _, r in self.run.results if r.stage is Stage.FINGERPRINT)
        return tuple(reason.subject for result in results for reason in result.reasons)

    def _journal_verified(self, device: DeviceRun) -> None:
        """The device itself confirmed every region: let the journal know, if it did not."""
        assert device.plan is not None and device.journal is not None
        state = device.journal.state
        images = [region.image for region in device.plan.regions]
        believed = [state.believed(image.name) for image in images]
        same = all(b is not None and b.sha256 == i.digest.hex for b, i in zip(believed, images, strict=True))
        if same and state.open is None and state.about == self.identity:
            return
        with contextlib.suppress(DeviceError, OSError):  # what cannot be recorded costs the next run work only
            self.journal_begin(device, images)
            for image in images:
                device.journal.written(self.run.transaction(device.name), image.name)
            self.journal_commit(device, images)

    def journal_begin(self, device: DeviceRun, images: Sequence[Image]) -> None:
        """Announce a transaction on `images` before its first write. One that covers the whole build also says with
        which settings and tools it was built."""
        assert device.plan is not None and device.journal is not None
        about = self.identity if len(images) == len(device.plan.regions) else {}
        try:
            device.journal.begin(self.run.transaction(device.name), self.clock.utc(), images, about)
        except OSError as error:
            message = f"the device's journal cannot be written: {error.strerror}; nothing was written to the board"
            raise DeviceError(
                fail(FailureCategory.CACHE_ERROR, stage=Stage.REFLASH, where=str(error.filename), message=message)
            ) from None

    def region_kept(self, device: DeviceRun, image: Image) -> None:
        """The device confirmed a region of the transaction that needed no write."""
        assert device.journal is not None
        device.journal.written(self.run.transaction(device.name), image.name)

    def region_written(self, device: DeviceRun, region: RegionPlan) -> None:
        """The device confirmed this region after it was written."""
        assert device.journal is not None
        device.journal.written(self.run.transaction(device.name), region.image.name)
        device.done.append(region)
        written = min(region.bytes_to_write, region.image.size)
        self.run.say(events.RegionDone(region.image.name, region.action, written), device.name)

    def journal_commit(self, device: DeviceRun, images: Sequence[Image]) -> None:
        """The device holds every image that the transaction announced."""
        assert device.journal is not None
        self._keep_references(images)
        device.journal.commit(self.run.transaction(device.name))
        self._say_fingerprints(device, written=frozenset(image.name for image in images))

    def marked(self, device: DeviceRun, mark: Mark) -> None:
        """Record an instant of the boot."""
        self.run.say(mark, device.name)

    def readiness(self, device: DeviceRun, verdict: events.Readiness) -> None:
        """Record the verdict of the readiness gate."""
        device.confirmed = verdict.status == "passed"
        self.run.say(verdict, device.name)

    def confirm(self, device: DeviceRun) -> bool:
        """The deploy of `device` counts: its flash is verified and it runs this build."""
        outcome = device.outcome
        if not device.confirmed or outcome is None:
            return False
        self.run.confirmed(outcome, device.name)
        return True

    def settle(self) -> None:
        """Name the outcome of devices that an explicit target took only part of the way, by what was proven of them."""
        for device in self.devices:
            outcome = device.outcome
            if outcome is not None:
                self.run.confirmed(outcome, device.name)
