"""Which application starts: boards that were updated over the air, and otadata that would not last."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from tests import given_firmware as given
from tests.e2e.inprocess import InProcessRun, deploy
from tests.e2e.space import Space
from tests.given_project import esp_idf, project

CHIPS = ("esp32", "esp32s3", "esp32c3")
RESCUE: tuple[given.Row, ...] = (
    ("nvs", 1, 2, 0x9000, 0x5000),
    ("otadata", 1, 0, 0xE000, 0x2000),
    ("factory", 0, 0, 0x10000, 0x40000),
    ("ota_0", 0, 0x10, 0x50000, 0x40000),
    ("ota_1", 0, 0x11, 0x90000, 0x40000),
)
NEW, PENDING_VERIFY, VALID, INVALID, ABORTED = range(5)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def entry(sequence: int, state: int) -> bytes:
    crc = zlib.crc32(struct.pack("<I", sequence), 0xFFFFFFFF)
    return struct.pack("<I20sII", sequence, b"\xff" * 20, state, crc)


def put(space: Space, offset: int, data: bytes) -> None:
    flash = bytearray(space.flash.read_bytes())
    flash[offset : offset + len(data)] = data
    space.flash.write_bytes(flash)


def written(run: InProcessRun) -> list[str]:
    assert run.category == "", run.report["failure"]
    return [region["name"] for region in run.report["regions"] if region["action"] != "kept"]


def factory_files(root: Path, chip: str) -> str:
    """A list without otadata, for a table that has it."""
    images = {"b.bin": given.bootloader(chip), "t.bin": given.table(RESCUE), "a.bin": given.app(chip)}
    given.write(root / "bin", images)
    boot = hex(given.BOOT_OFFSETS[chip])
    return f'files = {{ {boot} = "bin/b.bin", 0x8000 = "bin/t.bin", 65536 = "bin/a.bin" }}'


@pytest.mark.parametrize("chip", CHIPS)
def test_a_board_that_was_updated_over_the_air_starts_the_factory_app_that_is_deployed(
    tmp_path: Path, chip: str
) -> None:
    space = project(tmp_path / "project", chip, factory_files)
    assert "otadata" in written(deploy(space.path))
    assert space.flash.read_bytes()[0xE000:0x10000] == b"\xff" * 0x2000
    put(space, 0x50000, given.app(chip, "from the air"))
    for state in (NEW, PENDING_VERIFY, VALID):
        put(space, 0xE000, entry(1, state))
        assert written(deploy(space.path)) == ["otadata"]
        assert space.flash.read_bytes()[0xE000:0x10000] == b"\xff" * 0x2000
        assert written(deploy(space.path)) == []
    put(space, 0xE000, entry(1, ABORTED))
    assert written(deploy(space.path)) == [], "an update that was rolled back: factory starts"


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("state", [NEW, PENDING_VERIFY, INVALID, ABORTED])
def test_our_slot_in_a_state_that_does_not_last_is_rewritten(tmp_path: Path, chip: str, state: int) -> None:
    space = project(tmp_path / "project", chip, esp_idf)
    assert "app" in written(deploy(space.path))
    put(space, 0xE000, entry(3, VALID))
    assert written(deploy(space.path)) == []
    put(space, 0xE000, entry(3, state))
    put(space, 0xF000, entry(2, VALID))
    assert written(deploy(space.path)) == ["otadata"]
    assert written(deploy(space.path)) == []


@pytest.mark.parametrize("state", [NEW, PENDING_VERIFY])
def test_otadata_that_would_not_last_is_not_deployed(tmp_path: Path, state: int) -> None:
    space = project(tmp_path / "project", "esp32s3", esp_idf)
    space.file("build/ota_data_initial.bin").write_bytes(entry(1, state).ljust(0x2000, b"\xff"))
    run = deploy(space.path)
    assert run.category == "config_error"
    assert "roll-back" in run.report["failure"]["message"]
    assert not space.flash.exists()


def test_platformios_own_initial_otadata_is_used(tmp_path: Path) -> None:
    def layout(root: Path, chip: str) -> str:
        given.platformio(root / ".pio/build/desk", chip, RESCUE)
        (root / ".pio/build/desk/boot_app0.bin").rename(root / ".pio/build/desk/ota_data_initial.bin")
        (root / ".pio/build/desk/ota_data_initial.bin").write_bytes(given.otadata(0))
        return 'directory = ".pio/build/desk"'

    space = project(tmp_path / "project", "esp32s3", layout)
    assert sorted(written(deploy(space.path))) == ["app", "bootloader", "otadata", "partitions"]
    app = given.app("esp32s3")
    assert space.flash.read_bytes()[0x10000 : 0x10000 + len(app)] == app, "erased otadata starts factory"


def test_what_a_toolchain_compiles_for_factory_starts_there_after_an_update(host_space: Space) -> None:
    table = host_space.file("firmware/partitions.csv")
    text = table.read_text().replace("ota_1,    app,  ota_1, ", "factory,  app,  factory,")
    table.write_text(text)
    first = host_space.deploy()
    assert first.code == 0, first.out + first.err
    assert {"app", "otadata"} <= set(first.written)
    app = host_space.file("build/local-fast/app.bin").read_bytes()
    flash = host_space.flash.read_bytes()
    assert flash[0x150000 : 0x150000 + len(app)] == app and flash[0xE000:0x10000] == b"\xff" * 0x2000
    put(host_space, 0x10000, app)
    put(host_space, 0xE000, entry(1, VALID))
    second = host_space.deploy()
    assert second.code == 0 and second.written == ["otadata"]


def test_otadata_that_is_kept_by_its_meaning_is_kept_beside_a_write(tmp_path: Path) -> None:
    """Proven once more after the last write: as it was read, since its bytes are not the image's."""
    space = project(tmp_path / "project", "esp32s3", esp_idf)
    deploy(space.path)
    put(space, 0xE000, entry(3, VALID))
    space.file("build/blink.bin").write_bytes(given.app("esp32s3", "two"))
    assert written(deploy(space.path)) == ["app"]
    assert space.flash.read_bytes()[0xE000:0xE020] == entry(3, VALID)
