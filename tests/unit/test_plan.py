"""What is written, kept and why: by counts of regions and bytes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.digest import digest_bytes
from pipeline.flash.plan import deploy_outcome, plan_writes
from pipeline.flash_model import FlashPlan, Image, MatchRule, Region, RegionPlan
from pipeline.model import DeployOutcome, Reason, RegionAction


def image(name: str, offset: int, size: int = 0x1800, match: MatchRule = MatchRule.BYTES) -> Image:
    data = name.encode() * size
    md5 = hashlib.md5(data[:size]).hexdigest()
    return Image(name, name, offset, size, 0x10000, f"build/{name}.bin", digest_bytes(data[:size]), md5, match)


BOOT = image("bootloader", 0x0)
TABLE = image("table", 0x8000, 0xC00)
OTADATA = image("otadata", 0xE000, 0x2000, MatchRule.OTADATA)
APP = image("app", 0x10000)
IMAGES = (BOOT, TABLE, OTADATA, APP)
EQUAL = {each.name: each.md5 for each in IMAGES}


def actions(plan: FlashPlan) -> dict[str, str]:
    return {region.image.name: region.action.value for region in plan.regions}


def test_a_device_that_holds_everything_is_left_alone() -> None:
    plan = plan_writes(IMAGES, EQUAL, True)
    assert (len(plan.regions), len(plan.writes), plan.bytes_to_write, plan.reasons, plan.full) == (4, 0, 0, (), False)
    assert deploy_outcome(plan) is DeployOutcome.VERIFIED_UNCHANGED


def test_only_the_differing_region_is_written_whole_and_says_why() -> None:
    plan = plan_writes(IMAGES, EQUAL | {"app": "0" * 32}, True)
    (write,) = plan.writes
    assert (write.image, write.action, write.runs) == (APP, RegionAction.WRITTEN, (Region(0x10000, 0x2000),))
    assert write.device_md5_before == "0" * 32
    assert plan.reasons == (Reason("md5-differs", "app", "0" * 32, APP.md5),)
    assert plan.bytes_to_write == 0x1800
    assert deploy_outcome(plan) is DeployOutcome.REGIONS_FLASHED


def test_an_unknown_region_is_written() -> None:
    plan = plan_writes(IMAGES, {name: md5 for name, md5 in EQUAL.items() if name != "table"}, True)
    assert [write.reason for write in plan.writes] == [Reason("region-unknown", "table")]


@pytest.mark.parametrize("md5", [OTADATA.md5, "0" * 32, ""])
def test_otadata_is_judged_by_what_it_selects_not_by_its_bytes(md5: str) -> None:
    device = EQUAL | {"otadata": md5}
    assert not plan_writes(IMAGES, device, True).writes
    (write,) = plan_writes(IMAGES, device, False).writes
    assert (write.image, write.reason) == (OTADATA, Reason("otadata-selects-other", "otadata"))


def test_otadata_that_was_not_asked_falls_back_to_its_bytes() -> None:
    assert not plan_writes(IMAGES, EQUAL, None).writes
    assert [w.image for w in plan_writes(IMAGES, EQUAL | {"otadata": "0" * 32}, None).writes] == [OTADATA]


def test_otadata_is_written_last() -> None:
    assert [region.image.name for region in plan_writes(IMAGES, {}, False).regions] == [
        "bootloader",
        "table",
        "app",
        "otadata",
    ]


def test_a_blank_device_is_flashed_in_full() -> None:
    plan = plan_writes(IMAGES, dict.fromkeys(EQUAL, "f" * 32), False)
    assert set(actions(plan).values()) == {"written"}
    assert not plan.full
    assert deploy_outcome(plan) is DeployOutcome.FULL_FLASHED


def test_escalation_writes_what_matches_too_and_then_converges() -> None:
    reason = Reason("partition-table-moved", "table", "a", "b")
    plan = plan_writes(IMAGES, EQUAL, True, reason)
    assert (plan.full, plan.reasons, len(plan.writes)) == (True, (reason,), 4)
    assert deploy_outcome(plan) is DeployOutcome.FULL_FLASHED
    assert not plan_writes(IMAGES, EQUAL, True).writes


def test_digests_compare_without_case() -> None:
    assert not plan_writes(IMAGES, {name: md5.upper() for name, md5 in EQUAL.items()}, True).writes


def test_a_delta_is_named_by_what_else_was_written() -> None:
    delta = RegionPlan(APP, RegionAction.DELTA, (Region(0x10000, 0x1000),), "")
    kept = RegionPlan(TABLE, RegionAction.KEPT, (), TABLE.md5)
    written = RegionPlan(BOOT, RegionAction.WRITTEN, (Region(0, 0x2000),), "")
    assert deploy_outcome(FlashPlan((kept, delta))) is DeployOutcome.DELTA_FLASHED
    assert deploy_outcome(FlashPlan((written, kept, delta))) is DeployOutcome.REGIONS_FLASHED


@pytest.mark.parametrize("images", [(), (APP, APP)])
def test_nothing_to_judge_is_not_called_verified(images: tuple[Image, ...]) -> None:
    with pytest.raises(ValueError, match="distinct names"):
        plan_writes(images, EQUAL, True)


@given(
    known=st.dictionaries(st.sampled_from(sorted(EQUAL)), st.sampled_from(["equal", "other", "missing"])),
    selects=st.sampled_from([True, False, None]),
    full=st.booleans(),
)
def test_every_image_has_one_plan_and_nothing_is_kept_without_proof(
    known: dict[str, str], selects: bool | None, full: bool
) -> None:
    device = {name: EQUAL[name] if how == "equal" else "0" * 32 for name, how in known.items() if how != "missing"}
    plan = plan_writes(IMAGES, device, selects, Reason("x", "y") if full else None)
    assert sorted(actions(plan)) == sorted(EQUAL)
    for region in plan.regions:
        if region.action is RegionAction.KEPT:
            by_meaning = region.image is OTADATA and selects is True
            assert not full and (by_meaning or known.get(region.image.name) == "equal")
            assert region.reason is None and not region.runs
        else:
            assert region.reason is not None
            assert region.runs[0].offset <= region.image.offset and region.runs[-1].end >= region.image.end
            assert all(run.offset % 0x1000 == 0 == run.size % 0x1000 for run in region.runs)
