"""What a run records of its boards: events of each device's transaction, and the board's journal.

Does not talk to boards and does not decide. Invariant: a region is journalled as written only after the device
confirmed it; what cannot be recorded after that costs the next run work and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pipeline import events
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import FailureCategory, Mark, Stage
from pipeline.run.transactions import Transactions

if TYPE_CHECKING:
    from pipeline.config.schema import DeployConfig, DeviceConfig
    from pipeline.device.journal_file import DeviceJournal
    from pipeline.effects.clock import SystemClock
    from pipeline.flash_model import Image, RegionPlan
    from pipeline.run.project import Project
    from pipeline.stages.handover import InLoader, Journal, Proof
    from pipeline.stages.protocols import Images


class RecordedBuild(Protocol):
    """What is recorded of a build."""

    @property
    def project(self) -> Project: ...
    @property
    def config(self) -> DeployConfig: ...
    @property
    def images(self) -> Images: ...
    @property
    def identity(self) -> Mapping[str, str]: ...
    @property
    def clock(self) -> SystemClock: ...


class DeviceRecords:
    """Of the devices that get one build in one run. `owners`: MAC -> name of the device of this run that is the board,
    shared by all builds of the run."""

    def __init__(self, build: RecordedBuild, transactions: Transactions, owners: dict[str, str] | None = None) -> None:
        self._build = build
        self._transactions = transactions
        self._journals: list[DeviceJournal] = []
        self.owners: dict[str, str] = {} if owners is None else owners

    def saw_device(self, device: DeviceConfig, mac: str, port: str) -> Journal:
        """Record who answered, and where; the journal of that board. Raises DeviceError when another device of this
        run is the same board: the two would write over each other."""
        from pipeline.device.journal_file import DeviceJournal

        owner = self.owners.setdefault(mac, device.name)
        if owner != device.name:
            message = f"the board has the MAC {mac}, and so has that of device '{owner}' in this run"
            hint = f"correct the `port` of '{device.name}' or '{owner}'; virtual boards need a `mac` of their own each"
            category, where = FailureCategory.WRONG_DEVICE, device.where
            raise DeviceError(fail(category, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=hint))
        journal = DeviceJournal(self._build.project.devices_dir, mac)
        self._journals.append(journal)
        self._transactions.say(events.DeviceSeen(device.name, mac, device.chip, port), device.name)
        return journal

    def close(self) -> None:
        """Release the journals' files; a transaction without its commit stays open in its file."""
        while self._journals:
            self._journals.pop().close()

    # --- the plan -------------------------------------------------------------------------------

    def planned(self, device: DeviceConfig, journal: Journal, proof: Proof) -> None:
        """Record the plan, and what was believed of this board before."""
        self._transactions.say(events.plan_made(proof.plan, proof.level), device.name)
        self._say_fingerprints(device, journal, proof, written=frozenset())
        if not proof.plan.writes and proof.level == "md5":
            self._journal_verified(device, journal, proof)

    def _say_fingerprints(
        self, device: DeviceConfig, journal: Journal, proof: Proof, *, written: frozenset[str]
    ) -> None:
        """`written`: names of the images that the journal now holds."""
        rows = []
        for region in proof.plan.regions:
            name, current = region.image.name, region.image.digest.hex
            believed = journal.state.believed(name)
            previous = believed.sha256 if believed is not None else ""
            rows.append(events.FingerprintRow(name, previous, current, current if name in written else previous))
        self._transactions.say(
            events.Fingerprints(tuple(rows), self._transactions.changed_inputs(device.name)), device.name
        )

    def _journal_verified(self, device: DeviceConfig, journal: Journal, proof: Proof) -> None:
        """The device itself confirmed every region: let the journal know, if it did not."""
        state = journal.state
        images = [region.image for region in proof.plan.regions]
        believed = [state.believed(image.name) for image in images]
        same = all(b is not None and b.sha256 == i.digest.hex for b, i in zip(believed, images, strict=True))
        if same and state.open is None and state.about == self._build.identity:
            return
        with contextlib.suppress(DeviceError, OSError):
            self._begin(device, journal, proof, images)
            for image in images:
                journal.written(self._transactions.transaction(device.name), image.name)
            self._commit(device, journal, proof, images)

    # --- the writes -----------------------------------------------------------------------------

    def journal_begin(self, device: DeviceConfig, board: InLoader, images: Sequence[Image]) -> None:
        """Announce a transaction on `images` before its first write. One that covers the whole build also says with
        which settings and tools it was built."""
        self._begin(device, board.journal, board.proof, images)

    def _begin(self, device: DeviceConfig, journal: Journal, proof: Proof, images: Sequence[Image]) -> None:
        about = self._build.identity if len(images) == len(proof.plan.regions) else {}
        try:
            journal.begin(self._transactions.transaction(device.name), self._build.clock.utc(), images, about)
        except OSError as error:
            message = f"the device's journal cannot be written: {error.strerror}; nothing was written to the board"
            raise DeviceError(
                fail(FailureCategory.CACHE_ERROR, stage=Stage.REFLASH, where=str(error.filename), message=message)
            ) from None

    def region_kept(self, device: DeviceConfig, board: InLoader, image: Image) -> None:
        """The device confirmed a region of the transaction that needed no write."""
        board.journal.written(self._transactions.transaction(device.name), image.name)

    def region_written(self, device: DeviceConfig, board: InLoader, region: RegionPlan) -> None:
        """The device confirmed this region after it was written."""
        board.journal.written(self._transactions.transaction(device.name), region.image.name)
        written = min(region.bytes_to_write, region.image.size)
        self._transactions.say(events.RegionDone(region.image.name, region.action, written), device.name)

    def journal_commit(self, device: DeviceConfig, board: InLoader, images: Sequence[Image]) -> None:
        """The device holds every image that the transaction announced."""
        self._commit(device, board.journal, board.proof, images)

    def _commit(self, device: DeviceConfig, journal: Journal, proof: Proof, images: Sequence[Image]) -> None:
        self.keep(images)
        journal.commit(self._transactions.transaction(device.name))
        self._say_fingerprints(device, journal, proof, written=frozenset(image.name for image in images))

    def keep(self, images: Sequence[Image]) -> None:
        """Store images of this build: the next delta starts from them, and a rollback may want them. A store that
        cannot be written costs only that."""
        from cache.store import Store

        store = Store(self._build.project.cache_dir, self._build.config.cache.max_bytes)
        with contextlib.suppress(OSError), store.in_use():
            for image in images:
                store.blobs.put_bytes(self._build.images.data(image))

    # --- the boot -------------------------------------------------------------------------------

    def marked(self, device: DeviceConfig, mark: Mark) -> None:
        """Record an instant of the boot."""
        self._transactions.say(mark, device.name)

    def readiness(self, device: DeviceConfig, verdict: events.Readiness) -> None:
        """Record whether the device became ready."""
        self._transactions.say(verdict, device.name)
