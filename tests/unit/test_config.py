"""`deploy.toml`: what is accepted, what each mistake says and where, and that the reference page tells the truth."""

# ruff: noqa: E501 - one mistake per line: the tables of this file are read by column

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline.config.reader as config_module
from pipeline.config.reader import built_by_ninja, parse_config
from pipeline.config.schema import Budget, DeployConfig, DeviceConfig, Prebuilt, Profile
from pipeline.config.selection import Filters, device_named, devices_of, profile_named
from pipeline.config.values import COMPILED_KEYS, Problem
from pipeline.formats.flash_file import FlashFile
from pipeline.formats.manifests import Firmware
from pipeline.model import Failure, FailureCategory, Stage

MINIMAL = """\
[project]
name = "reference"
sources = ["firmware/*.c"]
[toolchain]
linker_script = "firmware/app.ld"
[bootloader]
sources = ["boot/*.c"]
linker_script = "boot/boot.ld"
[profile.local-fast]
[partitions]
table = "firmware/partitions.csv"
[device.bench]
"""
LINES = len(MINIMAL.splitlines())


CACHE = ("", "5GB", "", "read", "HOTPLATE_CACHE_TOKEN", 2000)


def good(text: str) -> DeployConfig:
    config = parse_config(text)
    assert isinstance(config, DeployConfig), config
    return config


def bad(text: str) -> Failure:
    failure = parse_config(text)
    assert isinstance(failure, Failure)
    assert (failure.category, failure.stage) == (FailureCategory.CONFIG_ERROR, None)
    assert failure.hint and "\n" not in failure.hint
    return failure


def with_line(after: str, line: str) -> str:
    """MINIMAL with one more line after the line that begins with `after`."""
    assert f"\n{after}" in f"\n{MINIMAL}"
    return re.sub(rf"(?m)^({re.escape(after)}.*)$", lambda match: f"{match[1]}\n{line}", MINIMAL, count=1)


# --- what is accepted -------------------------------------------------------------------------


def test_the_smallest_file_has_the_documented_defaults() -> None:
    config = good(MINIMAL)
    assert config.project == ("reference", ("firmware/*.c",), "0.0.0", (), "", "local-fast")
    assert config.toolchain == ("firmware/app.ld", "zig", "esp32c3", (), (), None, ())
    assert config.bootloader == (("boot/*.c",), "boot/boot.ld", ())
    assert dict(config.profiles) == {"local-fast": Profile("local-fast", ())}
    assert config.partitions == ("firmware/partitions.csv", 0x8000)
    assert (config.flash, config.flash.size_bytes) == (("dio", "80m", "4MB"), 0x400000)
    assert config.devices == (
        DeviceConfig(
            name="bench",
            chip="esp32c3",
            port="virtual:",
            mac="",
            baud=460800,
            monitor_baud=115200,
            groups=(),
            default=False,
            flash_file="",
            timing="instant",
            reset="auto",
            tags=(),
            enabled=True,
            profile="local-fast",
        ),
    )
    assert config.budget == (4000, 200, 100, 500, None, None, 1500, None, 700, 1000, False)
    assert (config.verify, config.readiness) == (("md5",), ("rpc:ready", 5000, False))
    assert (config.cache, config.reports, config.path) == (CACHE, ("reports", 200), "deploy.toml")
    assert config.default_device.is_virtual


def test_every_key_can_be_set() -> None:
    config = good("""\
project = { name = "p", version = "1.2", sources = ["a.c", "b.S"], include = ["inc"], profile = "release" }
toolchain = { kind = "zig", chip = "esp32c6", cflags = ["-Wall"], cxxflags = ["-Wextra"], ldflags = ["-s"], linker_script = "a.ld" }
bootloader = { sources = ["boot.c"], include = ["inc"], linker_script = "b.ld" }
profile.release.cflags = ["-Os"]
partitions = { table = "p.csv", offset = 0x9000 }
flash = { mode = "qio", freq = "40m", size = "16MB" }
budget = { total = 1, compile = 2, link = 3, verify-flash = 4, reflash = 5 }
verify.level = "md5"
readiness = { until = "line:ready$", timeout_ms = 100, allow_unhealthy = true }
cache.dir = "/var/tmp/cas"
reports.dir = "out"
[device."desk.1"]
port = "/dev/ttyUSB0"
chip = "esp32c6"
mac = "7C:DF:A1:00:11:22"
baud = 921600
monitor_baud = 74880
groups = ["desk", "usb"]
reset = "classic"
[device.sim]
flash_file = "/tmp/flash.bin"
timing = "instant"
default = true
""")
    assert config.project == ("p", ("a.c", "b.S"), "1.2", ("inc",), "", "release")
    assert config.toolchain == ("a.ld", "zig", "esp32c6", ("-Wall",), ("-s",), ("-Wextra",), ())
    assert config.flash == ("qio", "40m", "16MB")
    assert (config.budget.verify_flash, config.budget.of(Stage.VERIFY_FLASH), config.budget.of(Stage.TTFB)) == (
        4,
        4,
        1000,
    )
    desk, sim = config.devices
    assert (desk.mac, desk.chip, desk.groups, desk.is_virtual) == (
        "7c:df:a1:00:11:22",
        "esp32c6",
        ("desk", "usb"),
        False,
    )
    assert config.default_device is sim
    assert (sim.chip, sim.flash_file) == ("esp32c6", "/tmp/flash.bin")


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert good(f"\ufeff{MINIMAL}") == good(MINIMAL)
    assert bad(f"\ufeff{MINIMAL}nonsense = 1\n").where == bad(f"{MINIMAL}nonsense = 1\n").where


