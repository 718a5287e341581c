"""Firmware as other people's tools leave it: merged images, UF2, esp-web-tools manifests, PlatformIO's layouts."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from esptool.cmds import merge_bin

from pipeline.device.session import EspSession
from pipeline.model import Failure
from pipeline.run.options import Options
from pipeline.run.run import load_run
from tests import given_firmware as given
from tests.e2e.inprocess import InProcessRun, deploy
from tests.e2e.space import Space
from tests.e2e.test_otadata import RESCUE
from tests.given_project import Layout, project

CHIPS = ("esp32", "esp32s3", "esp32c3")
FS = b"a file system".ljust(0x3000, b"\xff") + b"its last page".ljust(0x1000, b"\xff")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def parts(chip: str) -> dict[int, bytes]:
    return {
        given.BOOT_OFFSETS[chip]: given.bootloader(chip),
        0x8000: given.table(given.TWO_SLOTS),
        0xE000: given.otadata(1),
        0x10000: given.app(chip),
        0x90000: FS,
    }


def merge(chip: str, path: Path, **options: Any) -> None:
    """By esptool's own `merge-bin`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    merge_bin(list(parts(chip).items()), chip, str(path), **options)


def merged(root: Path, chip: str) -> str:
    merge(chip, root / "bin/factory.bin")
    return 'files = { 0x0 = "bin/factory.bin" }'


def padded(root: Path, chip: str) -> str:
    merge(chip, root / "bin/factory.bin", pad_to_size="4MB")
    return 'files = { 0x0 = "bin/factory.bin" }'


def from_the_bootloader_on(root: Path, chip: str) -> str:
    boot = hex(given.BOOT_OFFSETS[chip])
    merge(chip, root / "bin/factory.bin", target_offset=int(boot, 0))
    return f'files = {{ {boot} = "bin/factory.bin" }}'


def as_uf2(root: Path, chip: str) -> str:
    merge(chip, root / "bin/factory.uf2", format="uf2")
    return 'files = { 0x0 = "bin/factory.uf2" }'


def as_hex(root: Path, chip: str) -> str:
    merge(chip, root / "bin/factory.hex", format="hex")
    return 'files = { 0x0 = "bin/factory.hex" }'


def web_manifest(root: Path, chip: str) -> str:
    merge(chip, root / "dist/factory.bin")
    family = {"esp32": "ESP32", "esp32s3": "ESP32-S3", "esp32c3": "ESP32-C3"}[chip]
    builds = [{"chipFamily": family, "parts": [{"path": "factory.bin", "offset": 0}]}]
    (root / "dist/firmware-release.json").write_text(json.dumps({"name": "x", "builds": builds}))
    return 'directory = "dist"'


def web_manifest_of_parts(root: Path, chip: str) -> str:
    listed = []
    for offset, data in parts(chip).items():
        given.write(root / "dist", {f"{offset:x}.bin": data})
        listed.append({"path": f"./{offset:x}.bin", "offset": offset})
    family = {"esp32": "ESP32", "esp32s3": "ESP32-S3", "esp32c3": "ESP32-C3"}[chip]
    builds = [{"chipFamily": "ESP8266", "parts": []}, {"chipFamily": family, "parts": listed}]
    (root / "dist/manifest.json").write_text(json.dumps({"builds": builds}))
    return f'directory = "dist"\nchip = "{chip}"'


def written(run: InProcessRun) -> list[str]:
    assert run.category == "", run.report["failure"]
    return sorted(region["name"] for region in run.report["regions"] if region["action"] != "kept")


def holds(space: Space, expected: dict[int, bytes]) -> bool:
    flash = space.flash.read_bytes()
    return all(flash[offset : offset + len(data)] == data for offset, data in expected.items())


MERGED = (merged, padded, from_the_bootloader_on, as_uf2, as_hex, web_manifest, web_manifest_of_parts)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("layout", MERGED)
def test_a_merged_image_is_deployed_by_its_parts(tmp_path: Path, chip: str, layout: Layout) -> None:
    space = project(tmp_path / "project", chip, layout)
    assert written(deploy(space.path)) == ["app", "bootloader", "otadata", "partitions", "storage"]
    assert holds(space, parts(chip))
    nvs = space.flash.read_bytes()[0x9000:0xE000]
    assert nvs == b"\xff" * len(nvs), "filler is no image"
    assert written(deploy(space.path)) == []


