"""Firmware that something else built, damaged or declared wrongly: a named failure before a port is opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.model import HOST_STAGES, Failure
from pipeline.run.options import Options
from pipeline.run.run import load_run
from pipeline.run.stage_of import StageOf
from tests import given_firmware as given
from tests.e2e.space import Space
from tests.given_project import DIRECTORY, Layout, esp_idf, files, platformio, project, with_web


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def blink(tmp_path: Path) -> Space:
    """An ESP-IDF build for an ESP32-S3."""
    return project(tmp_path / "project", "esp32s3", esp_idf, "rpc:ready")


def host_run(space: Space) -> Failure | None:
    """Why `doit link` fails there."""
    context = load_run(Options(), space.path)
    assert not isinstance(context, Failure), context
    try:
        for stage in HOST_STAGES:
            result = context.execute(StageOf(stage))
            if result.failure is not None:
                return result.failure
    finally:
        context.close()
    return None


def says(failure: Failure | None, *facts: str) -> None:
    assert failure is not None and failure.hint
    for fact in facts:
        assert fact in f"{failure.line()}\nhint: {failure.hint}", failure


def refused(space: Space, *facts: str) -> None:
    """As a mistake in the configuration: nothing is touched, `doit` ends with 2."""
    failure = load_run(Options(), space.path)
    assert isinstance(failure, Failure) and failure.category == "config_error"
    says(failure, *facts)
    assert not space.file(".deploy").exists()


def fails(space: Space, category: str, *facts: str) -> None:
    """A host stage fails, so that no port is opened."""
    failure = host_run(space)
    says(failure, *facts)
    assert failure is not None and failure.category == category


def test_what_is_whole_passes(blink: Space) -> None:
    assert host_run(with_web(blink)) is None


def test_an_image_that_does_not_fit(blink: Space) -> None:
    space = with_web(blink)
    space.file("web/a.html").write_bytes(b"x" * 0x20001)
    fails(space, "image_too_large", "build/web.bin: error: web has 131076 bytes, but partition 'storage' holds 131072")


def test_an_image_that_is_not_there(blink: Space) -> None:
    space = with_web(blink)
    space.edit("deploy.toml", 'file = "build/web.bin"', 'file = "build/wed.bin"')
    line = space.file("deploy.toml").read_text().partition("build/wed.bin")[0].count("\n") + 1
    fails(
        space,
        "config_error",
        f"deploy.toml:{line}:8: error: 'build/wed.bin' does not exist, and no [[action]] makes it",
    )


def test_an_image_for_a_partition_that_is_not_there(blink: Space) -> None:
    space = with_web(blink)
    space.edit("deploy.toml", 'partition = "storage"', 'partition = "spiffs"')
    fails(space, "config_error", "error: the table has no partition 'spiffs'", "use one of nvs, otadata, app0")


def test_a_build_that_is_not_there(blink: Space) -> None:
    shutil.rmtree(blink.file("build"))
    refused(blink, "deploy.toml:8:13: error: 'prebuilt.directory' is 'build', which does not exist")


def test_a_directory_that_holds_builds_but_is_none(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32", platformio, "rpc:ready")
    space.edit("deploy.toml", ".pio/build/desk", ".pio/build/")
    refused(space, "deploy.toml:8:13: error: '.pio/build' is no build", "name the build itself: .pio/build/desk")


def test_a_manifest_that_is_cut_off(blink: Space) -> None:
    manifest = blink.file("build/flasher_args.json")
    manifest.write_bytes(manifest.read_bytes()[:200])
    refused(blink, "build/flasher_args.json:", "error: the file is not whole", "idf.py build")


@pytest.mark.parametrize("layout", [esp_idf, platformio, files])
def test_a_file_that_is_not_there(tmp_path: Path, layout: Layout) -> None:
    space = project(tmp_path / "project", "esp32", layout, "rpc:ready")
    path = next(path for path in space.path.rglob("*.bin") if path.name in ("bootloader.bin", "b.bin"))
    name = path.relative_to(space.path).as_posix()
    path.unlink()
    refused(space, f"the file '{name}' does not exist")


def test_deploy_toml_and_the_build_contradict_each_other(blink: Space) -> None:
    blink.edit("deploy.toml", 'kind = "prebuilt"', 'kind = "prebuilt"\nchip = "esp32"')
    refused(blink, "deploy.toml:6:8: error: 'toolchain.chip' is 'esp32', but 'esp32s3' in build/flasher_args.json")


def test_an_image_for_another_chip(blink: Space) -> None:
    blink.file("build/blink.bin").write_bytes(given.app("esp32c3"))
    fails(blink, "wrong_device", "build/blink.bin: error: the image is for esp32c3, but the chip is esp32s3")


@pytest.mark.parametrize(
    ("name", "at", "fact"),
    [
        ("blink.bin", 500, "build/blink.bin: error: the image is damaged: its checksum does not match its bytes"),
        ("blink.bin", -1, "build/blink.bin: error: the image is damaged: its SHA-256 does not match its bytes"),
        ("bootloader/bootloader.bin", 0, "this is no whole image: magic: 0xe9 needed, 0xe8 there"),
        ("partition_table/partition-table.bin", 40, "not a partition table: MD5"),
    ],
)
def test_a_flipped_bit(blink: Space, name: str, at: int, fact: str) -> None:
    path = blink.file(f"build/{name}")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    fails(blink, "config_error" if "table" in name else "action_failed", fact)


def test_images_that_overlap(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32", files, "rpc:ready")
    space.file("bin/x.bin").write_bytes(b"x" * 0x1001)
    space.edit("deploy.toml", "65536 =", '0x200000 = "bin/x.bin", 0x201000 = "bin/x.bin", 65536 =')
    fails(space, "image_too_large", "at-0x201000 at 0x201000 overlaps at-0x200000, which ends at 0x201004")


def test_an_app_that_is_larger_than_its_partition(blink: Space) -> None:
    blink.file("build/blink.bin").write_bytes(given.image("esp32s3", b"x" * 0x40000))
    fails(blink, "image_too_large", "but partition 'app0' holds 262144")


def test_an_answer_that_could_prove_nothing(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32", platformio, "rpc:ready")
    fact = "firmware.bin: error: it names no ELF (app_elf_sha256), so that no answer to 'rpc:ready' could prove that"
    fails(space, "config_error", fact)
    space.edit("deploy.toml", '"rpc:ready"', '"byte"')
    assert host_run(space) is None


def test_a_build_where_our_products_go(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32", esp_idf, "rpc:ready")
    space.file("build").rename(space.file("prebuilt"))
    space.file("build").mkdir()
    space.file("prebuilt").rename(space.file("build/prebuilt"))
    space.edit("deploy.toml", DIRECTORY, 'directory = "build/prebuilt"')
    before = {path: path.read_bytes() for path in space.file("build").rglob("*.*") if path.is_file()}
    fails(space, "config_error", "lies in build/prebuilt/, where the products of this profile go")
    assert before == {path: path.read_bytes() for path in space.file("build").rglob("*.*") if path.is_file()}
