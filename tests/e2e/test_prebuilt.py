"""Firmware that something else built, from its build directory to a board of each chip.

An ESP32 and an ESP32-S3 execute nothing: their ROM judges the image and prints its log, and one line says that nothing
runs. That line is what these deploys wait for; an ESP32-C3 is waited for until the ROM names the entry.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from pipeline.chips import CHIPS
from tests import given_firmware as given
from tests.e2e.inprocess import InProcessRun, deploy
from tests.e2e.space import Result, Space
from tests.given_project import DODO, Layout, esp_idf, files, old_esp_idf, platformio, project, with_web


def user_files(space: Space) -> dict[str, bytes]:
    """Everything in the project that is not ours."""
    ours = (".deploy", "reports", "build/prebuilt", "__pycache__")
    paths = [path.relative_to(space.path).as_posix() for path in space.path.rglob("*") if path.is_file()]
    return {path: space.file(path).read_bytes() for path in paths if not path.startswith(ours)}


def on_board(space: Space, offset: int, data: bytes) -> bool:
    return space.flash.read_bytes()[offset : offset + len(data)] == data


def assert_good(result: Result, outcome: str) -> None:
    assert result.code == 0, result.out + result.err
    assert result.outcome == outcome, result.out


def written(run: InProcessRun) -> list[str]:
    """Regions that a run in this process wrote."""
    assert run.category == "", run.report["failure"]
    return [region["name"] for region in run.report["regions"] if region["action"] != "kept"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# --- the loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chip", "layout", "regions"),
    [
        ("esp32", esp_idf, ["bootloader", "partitions", "otadata", "app"]),
        ("esp32", platformio, ["bootloader", "partitions", "otadata", "app"]),
        ("esp32s3", esp_idf, ["bootloader", "partitions", "otadata", "app"]),
        ("esp32s3", files, ["bootloader", "partitions", "otadata", "app"]),
        ("esp32c3", old_esp_idf, ["bootloader", "partitions", "app"]),
    ],
)
def test_deploy_then_nothing_then_one_region(tmp_path: Path, chip: str, layout: Layout, regions: list[str]) -> None:
    space = project(tmp_path / "project", chip, layout)
    first = space.deploy()
    assert_good(first, first.outcome)
    assert first.outcome in ("full_flashed", "regions_flashed")
    assert sorted(r["name"] for r in first.report["regions"]) == sorted(regions)
    assert {"bootloader", "partitions", "app"} <= set(first.written)
    boot = given.BOOT_OFFSETS[chip]
    assert on_board(space, boot, given.bootloader(chip)) and on_board(space, 0x10000, given.app(chip)[:24])
    assert first.report["device"]["chip"].lower().replace("-", "") == chip

    before = user_files(space)
    second = space.deploy()
    assert_good(second, "verified_unchanged")
    assert {key: second.totals[key] for key in ("compiled", "restored", "linked", "bytes_written")} == {
        "compiled": 0,
        "restored": 0,
        "linked": 0,
        "bytes_written": 0,
    }
    for line in ("-- fingerprint", "-- compile", "-- link", "-- reflash:bench"):
        assert f"{line}\n" in second.out

    path = next(space.file(name) for name in before if name.endswith(("blink.bin", "firmware.bin", "a.bin")))
    new = given.app(chip, "two")
    path.write_bytes(new)
    assert written(deploy(space.path)) == ["app"]
    assert on_board(space, 0x10000, new)
    assert written(deploy(space.path)) == []


def test_the_reference_firmware_as_a_given_one_runs_and_is_known(template: Path, tmp_path: Path) -> None:
    """JSON-RPC readiness proves which image runs, by the app descriptor of an image that we did not link."""
    root = tmp_path / "project"
    build = next((template / "build").glob("*/app.bin")).parent
    pio = root / ".pio/build/desk"
    pio.mkdir(parents=True)
    for name, source in (("firmware", "app"), ("bootloader", "bootloader"), ("partitions", "partitions")):
        shutil.copy(build / f"{source}.bin", pio / f"{name}.bin")
    shutil.copy(build / "app.stripped.elf", pio / "firmware.elf")
    (root / "dodo.py").write_text(DODO)
    (root / "deploy.toml").write_text(given.config('directory = ".pio/build/desk"', readiness="rpc:ready"))
    space = Space(root)
    result = space.deploy()
    assert result.code == 0, result.out + result.err
    identity = hashlib.sha256((build / "app.stripped.elf").read_bytes()).hexdigest()
    assert result.report["readiness"]["app_elf_sha256"] == identity
    kept = root / "build/prebuilt/images/app.elf"
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == identity, "for decoding backtraces"
    assert written(deploy(space.path)) == []


def test_two_devices_that_are_one_board_are_named(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32s3", files)
    with space.file("deploy.toml").open("a") as config:
        config.write('[device.twin]\nport = "virtual:"\ngroups = ["rack"]\n')
    space.edit("deploy.toml", "[device.bench]\n", '[device.bench]\ndefault = true\ngroups = ["rack"]\n')
    result = space.doit("deploy", "--group", "rack")
    assert result.code == 1
    found = re.findall(r"device (\w+) on .* the MAC 7c:df:a1:00:11:22, and so has that of device '(\w+)'", result.err)
    assert sorted(found[0]) == ["bench", "twin"], result.err
    assert "journal" not in result.err
    space.edit("deploy.toml", "[device.twin]\n", '[device.twin]\nmac = "7c:df:a1:00:11:44"\n')
    assert space.doit("deploy", "--group", "rack").code == 0


@pytest.mark.parametrize("chip", CHIPS)
def test_there_is_a_virtual_board_of_every_chip(chip: str, tmp_path: Path) -> None:
    """Flashed and judged by its ROM; a second deploy finds everything there."""
    space = project(tmp_path / "project", chip, files)
    config = space.file("deploy.toml")
    config.write_text(config.read_text().replace('kind = "prebuilt"', f'kind = "prebuilt"\nchip = "{chip}"'))
    runs = [deploy(space.path), deploy(space.path)]
    assert [run.outcome for run in runs] == ["full_flashed", "verified_unchanged"], [run.failure for run in runs]
    assert on_board(space, given.BOOT_OFFSETS[chip], given.bootloader(chip))


@pytest.fixture
def blink(tmp_path: Path) -> Space:
    """An ESP-IDF build for an ESP32-S3."""
    return project(tmp_path / "project", "esp32s3", esp_idf)


def test_an_update_over_the_air_to_the_same_slot_is_no_difference(blink: Space) -> None:
    deploy(blink.path)
    flash = bytearray(blink.flash.read_bytes())
    for sequence, regions in ((3, []), (2, ["otadata"])):
        flash[0xE000:0x10000] = given.otadata(sequence)
        blink.flash.write_bytes(flash)
        assert written(deploy(blink.path)) == regions, sequence


def test_a_line_that_takes_no_fast_rate_is_flashed_slower_and_said(blink: Space) -> None:
    port = 'port = "virtual:?fault=slow-line:baud=230400"\nbaud = 921600'
    blink.edit("deploy.toml", 'port = "virtual:"', port)
    result = blink.doit("reflash")
    assert result.code == 0, result.out + result.err
    assert "note: flashed at 115200 baud: the line did not take 921600" in result.err
    kinds = [(r["kind"], r["before"], r["after"]) for r in result.stage("reflash")["reasons"]]
    assert kinds == [("slower-baud", "921600", "460800"), ("slower-baud", "460800", "115200")]


def test_flash_settings_of_the_build_go_into_the_header(blink: Space) -> None:
    """As `idf.py flash` would write it, whatever the file's header says; the file itself stays."""
    odd = given.bootloader("esp32s3", mode=0, size_freq=0x10)
    blink.file("build/bootloader/bootloader.bin").write_bytes(odd)
    assert blink.doit("link").code == 0
    made = blink.file("build/prebuilt/images/bootloader.bin").read_bytes()
    assert made == given.bootloader("esp32s3")
    assert blink.file("build/bootloader/bootloader.bin").read_bytes() == odd