def test_every_stage_has_a_budget_key() -> None:
    assert {stage.value.replace("-", "_") for stage in Stage} <= set(Budget._fields)


# --- selection --------------------------------------------------------------------------------

THREE = MINIMAL + 'default = true\n[device.desk]\ngroups = ["lab"]\n[device.shelf]\ngroups = ["lab", "night"]\n'


@pytest.mark.parametrize(
    ("devices", "groups", "expected"),
    [
        ((), (), ["bench"]),
        (("shelf",), (), ["shelf"]),
        (("shelf", "bench", "shelf"), (), ["bench", "shelf"]),
        ((), ("lab",), ["desk", "shelf"]),
        (("shelf", "bench"), ("night",), ["shelf"]),
    ],
)
def test_selected_devices(devices: tuple[str, ...], groups: tuple[str, ...], expected: list[str]) -> None:
    found = devices_of(good(THREE), Filters(devices, groups))
    assert not isinstance(found, Failure)
    assert [device.name for device in found] == expected


def test_names_that_nobody_has_are_failures_with_a_suggestion() -> None:
    config = good(THREE)
    failures = [
        device_named(config, "shlef"),
        profile_named(config, "local_fast"),
        devices_of(config, Filters(device=("bench", "zzz"))),
        devices_of(config, Filters(group=("nigth",))),
        devices_of(good(MINIMAL), Filters(group=("lab",))),
        devices_of(config, Filters(tag=("hot",))),
        devices_of(config, Filters(chip=("esp32s3",))),
        devices_of(config, Filters(device=("bench",), group=("lab",))),
        devices_of(good(THREE + "enabled = false\n"), Filters(device=("shelf",))),
    ]
    assert [(f.message, f.hint) for f in failures if isinstance(f, Failure)] == [
        ("deploy.toml has no device 'shlef'; did you mean 'shelf'?", "choose one of bench, desk, shelf"),
        ("deploy.toml has no profile 'local_fast'; did you mean 'local-fast'?", "choose one of local-fast"),
        ("deploy.toml has no device 'zzz'", "choose one of bench, desk, shelf"),
        ("deploy.toml has no group 'nigth'; did you mean 'night'?", "choose one of lab, night"),
        ("deploy.toml has no group 'lab'", "add it to deploy.toml: no group is declared there"),
        ("deploy.toml has no tag 'hot'", "add it to deploy.toml: no tag is declared there"),
        ("deploy.toml has no chip 'esp32s3'; did you mean 'esp32c3'?", "choose one of esp32c3"),
        (
            "deploy.toml has no device that is all of --device bench --group lab",
            "leave out one of the filters: a device has to pass them all",
        ),
        ("no device is left: 'shelf' has enabled = false in deploy.toml", "set it to true"),
    ]
    assert profile_named(config, "local-fast") == Profile("local-fast")


NAMES, GROUPS, TAGS = ("a", "b", "c", "d"), ("lab", "night"), ("hot", "cold")


@st.composite
def shelves(draw: st.DrawFn) -> DeployConfig:
    devices = tuple(
        DeviceConfig(
            name,
            draw(st.sampled_from(["esp32", "esp32c3"])),
            groups=tuple(draw(st.sets(st.sampled_from(GROUPS)))),
            tags=tuple(draw(st.sets(st.sampled_from(TAGS)))),
            enabled=draw(st.booleans()),
        )
        for name in NAMES
    )
    return good(MINIMAL)._replace(devices=devices)


FILTERS = st.builds(
    Filters,
    st.lists(st.sampled_from(NAMES)).map(tuple),
    st.lists(st.sampled_from(GROUPS)).map(tuple),
    st.lists(st.sampled_from(["esp32", "esp32c3"])).map(tuple),
    st.lists(st.sampled_from(TAGS)).map(tuple),
)


def names_of(found: tuple[DeviceConfig, ...] | Failure) -> set[str]:
    return set() if isinstance(found, Failure) else {device.name for device in found}


@given(shelves(), FILTERS, FILTERS, st.sampled_from(Filters._fields))
def test_a_further_filter_can_only_shrink_the_set(
    config: DeployConfig, filters: Filters, more: Filters, added: str
) -> None:
    """Whatever is selected with one more filter was selected without it; nothing that is disabled ever is."""
    fewer = filters._replace(**{added: ()})
    if not any(fewer):
        return  # nothing is asked for: that means the default device, not all of them
    both = fewer._replace(**{added: getattr(more, added)})
    wide, narrow = devices_of(config, fewer), devices_of(config, both)
    assert names_of(narrow) <= names_of(wide) <= {device.name for device in config.devices if device.enabled}
    if not isinstance(narrow, Failure):
        alone = [Filters()._replace(**{name: value}) for name, value in both._asdict().items() if value]
        assert names_of(narrow) == set.intersection(*(names_of(devices_of(config, one)) for one in alone))


# --- mistakes ---------------------------------------------------------------------------------


