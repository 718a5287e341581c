"""Stage verify-flash: what does this board hold, and is it the right board?

Opens the loader session that reflash and reattach go on using. Asks the device for the MD5 of every region; otadata is
read and interpreted, because OTA and rollback change its bytes legitimately.
Writes nothing. Invariant: a session that stays open has the identity that `deploy.toml` asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.failures import fail
from pipeline.core.model import (
    DeviceFacts,
    Failure,
    FailureCategory,
    Image,
    MatchRule,
    Stage,
    StageOutcome,
    StageResult,
)
from pipeline.core.plan import plan_writes
from pipeline.effects.api import FlashSession

if TYPE_CHECKING:
    from pipeline.context import Context
    from pipeline.device_run import DeviceRun

OTADATA_SECTOR = 0x1000
OTADATA_ENTRY = 64
"""Bytes read from each otadata sector: its 32-byte entry, in the unit in which the ROM reads flash."""


def run(ctx: Context, device: DeviceRun) -> StageResult:
    """Open the session, check the identity, compare every region, plan the writes."""
    images = ctx.images.all()
    session = device.session = ctx.open_session(device)
    ctx.saw_device(device, session.facts)
    wrong = identity_failure(session.facts, device)
    if wrong is not None:
        return StageResult(Stage.VERIFY_FLASH, StageOutcome.FAILED, 0.0, failure=wrong)
    md5s = {image.name: session.md5(image.offset, image.size) for image in images}
    device.plan = plan_writes(images, md5s, _otadata_selects(ctx, session, images, md5s))
    ctx.planned(device)
    differing = device.plan.writes
    return StageResult(
        Stage.VERIFY_FLASH,
        StageOutcome.RAN,
        0.0,
        reasons=tuple(region.reason for region in differing if region.reason is not None),
        counts={"regions": len(images), "regions_differing": len(differing), "round_trips": session.round_trips},
    )


def identity_failure(facts: DeviceFacts, device: DeviceRun) -> Failure | None:
    """Why this board must not be written, or None: another MAC than configured, or protected by efuse."""
    expected = device.config.mac.lower()
    if expected and facts.mac != expected:
        return fail(
            FailureCategory.WRONG_DEVICE,
            stage=Stage.VERIFY_FLASH,
            where=device.where,
            message=f"the board's MAC is {facts.mac}, deploy.toml says {expected}",
        )
    if facts.flash_encryption or facts.secure_boot:
        what = " and ".join(
            name
            for name, on in (("flash encryption", facts.flash_encryption), ("secure boot", facts.secure_boot))
            if on
        )
        return fail(
            FailureCategory.PROTECTED_DEVICE,
            stage=Stage.VERIFY_FLASH,
            where=device.where,
            message=f"the board has {what} enabled (efuse); plain images would make it unbootable",
        )
    return None


def _otadata_selects(
    ctx: Context, session: FlashSession, images: tuple[Image, ...], md5s: dict[str, str]
) -> bool | None:
    """Does the board's otadata select the slot that we deploy to? None: there is none, or its bytes already match."""
    image = next((i for i in images if i.match is MatchRule.OTADATA), None)
    if image is None or md5s[image.name] == image.md5:
        return None
    sectors = (session.read(image.offset + sector, OTADATA_ENTRY) for sector in (0, OTADATA_SECTOR))
    data = b"".join(entry.ljust(OTADATA_SECTOR, b"\xff") for entry in sectors)
    return ctx.selects(data, ctx.images.data(image))
