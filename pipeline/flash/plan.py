"""What must be written to this board? A pure function of the images and of what the device said about its flash.

Does not know ports, loaders, journals or how a digest was obtained. Invariant: every image has exactly one region
plan, a region is kept only when the device itself proved it, and a region that is not kept has a reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.chips import SECTOR
from pipeline.flash_model import FlashPlan, Image, MatchRule, Region, RegionPlan
from pipeline.model import DeployOutcome, Reason, RegionAction

BOARD_ERASED = "board-erased"
"""Kind of the reason to write everything where the board holds nothing."""


class Delta(NamedTuple):
    """Runs that turn what is in a region into its image, and how that is known."""

    runs: tuple[Region, ...]
    reason: Reason


NO_DELTAS: Mapping[str, Delta] = MappingProxyType({})


def plan_writes(
    images: Sequence[Image],
    device_md5: Mapping[str, str],
    otadata_selects: bool | None,
    full_reason: Reason | None = None,
    deltas: Mapping[str, Delta] = NO_DELTAS,
) -> FlashPlan:
    """Keep, write changed sectors or write whole, per region.

    `device_md5`: image name -> MD5 (hex) of that span of flash, computed by the device in this session; a missing name
    is an unknown region. `otadata_selects`: does the device's otadata select the slot that holds the app? None: not
    asked. `full_reason`: escalation; everything is written, whatever the digests say. `deltas`: for regions that
    differ, the runs that suffice, because the device confirmed what is in the rest.

    The regions are in the order in which to write them: as given, otadata last, so that a flash killed half-way
    never selects a slot whose image is not complete. Raises ValueError when there is nothing to judge, or when two
    images share a name: both are defects of the caller, and an empty plan would read as "verified".
    """
    names = [image.name for image in images]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"a plan needs images with distinct names, not {names}")
    ordered = sorted(images, key=lambda image: image.match is MatchRule.OTADATA)
    regions = tuple(
        _plan_region(image, device_md5.get(image.name, ""), otadata_selects, full_reason, deltas.get(image.name))
        for image in ordered
    )
    reasons = tuple(region.reason for region in regions if region.reason is not None)
    if full_reason is not None:
        return FlashPlan(regions, full=True, reasons=(full_reason,))
    return FlashPlan(regions, full=False, reasons=reasons)


def whole(image: Image) -> Region:
    """The image's span, rounded out to sectors: what a flash erases to write it."""
    start = image.offset // SECTOR * SECTOR
    end = -(-image.end // SECTOR) * SECTOR
    return Region(start, end - start)


def _plan_region(
    image: Image, before: str, otadata_selects: bool | None, full_reason: Reason | None, delta: Delta | None
) -> RegionPlan:
    reason = full_reason or _difference(image, before.lower(), otadata_selects)
    if reason is None:
        return RegionPlan(image, RegionAction.KEPT, (), before)
    everything = whole(image)
    if full_reason is None and delta is not None and delta.runs and delta.runs != (everything,):
        return RegionPlan(image, RegionAction.DELTA, delta.runs, before, delta.reason)
    return RegionPlan(image, RegionAction.WRITTEN, (everything,), before, reason)


def _difference(image: Image, before: str, otadata_selects: bool | None) -> Reason | None:
    """Why the device's region does not match this image; None when it does."""
    if image.match is MatchRule.OTADATA and otadata_selects is not None:
        # By meaning: OTA updates and roll-backs leave other bytes that select the same slot.
        return None if otadata_selects else Reason("otadata-selects-other", image.name)
    if not before:
        return Reason("region-unknown", image.name)
    return None if before == image.md5.lower() else Reason("md5-differs", image.name, before, image.md5)


def confirmed_plan(images: Sequence[Image]) -> FlashPlan:
    """Keep everything without the device's MD5s: for the levels of the verify ladder above them."""
    return FlashPlan(tuple(RegionPlan(image, RegionAction.KEPT, (), "") for image in images))


def erased_md5(size: int) -> str:
    """Of so many bytes of erased flash."""
    return hashlib.md5(b"\xff" * size, usedforsecurity=False).hexdigest()


UNCHANGED: Mapping[str, DeployOutcome] = MappingProxyType(
    {
        "md5": DeployOutcome.VERIFIED_UNCHANGED,
        "app-report": DeployOutcome.APP_CONFIRMED,
        "journal": DeployOutcome.JOURNAL_TRUSTED,
    }
)
"""What a plan without writes is called, by the level of the verify ladder that it rests on."""


def deploy_outcome(plan: FlashPlan, verified_by: str = "md5") -> DeployOutcome:
    """The name of what the plan does to the device, once it succeeded and was verified."""
    actions = {region.action for region in plan.regions}
    if actions == {RegionAction.KEPT}:
        return UNCHANGED[verified_by]
    if plan.full or actions == {RegionAction.WRITTEN}:
        return DeployOutcome.FULL_FLASHED
    return part_outcome(plan.writes)


def part_outcome(written: Sequence[RegionPlan]) -> DeployOutcome:
    """The name of having written these regions and no others."""
    if any(region.action is RegionAction.WRITTEN for region in written):
        return DeployOutcome.REGIONS_FLASHED
    return DeployOutcome.DELTA_FLASHED


def full_flash_reason(
    images: Sequence[Image],
    device_md5: Mapping[str, str],
    recorded: Mapping[str, str],
    current: Mapping[str, str],
) -> Reason | None:
    """Why one region is not enough (escalation), or None. A board that holds nothing yet needs all of them.

    The table and the bootloader decide where everything else lies and how it is read; `recorded` and `current` are the
    flash settings and the toolchain of the last commit to this board and of this build. Nothing recorded is no reason:
    then the digests alone decide. A board that holds everything is left alone whatever moved: there is nothing that a
    flash would change, and the next commit records the new identity."""
    # otadata is data of the board's: other bytes in it are no reason for anything but itself.
    fixed = [image for image in images if image.match is MatchRule.BYTES]
    differing = [i for i in fixed if device_md5.get(i.name, "").lower() != i.md5.lower()]
    if not differing:
        return None
    if differing == fixed and all(device_md5.get(image.name, "").lower() == erased_md5(image.size) for image in fixed):
        return Reason(BOARD_ERASED, "flash")
    for name, kind in (("partitions", "partition-table-moved"), ("bootloader", "bootloader-moved")):
        image = next((i for i in differing if i.name == name), None)
        if image is not None:
            return Reason(kind, name, device_md5.get(name, "") or "unknown", image.md5)
    for name, kind in (("flash", "flash-settings-moved"), ("toolchain", "toolchain-moved")):
        before, after = recorded.get(name, ""), current.get(name, "")
        if before and before != after:
            return Reason(kind, name, before, after)
    return None