def line_of(text: str, start: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(start))


@pytest.mark.parametrize(
    ("after", "line", "column", "message"),
    [
        # unknown keys
        ("[project]", 'verison = "1"', 1, "unknown key 'verison' in [project]; did you mean 'version'?"),
        ("[device.bench]", 'Port = "COM3"', 1, "unknown key 'Port' in [device.bench]; did you mean 'port'?"),
        ("[device.bench]", "monitor-baud = 9600", 1, "unknown key 'monitor-baud' in [device.bench]; did you mean 'monitor_baud'?"),
        ("[profile.local-fast]", "zzz = 1", 1, "unknown key 'zzz' in [profile.local-fast]"),
        ("[profile.local-fast]", 'name = "x"', 1, "unknown key 'name' in [profile.local-fast]"),
        ("[device.bench]", "[devcie.desk]", 2, "unknown key 'devcie' in deploy.toml; did you mean 'device'?"),
        ("[device.bench]", '[[action]]', 3, "[[action]] has no 'name', which is required"),
        ("[device.bench]", '[action]', 2, "'action' is one table, but must be an array of tables"),
        ("[device.bench]", '[[actoin]]', 3, "unknown key 'actoin' in deploy.toml; did you mean 'action'?"),
        ("[device.bench]", "[budget]\nverify_flash = 1", 1, "unknown key 'verify_flash' in [budget]; did you mean 'verify-flash'?"),
        # types
        ("[project]", "version = 1.5", 11, "'project.version' is of type float, but must be of type string"),
        ("[project]", "include = 'inc'", 11, "'project.include' is of type string, but must be of type array of strings"),
        ("[project]", "include = ['a', [ 'b' ]]", 17, "element 2 of 'project.include' is of type array, but must be of type string"),
        ("[device.bench]", 'baud = "9600"', 8, "'device.bench.baud' is of type string, but must be of type integer"),
        ("[device.bench]", "baud = true", 8, "'device.bench.baud' is of type boolean, but must be of type integer"),
        ("[device.bench]", "default = 1", 11, "'device.bench.default' is of type integer, but must be of type boolean"),
        ("[device.bench]", "mac = 1979-05-27", 7, "'device.bench.mac' is of type date or time, but must be of type string"),
        ("[profile.local-fast]", "[profile]\nx = 1", 5, "'profile.x' is of type integer, but must be of type table"),
        # values
        ("[project]", "version = ' '", 11, "'project.version' is empty"),
        ("[project]", f"version = '{'é' * 16}'", 11, "'project.version' has 32 bytes, but the app descriptor holds 31"),
        ("[project]", 'version = "1\\n2"', 11, "'project.version' holds U+000A, which cannot be printed"),
        ("[project]", 'version = "\\u202E1"', 11, "'project.version' holds U+202E, which cannot be printed"),
        ("[device.bench]", "port = 'rfc2217://'", 8, "'device.bench.port' is 'rfc2217://', which names no host with a port from 1 to 65535"),
        ("[device.bench]", "port = 'rfc2217://rack'", 8, "'device.bench.port' is 'rfc2217://rack', which names no host with a port from 1 to 65535"),
        ("[device.bench]", "port = 'socket://rack:99999'", 8, "'device.bench.port' is 'socket://rack:99999', which names no host with a port from 1 to 65535"),
        ("[device.bench]", "port = 'socket://[::1:4001'", 8, "'device.bench.port' is 'socket://[::1:4001', which names no host with a port from 1 to 65535"),
        ("[device.bench]", "port = 'rfc2271://rack:4001'", 8, "'device.bench.port' is 'rfc2271://rack:4001', and 'rfc2271://' is no kind of port; did you mean 'rfc2217'?"),
        ("[project]", "include = ['a', '/usr/include']", 11, "'project.include' has an element that is '/usr/include', which is not relative to the project root"),
        ("[project]", "include = ['C:/x']", 11, "'project.include' has an element that is 'C:/x', which is not relative to the project root"),
        ("[project]", "include = ['a/../../b']", 11, "'project.include' has an element that is 'a/../../b', which leaves the project root"),
        ("[project]", "include = ['a\\b']", 11, "'project.include' has an element that is 'a\\b', which has backslashes"),
        ("[toolchain]", "kind = 'gccc'", 8, "'toolchain.kind' is 'gccc'; did you mean 'gcc'?"),
        ("[toolchain]", "chip = 'esp32-c3'", 8, "'toolchain.chip' is 'esp32-c3'; did you mean 'esp32c3'?"),
        ("[partitions]", "offset = 0x8800", 10, "'partitions.offset' is 0x8800, which is not a positive multiple of 0x1000"),
        ("[device.bench]", "[flash]\nmode = 'dios'", 8, "'flash.mode' is 'dios'; did you mean 'dio'?"),
        ("[device.bench]", "[flash]\nsize = '4 MB'", 8, "'flash.size' is '4 MB'; did you mean '4MB'?"),
        ("[device.bench]", "port = ''", 8, "'device.bench.port' is empty"),
        ("[device.bench]", "mac = '7c-df-a1-00-11-22'", 7, "'device.bench.mac' is '7c-df-a1-00-11-22', which is not a MAC address"),
        ("[device.bench]", "baud = 0", 8, "'device.bench.baud' is 0"),
        ("[device.bench]", "reset = 'clasic'", 9, "'device.bench.reset' is 'clasic'; did you mean 'classic'?"),
        ("[device.bench]", "reset = 'command: '", 9, "'device.bench.reset' is 'command: ', which names no command"),
        ("[device.bench]", "reset = 'command:a \"'", 9, "'device.bench.reset' is 'command:a \"', whose command cannot be read: No closing quotation"),
        ("[device.bench]", "reset = 'command:a'", 1, "'device.bench.reset' is a command, but the port is 'virtual:', which needs none"),
        ("[device.bench]", "port = 'COM3'\nrom_elf = 'f'", 1, "'device.bench.rom_elf' is for virtual boards, but the port is 'COM3'"),
        ("[device.bench]", "timing = 'instnt'", 10, "'device.bench.timing' is 'instnt'; did you mean 'instant'?"),
        ("[device.bench]", "[budget]\nttfb = 0", 8, "'budget.ttfb' is 0"),
        ("[device.bench]", "[verify]\nlevel = 'hope'", 9, "'verify.level' is 'hope'"),
        ("[device.bench]", "[readiness]\nuntil = 'rpc:heath'", 9, "'readiness.until' is 'rpc:heath'; did you mean 'rpc:health'?"),
        ("[device.bench]", "[readiness]\nuntil = 'line:'", 9, "'readiness.until' has no regular expression after 'line:'"),
        ("[device.bench]", "[readiness]\nuntil = 'line:a(b'", 9, "'readiness.until' is 'line:' with a bad regular expression: missing ), unterminated subpattern at character 2 of it"),
        ("[device.bench]", "[readiness]\nuntil = 'line:x*'", 9, "'readiness.until' is 'line:x*', which matches an empty line too"),
        ("[device.bench]", "[readiness]\nallow_unhealthy = 1", 19, "'readiness.allow_unhealthy' is of type integer, but must be of type boolean"),
        ("[device.bench]", "[reports]\ndir = ''", 7, "'reports.dir' is empty"),
        ("[device.bench]", "[device.'a:b']", 9, "'a:b' cannot be the name of a device"),
        ("[device.bench]", "[image.fs]\npartition = 'p'\nfile = '/x'", 8, "'image.fs.file' is '/x', which is not relative to the project root"),
        ("[device.bench]", "[image.fs]\nfile = 'x'\noffset = 4097", 10, "'image.fs.offset' is 0x1001, which is not a positive multiple of 0x1000"),
        # contradictions
        ("[device.bench]", "[image]\nfs = { file = 'x' }", 1, "[image.fs] has neither 'partition' nor 'offset'"),
        ("[device.bench]", "[image]\nfs = { file = 'x', partition = 'p', offset = 4096 }", 1, "[image.fs] has both 'partition' and 'offset'"),
        ("[device.bench]", "[image]\napp = { file = 'x', partition = 'p' }", 1, "'app' is the name of an image that every build has"),
        ("[device.bench]", "[image.b]\nfile='y'\npartition='p'\n[image.fs]\nfile='x'\npartition = 'p'", 13, "images 'b' and 'fs' both go to partition 'p'"),
        ("[device.bench]", "[image]\nfs = { partition = 'p' }", 1, "[image.fs] has neither 'file' nor 'from'"),
        ("[device.bench]", "[image]\nfs = { partition = 'p', file = 'x', from = 'y' }", 1, "[image.fs] has both 'file' and 'from'"),
        ("[device.bench]", "[image.fs]\npartition = 'p'\nfile = 'x'\nformat = 'fat'", 1, "'format' is for a directory that is packed, but this image is a file"),
        ("[device.bench]", "[image]\nfs = { partition = 'p', from = 'y' }", 1, "[image.fs] says 'from' and no 'format'"),
        ("[device.bench]", "[image]\nfs = { offset = 4096, from = 'y', format = 'fat' }", 1, "[image.fs] is packed to fill its partition, but names none"),
        ("[device.bench]", "[image.fs]\npartition = 'p'\nfrom = 'y'\nformat = 'littlef'", 10, "'image.fs.format' is 'littlef'; did you mean 'littlefs'?"),
        ("[device.bench]", "[image.fs]\npartition = 'p'\nformat = 'fat'\nfrom = '../y'", 8, "'image.fs.from' is '../y', which leaves the project root"),
        ("[device.bench]", "[image.fs]\npartition = 'p'\nfrom = 'y/'\nformat = 'fat'\noptions = { wear = 'x' }", 13, "format 'fat' has no option 'wear'"),
        ("[device.bench]", "[image.fs]\npartition = 'p'\nfrom = 'y/'\nformat = 'spiffs'\noptions = { page_size = '100' }", 25, "option 'page_size' of format 'spiffs' is '100'"),
        ("[device.bench]", "[host]\nmain = ['x.c']\n[profile.host]", 10, "a profile is called 'host', and build/host/ is where the programs of [host] go"),
        ("[device.bench]", "default = true\n[host]\nmain = ['x.c']\n[device.host]", 9, "a device is called 'host', which is what the program of [host] is called as a target of live tests"),
        ("[device.bench]", "[host]\ncompiler = 'gc'", 12, "'host.compiler' is 'gc'"),
        ("[device.bench]", "[livetest]\ntimeout_ms = 0", 14, "'livetest.timeout_ms' is 0"),
        ("[device.bench]", "[prebuilt]", 2, "[prebuilt] is for toolchain.kind = 'prebuilt'"),
        ("[project]", "profile = 'local_fast'", 11, "the profile 'local_fast' does not exist (there are: local-fast); did you mean 'local-fast'?"),
        ("[toolchain]", "chip = 'esp32s3'", 8, "the zig toolchain cannot compile for esp32s3: it has no xtensa back end"),
        ("[toolchain]", "kind = 'gcc'\nchip = 'esp32'", 8, "the gcc toolchain cannot compile for esp32: it has no xtensa back end"),
        ("[device.bench]", "[flash]\nfreq = '60m'", 8, "'flash.freq' is '60m', which esp32c3 does not have"),
        ("[partitions]", "offset = 0x400000", 10, "'partitions.offset' is 0x400000, but must lie behind the bootloader's 0x0 and within the flash of 4MB"),
        ("[device.bench]", "chip = 'esp32c6'", 8, "device 'bench' has the chip esp32c6, but the toolchain builds for esp32c3"),
        ("[device.bench]", "port = 'COM3'\nflash_file = 'f'", 1, "'device.bench.flash_file' is for virtual boards, but the port is 'COM3'"),
        ("[device.bench]", "default = true\n[device.b]\ndefault = true", 11, "2 devices are marked as default: bench, b"),
        ("[device.bench]", "mac='00:00:00:00:00:0A'\n[device.b]\ndefault=true\nmac = '00:00:00:00:00:0a'", 7, "devices 'bench' and 'b' have the same mac 00:00:00:00:00:0a"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_at_its_place(after: str, line: str, column: int, message: str) -> None:
    text = with_line(after, line)
    expected = line_of(text, after) + len(line.splitlines())
    assert bad(text).line() == f"deploy.toml:{expected}:{column}: error: {message}"


PREBUILT = """\
[project]
name = "given"
[toolchain]
kind = "prebuilt"
[prebuilt]
directory = "build"
[flash]
[device.bench]
"""
FIRMWARE = Firmware(
    "esp-idf",
    "build/flasher_args.json",
    (FlashFile(0x8000, "build/t.bin"), FlashFile(0x10000, "build/a.bin")),
    FlashFile(0x8000, "build/t.bin"),
    "esp32s3",
    "qio",
    "40m",
    "8MB",
    patch=True,
)


def with_firmware(text: str) -> DeployConfig | Failure:
    return parse_config(text, find_firmware=lambda _: FIRMWARE)


def test_a_prebuilt_firmware_says_chip_and_flash() -> None:
    config = with_firmware(PREBUILT)
    assert isinstance(config, DeployConfig), config
    assert (config.toolchain.chip, config.devices[0].chip, config.partitions) == ("esp32s3", "esp32s3", ("", 0x8000))
    assert config.flash == ("qio", "40m", "8MB")
    assert (config.firmware, config.prebuilt) == (FIRMWARE, Prebuilt("build"))
    assert (config.project.profile, dict(config.profiles)) == ("prebuilt", {"prebuilt": Profile("prebuilt")})
    same = PREBUILT.replace("[flash]", "[flash]\nmode = 'qio'\nsize = '8MB'").replace("kind", "chip = 'esp32s3'\nkind")
    assert isinstance(with_firmware(same), DeployConfig), "what both say alike is no contradiction"
    named = with_firmware(PREBUILT.replace('"given"', '"given"\nprofile = "x"') + "[profile.x]\n[profile.y]\n")
    assert isinstance(named, DeployConfig) and list(named.profiles) == ["x", "y"]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('kind = "prebuilt"', 'kind = "prebuilt"\nchip = "esp32"', "5:8: error: 'toolchain.chip' is 'esp32', but 'esp32s3' in build/flasher_args.json"),
        ("[flash]", '[flash]\nsize = "4MB"', "8:8: error: 'flash.size' is '4MB', but '8MB' in build/flasher_args.json"),
        ("[flash]", '[flash]\nmode = "dio"', "8:8: error: 'flash.mode' is 'dio', but 'qio' in build/flasher_args.json"),
        ("[flash]", '[flash]\nfreq = "80m"', "8:8: error: 'flash.freq' is '80m', but '40m' in build/flasher_args.json"),
        ("[flash]", "[partitions]\noffset = 0x9000", "8:10: error: 'partitions.offset' is 0x9000, but 0x8000 in build/flasher_args.json"),
        ("[flash]", "[partitions]\ntable = 'p.csv'", "8:1: error: 'partitions.table' is for toolchains that compile, but toolchain.kind is 'prebuilt'"),
        ('name = "given"', 'name = "given"\nsources = ["a.c"]', "3:1: error: 'project.sources' is for toolchains that compile, but toolchain.kind is 'prebuilt'"),
        ("[flash]", "[bootloader]\nlinker_script = 'a'", "8:1: error: 'bootloader.linker_script' is for toolchains that compile, but toolchain.kind is 'prebuilt'"),
        ("[flash]", "[profile.prebuilt]\ncflags = ['-O1']", "8:1: error: 'profile.prebuilt.cflags' is for toolchains that compile, but toolchain.kind is 'prebuilt'"),
        ('directory = "build"\n', "", "5:2: error: nothing says where the firmware is"),
        ('[prebuilt]\ndirectory = "build"\n', "", "1:1: error: nothing says where the firmware is"),
        ("[flash]", "[prebuilt.files]\n0x1000 = 'a'", "5:2: error: [prebuilt] has both 'directory' and 'files'"),
        ('directory = "build"', "directory = '../fw'", "6:13: error: 'prebuilt.directory' is '../fw', which leaves the project root"),
        ('directory = "build"', "files = ['a.bin']", "6:9: error: 'prebuilt.files' is of type array, but must be of type table of strings"),
        ('directory = "build"', "files = { 0x1000 = 3 }", "6:20: error: 'prebuilt.files.0x1000' is of type integer, but must be of type string"),
        ('directory = "build"', "files = { app = 'a.bin' }", "6:9: error: 'prebuilt.files' has the key 'app', which is no offset"),
        ('directory = "build"', "files = { 0x10 = 'a.bin' }", "6:9: error: 'prebuilt.files' has the offset 0x10, which is not a multiple of 0x1000"),
        ('directory = "build"', "files = { 4096 = 'a.bin', 0x1000 = 'b.bin' }", "6:9: error: 'prebuilt.files' has the offset 0x1000 twice: 4096 and 0x1000"),
        ('directory = "build"', "files = { 4096 = '/a.bin' }", "6:9: error: 'prebuilt.files' has at 4096 a file that is '/a.bin', which is not relative to the project root"),
    ],
)  # fmt: skip
def test_a_mistake_about_prebuilt_firmware_is_reported_at_its_place(old: str, new: str, error: str) -> None:
    assert PREBUILT.count(old) == 1
    failure = with_firmware(PREBUILT.replace(old, new))
    assert isinstance(failure, Failure) and failure.hint
    assert failure.line() == f"deploy.toml:{error}"


def test_what_the_firmware_says_of_itself_is_reported_as_it_is() -> None:
    wrong = Problem(("prebuilt", "directory"), True, "'build' is no build", "build it")
    failure = parse_config(PREBUILT, find_firmware=lambda _: wrong)
    assert isinstance(failure, Failure)
    assert (failure.line(), failure.hint) == ("deploy.toml:6:13: error: 'build' is no build", "build it")
    broken = bad("")
    assert parse_config(PREBUILT, find_firmware=lambda _: broken) is broken


def test_the_table_lies_behind_the_bootloader_of_its_chip() -> None:
    text = with_line("[toolchain]", 'chip = "esp32c5"')
    message = "'partitions.offset' is 0x2000, but must lie behind the bootloader's 0x2000 and within the flash of 4MB"
    assert bad(text.replace("[partitions]\n", "[partitions]\noffset = 0x2000\n")).message == message
    good(text.replace("[partitions]\n", "[partitions]\noffset = 0x3000\n"))


def test_two_devices_without_default() -> None:
    failure = bad(MINIMAL + "[device.desk]\n")
    assert failure.line() == f"deploy.toml:{LINES}:9: error: none of the 2 devices is the default (bench, desk)"
    assert failure.hint == "add `default = true` to one of them"


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "1:1", "[project] has no 'name', which is required"),
        (MINIMAL.replace("[device.bench]\n", ""), "1:1", "no device is declared"),
        (MINIMAL.replace('name = "reference"\n', ""), "1:2", "[project] has no 'name', which is required"),
        (MINIMAL.replace('["firmware/*.c"]', "[]"), "3:11", "'project.sources' is empty"),
        (MINIMAL.replace("[profile.local-fast]\n", ""), "1:2", "the profile 'local-fast' does not exist (there are: none)"),
        ("project = 3\n" + MINIMAL[MINIMAL.index("[toolchain]") :], "1:11", "'project' is of type integer, but must be of type table"),
        ("device = 3\n" + MINIMAL.replace("[device.bench]", ""), "1:10", "'device' is of type integer, but must be of type table"),
    ],
)  # fmt: skip
def test_what_is_missing_is_reported_at_its_table(text: str, where: str, message: str) -> None:
    assert bad(text).line() == f"deploy.toml:{where}: error: {message}"


