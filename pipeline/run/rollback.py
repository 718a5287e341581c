"""Put back what a board held before on a board that did not become ready with the new images, and prove it again.

What it held is what `board_before.py` found before the first write. Putting it back is a deploy of that, with the
stages of every deploy and a transaction of its own. Does not know lanes. Invariant: nothing is written but bytes that
the board itself said it had; the outcome says what the board proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig, DeviceConfig, Verify
from pipeline.effects.clock import BoardClocks, SystemClock
from pipeline.events import RolledBack
from pipeline.failures import fail
from pipeline.flash.boot_choice import starts_wanted
from pipeline.flash.image_set import CheckedImages
from pipeline.flash_model import Image
from pipeline.formats.placement import Placement
from pipeline.model import Failure, FailureCategory, Stage, StageWork
from pipeline.run.attempt import attempt
from pipeline.run.board_before import BoardBefore, Untouched
from pipeline.run.build import Build
from pipeline.run.device_service import DeviceService
from pipeline.run.project import Project
from pipeline.run.records import DeviceRecords
from pipeline.run.transactions import Rendered, Transactions
from pipeline.stages.replies import proven_md5

if TYPE_CHECKING:
    from pipeline.effects.api import FlashSession
    from pipeline.stages.handover import Board
    from pipeline.stages.protocols import StageScreen


class FormerImages:
    """Images that were in the flash before; the bytes are in memory. `elf`: identity of what ran."""

    def __init__(self, held: Sequence[tuple[Image, bytes]], elf: str) -> None:
        self._images = tuple(image for image, _ in held)
        self._data = {image.name: data for image, data in held}
        self._elf = elf

    def all(self) -> tuple[Image, ...]:
        return self._images

    def data(self, image: Image) -> bytes:
        return self._data[image.name]

    def check(self) -> CheckedImages:
        """They were checked when they were new."""
        return CheckedImages(None)

    def expected_elf(self) -> str:
        return self._elf


class FormerBuild:
    """A `DeviceBuild` of what a board held before. `starts`: where in flash the application lies that ran."""

    def __init__(self, build: Build, before: BoardBefore) -> None:
        self.project: Project = build.project
        self.clock: SystemClock = build.clock
        self.config: DeployConfig = build.config._replace(verify=Verify("md5"))
        self.placements: tuple[Placement, ...] = build.placements
        self.images = FormerImages(before.held, before.elf)
        self.identity = before.about
        self.before = before
        self.starts = before.starts

    def selects(self, otadata: bytes, wanted: bytes) -> bool:
        """By the table before."""
        return starts_wanted(self.before.rows, otadata, wanted)


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
    return RolledBack(tx, outcome, _said(former.before)), rendered


def _said(before: BoardBefore) -> str:
    """What is as it was, and what is not."""
    said = "the images before are back, and the board became ready with them"
    if before.untouched is not None:
        said = f"{before.untouched.row.name} starts again, as before this run, and the board became ready with it"
    if before.lost:
        said += f"; {', '.join(before.lost)} stays as this run wrote it, since there is no copy of what was there"
    return said


def _still_there(session: FlashSession, untouched: Untouched | None, where: str) -> Failure | None:
    """Does the slot that starts hold what it held before the run? Asked after the last write of all."""
    if untouched is None:
        return None
    row = untouched.row
    after = proven_md5(where, session, row.name, row.offset, row.size)
    if after == untouched.md5:
        return None
    message = f"{row.name} at {row.offset:#x} was left alone but reads back as MD5 {after}, not {untouched.md5}"
    return fail(FailureCategory.VERIFY_MISMATCH, stage=Stage.REATTACH, where=where, message=message)


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
        failure = _still_there(left[0].session, former.before.untouched, device.where)
        if failure is not None:
            return StageWork(failure=failure)
        work, left[0] = reattach.run(device, left[0], boards, records)
        return work

    def wait() -> StageWork:
        assert isinstance(left[0], Booting)
        work, left[0] = ttfb.run(device, left[0], boards, records, former, screen, former.starts)
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
