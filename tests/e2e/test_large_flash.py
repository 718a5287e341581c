"""Firmware beyond the first 16 MB of flash: the ROM's commands would answer for what lies 16 MB lower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import given_firmware as given
from tests.e2e.inprocess import InProcessRun, deploy
from tests.given_project import project

HIGH = 0x1010000
SIZE_FREQ = 0x5F
"""32 MB, 80 MHz."""
ROWS: tuple[given.Row, ...] = (
    ("nvs", 1, 2, 0x9000, 0x5000),
    ("low", 1, 0x82, 0x10000, 0x40000),
    ("factory", 0, 0, HIGH, 0x40000),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def high(root: Path, chip: str) -> str:
    files = {
        "b.bin": given.bootloader(chip, size_freq=SIZE_FREQ),
        "t.bin": given.table(ROWS),
        "a.bin": given.app(chip),
        "low.bin": b"a file system".ljust(5000, b"."),
    }
    given.write(root / "bin", files)
    boot = hex(given.BOOT_OFFSETS[chip])
    low = '0x10000 = "bin/low.bin"'
    return f'files = {{ {boot} = "bin/b.bin", 0x8000 = "bin/t.bin", {low}, {HIGH:#x} = "bin/a.bin" }}'


def written(run: InProcessRun) -> list[str]:
    assert run.category == "", run.report["failure"]
    return [region["name"] for region in run.report["regions"] if region["action"] != "kept"]


def test_an_application_above_16_mb_is_proven_and_written_there(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32s3", high)
    app, low = given.app("esp32s3"), b"a file system".ljust(5000, b".")
    assert sorted(written(deploy(space.path))) == ["app", "bootloader", "low", "partitions"]
    flash = bytearray(space.flash.read_bytes())
    assert flash[HIGH : HIGH + len(app)] == app and flash[0x10000 : 0x10000 + len(low)] == low
    assert written(deploy(space.path)) == []

    flash[HIGH + 100] ^= 1
    space.flash.write_bytes(flash)
    assert written(deploy(space.path)) == ["app"], "what lies 16 MB lower is no proof"
    assert space.flash.read_bytes()[HIGH : HIGH + len(app)] == app

    # The old content of the application's place lies where a 24-bit address would look.
    flash = bytearray(space.flash.read_bytes())
    flash[HIGH + 200] ^= 1
    flash[0x10000 : 0x10000 + len(app)] = app
    space.flash.write_bytes(flash)
    assert sorted(written(deploy(space.path))) == ["app", "low"]


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_where_no_loader_reaches_it_is_refused_before_a_port_is_opened(tmp_path: Path, chip: str) -> None:
    space = project(tmp_path / "project", chip, high)
    run = deploy(space.path)
    assert run.category == "config_error"
    message = run.report["failure"]["message"]
    assert "0x1010000" in message and f"the flash commands of {chip} reach 16 MB only" in message
    assert not space.flash.exists(), "no port was opened"


def test_a_write_that_lands_in_another_region_is_found_after_the_last_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board whose stub wraps at 24 bits, though esptool says that it does not: the application's own MD5 is right."""
    from virtualboard.protocol import Target

    really = Target.__init__

    def narrow(self: Target, flash: Any, timing: Any, size: int, address_bits: int) -> None:
        really(self, flash, timing, size, min(address_bits, 24))

    monkeypatch.setattr(Target, "__init__", narrow)
    space = project(tmp_path / "project", "esp32s3", high)
    for destroyed in ("low at 0x10000 was written", "app at 0x1010000 was kept"):
        run = deploy(space.path)
        assert (run.category, run.failed_stage) == ("verify_mismatch", "reflash")
        assert run.report["failure"]["message"].startswith(destroyed)
