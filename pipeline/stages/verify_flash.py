"""Stage verify-flash: what does this board hold, and is it the right board?

On the rungs `app-report` and `journal` the running firmware is asked first, without a reset; any doubt leads to `md5`.
There the loader computes the MD5 of every region in a session that reflash and reattach go on using; otadata is read
and interpreted, because OTA and rollback change its bytes legitimately. What differs is planned, as few sectors as are
known to suffice.
Writes nothing. Invariant: a session that stays open has passed the identity gate, and a plan without writes rests on an
answer of this run's board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.chips import ROM_REACH
from pipeline.effects.api import FlashSession
from pipeline.errors import DeviceError
from pipeline.flash import app_proof, board_checks
from pipeline.flash.plan import confirmed_plan, full_flash_reason, plan_writes
from pipeline.model import (
    SECTOR,
    Failure,
    FailureCategory,
    Image,
    MatchRule,
    Reason,
    Stage,
    StageOutcome,
    StageResult,
)
from pipeline.stages.changed_sectors import find_deltas

if TYPE_CHECKING:
    from pipeline.run.context import Context
    from pipeline.run.device_run import DeviceRun

OTADATA_ENTRY = 64
"""Bytes read from each otadata sector: its 32-byte entry, in the unit in which the ROM reads flash."""

ASK_TIMEOUT_S = 1.0
"""For the firmware's answer, hashing its flash included."""

RETRIED = "retried"


def run(ctx: Context, device: DeviceRun) -> StageResult:
    """Answer by the configured rung, or by MD5."""
    level = ctx.config.verify.level
    doubts: list[Reason] = []
    if level in app_proof.QUESTIONS:
        doubts = _ask_firmware(ctx, device, level)
        if not doubts:
            return _result(device, (), {"regions": len(ctx.images.all()), "regions_differing": 0, "round_trips": 0})
    try:
        return _ask_loader(ctx, device, doubts)
    except DeviceError as error:
        # The only retry of a deploy, before the first write; afterwards the next run resumes instead. Entering the
        # loader has retries of its own, and a port that is not there does not come back by asking again.
        session = device.session
        wrong = error.failure.category is FailureCategory.WRONG_DEVICE
        if session is None or wrong or any(reason.kind == RETRIED for reason in session.reasons):
            raise
        device.close()
        doubts.append(Reason(RETRIED, str(Stage.VERIFY_FLASH), "", error.failure.message))
        return _ask_loader(ctx, device, doubts)


def _result(device: DeviceRun, reasons: Sequence[Reason], counts: Mapping[str, int]) -> StageResult:
    assert device.plan is not None
    more = tuple(region.reason for region in device.plan.writes if region.reason is not None)
    return StageResult(Stage.VERIFY_FLASH, StageOutcome.RAN, 0.0, reasons=(*reasons, *more), counts=counts)


# --- app-report and journal -------------------------------------------------------------------


def _ask_firmware(ctx: Context, device: DeviceRun, level: str) -> list[Reason]:
    """Why the running firmware's word does not do; empty when it does, and then the plan is made."""
    images = ctx.images.all()
    app = app_proof.app_of(images)
    if app is None:
        return [Reason("no-app", "images")]
    device.link = ctx.open_link(device, reset=False)
    try:
        answers = ctx.ask(device, app_proof.QUESTIONS[level], ASK_TIMEOUT_S)
    except DeviceError as error:
        device.close()
        return [Reason("no-answer", app_proof.INFO, "", error.failure.message)]
    info = answers.results.get(app_proof.INFO)
    doubts = app_proof.identity_doubts(info, ctx.images.expected_elf(), app, device.config.mac)
    if doubts:
        return doubts
    mac = app_proof.mac_of(info)
    last = ctx.last_mac(device)
    if last != mac:
        # Another board may be the right one; who it is and what it holds is the loader's to say.
        return [Reason("board-changed", device.name, last or "none known", mac)]
    ctx.saw_device(device, mac)
    assert device.journal is not None
    if level == "journal":
        doubts = app_proof.journal_doubts(device.journal.state, images)
    else:
        doubts = app_proof.open_doubts(device.journal.state)
        doubts += app_proof.hash_doubts(answers.results.get(app_proof.HASHES), mac, images, app)
    if not doubts:
        device.verified_by, device.plan, device.answers = level, confirmed_plan(images), answers
        ctx.planned(device)
    return doubts