def test_hints_say_what_to_do() -> None:
    hints = [
        bad(with_line("[project]", line)).hint
        for line in ("verison = '1'", "zzz = 1", "version = 1", "include = ['/a']", "profile = 'x'")
    ]
    assert hints == [
        "rename it to 'version', or remove it",
        "remove it; [project] has name, sources, version, include, descriptor, profile",
        "put it in quotes",
        "write it relative to the project root",
        "add a table [profile.x], or set project.profile to an existing one",
    ]
    assert bad("").hint == 'add name = "..." to [project]'


def test_all_mistakes_are_reported_in_the_order_of_the_text() -> None:
    text = MINIMAL.replace('name = "reference"', "nmae = 1") + "baud = 1\nzz = 2\n"
    failure = bad(text)
    assert failure.line() == "deploy.toml:1:2: error: [project] has no 'name', which is required"
    assert failure.detail.splitlines() == [
        "deploy.toml:2:1: error: unknown key 'nmae' in [project]; did you mean 'name'?",
        f"deploy.toml:{LINES + 1}:8: error: 'device.bench.baud' is 1",
        f"deploy.toml:{LINES + 2}:1: error: unknown key 'zz' in [device.bench]",
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[project\n", "deploy.toml:1:9"),
        ("[project]\nname = \n", "deploy.toml:2:8"),
        ("a = '", "deploy.toml"),
        ("a = " + "9" * 5000, "deploy.toml"),
        ("a = " + "[" * 50_000, "deploy.toml"),
    ],
)
def test_syntax_errors_have_the_same_form(text: str, where: str) -> None:
    failure = bad(text)
    assert failure.where.startswith(where)
    assert "(at line" not in failure.message
    assert failure.hint.startswith("correct the TOML syntax")


