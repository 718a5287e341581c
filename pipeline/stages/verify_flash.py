"""Stage verify-flash: what does this board hold, and is it the right board?

At the levels `app-report` and `journal` the running firmware is asked first, without a reset; any doubt leads to `md5`.
There the loader computes the MD5 of every region in a session that reflash and reattach go on using; otadata is read
and interpreted, because OTA and rollback change its bytes legitimately. What differs is planned, as few sectors as are
known to suffice.
Writes nothing. Invariant: a session that stays open has passed the checks of identity, and a plan without writes rests
on an answer of this run's board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.chips import ROM_REACH, SECTOR
from pipeline.config.schema import DeviceConfig
from pipeline.effects.api import RECOVERED, FlashSession
from pipeline.errors import DeviceError
from pipeline.flash import board_checks
from pipeline.flash.plan import Delta, full_flash_reason, plan_writes
from pipeline.flash_model import MatchRule
from pipeline.formats.partitions import decode_table
from pipeline.formats.placement import TABLE
from pipeline.model import Failure, FailureCategory, Reason, Stage, StageWork
from pipeline.stages.handover import InLoader, Journal, Proof, StillRunning
from pipeline.stages.replies import confirm_unknown, garbled_answer, read_proven

if TYPE_CHECKING:
    from pipeline.stages.protocols import Boards, DeviceBuild, Records

OTADATA_ENTRY = 64
"""Bytes read from each otadata sector: its 32-byte entry, in the unit in which the ROM reads flash."""

RETRIED = "retried"


def run(
    device: DeviceConfig, boards: Boards, records: Records, build: DeviceBuild
) -> tuple[StageWork, InLoader | StillRunning | None]:
    """Answer by the configured level, or by MD5. None: the board is not one to go on with."""
    level = build.config.verify.level
    doubts: list[Reason] = []
    if level != "md5":
        from pipeline.stages.firmware_proof import ask_firmware

        asked = ask_firmware(device, boards, records, build)
        if isinstance(asked, StillRunning):
            counts = {"regions": len(asked.proof.plan.regions), "regions_differing": 0, "round_trips": 0}
            return StageWork(counts=counts), asked
        doubts = asked
    build.images.all()  # no port is opened for what cannot be flashed
    session = boards.open_session(device)
    try:
        return _compare(device, session, boards, records, build, doubts)
    except DeviceError as error:
        # The only retry of a deploy, before the first write; afterwards the next run resumes instead. Entering the
        # loader has retries of its own, and a port that is not there does not come back by asking again.
        wrong = error.failure.category is FailureCategory.WRONG_DEVICE
        if wrong or any(reason.kind in (RETRIED, RECOVERED) for reason in session.reasons):
            raise
        boards.let_go(device)
        doubts.append(Reason(RETRIED, str(Stage.VERIFY_FLASH), "", error.failure.message))
        return _compare(device, boards.open_session(device), boards, records, build, doubts)


def _compare(
    device: DeviceConfig,
    session: FlashSession,
    boards: Boards,
    records: Records,
    build: DeviceBuild,
    doubts: Sequence[Reason],
) -> tuple[StageWork, InLoader | None]:
    """Check the board's identity, compare every region, plan the writes."""
    images = build.images.all()
    journal = records.saw_device(device, session.facts.mac, session.port if device.port == "auto" else device.port)
    wrong = board_checks.board_failure(session.facts, device.mac, device.where)
    if wrong is not None:
        return StageWork(failure=wrong), None
    high = max(image.end for image in images) > ROM_REACH
    if high:
        # A flash chip that ends before a region would answer with other bytes, so its size is asked before its MD5s.
        wrong = _flash_failure(build, session, journal, device.where)
        if wrong is not None:
            return StageWork(failure=wrong), None
    md5s = {image.name: session.md5(image.offset, image.size) for image in images}
    selects = _otadata_selects(device, build, session, md5s)
    reason = _escalation(build, journal, md5s)
    deltas: Mapping[str, Delta] = {}
    differing = (i.match is MatchRule.BYTES and md5s[i.name] != i.md5 for i in images)
    if reason is None and any(differing):
        from pipeline.stages.changed_sectors import find_deltas

        deltas = find_deltas(boards, build, session, journal, md5s)
    confirm_unknown(device.where, session, [i for i in images if i.name not in deltas], md5s, journal.state)
    plan = plan_writes(images, md5s, selects, reason, deltas)
    wrong = None
    if plan.writes:
        wrong = _image_failure(build, session, device.where, high=high)
    if wrong is None and not high and (plan.writes or not _size_is_proven(build, journal)):
        wrong = _flash_failure(build, session, journal, device.where)
    if wrong is not None:
        return StageWork(failure=wrong), None
    proof = Proof(plan)
    records.planned(device, journal, proof)
    counts = {"regions": len(images), "regions_differing": len(plan.writes), "round_trips": session.round_trips}
    changed = boards.board_changed(device, session.facts.mac)
    causes = (region.reason for region in plan.writes if region.reason is not None)
    reasons = (*doubts, *session.reasons, *changed, *causes)
    return StageWork(reasons, counts), InLoader(session, journal, proof)