# --- md5 --------------------------------------------------------------------------------------


def _ask_loader(ctx: Context, device: DeviceRun, doubts: Sequence[Reason]) -> StageResult:
    """Open the session, check the identity, compare every region, plan the writes."""
    images = ctx.images.all()
    session = device.session = ctx.open_session(device)
    ctx.saw_device(device, session.facts.mac, session.facts)
    wrong = board_checks.board_failure(session.facts, device.config.mac, device.where)
    if wrong is not None:
        return _refused(wrong)
    if max(image.end for image in images) > ROM_REACH:
        # A flash chip that ends before a region would answer with other bytes, so its size is asked before its MD5s.
        wrong = board_checks.flash_failure(session.flash_size(), ctx.config.flash.size_bytes, device.where)
        if wrong is not None:
            return _refused(wrong)
    md5s = {image.name: session.md5(image.offset, image.size) for image in images}
    selects = _otadata_selects(ctx, session, images, md5s)
    reason = _escalation(ctx, device, images, md5s)
    deltas = {} if reason is not None else find_deltas(ctx, device, session, images, md5s)
    plan = plan_writes(images, md5s, selects, reason, deltas)
    if plan.writes:
        wrong = _image_failure(ctx, device, session)
        if wrong is not None:
            return _refused(wrong)
    device.plan = plan
    ctx.planned(device)
    counts = {"regions": len(images), "regions_differing": len(plan.writes), "round_trips": session.round_trips}
    changed = ctx.board_changed(device)
    return _result(device, (*doubts, *session.reasons, *changed), counts)


def _refused(failure: Failure) -> StageResult:
    return StageResult(Stage.VERIFY_FLASH, StageOutcome.FAILED, 0.0, failure=failure)


def _image_failure(ctx: Context, device: DeviceRun, session: FlashSession) -> Failure | None:
    """The rest of the identity gate, which only a write needs: the images' headers, and the size of the flash chip."""
    programs = {placement.name for placement in ctx.placements if placement.program}
    for image in ctx.images.all():
        wrong = board_checks.image_failure(image, ctx.images.data(image), session.facts, device.where)
        if image.name in programs and wrong is not None:
            return wrong
    return board_checks.flash_failure(session.flash_size(), ctx.config.flash.size_bytes, device.where)


def _escalation(ctx: Context, device: DeviceRun, images: Sequence[Image], md5s: Mapping[str, str]) -> Reason | None:
    """Why everything has to be written. A full flash for the same identity that was cut off is resumed instead."""
    assert device.journal is not None
    state = device.journal.state
    recorded = state.about
    if state.open is not None and state.open.about == ctx.identity:
        recorded = state.open.about
    return full_flash_reason(images, md5s, recorded, ctx.identity)


def _otadata_selects(
    ctx: Context, session: FlashSession, images: Sequence[Image], md5s: Mapping[str, str]
) -> bool | None:
    """Does the board's otadata select the slot that we deploy to? None: there is none, or its bytes already match."""
    image = next((i for i in images if i.match is MatchRule.OTADATA), None)
    if image is None or md5s[image.name] == image.md5:
        return None
    entries = (session.read(image.offset + sector, OTADATA_ENTRY) for sector in (0, SECTOR))
    data = b"".join(entry.ljust(SECTOR, b"\xff") for entry in entries)
    return ctx.selects(data, ctx.images.data(image))
