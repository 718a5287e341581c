"""`--rollback` on a board on which something else ran than what was deployed last by cable. The truth is the flash."""

from __future__ import annotations

import struct

import pytest

from pipeline.formats import otadata
from tests.e2e.space import Result, Space

MAIN, METHODS = "firmware/core/main.c", "firmware/core/methods.c"
SILENT = "    for (;;) {\n    }\n    announce();"
OTADATA, OTA_0 = 0xE000, 0x10000


def says(space: Space, before: str, after: str) -> None:
    """Another answer to `ping`: another build."""
    space.edit(METHODS, f'out_text("\\"{before}\\"");', f'out_text("\\"{after}\\"");')


def answer(space: Space) -> str:
    """What the board answers to `ping` after a reset."""
    return space.doit("monitor", "--no-reset", "--call", "ping").out.strip().strip('"')


def poke(space: Space, offset: int, data: bytes) -> None:
    with space.flash.open("r+b") as flash:
        flash.seek(offset)
        flash.write(data)


def silent_deploy(space: Space) -> Result:
    space.edit(MAIN, "    announce();", SILENT)
    failed = space.doit("deploy", "--rollback")
    assert failed.code == 1 and failed.report is not None and failed.report["failure"]["stage"] == "ttfb"
    return failed


@pytest.fixture
def updated(host_space: Space) -> Space:
    """A was deployed by cable, B came without one and confirmed itself."""
    assert host_space.deploy().outcome == "full_flashed"
    says(host_space, "pong", "pang")
    assert host_space.doit("ota").code == 0 and answer(host_space) == "pang"
    return host_space


@pytest.mark.parametrize("until", ["rpc:ready", "line:ready"])
def test_what_came_without_a_cable_runs_again(updated: Space, until: str) -> None:
    """Not what was deployed last by cable, which lay in the other slot; and every byte is as it was."""
    updated.edit("deploy.toml", 'until = "rpc:ready"', f'until = "{until}"')
    before = updated.flash.read_bytes()
    failed = silent_deploy(updated)
    said = failed.report["rollback"]
    assert said["message"] == "ota_1 starts again, as before this run, and the board became ready with it", failed.err
    assert said["outcome"] == "regions_flashed"
    assert updated.flash.read_bytes() == before
    assert answer(updated) == "pang"
    says(updated, "pang", "pung")
    updated.edit(MAIN, SILENT, "    announce();")
    healed = updated.deploy()
    assert (healed.code, healed.written) == (0, ["app", "otadata"]), healed.out
    assert answer(updated) == "pung"


def test_the_table_before_comes_back_too(updated: Space) -> None:
    """A moved table has everything written; what ran lies where only the one before says."""
    updated.edit("firmware/partitions.csv", "ota_1,    app,  ota_1,   0x150000, 0x140000,", "")
    before = updated.flash.read_bytes()
    failed = silent_deploy(updated)
    assert "partition-table-moved" in {reason["kind"] for reason in failed.report["reasons"]}
    assert failed.report["rollback"]["message"].startswith("ota_1 starts again"), failed.err
    assert updated.flash.read_bytes() == before
    assert answer(updated) == "pang"


def test_what_was_not_deployed_from_here_cannot_be_put_back(host_space: Space) -> None:
    """Another tool wrote what ran: the deploy overwrites it, and there is no copy."""
    assert host_space.deploy().outcome == "full_flashed"
    says(host_space, "pong", "pang")
    assert host_space.doit("link").code == 0
    poke(host_space, OTA_0, next(host_space.file("build").rglob("app.bin")).read_bytes())
    assert answer(host_space) == "pang"
    failed = silent_deploy(host_space)
    assert failed.report["rollback"]["message"] == (
        "nothing was put back: what it started from ota_0 is not what was deployed last from here,"
        " and there is no copy of it"
    )
    assert failed.report["rollback"]["transaction_id"] == ""


def test_the_second_update_lies_where_the_deploy_goes(updated: Space) -> None:
    """C came without a cable too, over A. The deploy overwrites it, and what was sent is kept here."""
    says(updated, "pang", "pung")
    assert updated.doit("ota").code == 0 and answer(updated) == "pung"
    before = updated.flash.read_bytes()
    failed = silent_deploy(updated)
    assert failed.report["rollback"]["message"] == "the images before are back, and the board became ready with them"
    assert "updated-without-cable" in {reason["kind"] for reason in failed.report["reasons"]}
    assert updated.flash.read_bytes() == before
    assert answer(updated) == "pung"


def test_a_bootloader_that_would_not_have_started_is_not_put_back(updated: Space) -> None:
    """Another tool had damaged it; the deploy has mended it, and that stays."""
    whole = updated.flash.read_bytes()[:0x100]
    poke(updated, 0x20, b"damage")
    failed = silent_deploy(updated)
    assert failed.report["rollback"]["message"].startswith("nothing was put back: nothing ran: its bootloader")
    assert updated.flash.read_bytes()[:0x100] == whole


def test_what_does_not_run_may_be_lost(updated: Space) -> None:
    """B runs; what another tool left in the slot to which the deploy goes is nobody's to put back."""
    poke(updated, OTA_0 + 0x2000, b"other")
    failed = silent_deploy(updated)
    message = failed.report["rollback"]["message"]
    assert message.startswith("ota_1 starts again") and "app stays as this run wrote it" in message
    assert answer(updated) == "pang"
    updated.edit(MAIN, SILENT, "    announce();")
    healed = updated.deploy()
    assert healed.code == 0 and answer(updated) == "pang"


def test_an_update_that_has_not_confirmed_itself_is_not_put_back(updated: Space) -> None:
    """No reset would have started it once more for certain."""
    found = otadata.entries(updated.flash.read_bytes()[OTADATA : OTADATA + otadata.SIZE])
    sector = [entry.sequence for entry in found].index(2)
    poke(updated, OTADATA + sector * 0x1000 + 24, struct.pack("<I", otadata.OtaState.PENDING_VERIFY))
    failed = silent_deploy(updated)
    message = failed.report["rollback"]["message"]
    assert message.startswith("nothing was put back: what it started from ota_1 had not confirmed itself"), message
