"""`[image.NAME] from = "web/"` up to the flash of a board: packed once, written where it differs, refused in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.formats.spiffs import SpiffsSettings, unpack
from pipeline.toolchain import filesystems
from tests.e2e.inprocess import InProcessRun, deploy
from tests.e2e.space import Space

PLACE, SIZE = 0x290000, 0x170000
"""Of `storage` in firmware/partitions.csv."""


def add_image(space: Space, kind: str) -> None:
    text = f'\n[image.web]\nfrom = "web/"\nformat = "{kind}"\npartition = "storage"\n'
    space.file("deploy.toml").write_text(space.file("deploy.toml").read_text() + text)
    space.file("web/js").mkdir(parents=True)
    space.file("web/index.html").write_text("<html>")
    space.file("web/js/app.js").write_text("let x = 1\n" * 800)


def on_board(space: Space) -> bytes:
    return space.flash.read_bytes()[PLACE : PLACE + SIZE]


def link(result: InProcessRun) -> dict[str, int]:
    return dict(next(row for row in result.report["stages"] if row["stage"] == "link")["counts"])


@pytest.mark.long
def test_a_directory_is_packed_deployed_and_updated(host_space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    littlefs = pytest.importorskip("littlefs")
    space = host_space
    add_image(space, "littlefs")
    assert deploy(space.path).outcome == "full_flashed"

    def files() -> dict[str, bytes]:
        volume = littlefs.LittleFS(mount=False, block_size=4096, block_count=0, name_max=64)
        volume.context.buffer = bytearray(on_board(space))
        volume.mount()
        found = {}
        for root, _, names in volume.walk("/"):
            for name in names:
                path = f"{root.rstrip('/')}/{name}"
                found[path] = volume.open(path, "rb").read()
        return found

    assert files() == {"/index.html": b"<html>", "/js/app.js": b"let x = 1\n" * 800}
    warm = deploy(space.path)
    assert warm.outcome == "verified_unchanged" and link(warm)["built"] == 0

    space.file("web/new.txt").write_text("new")
    again = deploy(space.path)
    assert again.outcome == "delta_flashed" and link(again)["built"] == 2, "packed, and taken over"
    assert 0 < again.report["totals"]["bytes_written"] <= 4 * 4096
    assert files()["/new.txt"] == b"new"
    space.file("web/new.txt").unlink()
    back = deploy(space.path)
    assert link(back)["restored"] == 2 and link(back)["built"] == 0, "what was packed before is in the store"
    assert "/new.txt" not in files()

    space.file("web/huge.bin").write_bytes(bytes(SIZE))
    before = on_board(space)
    huge = deploy(space.path)
    assert (huge.category, huge.failed_stage) == ("action_failed", "link"), huge.report["failure"]
    assert "LittleFS cannot hold it" in huge.report["failure"]["message"]
    assert huge.report["failure"]["where"] == "web" and on_board(space) == before
    space.file("web/huge.bin").unlink()

    packer = filesystems.PACKERS["littlefs"]._replace(module="no_such_package")
    monkeypatch.setattr(filesystems, "PACKERS", {"littlefs": packer})
    space.file("web/other.txt").write_text("moves the inputs")
    missing = deploy(space.path)
    assert missing.category == "toolchain_missing"
    assert "is packed by littlefs-python, which is not installed" in missing.report["failure"]["message"]
    assert "pip install 'hotplate[fs]'" in missing.report["failure"]["hint"]


def test_spiffs_needs_no_package(host_space: Space) -> None:
    space = host_space
    add_image(space, "spiffs")
    assert deploy(space.path).outcome == "full_flashed"
    assert unpack(on_board(space), SpiffsSettings()) == {
        "index.html": b"<html>",
        "js/app.js": b"let x = 1\n" * 800,
    }


def test_a_directory_that_is_not_there_is_told_at_its_line(host_space: Space) -> None:
    space = host_space
    add_image(space, "spiffs")
    for path in sorted(Path(space.file("web")).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    empty = deploy(space.path)
    assert empty.category == "config_error" and "'web/' holds no file" in empty.report["failure"]["message"]
    line = space.file("deploy.toml").read_text().splitlines().index('from = "web/"') + 1
    assert empty.report["failure"]["where"] == f"deploy.toml:{line}:8"