@pytest.mark.parametrize(
    ("text", "fact", "hint"),
    [
        ("[a]\n[b]\n[a]\n", "3:3: error: the table 'a' is declared twice", "put its keys below one of"),
        ("[a]\nb.c = 1\n[a.b]\n", "3:5: error: the table 'a.b' is declared twice", "put its keys below one of"),
        ("[a]\nx = 1\nx = 2\n", "3:6: error: 'x = 2' sets again what is set already", "keep one of the two"),
        ("a = 1\n[a]\n", "2:3: error: '[a]' sets again what is set already", "keep one of the two"),
        ("[a]\nx = 1\n[a.x]\n", "3:5: error: '[a.x]' sets again what is set already", "keep one of the two"),
    ],
)
def test_what_is_there_twice_is_named(text: str, fact: str, hint: str) -> None:
    failure = parse_config(text)
    assert isinstance(failure, Failure)
    assert failure.line() == f"deploy.toml:{fact}" and failure.hint.startswith(hint)


def test_messages_use_the_given_path() -> None:
    failure = parse_config("x = 1", "projects/a/deploy.toml")
    assert isinstance(failure, Failure)
    assert failure.where == "projects/a/deploy.toml:1:1"


@given(st.integers(0, len(MINIMAL)), st.integers(0, len(MINIMAL)), st.text("[]{}=\"'.,\n#a1", max_size=3))
def test_no_damage_raises(start: int, end: int, replacement: str) -> None:
    result = parse_config(MINIMAL[: min(start, end)] + replacement + MINIMAL[max(start, end) :])
    if isinstance(result, Failure):
        assert re.match(r"deploy\.toml(:\d+:\d+)?: error: .", result.line())