def test_clean_removes_our_copies_and_nothing_of_the_users(blink: Space) -> None:
    blink.file("build/prebuilt/notes.txt").parent.mkdir()
    blink.file("build/prebuilt/notes.txt").write_text("mine")
    before = user_files(blink)
    assert blink.doit("link").code == 0
    assert blink.file("build/prebuilt/images/app.bin").exists()
    cleaned = blink.doit("clean", "link", "compile", "fingerprint")
    assert cleaned.code == 0, cleaned.out + cleaned.err
    assert user_files(blink) == before
    assert [path.name for path in blink.file("build/prebuilt").rglob("*")] == ["notes.txt"]


def test_the_views_know_given_files(blink: Space) -> None:
    plan = blink.doit("plan")
    assert plan.code == 0 and "make: build/prebuilt/images/app.bin" in plan.out
    assert blink.doit("link").code == 0
    assert blink.doit("plan").out.startswith("compile: no actions\nlink: ")
    blink.file("build/blink.bin").write_bytes(given.app("esp32s3", "two"))
    explained = blink.doit("explain", "link")
    assert explained.code == 0 and "build/blink.bin" in explained.out
    graph = blink.doit("graph", "--what-if", "build/blink.bin")
    assert graph.code == 0 and "image app" in graph.out


def test_the_gate_answers_and_notices_every_file(blink: Space) -> None:
    from cache.stamps import next_tick

    def hotplate() -> str:
        next_tick()
        return blink.doit("link").out

    first = hotplate()
    assert ".  link\n" in first
    assert hotplate() == "-- fingerprint\n-- compile\n-- link\n"
    assert any(blink.file(".deploy/fastpath.v1").iterdir()), "a later run is answered from stamps alone"
    manifest = blink.file("build/flasher_args.json")
    more = '"0x10000" : "blink.bin", "0x90000" : "blink.elf"'
    manifest.write_text(manifest.read_text().replace('"0x10000" : "blink.bin"', more))
    assert ".  link\n" in hotplate(), "the manifest asks for one more region"
    assert hotplate() == "-- fingerprint\n-- compile\n-- link\n"
    blink.file("build/blink.elf").write_bytes(b"another")
    assert ".  link\n" in hotplate()


# --- [image.NAME] -----------------------------------------------------------------------------


def test_what_an_action_makes_is_one_more_region(blink: Space) -> None:
    space = with_web(blink)
    assert "web" in written(deploy(space.path)) and on_board(space, 0x90000, b"<a><b>")
    assert written(deploy(space.path)) == []
    space.file("web/b.html").write_text("<B>")
    assert written(deploy(space.path)) == ["web"]
    assert on_board(space, 0x90000, b"<a><B>")
    nvs = space.flash.read_bytes()[0x9000:0xE000]
    assert nvs == b"\xff" * len(nvs), "no deploy writes a data partition that nobody declared"


def test_an_image_beside_what_a_toolchain_compiles(host_space: Space) -> None:
    host_space.file("logo.bin").write_bytes(b"logo")
    with host_space.file("deploy.toml").open("a") as config:
        config.write('\n[image.logo]\noffset = 0x3f0000\nfile = "logo.bin"\n')
    first = host_space.deploy()
    assert first.code == 0, first.out + first.err
    assert "logo" in first.written and on_board(host_space, 0x3F0000, b"logo")
    assert_good(host_space.deploy(), "verified_unchanged")
