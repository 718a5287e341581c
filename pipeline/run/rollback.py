"""Put the images before back on a board that did not become ready with the new ones, and prove them again.

The images before are those that the board's journal names as committed before this run wrote, from the store. Putting
them back is a deploy of them, with the stages of every deploy and a transaction of its own. Does not know lanes.
Invariant: nothing is written unless all images before are there, byte for byte; the outcome says what the board proved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cache.digest import Digest
from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig, DeviceConfig, Verify
from pipeline.effects.clock import BoardClocks, SystemClock
from pipeline.events import RolledBack
from pipeline.flash.boot_choice import starts_wanted
from pipeline.flash.image_set import CheckedImages, elf_identity
from pipeline.flash.journal import DeviceState
from pipeline.flash_model import Image, MatchRule
from pipeline.formats.partitions import decode_table
from pipeline.formats.placement import APPLICATION, OTADATA_IMAGE, TABLE, Placement
from pipeline.model import Reason, Stage, StageWork
from pipeline.run.attempt import attempt
from pipeline.run.build import Build
from pipeline.run.device_service import DeviceService
from pipeline.run.project import Project
from pipeline.run.records import DeviceRecords
from pipeline.run.transactions import Rendered, Transactions

if TYPE_CHECKING:
    from pipeline.stages.handover import Board
    from pipeline.stages.protocols import StageScreen


class FormerImages:
    """Images that were deployed before; the bytes are in memory."""

    def __init__(self, images: Sequence[Image], data: Mapping[str, bytes]) -> None:
        self._images = tuple(images)
        self._data = data

    def all(self) -> tuple[Image, ...]:
        return self._images

    def data(self, image: Image) -> bytes:
        return self._data[image.name]

    def check(self) -> CheckedImages:
        """They were checked when they were new."""
        return CheckedImages(None)

    def expected_elf(self) -> str:
        return elf_identity(self._data[APPLICATION]) if APPLICATION in self._data else ""


class FormerBuild:
    """A `DeviceBuild` of what a board held before. `identity`: what it was built with."""

    def __init__(self, build: Build, images: FormerImages, identity: Mapping[str, str]) -> None:
        self.project: Project = build.project
        self.clock: SystemClock = build.clock
        self.config: DeployConfig = build.config._replace(verify=Verify("md5"))
        self.placements: tuple[Placement, ...] = build.placements
        self.images = images
        self.identity = identity

    def selects(self, otadata: bytes, wanted: bytes) -> bool:
        """By the table before."""
        table = next((image for image in self.images.all() if image.name == TABLE), None)
        rows = decode_table(self.images.data(table)) if table is not None else ()
        return not isinstance(rows, Reason) and starts_wanted(rows, otadata, wanted)


def former_build(build: Build, before: DeviceState) -> FormerBuild | str:
    """What the board held before by its journal, or why that cannot be put back."""
    from cache.store import Store

    if APPLICATION not in before.committed:
        return "nothing was deployed to this board before"
    now = {image.name: image.digest.hex for image in build.images.all()}
    if now == {name: known.sha256 for name, known in before.committed.items()}:
        return "the images before are the same as those that do not become ready"
    store = Store(build.project.cache_dir, build.config.cache.max_bytes)
    images, data = [], {}
    for known in sorted(before.committed.values(), key=lambda known: known.offset):
        digest = Digest(known.sha256, known.size)
        try:
            found = store.blobs.read(digest)
        except OSError:
            found = None
        if found is None or hashlib.sha256(found).hexdigest() != known.sha256:
            return f"the store no longer has the image '{known.name}' that was deployed before"
        match = MatchRule.OTADATA if known.name == OTADATA_IMAGE else MatchRule.BYTES
        images.append(Image(known.name, "", known.offset, known.size, known.size, "", digest, known.md5, match))
        data[known.name] = found
    return FormerBuild(build, FormerImages(images, data), before.about)


class Place(NamedTuple):
    """Where a rollback happens: the run's parts for this board."""

    boards: DeviceService
    owners: dict[str, str]
    screen: StageScreen
    clocks: BoardClocks
    run: Transactions
    """Those of the run, whose children these are."""


def roll_back(device: DeviceConfig, former: FormerBuild, place: Place) -> tuple[RolledBack, Rendered | None]:
    """Deploy `former` to the board; what became of it, and the report of that transaction."""
    back = Transactions(former.project, place.clocks.of(device.name), place.clocks.of, place.run.run)
    back.listener = place.run.listener
    back.begin([(device.name, device.port)], place.run.facts_of(device.name)._replace(targets=("rollback",)))
    place.boards.let_go(device)  # its reader goes on as long as somebody has the port
    records = DeviceRecords(former, back, place.owners)
    try:
        board = _stages(device, former, place, back, records)
    finally:
        records.close()
    outcome = board.proof.outcome if board is not None else None
    if outcome is not None:
        back.confirmed(outcome, device.name)
    rendered = back.finish_one(device.name)
    failure = back.failure_of(device.name)
    tx = back.transaction(device.name)
    if failure is not None:
        return RolledBack(tx, None, f"putting the images before back failed: {failure.message}"), rendered
    return RolledBack(tx, outcome, "the images before are back, and the board became ready with them"), rendered


def _stages(
    device: DeviceConfig, former: FormerBuild, place: Place, back: Transactions, records: DeviceRecords
) -> Board | None:
    """Where the last stage left the board; None when one failed."""
    from pipeline import events
    from pipeline.stages import reattach, reflash, ttfb, verify_flash
    from pipeline.stages.handover import Booting, InLoader

    clock, boards, screen = place.clocks.of(device.name), place.boards, place.screen
    left: list[Board | None] = [None]

    def verify() -> StageWork:
        work, left[0] = verify_flash.run(device, boards, records, former)
        return work

    def write() -> StageWork:
        assert isinstance(left[0], InLoader)
        work, left[0] = reflash.run(device, left[0], records, former, screen)
        return work

    def attach() -> StageWork:
        assert isinstance(left[0], InLoader)
        work, left[0] = reattach.run(device, left[0], boards, records)
        return work

    def wait() -> StageWork:
        assert isinstance(left[0], Booting)
        work, left[0] = ttfb.run(device, left[0], boards, records, former, screen)
        return work

    steps = {Stage.VERIFY_FLASH: verify, Stage.REFLASH: write, Stage.REATTACH: attach, Stage.TTFB: wait}
    for stage, step in steps.items():
        board = left[0]
        if stage is Stage.REFLASH and board is not None and board.proof.nothing_to_write():
            continue
        began_s = clock.now_s()
        back.say(events.StageStarted(stage), device.name)
        result = attempt(stage, device.where, step).took(stage, clock.now_s() - began_s)
        back.stage_finished(result, device.name)
        if result.failure is not None:
            return None
    return left[0]
