"""What must be written to this board? A pure function of the images and of what the device said about its flash.

Does not know ports, loaders, journals or how a digest was obtained. Invariant: every image has exactly one region
plan, a region is kept only when the device itself proved it, and a region that is not kept has a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.core.model import (
    SECTOR,
    DeployOutcome,
    FlashPlan,
    Image,
    MatchRule,
    Reason,
    Region,
    RegionAction,
    RegionPlan,
)


def plan_writes(
    images: Sequence[Image],
    device_md5: Mapping[str, str],
    otadata_selects: bool | None,
    full_reason: Reason | None = None,
) -> FlashPlan:
    """Keep or write whole, per region.

    `device_md5`: image name -> MD5 (hex) of that span of flash, computed by the device in this session; a missing name
    is an unknown region. `otadata_selects`: does the device's otadata select the slot that holds the app? None: not
    asked. `full_reason`: escalation; everything is written, whatever the digests say.

    The regions are in the order in which to write them: as given, otadata last, so that a flash killed half-way
    never selects a slot whose image is not complete. Raises ValueError when there is nothing to judge, or when two
    images share a name: both are defects of the caller, and an empty plan would read as "verified".
    """
    names = [image.name for image in images]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"a plan needs images with distinct names, not {names}")
    ordered = sorted(images, key=lambda image: image.match is MatchRule.OTADATA)
    regions = tuple(
        _plan_region(image, device_md5.get(image.name, ""), otadata_selects, full_reason) for image in ordered
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


def _plan_region(image: Image, before: str, otadata_selects: bool | None, full_reason: Reason | None) -> RegionPlan:
    reason = full_reason or _difference(image, before.lower(), otadata_selects)
    if reason is None:
        return RegionPlan(image, RegionAction.KEPT, (), before)
    return RegionPlan(image, RegionAction.WRITTEN, (whole(image),), before, reason)


def _difference(image: Image, before: str, otadata_selects: bool | None) -> Reason | None:
    """Why the device's region does not do for this image; None when it does."""
    if image.match is MatchRule.OTADATA and otadata_selects is not None:
        # By meaning: OTA updates and roll-backs leave other bytes that select the same slot.
        return None if otadata_selects else Reason("otadata-selects-other", image.name)
    if not before:
        return Reason("region-unknown", image.name)
    return None if before == image.md5.lower() else Reason("md5-differs", image.name, before, image.md5)


def deploy_outcome(plan: FlashPlan) -> DeployOutcome:
    """The name of what the plan does to the device, once it succeeded and was verified."""
    actions = {region.action for region in plan.regions}
    if actions == {RegionAction.KEPT}:
        return DeployOutcome.VERIFIED_UNCHANGED
    if plan.full or actions == {RegionAction.WRITTEN}:
        return DeployOutcome.FULL_FLASHED
    if RegionAction.WRITTEN in actions:
        return DeployOutcome.REGIONS_FLASHED
    return DeployOutcome.DELTA_FLASHED