def _image_failure(build: DeviceBuild, session: FlashSession, where: str, *, high: bool) -> Failure | None:
    """The checks that only a write needs: the images' headers, and once more that the chip is not protected. A board
    that is known has said that once, and one bit that turned on its way would have plain images written to it."""
    programs = {placement.name for placement in build.placements if placement.program}
    for image in build.images.all():
        wrong = board_checks.image_failure(image, build.images.data(image), session.facts, where)
        if image.name in programs and wrong is not None:
            return wrong
    if not high and session.is_protected():
        raise DeviceError(garbled_answer(where, "the chip is protected by efuse, and was not when it was asked first"))
    return None


def _size_is_proven(build: DeviceBuild, journal: Journal) -> bool:
    return board_checks.size_is_proven(journal.state.about, build.identity)


def _flash_failure(build: DeviceBuild, session: FlashSession, journal: Journal, where: str) -> Failure | None:
    """A flash chip that is smaller than what everything was placed for. What is not known of the board already must be
    said twice."""
    measured, configured = session.flash_size(), build.config.flash.size_bytes
    known = measured is not None and measured >= configured and _size_is_proven(build, journal)
    if not known and session.flash_size() != measured:
        raise DeviceError(garbled_answer(where, "two sizes of the flash chip that differ"))
    image = next((image for image in build.images.all() if image.name == TABLE), None)
    rows = decode_table(build.images.data(image)) if image is not None else ()
    end = 0 if isinstance(rows, Reason) else max((row.end for row in rows), default=0)
    return board_checks.flash_failure(measured, configured, where, end)


def _escalation(build: DeviceBuild, journal: Journal, md5s: Mapping[str, str]) -> Reason | None:
    """Why everything has to be written. A full flash for the same identity that was cut off is resumed instead."""
    state = journal.state
    recorded = state.about
    if state.open is not None and state.open.about == build.identity:
        recorded = state.open.about
    return full_flash_reason(build.images.all(), md5s, recorded, build.identity)


def _otadata_selects(
    device: DeviceConfig, build: DeviceBuild, session: FlashSession, md5s: Mapping[str, str]
) -> bool | None:
    """Does the board's otadata select the slot that we deploy to? None: there is none, or its bytes already match."""
    image = next((i for i in build.images.all() if i.match is MatchRule.OTADATA), None)
    if image is None or md5s[image.name] == image.md5:
        return None
    entries = (read_proven(device.where, session, image.offset + sector, OTADATA_ENTRY) for sector in (0, SECTOR))
    data = b"".join(entry.ljust(SECTOR, b"\xff") for entry in entries)
    return build.selects(data, build.images.data(image))