toml_values = st.sampled_from(
    ["1", "true", "''", "'x'", "[]", "['x']", "[1]", "{}", "{x=1}", "1.5", "1979-05-27", "-1"]
)


@given(st.sampled_from([*config_module._SECTIONS, "device.bench", "profile.x"]), toml_values, st.data())
def test_any_type_at_any_key_is_an_answer(section: str, value: str, data: st.DataObject) -> None:
    shape: Any = {**config_module._SECTIONS, "device.bench": DeviceConfig, "profile.x": Profile}[section]
    key = data.draw(st.sampled_from([*shape._fields, "other"]))
    assert isinstance(parse_config(f"{section}.{key} = {value}"), Failure)
    assert isinstance(parse_config(f"{section} = {value}"), Failure)


# --- sizes, and what images name ----------------------------------------------------------------


def test_limits_of_sizes_are_bytes_with_or_without_a_unit() -> None:
    size = good(f'{MINIMAL}[size]\nimage = "1.5MB"\niram = 100000\n[size.section]\n".bss" = "20 KB"\n').size
    assert (size.any, size.totals, size.sections) == (True, {"image": 1_572_864, "iram": 100_000}, {".bss": 20_480})
    assert not good(MINIMAL).size.any
    own = good(f'{MINIMAL}[size]\nram = "2KB"\n[profile.local-fast.size]\nram = "1KB"\n').size
    assert own.totals == {"ram": 1024}
    for value, fact in (
        ('"1.5"', "'size.ram' is '1.5', which is not a size"),
        ('"1.5GB"', "'size.ram' is '1.5GB', which is not a size"),
        ("0", "'size.ram' is 0"),
        ("-1", "'size.ram' is -1"),
        ("true", "'size.ram' is of type boolean, but must be of type size"),
        ("1.5", "'size.ram' is of type float, but must be of type size"),
    ):
        failure = bad(f"{MINIMAL}[size]\nram = {value}\n")
        assert (failure.message, failure.hint[:11]) == (fact, "write bytes"), value
    assert bad(f'{MINIMAL}[size.archive]\n"a.a" = "x"\n').message == (
        "'size.archive' has a 'a.a' that is 'x', which is not a size"
    )


