"""`doit init`: what it recognises, what it writes, and that a deploy of what it wrote works."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from pipeline.cli.init import init_text
from pipeline.cli.init_look import chosen_of, recognise
from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig
from pipeline.config.templates import DODO, KINDS, SMALLEST, template
from pipeline.formats.projects import FoundProject
from pipeline.model import Failure
from tests import given_firmware as given
from tests.e2e.inprocess import deploy
from tests.e2e.space import ROOT, Space, environment
from tests.unit.ninja_space import NINJA

IDF_LISTS = """\
cmake_minimum_required(VERSION 3.16)
include($ENV{IDF_PATH}/tools/cmake/project.cmake)
project(hello C)
add_executable(hello main.c)
"""
MAIN = "int main(void)\n{\n    return 0;\n}\n"


def made(root: Path, **options: str) -> str:
    """What `doit init` says."""
    result = init_text(root, options.get("kind", ""), options.get("place", ""), dry_run=False)
    assert isinstance(result, str), result
    return result


def refused(root: Path, **options: str) -> Failure:
    before = contents(root)
    result = init_text(root, options.get("kind", ""), options.get("place", ""), dry_run=False)
    assert isinstance(result, Failure), result
    assert contents(root) == before, "nothing was written"
    assert result.hint.split()[0].islower()
    return result


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def config_of(root: Path) -> DeployConfig:
    config = parse_config((root / "deploy.toml").read_text())
    assert isinstance(config, DeployConfig), config
    return config


def lay(root: Path, files: Mapping[str, str]) -> Path:
    given.write(root, {name: text.encode() for name, text in files.items()})
    return root


def program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# --- every text that it can write -------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@examples(data=st.data())
def test_every_template_is_read_without_a_mistake(kind: str, data: st.DataObject) -> None:
    text = st.text(st.characters(codec="utf-8"), max_size=40)
    places = {
        "arduino": ["Blink.ino", "Blink/Blink.ino"],
        "ninja": ["build", 'a"b'],
        "prebuilt": ["build", ".", "a\\b"],
    }
    others = tuple(data.draw(st.lists(text, max_size=2)))
    found = FoundProject(
        kind,
        data.draw(st.sampled_from(places.get(kind, ["."]))),
        data.draw(text),
        data.draw(text),
        data.draw(st.sampled_from(["esp32", "esp32c3", "esp32p4", *([] if kind == "prebuilt" else [""])])),
        data.draw(st.sampled_from(["directory", "file"] if kind == "prebuilt" else ["", "esp32dev"])),
        others,
    )
    config = parse_config(template(found))
    assert isinstance(config, DeployConfig), config
    assert [device.port for device in config.devices] == ([] if kind in ("cmake", "ninja") else ["virtual:"])


def test_the_commented_board_becomes_one_when_its_signs_are_removed() -> None:
    text = template(FoundProject("esp-idf", ".", "a reason", "hello", "esp32c3"))
    uncommented = text.replace("\ndefault = true", "")
    for key in ("[device.desk]", "port", "mac", "baud"):
        uncommented = uncommented.replace(f"# {key}", key)
    config = parse_config(uncommented.replace('port = "auto"', 'default = true\nport = "auto"'))
    assert isinstance(config, DeployConfig), config
    assert (config.default_device.name, config.default_device.port, config.default_device.baud) == (
        "desk",
        "auto",
        921600,
    )


def test_the_smallest_project_is_that_of_the_docs() -> None:
    assert SMALLEST in (ROOT / "docs/deploy-toml.md").read_text()
    assert DODO in (ROOT / "README.md").read_text()


# --- what it recognises -----------------------------------------------------------------------


def built_by_esp_idf(root: Path) -> None:
    lay(root, {"CMakeLists.txt": IDF_LISTS, "build/build.ninja": ""})
    given.esp_idf(root / "build", "esp32")


Case = tuple[Callable[[Path], object], list[str]]
CASES: dict[str, Case] = {
    "esp-idf": (lambda root: lay(root, {"CMakeLists.txt": IDF_LISTS, "main/CMakeLists.txt": ""}), ["esp-idf ."]),
    "esp-idf, built": (built_by_esp_idf, ["esp-idf ."]),
    "platformio": (
        lambda root: lay(root, {"platformio.ini": "[env:desk]\nplatform = espressif32\nboard = esp32dev\n"}),
        ["platformio ."],
    ),
    "platformio with espidf": (
        lambda root: lay(
            root,
            {"platformio.ini": "[env:d]\nplatform = espressif32\nframework = espidf\n", "CMakeLists.txt": IDF_LISTS},
        ),
        ["platformio ."],
    ),
    "another platform's": (lambda root: lay(root, {"platformio.ini": "[env:uno]\nplatform = atmelavr\n"}), []),
    "arduino": (lambda root: lay(root, {f"{root.name}.ino": ""}), ["arduino project.ino"]),
    "arduino below": (
        lambda root: lay(root, {"Blink/Blink.ino": "", "Blink/more.ino": ""}),
        ["arduino Blink/Blink.ino"],
    ),
    "cmake": (lambda root: lay(root, {"CMakeLists.txt": "project(p C)", "build/build.ninja": ""}), ["cmake ."]),
    "a part of a cmake project": (lambda root: lay(root, {"CMakeLists.txt": "add_library(x x.c)"}), []),
    "ninja": (lambda root: lay(root, {"out/build.ninja": "", "meson.build": ""}), ["ninja out"]),
    "ninja in the root itself, which is no directory of its own": (lambda root: lay(root, {"build.ninja": ""}), []),
    "flasher_args": (lambda root: given.esp_idf(root / "build", "esp32c6"), ["prebuilt build"]),
    "platformio's build": (lambda root: given.platformio(root / ".pio/build/d", "esp32"), ["prebuilt .pio/build/d"]),
    "a broken manifest": (lambda root: lay(root, {"build/flasher_args.json": "{"}), []),
    "one image": (lambda root: given.write(root, {"app.bin": given.app("esp32")}), []),
    "two kinds": (
        lambda root: lay(root, {"CMakeLists.txt": IDF_LISTS, "Blink/Blink.ino": ""}),
        ["esp-idf .", "arduino Blink/Blink.ino"],
    ),
    "nothing": (lambda root: lay(root, {"README": ""}), []),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_recognised(tmp_path: Path, name: str) -> None:
    lay_out, expected = CASES[name]
    root = tmp_path / "project"
    root.mkdir()
    lay_out(root)
    assert [f"{one.kind} {one.place}" for one in chosen_of(recognise(root))] == expected


def merged(chip: str) -> bytes:
    """As `esptool merge-bin` makes it."""
    boot = given.BOOT_OFFSETS[chip]
    data = bytearray(b"\xff" * 0x10000 + given.app(chip))
    for offset, part in ((boot, given.bootloader(chip)), (0x8000, given.table(given.FACTORY))):
        data[offset : offset + len(part)] = part
    return bytes(data)


@pytest.mark.parametrize("chip", ["esp32c3", "esp32s3"])
def test_a_merged_image_is_deployed(tmp_path: Path, chip: str) -> None:
    given.write(tmp_path, {"dist/firmware.bin": merged(chip)})
    assert f"dist/firmware.bin holds a whole firmware for {chip}" in made(tmp_path)
    if chip == "esp32c3":  # the firmware of this test says nothing
        Space(tmp_path).edit("deploy.toml", 'until = "byte"', 'until = "line:^entry 0x"')
    first, second = deploy(tmp_path), deploy(tmp_path)
    assert (first.outcome, second.outcome) == ("full_flashed", "verified_unchanged"), (first, second)


def test_a_build_of_esp_idf_is_deployed(tmp_path: Path) -> None:
    given.esp_idf(tmp_path / "build", "esp32s3")
    assert "build of ESP-IDF for esp32s3" in made(tmp_path)
    first, second = deploy(tmp_path), deploy(tmp_path)
    assert (first.outcome, second.outcome) == ("full_flashed", "verified_unchanged"), (first, second)


def test_a_manifest_for_several_chips(tmp_path: Path) -> None:
    import json

    builds = [
        {"chipFamily": family, "parts": [{"path": f"{family}.bin", "offset": 0}]} for family in ("ESP32-S3", "ESP32-C3")
    ]
    given.write(tmp_path / "dist", {"manifest.json": json.dumps({"name": "x", "builds": builds}).encode()})
    given.write(tmp_path / "dist", {"ESP32-S3.bin": merged("esp32s3"), "ESP32-C3.bin": merged("esp32c3")})
    assert "builds for esp32s3, esp32c3" in made(tmp_path)
    assert config_of(tmp_path).toolchain.chip == "esp32s3"
    assert deploy(tmp_path).outcome == "full_flashed"


# --- builds on the way ------------------------------------------------------------------------


def run(root: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, check=False, cwd=root, env=environment(**extra), capture_output=True, text=True, timeout=300
    )


PIO = """
import pathlib, shutil, sys
assert sys.argv[1:4] == ["run", "-e", "desk"], sys.argv
shutil.copytree("made", ".pio/build/desk", dirs_exist_ok=True)
"""
ARDUINO_CLI = """
import sys, shutil
assert sys.argv[1:] == ["compile", "--fqbn", "esp32:esp32:esp32", "--output-dir", "build/arduino", "."], sys.argv
shutil.copytree("made", "build/arduino", dirs_exist_ok=True)
"""


def test_platformio_builds_on_the_way(tmp_path: Path) -> None:
    root = tmp_path / "project"
    lay(
        root,
        {"platformio.ini": "[env:desk]\nplatform = espressif32\nboard = esp32-s3-devkitc-1\nframework = arduino\n"},
    )
    given.platformio(root / "made", "esp32s3")
    program(tmp_path / "bin/pio", PIO)
    assert "environment desk" in made(root)
    space = Space(root)
    search = os.pathsep.join((str(tmp_path / "bin"), os.environ["PATH"]))
    result = space.doit("deploy", env={"PATH": search})
    assert (result.code, result.outcome) == (0, "full_flashed"), result.out + result.err


def test_a_sketch_builds_on_the_way(tmp_path: Path) -> None:
    root = tmp_path / "Blink"
    lay(root, {"Blink.ino": "", "sketch.yaml": "default_fqbn: esp32:esp32:esp32\n"})
    parts = {"bootloader.bin": given.bootloader("esp32"), "partitions.bin": given.table(given.TWO_SLOTS)}
    given.write(root / "made", {f"Blink.ino.{name}": data for name, data in parts.items()})
    given.write(root / "made", {"Blink.ino.bin": given.app("esp32")})
    program(tmp_path / "bin/arduino-cli", ARDUINO_CLI)
    said = made(root)
    assert "names the board esp32:esp32:esp32" in said and "to do" not in said
    search = os.pathsep.join((str(tmp_path / "bin"), os.environ["PATH"]))
    result = Space(root).doit("deploy", env={"PATH": search})
    assert (result.code, result.outcome) == (0, "full_flashed"), result.out + result.err


def test_a_sketch_without_a_board_says_what_to_do(tmp_path: Path) -> None:
    root = lay(tmp_path / "Blink", {"Blink.ino": ""})
    assert "to do: nothing names the board" in made(root)
    assert "Put in your board" in (root / "deploy.toml").read_text()


needs_cmake = pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("cc") and NINJA), reason="no CMake here")


def with_ninja(*more: Path) -> str:
    return os.pathsep.join((*map(str, more), str(Path(NINJA).parent), os.environ["PATH"]))


@needs_cmake
def test_cmake_and_then_its_directory_alone(tmp_path: Path) -> None:
    root = tmp_path / "project"
    lists = "cmake_minimum_required(VERSION 3.16)\nproject(p C)\nadd_executable(p main.c)\n"
    lay(root, {"CMakeLists.txt": lists, "main.c": MAIN})
    assert "declares a project" in made(root)
    result = Space(root).doit("deploy", env={"PATH": with_ninja()})
    assert result.code == 0, result.out + result.err
    assert (root / "build/p").is_file()
    assert run(root, NINJA, "-C", "build").stdout.splitlines()[-1] == "ninja: no work to do."

    (root / "deploy.toml").unlink()
    assert "build/build.ninja" in made(root, kind="ninja") and config_of(root).toolchain.kind == "ninja"
    again = Space(root).doit("deploy", env={"PATH": with_ninja()})
    assert again.code == 0 and "-- link" in again.out, again.out + again.err


IDF_PY = """
import subprocess, sys
assert sys.argv[1:] == ["-B", "build", "reconfigure"], sys.argv
raise SystemExit(subprocess.run(["cmake", "-S", ".", "-B", "build", "-G", "Ninja"]).returncode)
"""


@needs_cmake
def test_esp_idf_for_linux_needs_no_board(tmp_path: Path) -> None:
    root = tmp_path / "project"
    lay(root, {"CMakeLists.txt": IDF_LISTS, "main.c": MAIN, "sdkconfig": 'CONFIG_IDF_TARGET="linux"\n'})
    lay(tmp_path / "idf", {"tools/cmake/project.cmake": ""})
    program(tmp_path / "bin/idf.py", IDF_PY)
    assert "the target is linux" in made(root)
    assert config_of(root).devices == ()
    search = {"PATH": with_ninja(tmp_path / "bin"), "IDF_PATH": str(tmp_path / "idf")}
    first = Space(root).doit("deploy", env=search)
    assert first.code == 0 and first.out.endswith(".  link\n"), first.out + first.err
    second = Space(root).doit("deploy", env=search)
    assert second.code == 0 and "-- link" in second.out, second.out + second.err


# --- several, none, existing ------------------------------------------------------------------


def test_several_projects_are_the_users_choice(tmp_path: Path) -> None:
    lay(tmp_path, {"CMakeLists.txt": IDF_LISTS, "Blink/Blink.ino": "", "Beep/Beep.ino": ""})
    failure = refused(tmp_path)
    assert failure.message == "3 projects are here"
    assert failure.hint == "choose one: `doit init --kind esp-idf or --kind arduino`"
    assert failure.detail.count("found: ") == 3
    assert refused(tmp_path, kind="arduino").hint == "choose one: `doit init --from Beep/Beep.ino`"
    assert "did you mean 'arduino'" in refused(tmp_path, kind="ardiuno").message
    assert "nothing here is 'cmake'" in refused(tmp_path, kind="cmake").message
    assert "Blink/Blink.ino is a sketch" in made(tmp_path, kind="arduino", place="./Blink/Blink.ino")


def test_nothing_here(tmp_path: Path) -> None:
    failure = refused(tmp_path)
    assert "looked for platformio.ini" in failure.message and SMALLEST in failure.detail
    lay(tmp_path, {"firmware/CMakeLists.txt": IDF_LISTS})
    failure = refused(tmp_path)
    assert failure.message.endswith("project.cmake in firmware") and failure.hint.startswith("change into")


def test_an_existing_file_is_named_and_kept(tmp_path: Path) -> None:
    given.esp_idf(tmp_path / "build", "esp32")
    lay(tmp_path, {"dodo.py": "def task_mine():\n    return {'actions': None}\n"})
    assert refused(tmp_path).where == "dodo.py"
    (tmp_path / "dodo.py").write_text("from pipeline.tasks import *\nthis is no Python\n")
    assert "wrote: deploy.toml\n" in made(tmp_path)
    assert refused(tmp_path).where == "deploy.toml"
    (tmp_path / "deploy.toml").unlink()
    (tmp_path / "deploy.toml").symlink_to("gone")
    assert refused(tmp_path).where == "deploy.toml"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_neither_file_is_left_where_nothing_can_be_written(tmp_path: Path) -> None:
    given.esp_idf(tmp_path / "build", "esp32")
    tmp_path.chmod(0o555)
    try:
        assert refused(tmp_path).message.startswith("cannot be written")
    finally:
        tmp_path.chmod(0o755)


def test_what_is_written_first_goes_when_the_second_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given.esp_idf(tmp_path / "build", "esp32")
    really = Path.open

    def full(self: Path, *args: str, **kwargs: str) -> object:
        if self.name == "dodo.py" and args == ("x",):
            raise OSError(28, "No space left on device")
        return really(self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    failure = refused(tmp_path)
    assert (failure.where, failure.message) == ("dodo.py", "cannot be written: No space left on device")


# --- the command ------------------------------------------------------------------------------


def test_the_command_needs_no_dodo_file(tmp_path: Path) -> None:
    root = tmp_path / "project"
    given.esp_idf(root / "build", "esp32")
    scripts = Path(sys.executable).parent
    dry = run(root, str(scripts / "hotplate"), "init", "--dry-run")
    assert dry.returncode == 0 and sorted(contents(root)) == [
        name for name in sorted(contents(root)) if "build/" in name
    ]
    done = run(root, str(scripts / "doit"), "init")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["found", "wrote", "next"]
    for name in ("deploy.toml", "dodo.py"):
        assert (root / name).read_text() in dry.stdout
    again = run(root, str(scripts / "doit"), "init")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("deploy.toml: error: exists") and "Traceback" not in again.stderr
    assert run(root, str(scripts / "doit"), "init", "surplus").returncode == 3
