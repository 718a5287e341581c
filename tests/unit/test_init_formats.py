"""What the files of other build systems say about a project (`formats/projects.py`), by literal texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chips import CHIPS
from pipeline.formats import projects
from pipeline.formats.projects import PlatformioEnv

IDF = """\
# The following lines of boilerplate have to be in your project's CMakeLists
cmake_minimum_required(VERSION 3.16)
include($ENV{IDF_PATH}/tools/cmake/project.cmake)
project(hello_world)
"""


@pytest.mark.parametrize(
    ("text", "is_idf", "name"),
    [
        (IDF, True, "hello_world"),
        (IDF.replace("include(", "include( "), True, "hello_world"),
        (
            IDF.replace("$ENV{IDF_PATH}/", '"$ENV{IDF_PATH}/').replace("project.cmake)", 'project.cmake")'),
            True,
            "hello_world",
        ),
        (IDF.replace("tools/cmake/project.cmake", "tools/cmakev2/idf.cmake"), True, "hello_world"),
        (IDF.replace("include(", "# include("), False, "hello_world"),
        (IDF.replace("include(", "#[[ include(").replace("project(", "]]\nproject("), False, "hello_world"),
        ('project("two" LANGUAGES C)', False, "two"),
        ("PROJECT (three C CXX)", False, "three"),
        ("project(${NAME})", False, ""),
        ("idf_component_register(SRCS main.c)", False, None),
        ("# project(four)", False, None),
        ("", False, None),
    ],
)
def test_cmake(text: str, is_idf: bool, name: str | None) -> None:
    assert (projects.is_esp_idf(text), projects.cmake_project(text)) == (is_idf, name)


def test_target_of_esp_idf() -> None:
    assert projects.idf_target('# a\nCONFIG_IDF_TARGET="esp32c3"\nCONFIG_IDF_TARGET_ESP32C3=y\n') == "esp32c3"
    assert projects.idf_target("", 'CONFIG_IDF_TARGET="linux"\n') == "linux"
    assert projects.idf_target('CONFIG_IDF_TARGET="esp32"', 'CONFIG_IDF_TARGET="linux"') == "esp32"
    assert projects.idf_target("# CONFIG_IDF_TARGET is not set\n") == ""


INI = """\
; PlatformIO Project Configuration File
[platformio]
default_envs = desk

[env]
framework = arduino

[common]
platform = espressif32 @ 6.9.0

[env:uno]
platform = atmelavr
board = uno

[env:other]
extends = common
board = esp32dev ; the usual one

[env:desk]
platform = espressif32
board = seeed_xiao_esp32c3
framework = espidf, arduino
"""


def test_environments_of_platformio() -> None:
    assert projects.platformio_envs(INI) == (
        PlatformioEnv("desk", "esp32c3", True),
        PlatformioEnv("other", "esp32", False),
    )
    turned = INI.replace("default_envs = desk", "default_envs = other, desk")
    assert [env.name for env in projects.platformio_envs(turned) or ()] == ["other", "desk"]
    assert projects.platformio_envs("[env:uno]\nplatform = atmelavr\n") == ()
    assert projects.platformio_envs("[platformio]\n") is None
    assert projects.platformio_envs("no ini at all") is None
    loop = "[env:a]\nextends = b\n[b]\nextends = b\n"
    assert projects.platformio_envs(loop) == ()


@pytest.mark.parametrize(
    ("text", "board"),
    [
        ("default_fqbn: esp32:esp32:esp32c3\n", "esp32:esp32:esp32c3"),
        ('default_fqbn: "esp32:esp32:esp32s3"  # desk\n', "esp32:esp32:esp32s3"),
        (
            "profiles:\n  one:\n    fqbn: e:e:esp32\n  two:\n    fqbn: e:e:esp32c6\ndefault_profile: two\n",
            "e:e:esp32c6",
        ),
        ("profiles:\n  one:\n    fqbn: esp32:esp32:lolin_c3_mini\n", "esp32:esp32:lolin_c3_mini"),
        ("default_profile: gone\n", ""),
        ("", ""),
    ],
)
def test_board_of_a_sketch(text: str, board: str) -> None:
    assert projects.sketch_board(text) == board


@pytest.mark.parametrize(
    ("board", "chip"),
    [
        ("esp32-s3-devkitc-1", "esp32s3"),
        ("esp32dev", "esp32"),
        ("esp32cam", "esp32"),
        ("XIAO_ESP32C3", "esp32c3"),
        ("lolin_c3_mini", "esp32c3"),
        ("lolin_s2_mini", "esp32s2"),
        ("esp32-c61-devkitc1", "esp32c61"),
        ("esp32:esp32:esp32h2", "esp32h2"),
        ("esp32:esp32:esp32", "esp32"),
        ("m5stack-core-esp32", "esp32"),
        ("uno", ""),
        ("", ""),
    ],
)
def test_chip_of_a_board(board: str, chip: str) -> None:
    assert projects.chip_in(board) == chip


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    projects.is_esp_idf(text)
    projects.cmake_project(text)
    projects.idf_target(text)
    projects.sketch_board(text)
    for env in projects.platformio_envs(text) or ():
        assert env.chip in ("", *CHIPS)


def test_every_chip_is_told_by_its_own_name() -> None:
    assert [projects.chip_in(chip) for chip in CHIPS] == list(CHIPS)
    assert [projects.chip_in(f"{chip[:5]}-{chip[5:]}-devkit") for chip in CHIPS] == list(CHIPS)