def test_an_edit_in_a_merged_image_writes_that_part(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32s3", merged)
    deploy(space.path)
    path = space.file("bin/factory.bin")
    data = bytearray(path.read_bytes())
    new = given.app("esp32s3", "two")
    data[0x10000 : 0x10000 + len(new)] = new
    path.write_bytes(data)
    assert written(deploy(space.path)) == ["app"]
    assert holds(space, {0x10000: new})


def refused(space: Space, *facts: str) -> None:
    failure = load_run(Options(), space.path)
    if not isinstance(failure, Failure):
        run = deploy(space.path)
        assert run.failure is not None
        failure = run.failure
    for fact in facts:
        assert fact in f"{failure.line()}\nhint: {failure.hint}", failure
    assert not space.flash.exists()


def test_a_merged_image_that_cannot_be_split_is_called_one(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32c3", merged)
    path = space.file("bin/factory.bin")
    good = path.read_bytes()
    path.write_bytes(good[:0x9000].replace(b"\xaa\x50", b"\xff\xff") + good[0x9000:])
    refused(space, "bin/factory.bin: error: it is a merged image", "without a partition table")
    stray = bytearray(good.ljust(0xC0000, b"\xff"))
    stray[0xB0004] = 0
    path.write_bytes(stray)
    refused(space, "it is a merged image, and its bytes at 0xb0004 belong to no partition")


def test_a_uf2_that_is_damaged_or_holds_no_table_is_named(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32s3", as_uf2)
    path = space.file("bin/factory.uf2")
    good = path.read_bytes()
    space.edit("deploy.toml", "{ 0x0 =", "{ 0x1000 =")
    refused(space, "bin/factory.uf2: error: it says itself where it goes", "0x0, not at 0x1000")
    space.edit("deploy.toml", "{ 0x1000 =", "{ 0x0 =")
    path.write_bytes(good[:-1])
    refused(space, "bin/factory.uf2: error: ", "no whole number of 512-byte UF2 blocks")
    path.write_bytes(good[:512] + b"UF3\n" + good[516:])
    refused(space, "the UF2 block at 0x200 is damaged")
    app = given.app("esp32s3").ljust(4096, b"\0")
    blocks = b""
    for number in range(16):
        block = b"UF2\n" + struct.pack("<7I", 0x9E5D5157, 0x2000, 256 * number, 256, number, 16, 0xC47E5767)
        blocks += (block + app[256 * number :][:256]).ljust(508, b"\0") + struct.pack("<I", 0x0AB16F30)
    path.write_bytes(blocks)
    refused(space, "none of these files is a partition table")


def test_a_directory_with_nothing_but_a_merged_image_is_told_how_to_name_it(tmp_path: Path) -> None:
    def layout(root: Path, chip: str) -> str:
        merge(chip, root / "dist/factory.bin")
        return 'directory = "dist"'

    space = project(tmp_path / "project", "esp32c3", layout)
    refused(space, "'dist' is no build", '[prebuilt] files = { 0x0 = "dist/factory.bin" }')


@pytest.mark.parametrize(
    ("builds", "fact"),
    [
        ([{"chipFamily": "ESP32", "parts": [{"path": "a.bin", "offset": 0}]}], ""),
        ([{"chipFamily": "ESP32"}, {"chipFamily": "ESP32-C3"}], "for several chips; builds: esp32, esp32c3"),
        ([{"chipFamily": "ESP32", "parts": []}], "has no parts"),
        ([{"chipFamily": "ESP8266", "parts": []}], "the build is for esp8266"),
        ([{"chipFamily": "ESP32", "parts": [{"path": "https://x/a.bin", "offset": 0}]}], "is a web address"),
        ([{"chipFamily": "ESP32", "parts": [{"path": "../../a.bin", "offset": 0}]}], "lies outside the project"),
        ([{"chipFamily": "ESP32", "parts": [{"path": "a.bin"}]}], "a part has no path and offset"),
        ([{"chipFamily": "ESP32", "parts": [{"path": "b.bin", "offset": 4096}]}], "'dist/b.bin' does not exist"),
    ],
)  # fmt: skip
def test_a_web_manifest_that_cannot_be_used_says_why(tmp_path: Path, builds: list[object], fact: str) -> None:
    def layout(root: Path, chip: str) -> str:
        del chip
        given.write(root / "dist", {"a.bin": given.app("esp32c3")})
        (root / "dist/manifest.json").write_text(json.dumps({"builds": builds}))
        return 'directory = "dist"'

    space = project(tmp_path / "project", "esp32c3", layout)
    refused(space, fact)


# --- PlatformIO ---------------------------------------------------------------------------------

MOVED: tuple[given.Row, ...] = (
    ("nvs", 1, 2, 0x10000, 0x5000),
    ("otadata", 1, 0, 0x15000, 0x2000),
    ("app0", 0, 0x10, 0x20000, 0x40000),
    ("app1", 0, 0x11, 0x60000, 0x40000),
)
PIO = ".pio/build/desk"


def pio(root: Path, chip: str, rows: tuple[given.Row, ...], *, size_freq: int = 0x2F) -> str:
    """What `pio run` really leaves: no boot_app0.bin, which lies in the framework's package."""
    files = {
        "bootloader.bin": given.bootloader(chip, size_freq=size_freq),
        "partitions.bin": given.table(rows),
        "firmware.bin": given.app(chip),
    }
    given.write(root / PIO, files)
    return f'directory = "{PIO}"'


def by_sdkconfig(root: Path, chip: str) -> str:
    (root / "sdkconfig.desk").write_text('# x\nCONFIG_PARTITION_TABLE_OFFSET=0x9000\nCONFIG_X="y"\n')
    return pio(root, chip, MOVED)


def by_idedata(root: Path, chip: str) -> str:
    section = pio(root, chip, MOVED)
    images = [{"offset": "0x9000", "path": "C:\\u\\.pio\\build\\desk\\partitions.bin"}]
    extra = {"flash_images": images, "application_offset": "0x20000"}
    (root / PIO / "idedata.json").write_text(json.dumps({"env_name": "desk", "extra": extra}))
    return section


def by_manifest(root: Path, chip: str) -> str:
    """`framework = espidf`: the manifest's names are those of ESP-IDF, and none of the files is there."""
    section = pio(root, chip, MOVED)
    (root / PIO / "ota_data_initial.bin").write_bytes(given.otadata(0))
    text = given.NEW_SPELLING % {"chip": chip, "boot": hex(given.BOOT_OFFSETS[chip])}
    text = text.replace("0x10000", "0x20000").replace("0x8000", "0x9000").replace("0xe000", "0x15000")
    (root / PIO / "flasher_args.json").write_text(text)
    return section


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("layout", [by_sdkconfig, by_idedata, by_manifest])
def test_platformios_table_lies_where_its_build_says(tmp_path: Path, chip: str, layout: Layout) -> None:
    space = project(tmp_path / "project", chip, layout)
    assert written(deploy(space.path)) == ["app", "bootloader", "otadata", "partitions"]
    boot = given.BOOT_OFFSETS[chip]
    assert holds(space, {boot: given.bootloader(chip), 0x9000: given.table(MOVED), 0x20000: given.app(chip)})
    assert written(deploy(space.path)) == []


def test_a_factory_application_beside_a_slot_stays_and_that_is_said(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32s3", lambda root, chip: pio(root, chip, RESCUE))
    first = space.deploy()
    assert first.code == 0, first.out + first.err
    assert "note: the application goes to 'ota_0' (it is the first OTA slot); what is in 'factory' stays" in first.err
    flash = space.flash.read_bytes()
    assert flash[0x10000:0x50000] == b"\xff" * 0x40000
    app = given.app("esp32s3")
    assert flash[0x50000 : 0x50000 + len(app)] == app
    assert flash[0xE000:0xE020] == given.otadata(1)[:32], "it is started"


def test_a_core_without_a_bootloader_file_says_what_to_do(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32", lambda root, chip: pio(root, chip, given.TWO_SLOTS))
    space.file(f"{PIO}/bootloader.bin").unlink()
    refused(space, f"the file '{PIO}/bootloader.bin' does not exist: Arduino cores before 2.0", "hint: copy it to ")


LARGE: tuple[given.Row, ...] = (*given.TWO_SLOTS[:-1], ("storage", 1, 0x82, 0x800000, 0x800000))


def header_of(chip: str, size_nibble: int) -> bytes:
    return given.bootloader(chip, size_freq=size_nibble << 4 | 0xF)


@pytest.mark.parametrize("chip", CHIPS)
def test_a_header_of_4_mb_on_a_table_of_16_is_corrected_and_said(tmp_path: Path, chip: str) -> None:
    space = project(tmp_path / "project", chip, lambda root, chip: pio(root, chip, LARGE))
    assert written(deploy(space.path)) == ["app", "bootloader", "otadata", "partitions"]
    assert holds(space, {given.BOOT_OFFSETS[chip]: header_of(chip, 4)})
    context = load_run(Options(), space.path)
    assert not isinstance(context, Failure) and context.project.config.firmware is not None
    assert context.project.config.firmware.notes == (
        "the flash size is 16MB, which the partition table needs; the bootloader's header says 4MB",
    )


@pytest.mark.parametrize("word", ["detect", "keep"])
def test_esp_idf_with_a_size_that_is_to_be_detected(tmp_path: Path, word: str) -> None:
    def layout(root: Path, chip: str) -> str:
        given.esp_idf(root / "build", chip, given.NEW_SPELLING.replace("4MB", word), LARGE)
        return 'directory = "build"'

    space = project(tmp_path / "project", "esp32s3", layout)
    deploy(space.path)
    assert holds(space, {0: header_of("esp32s3", 4)})


def test_the_size_in_deploy_toml_goes_into_the_header_of_listed_files(tmp_path: Path) -> None:
    def layout(root: Path, chip: str) -> str:
        images = {"b.bin": given.bootloader(chip), "t.bin": given.table(LARGE), "a.bin": given.app(chip)}
        given.write(root / "bin", images)
        return 'files = { 0x0 = "bin/b.bin", 0x8000 = "bin/t.bin", 65536 = "bin/a.bin" }'

    space = project(tmp_path / "project", "esp32s3", layout)
    refused(space, "'storage' ends at 0x1000000, but the flash ends at 0x400000", "correct `flash.size` in deploy.toml")
    space.edit("deploy.toml", "[device.bench]", '[flash]\nsize = "16MB"\n\n[device.bench]')
    assert written(deploy(space.path)) == ["app", "bootloader", "otadata", "partitions"]
    assert holds(space, {0: header_of("esp32s3", 4)})
    boot = space.file("bin/b.bin").read_bytes()
    assert boot == given.bootloader("esp32s3"), "the file itself stays"
    assert hashlib.sha256(boot[:-32]).digest() == boot[-32:]


# --- tables ---------------------------------------------------------------------------------------


def test_a_table_of_an_old_esp_idf_is_deployed_and_said(tmp_path: Path) -> None:
    rows: tuple[given.Row, ...] = (
        ("nvs", 1, 2, 0x9000, 0x5000),
        ("phy", 1, 1, 0xE004, 0x1000),
        ("factory", 0, 0, 0x10000, 0x12345),
    )

    def layout(root: Path, chip: str) -> str:
        images = {"b.bin": given.bootloader(chip), "t.bin": given.table(rows), "a.bin": given.app(chip)}
        given.write(root / "bin", images)
        return 'files = { 0x1000 = "bin/b.bin", 0x8000 = "bin/t.bin", 65536 = "bin/a.bin" }'

    space = project(tmp_path / "project", "esp32", layout)
    result = space.deploy()
    assert result.code == 0, result.out + result.err
    assert "note: the partition 'phy' begins at 0xe004, which is no multiple of 0x1000" in result.err
    assert "note: the app partition 'factory' has 0x12345 bytes" in result.err


def test_an_absolute_path_inside_the_project_is_one_of_its_files(tmp_path: Path) -> None:
    def layout(root: Path, chip: str) -> str:
        given.esp_idf(root / "build", chip)
        given.write(root / "data", {"fs.bin": FS})
        link = tmp_path / "link"
        link.symlink_to(root, target_is_directory=True)
        manifest = root / "build/flasher_args.json"
        document = json.loads(manifest.read_text())
        document["flash_files"] |= {"0x90000": f"{root}/data/fs.bin", "0x10000": f"{link}/build/blink.bin"}
        manifest.write_text(json.dumps(document))
        return 'directory = "build"'

    space = project(tmp_path / "project", "esp32s3", layout)
    assert written(deploy(space.path)) == ["app", "bootloader", "otadata", "partitions", "storage"]
    assert holds(space, {0x90000: FS})
    document = json.loads(space.file("build/flasher_args.json").read_text())
    document["flash_files"]["0x90000"] = f"{tmp_path}/other.bin"
    space.file("build/flasher_args.json").write_text(json.dumps(document))
    failure = load_run(Options(), space.path)
    assert isinstance(failure, Failure) and "lies outside the project" in failure.message


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_a_table_in_another_encoding_is_named_with_its_line(host_space: Space, encoding: str) -> None:
    table = host_space.file("firmware/partitions.csv")
    table.write_bytes((table.read_text() + "# Gr\u00f6\u00dfe\n").encode(encoding))
    result = host_space.doit("link")
    assert result.code != 0 and "firmware/partitions.csv:" in result.err
    assert "save the table as UTF-8" in result.err and "[this is a bug]" not in result.err


# --- files that an action makes -------------------------------------------------------------------

COPY = """
[[action]]
name = "make"
argv = ["sh", "-c", "{command}"]
inputs = [{inputs}]
outputs = [{outputs}]
"""


def by_action(*names: str) -> Layout:
    """Files of which `names` are made by an action below build/."""

    def layout(root: Path, chip: str) -> str:
        images = {"b.bin": given.bootloader(chip), "t.bin": given.table(given.TWO_SLOTS), "a.bin": given.app(chip)}
        given.write(root / "made", images)
        given.write(root / "bin", {name: data for name, data in images.items() if name not in names})
        place = {name: f"build/{name}" if name in names else f"bin/{name}" for name in images}
        boot = hex(given.BOOT_OFFSETS[chip])
        return f"files = {{ {boot} = '{place['b.bin']}', 0x8000 = '{place['t.bin']}', 65536 = '{place['a.bin']}' }}"

    return layout


def with_action(space: Space, *names: str) -> None:
    text = COPY.format(
        command="; ".join(f"cp made/{name} build/{name}" for name in names),
        inputs=", ".join(f"'made/{name}'" for name in names),
        outputs=", ".join(f"'build/{name}'" for name in names),
    )
    with space.file("deploy.toml").open("a") as config:
        config.write(text)


@pytest.mark.parametrize("chip", CHIPS)
def test_an_image_that_an_action_makes_is_deployed_in_the_same_run(tmp_path: Path, chip: str) -> None:
    space = project(tmp_path / "project", chip, by_action("a.bin"))
    with_action(space, "a.bin")
    assert written(deploy(space.path)) == ["app", "bootloader", "otadata", "partitions"]
    assert holds(space, {0x10000: given.app(chip)})
    assert written(deploy(space.path)) == []
    new = given.app(chip, "two")
    space.file("made/a.bin").write_bytes(new)
    assert written(deploy(space.path)) == ["app"]
    assert holds(space, {0x10000: new})


def test_all_images_may_be_an_actions_where_deploy_toml_names_the_chip(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32s3", by_action("a.bin", "b.bin"))
    with_action(space, "a.bin", "b.bin")
    refused(space, "build/b.bin", "still to be made by an [[action]]", "[prebuilt] build")
    space.edit("deploy.toml", 'kind = "prebuilt"', 'kind = "prebuilt"\nchip = "esp32s3"')
    assert written(deploy(space.path)) == ["app", "bootloader", "otadata", "partitions"]


def test_a_table_that_an_action_makes_is_to_be_there_first_and_to_stay(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32s3", by_action("t.bin"))
    with_action(space, "t.bin")
    refused(space, "none of these files is a partition table", "build/t.bin is still to be made", "[prebuilt] build")
    given.write(space.file("build"), {"t.bin": given.table(given.TWO_SLOTS)})
    moved = (*given.TWO_SLOTS[:2], ("app0", 0, 0x10, 0x20000, 0x40000), ("app1", 0, 0x11, 0x60000, 0x40000))
    space.file("made/t.bin").write_bytes(given.table(moved))
    refused(space, "the partition table became another one in this run", "run again")


def test_a_file_that_an_action_made_once_is_not_removed_when_it_is_given(tmp_path: Path) -> None:
    """The action became the firmware's own build: what that made just now is the same file."""
    space = project(tmp_path / "project", "esp32s3", by_action("a.bin"))
    config = space.file("deploy.toml").read_text()
    with_action(space, "a.bin")
    assert "app" in written(deploy(space.path))
    space.file("deploy.toml").write_text(config)
    assert written(deploy(space.path)) == []
    assert space.file("build/a.bin").read_bytes() == given.app("esp32s3")


def test_a_board_whose_flash_ends_before_the_table_is_refused_with_one_advice(tmp_path: Path) -> None:
    space = project(tmp_path / "project", "esp32s3", lambda root, chip: pio(root, chip, LARGE))
    really = EspSession.flash_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EspSession, "flash_size", lambda session: min(really(session) or 0, 4 << 20))
        run = deploy(space.path)
    assert run.category == "wrong_device"
    failure = run.report["failure"]
    assert failure["message"] == "the board's flash has 4096 KiB, and the partition table needs 16384 KiB"
    assert set(space.flash.read_bytes()[:0x20000]) == {0xFF}, "nothing was written"