def test_what_images_name_stands_beside_the_images() -> None:
    ninja = '[project]\nname = "x"\n[toolchain]\nkind = "esp-idf"\n[device.bench]\nport = "virtual:"\n'
    images = '[image.identity]\nfile = "a.bin"\noffset = 0x300000\n'
    both = good(f'{ninja}[image]\nidentity = "loaded"\n[image.web]\nfile = "a.bin"\noffset = 0x300000\n')
    assert (both.image_identity, both.has_loaded_identity, [one.name for one in both.images]) == (
        "loaded",
        True,
        ["web"],
    )
    named = good(ninja + images)
    assert (named.image_identity, named.has_loaded_identity, named.images[0].name) == ("", False, "identity")
    assert not good(f'{ninja}[image]\nidentity = "elf"\n').has_loaded_identity
    assert good(f'{MINIMAL}[image]\nidentity = "loaded"\n').image_identity == "loaded"
    for text, fact in (
        (f'{ninja}[image]\nidentity = "load"\n', "'image.identity' is 'load'; did you mean 'loaded'?"),
        (f"{ninja}[image]\nidentity = 1\n", "'image.identity' is of type integer, but must be of type string"),
        (
            f'{MINIMAL}[image]\nidentity = "elf"\n',
            "'image.identity' is 'elf', but images of kind 'zig' always name what is loaded",
        ),
    ):
        assert bad(text).message == fact
    prebuilt = f'{PREBUILT}[image]\nidentity = "loaded"\n'
    assert bad(prebuilt).message == "toolchain.kind is 'prebuilt', whose images are what their files hold"


