"""Deltas and escalation in the plan, what the outcomes are called, and the journal's memory of a build's identity."""

from __future__ import annotations

import hashlib

import pytest

from pipeline.flash.journal import JOURNAL_HEADER, DeviceState, begin, commit, decode_journal, written
from pipeline.flash.plan import (
    Delta,
    confirmed_plan,
    deploy_outcome,
    full_flash_reason,
    part_outcome,
    plan_writes,
    whole,
)
from pipeline.flash_model import Region
from pipeline.model import DeployOutcome, Reason, RegionAction
from pipeline.run.options import parse_options
from tests.unit.test_plan import APP, BOOT, EQUAL, IMAGES, OTADATA, actions, image

TABLE = image("partitions", 0x8000, 0xC00)
BUILD = (BOOT, TABLE, OTADATA, APP)
HELD = {each.name: each.md5 for each in BUILD}
WHY = Reason("changed-since-commit", "app")
ONE = Delta((Region(0x11000, 0x1000),), WHY)
OLD, NEW = {"flash": "dio 80m 4MB", "toolchain": "zig 1"}, {"flash": "dio 80m 4MB", "toolchain": "zig 2"}


def test_a_delta_is_written_where_the_region_differs() -> None:
    plan = plan_writes(IMAGES, EQUAL | {"app": "0" * 32}, True, deltas={"app": ONE, "bootloader": ONE})
    assert actions(plan) == {"bootloader": "kept", "table": "kept", "app": "delta", "otadata": "kept"}
    (write,) = plan.writes
    assert (write.runs, write.reason, write.bytes_to_write) == (ONE.runs, WHY, 0x800)
    assert deploy_outcome(plan) is DeployOutcome.DELTA_FLASHED is part_outcome(plan.writes)


@pytest.mark.parametrize("runs", [(), (whole(APP),)])
def test_a_delta_that_spares_nothing_is_a_whole_write(runs: tuple[Region, ...]) -> None:
    plan = plan_writes(IMAGES, EQUAL | {"app": "0" * 32}, True, deltas={"app": Delta(runs, WHY)})
    assert actions(plan)["app"] == "written" and plan.writes[0].runs == (whole(APP),)


def test_escalation_overrides_deltas() -> None:
    reason = Reason("toolchain-moved", "toolchain", "a", "b")
    plan = plan_writes(IMAGES, EQUAL, True, reason, {"app": ONE})
    assert {region.action for region in plan.regions} == {RegionAction.WRITTEN} and plan.full


@pytest.mark.parametrize(
    ("changes", "recorded", "kind"),
    [
        ({}, OLD, None),
        ({"otadata": "0" * 32}, OLD, None),
        ({"app": "0" * 32}, NEW, None),
        ({"app": "0" * 32}, {}, None),
        ({"app": "0" * 32}, OLD, "toolchain-moved"),
        ({"app": "0" * 32}, OLD | {"flash": "qio 80m 4MB"}, "flash-settings-moved"),
        ({"bootloader": "0" * 32}, NEW, "bootloader-moved"),
        ({"partitions": "0" * 32, "bootloader": "0" * 32}, OLD, "partition-table-moved"),
    ],
)
def test_what_escalates(changes: dict[str, str], recorded: dict[str, str], kind: str | None) -> None:
    reason = full_flash_reason(BUILD, HELD | changes, recorded, NEW)
    assert (reason.kind if reason else None) == kind


def test_an_erased_board_is_called_that() -> None:
    erased = {image.name: hashlib.md5(b"\xff" * image.size).hexdigest() for image in BUILD}
    assert full_flash_reason(BUILD, erased, {}, NEW) == Reason("board-erased", "flash")
    other = full_flash_reason(BUILD, erased | {"app": "0" * 32}, {}, NEW)
    assert other is not None and other.kind == "partition-table-moved", "somebody's application lies there"


def test_each_level_of_the_ladder_has_its_own_outcome() -> None:
    plan = confirmed_plan(IMAGES)
    assert not plan.writes
    assert [deploy_outcome(plan, level) for level in ("md5", "app-report", "journal")] == [
        DeployOutcome.VERIFIED_UNCHANGED,
        DeployOutcome.APP_CONFIRMED,
        DeployOutcome.JOURNAL_TRUSTED,
    ]


# --- journal ------------------------------------------------------------------------------------


def state(*lines: bytes) -> DeviceState:
    return decode_journal(JOURNAL_HEADER + b"".join(lines))[0]


def test_a_commit_remembers_what_it_was_built_with_and_a_partial_one_leaves_it() -> None:
    whole_build = (begin("tx-1", "now", [APP, BOOT], OLD), written("tx-1", "app"), written("tx-1", "bootloader"))
    opened = state(*whole_build)
    assert opened.about == {} and opened.open is not None and opened.open.about == OLD
    committed = (*whole_build, commit("tx-1"))
    assert state(*committed).about == OLD
    partial = (*committed, begin("tx-2", "later", [APP]), written("tx-2", "app"), commit("tx-2"))
    assert state(*partial).about == OLD
    assert state(*partial, begin("tx-3", "then", [APP], NEW), written("tx-3", "app"), commit("tx-3")).about == NEW


def test_the_identity_is_these_bytes() -> None:
    line = begin("tx-1", "now", [], OLD)
    assert b'"about":{"flash":"dio 80m 4MB","toolchain":"zig 1"}' in line
    assert b"about" not in begin("tx-1", "now", [])


# --- command line -------------------------------------------------------------------------------


def test_a_region_on_the_command_line_names_its_device_too() -> None:
    options = parse_options(["reflash:desk:app", "reflash:desk:boot", "--verify", "journal"], ["reflash", "deploy"])
    assert (options.named, options.verify) == (("desk",), "journal")
    assert options.regions == (("desk", "app"), ("desk", "boot"))
    assert parse_options(["deploy:desk"], ["deploy"]).regions == ()
