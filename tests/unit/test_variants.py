"""Profiles with sections of their own, and which profile's build a device gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.reader import parse_config
from pipeline.config.schema import DeployConfig
from pipeline.model import Failure
from pipeline.run.options import Options
from pipeline.run.project import Project, load_project
from tests.given_firmware import esp_idf

TEXT = """\
[project]
name = "p"
sources = ["a.c"]
[toolchain]
linker_script = "a.ld"
cflags = ["-Wall"]
[bootloader]
sources = ["b.c"]
linker_script = "b.ld"
[profile.local-fast]
cflags = ["-O1"]
[profile.release]
[profile.s3.toolchain]
kind = "prebuilt"
chip = "esp32s3"
[profile.s3.prebuilt]
directory = "given"
[profile.s3.readiness]
until = "byte"
[profile.c6.toolchain]
chip = "esp32c6"
linker_script = "c6.ld"
[partitions]
table = "p.csv"
[device.bench]
default = true
[device.six]
port = "/dev/x"
chip = "esp32c6"
[device.three]
chip = "esp32s3"
groups = ["rack"]
[device.small]
profile = "release"
groups = ["rack"]
"""


def good(profile: str = "", text: str = TEXT, *, for_all: bool = False) -> DeployConfig:
    config = parse_config(text, profile=profile, for_all=for_all)
    assert isinstance(config, DeployConfig), config
    return config


def bad(old: str, new: str, profile: str = "", *, for_all: bool = False) -> Failure:
    assert TEXT.count(old) == 1
    failure = parse_config(TEXT.replace(old, new), profile=profile, for_all=for_all)
    assert isinstance(failure, Failure)
    return failure


def test_a_profile_stands_in_place_of_what_it_names() -> None:
    usual, six, three = good(), good("c6"), good("s3")
    assert (usual.variant, usual.toolchain.chip, usual.toolchain.linker_script) == ("local-fast", "esp32c3", "a.ld")
    assert (six.toolchain.chip, six.toolchain.linker_script, six.toolchain.cflags) == ("esp32c6", "c6.ld", ("-Wall",))
    assert (six.project.sources, six.readiness) == (usual.project.sources, usual.readiness)
    assert (three.toolchain.kind, three.toolchain.cflags, three.project.sources) == ("prebuilt", (), ())
    assert (three.prebuilt.directory, three.readiness.until) == ("given", "byte")


def test_the_other_way_round_nothing_given_is_left() -> None:
    text = (
        '[project]\nname = "p"\n[toolchain]\nkind = "prebuilt"\n[prebuilt]\ndirectory = "given"\n[profile.usual]\n'
        '[profile.own.toolchain]\nkind = "zig"\nlinker_script = "a.ld"\n[profile.own.project]\nsources = ["a.c"]\n'
        '[profile.own.bootloader]\nsources = ["b.c"]\nlinker_script = "b.ld"\n'
        '[profile.own.partitions]\ntable = "p.csv"\n[device.bench]\n'
    ).replace('name = "p"', 'name = "p"\nprofile = "usual"')
    assert good(text=text).prebuilt.directory == "given"
    own = good("own", text)
    assert (own.toolchain.kind, own.prebuilt.directory, own.project.sources) == ("zig", "", ("a.c",))


def test_which_build_a_device_gets() -> None:
    """Its own profile, else the usual one, else the only one that builds for its chip; --profile decides for all."""
    wanted = {"bench": "local-fast", "six": "c6", "three": "s3", "small": "release"}
    for profile in ("", "c6", "s3", "release"):
        assert {device.name: device.profile for device in good(profile).devices} == wanted
    assert {d.name: d.chip for d in good().devices} == {
        "bench": "esp32c3",
        "six": "esp32c6",
        "three": "esp32s3",
        "small": "esp32c3",
    }
    text = TEXT.replace('chip = "esp32c6"\n[device.three]\nchip = "esp32s3"', "[device.three]")
    assert {device.profile for device in good("release", text, for_all=True).devices} == {"release"}


@pytest.mark.parametrize(
    ("old", "new", "profile", "line"),
    [
        ('until = "byte"', 'until = "byt"', "", "19:9: error: 'readiness.until' is 'byt'; did you mean 'byte'?"),
        ('until = "byte"', 'until = "byt"', "s3", "19:9: error: 'readiness.until' is 'byt'; did you mean 'byte'?"),
        ('until = "byte"', "untl = 1", "", "19:1: error: unknown key 'untl' in [readiness]; did you mean 'until'?"),
        ('linker_script = "c6.ld"', "cflags = 1", "c6", "22:10: error: 'toolchain.cflags' is of type integer"),
        ('chip = "esp32c6"\nlinker_script', 'chip = "esp32"\nlinker_script', "c6", "21:8: error: the zig toolchain"),
        ('profile = "release"', 'profile = "relase"', "", "34:11: error: the profile 'relase' of device 'small'"),
        ('directory = "given"', "", "s3", "16:13: error: nothing says where the firmware is"),
        ("[profile.s3.readiness]", "[profile.s3.device]", "", "18:13: error: unknown key 'device' in [profile.s3]"),
    ],
)
def test_a_mistake_is_reported_where_it_stands(old: str, new: str, profile: str, line: str) -> None:
    assert bad(old, new, profile).line().startswith(f"deploy.toml:{line}")


def test_a_device_whose_profile_builds_for_another_chip() -> None:
    failure = bad('profile = "release"', 'profile = "c6"\nchip = "esp32c3"', "c6")
    assert "device 'small' has the chip esp32c3, but the toolchain builds for esp32c6" in failure.message
    odd = TEXT + '[device.odd]\nchip = "esp32h2"\n'
    assert isinstance(parse_config(odd), Failure)
    assert good(text=odd + "enabled = false\n").devices[-1].chip == "esp32h2", "it gets no build"


# --- the project ----------------------------------------------------------------------------------


def project(root: Path, **options: object) -> Project | Failure:
    (root / "deploy.toml").write_text(TEXT)
    return load_project(Options(**options), root)  # type: ignore[arg-type]


def test_what_is_built_follows_from_the_selected_devices(tmp_path: Path) -> None:
    esp_idf(tmp_path / "given", "esp32s3")
    alone = project(tmp_path)
    assert isinstance(alone, Project)
    assert [one.profile for one in alone.variants] == ["local-fast"] and alone.engine_dir == tmp_path / ".deploy"
    rack = project(tmp_path, groups=("rack",))
    assert isinstance(rack, Project)
    assert [(one.profile, [d.name for d in one.devices]) for one in rack.variants] == [
        ("s3", ["three"]),
        ("release", ["small"]),
    ]
    assert [device.name for device in rack.all_devices] == ["three", "small"]
    assert rack.config.firmware is not None and rack.variants[1].config.firmware is None
    assert len({one.engine_dir for one in (*rack.variants, alone)}) == 3
    assert len({one.selection for one in (*rack.variants, alone)}) == 3, "the fast path keeps them apart"


def test_firmware_that_no_selected_device_needs_need_not_be_there(tmp_path: Path) -> None:
    assert isinstance(project(tmp_path, devices=("small",)), Project)
    missing = project(tmp_path, devices=("three",))
    assert isinstance(missing, Failure) and "given" in missing.message


def test_numbers_of_the_command_line(tmp_path: Path) -> None:
    for option, value in (("workers", "0"), ("workers", "four"), ("canary", "-1"), ("canary", "1000")):
        failure = project(tmp_path, **{option: value})
        assert isinstance(failure, Failure) and failure.where == f"--{option}" and f"'{value}'" in failure.message
    assert isinstance(project(tmp_path, workers="16", canary="2"), Project)
