"""The scenarios of a developer's day, counted; each on an in-process board and over RFC 2217 to a board process."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from tests.e2e.space import Result, Space

METHODS = "firmware/core/methods.c"
NO_WORK = {"compiled": 0, "restored": 0, "linked": 0, "bytes_written": 0}


def work(result: Result) -> dict[str, int]:
    return {key: result.totals[key] for key in NO_WORK}


@pytest.fixture
def deployed(space: Space) -> Space:
    first = space.deploy()
    assert first.code == 0, first.out + first.err
    assert first.outcome == "full_flashed"
    assert first.written == ["bootloader", "partitions", "app", "otadata"]
    return space


def test_the_second_deploy_does_nothing_and_proves_it(deployed: Space) -> None:
    second = deployed.deploy()
    assert second.code == 0, second.out + second.err
    assert second.outcome == "verified_unchanged"
    assert work(second) == NO_WORK
    assert [r["device_md5_before"] for r in second.report["regions"] if r["name"] != "otadata"] == [
        r["md5"] for r in second.report["regions"] if r["name"] != "otadata"
    ]
    for line in ("-- fingerprint", "-- compile", "-- link", "-- reflash:bench"):
        assert f"{line}\n" in second.out
    for line in (".  verify-flash:bench", ".  reattach:bench", ".  ttfb:bench", ".  deploy:bench"):
        assert f"{line}\n" in second.out
    assert {"reset_released", "first_byte", "rom_banner", "first_jsonrpc"} <= set(second.report["marks"])


def test_a_comment_changes_nothing_on_the_board(deployed: Space) -> None:
    path = deployed.file(METHODS)
    path.write_text(path.read_text() + "/* the end */\n")
    at_end = deployed.deploy()
    assert at_end.outcome == "verified_unchanged"
    assert work(at_end) == {**NO_WORK, "compiled": 1}, "the object did not change, so nothing is linked"

    path.write_text("/* a new first line */\n" + path.read_text())
    in_front = deployed.deploy()
    assert in_front.outcome == "verified_unchanged"
    assert work(in_front)["compiled"] == 1
    assert work(in_front)["bytes_written"] == 0, "line numbers live in debug sections, which are not in the image"
    assert work(deployed.deploy()) == NO_WORK


def test_a_real_edit_writes_the_app_and_runs_it(deployed: Space) -> None:
    before = deployed.deploy().report["regions"]
    deployed.edit(METHODS, 'out_text("\\"pong\\"");', 'out_text("\\"pang\\"");')
    edited = deployed.deploy()
    assert edited.code == 0, edited.out + edited.err
    assert edited.outcome == "delta_flashed"
    assert edited.written == ["app"]
    assert (edited.totals["compiled"], edited.totals["linked"]) == (1, 1)
    app = next(r for r in edited.report["regions"] if r["name"] == "app")
    assert app["md5"] != next(r["md5"] for r in before if r["name"] == "app")
    assert edited.totals["bytes_written"] == app["bytes_written"] < app["size"] // 2, "only the sectors that changed"
    assert edited.report["readiness"]["app_elf_sha256"] == hashlib.sha256(stripped_elf(deployed)).hexdigest()
    assert deployed.deploy().outcome == "verified_unchanged"


def stripped_elf(space: Space) -> bytes:
    """The ELF without debug sections, whose digest is the identity of the build."""
    return next((space.path / "build").rglob("app.stripped.elf")).read_bytes()


def test_a_header_edit_compiles_its_users(deployed: Space) -> None:
    header = deployed.file("firmware/core/json.h")
    sources = {path.name: path.read_text() for path in (deployed.path / "firmware").rglob("*.[ch]")}
    users = {"json.h"}
    while grown := {n for n, text in sources.items() if any(f'"{user}"' in text for user in users)} - users:
        users |= grown
    units = {name for name in users if name.endswith(".c")}
    header.write_text(header.read_text() + "\n/* moved */\n")
    result = deployed.deploy()
    assert result.totals["compiled"] == len(units) < sum(name.endswith(".c") for name in sources)
    assert result.outcome == "verified_unchanged"


def test_a_deleted_build_directory_is_restored(deployed: Space) -> None:
    shutil.rmtree(deployed.path / "build")
    result = deployed.deploy()
    assert result.outcome == "verified_unchanged"
    assert (result.totals["compiled"], result.totals["linked"], result.totals["bytes_written"]) == (0, 0, 0)
    assert result.totals["restored"] > 10
    assert work(deployed.deploy()) == NO_WORK


def test_a_flipped_byte_on_the_board_is_found(space: Space) -> None:
    assert space.deploy().code == 0
    space.flip(0x10000 + 0x1234)
    result = space.deploy()
    assert result.code == 0
    assert result.written == ["app"]
    assert result.outcome == "regions_flashed"
    assert (result.totals["compiled"], result.totals["linked"]) == (0, 0)
    assert space.deploy().outcome == "verified_unchanged"


def test_verify_flash_alone_leaves_the_board_running(deployed: Space) -> None:
    asked = deployed.doit("verify-flash")
    assert asked.code == 0
    assert asked.outcome == "verified_unchanged"
    assert asked.report["regions"] and asked.written == []
    if deployed.flash.parent.name != "boards":  # an in-process board is off between runs
        answer = deployed.doit("monitor", "--no-reset", stdin='{"jsonrpc":"2.0","id":7,"method":"ping"}\n')
        assert '"id":7,"result":"pong"' in answer.out


def test_two_runs_with_one_session_each_share_a_board(deployed: Space) -> None:
    """The port is free again after each run, whatever it did."""
    assert deployed.doit("verify-flash").code == 0
    assert deployed.doit("monitor", "--until", "ready", "--seconds", "20").code == 0
    assert deployed.deploy().outcome == "verified_unchanged"