# --- the reference page and the warm path -----------------------------------------------------

ROOT = Path(__file__).parents[2]


def documented() -> dict[str, dict[str, tuple[str, str]]]:
    """Section -> key -> (type, default), as docs/deploy-toml.md says."""
    page = (ROOT / "docs/deploy-toml.md").read_text(encoding="utf-8")
    sections = re.split(r"(?m)^## \[\[?([a-z]+)(?:\.NAME)?\]?\]$", page)[1:]
    rows = re.compile(r"(?m)^\| `([a-z0-9_-]+)` \| ([a-z ]+) \| `?([^|`]*)`? \|")
    return {name: {key: (type_, default.strip()) for key, type_, default in rows.findall(body)}
            for name, body in zip(sections[::2], sections[1::2], strict=True)}  # fmt: skip


def implemented() -> dict[str, dict[str, tuple[str, str]]]:
    def default(shape: Any, field: str) -> str:
        sections = {shape: name for name, shape in config_module._SECTIONS.items()}
        if field not in shape._field_defaults or COMPILED_KEYS.get((sections.get(shape, ""), field)):
            return "the toolchain's" if (shape, field) == (DeviceConfig, "chip") else "required"
        value = shape._field_defaults[field]
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, Mapping):
            return "{}"
        if isinstance(value, tuple) and value:
            return str(list(value)).replace("'", '"')
        if field == "offset" and value is not None:
            return f"{value:#x}"
        return {None: "none", (): "[]"}.get(value, f'"{value}"' if isinstance(value, str) else str(value))

    named = config_module._NAMED_SECTIONS
    return {
        section: {
            config_module._key(shape, field): (config_module._type_name(shape, field), default(shape, field))
            for field in shape._fields
            if not (section in named and field == "name")
        }
        for section, shape in {**config_module._SECTIONS, **named, **config_module._LISTED_SECTIONS}.items()
    }


def test_the_reference_page_lists_exactly_the_keys_types_and_defaults_of_the_code() -> None:
    assert documented() == implemented()


def test_the_example_of_the_reference_page_is_a_good_file() -> None:
    page = (ROOT / "docs/deploy-toml.md").read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    assert good(example).project.name == "blink"


def test_a_good_file_is_read_without_heavy_modules() -> None:
    program = (
        "import sys; from pipeline.config.reader import parse_config, DeployConfig\n"
        f"assert isinstance(parse_config({MINIMAL!r}), DeployConfig)\n"
        "print([m for m in ('msgspec', 'difflib', 'pipeline.formats.toml_positions', 'esptool') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_timing_profiles_are_those_of_the_virtual_board() -> None:
    from pipeline.config.values import TIMINGS
    from virtualboard.timing import PROFILES

    assert tuple(PROFILES) == TIMINGS


def test_keys_without_the_name_of_their_table_are_told_what_to_write() -> None:
    failure = bad(MINIMAL.replace("[device.bench]", '[device]\nport = "virtual:"'))
    assert failure.hint == "write [device.NAME] for a name of your choice, and the keys below it"


def test_esp_idf_without_a_board_builds_for_this_machine() -> None:
    """Its target `linux` makes no firmware: what is missing must not be said of a directory that holds a whole build."""
    text = '[project]\nname = "hello"\n[toolchain]\nkind = "esp-idf"\n'
    config = parse_config(text, find_firmware=lambda _: pytest.fail("nobody needs any"))
    assert isinstance(config, DeployConfig), config
    assert config.is_ninja and not config.makes_firmware and config.devices == () and config.prebuilt == Prebuilt()
    board = text + '[device.bench]\nport = "virtual:"\n'
    found = parse_config(board, find_firmware=lambda section: FIRMWARE if section == Prebuilt("build") else None)
    assert isinstance(found, DeployConfig) and found.firmware == FIRMWARE and found.makes_firmware


@pytest.mark.parametrize(("kind", "by_ninja"), [("esp-idf", True), ("cmake", True), ("ninja", True), ("gcc", False)])
def test_what_builds_is_known_although_something_else_is_wrong(kind: str, by_ninja: bool) -> None:
    text = f'[project]\nname = "x"\n[toolchain]\nkind = "{kind}"\nno_such_key = 1\n'
    assert isinstance(parse_config(text), Failure)
    assert built_by_ninja(text) is by_ninja and built_by_ninja(f"{text}[[[") is False
