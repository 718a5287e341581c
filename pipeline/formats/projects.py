"""What the files of other people's build systems say about a project: its name, its chip, its environments.

Texts in, facts out. Does not know which files exist or what is done with the facts. Invariant: a text that cannot be
understood says nothing; it never raises.

Sources: ESP-IDF's guide of its build system, PlatformIO's `platformio.ini` reference, arduino-cli's sketch
project file.
"""

from __future__ import annotations

import configparser
import re

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS

LINUX = "linux"
"""ESP-IDF's target that is a program for this machine."""


class FoundProject(NamedTuple):
    """One thing that can be built or deployed. `kind`: `esp-idf`, `platformio`, `arduino`, `cmake`, `ninja` or
    `prebuilt`; `place`: its directory or file, relative to the project's root (`.`: the root itself); `because`: what
    says so. `chip`: `""` where nothing says which. `of`: what builds it there (an environment, a board, an archive's
    kind); `others`: what could stand in place of `of`."""

    kind: str
    place: str
    because: str
    name: str = ""
    chip: str = ""
    of: str = ""
    others: tuple[str, ...] = ()


# --- CMake and ESP-IDF ------------------------------------------------------------------------


_BRACKET = re.compile(r"#\[(=*)\[.*?\]\1\]", re.DOTALL)
_COMMENT = re.compile(r"#[^\n]*")
_IDF = re.compile(
    r"\binclude\s*\(\s*[\"']?(?:\$ENV\{IDF_PATH\}[^)\s]*\.cmake|[^)\s]*tools/cmake(?:v2)?/(?:project|idf)\.cmake)", re.I
)
_PROJECT = re.compile(r"^\s*project\s*\(\s*[\"']?([^\s\"')]+)", re.I | re.M)


def without_comments(text: str) -> str:
    """A `CMakeLists.txt` without what CMake does not read."""
    return _COMMENT.sub("", _BRACKET.sub("", text))


def is_esp_idf(text: str) -> bool:
    """Is this the `CMakeLists.txt` of an ESP-IDF project: does it include ESP-IDF's own?"""
    return _IDF.search(without_comments(text)) is not None


def cmake_project(text: str) -> str | None:
    """The name of the project that a `CMakeLists.txt` declares, `""` where it is computed; None where it declares none
    (then it belongs to something above it)."""
    found = _PROJECT.search(without_comments(text))
    return None if found is None else found[1] if "$" not in found[1] else ""


def idf_target(*configs: str) -> str:
    """What the first of these texts (`sdkconfig`, `sdkconfig.defaults`) that says something builds for; `""`: none
    does."""
    for text in configs:
        found = re.search(r'^CONFIG_IDF_TARGET="([a-z0-9]+)"', text, re.M)
        if found:
            return found[1]
    return ""


# --- PlatformIO -------------------------------------------------------------------------------


class PlatformioEnv(NamedTuple):
    """One environment for the ESP32 family. `esp_idf`: its framework is (or has) ESP-IDF, whose `CMakeLists.txt` then
    lies beside `platformio.ini`."""

    name: str
    chip: str
    esp_idf: bool


def platformio_envs(text: str) -> tuple[PlatformioEnv, ...] | None:
    """The environments of a `platformio.ini` that build for ESP32 chips, those of `default_envs` first; None where the
    text cannot be read, or has no environment at all."""
    ini = configparser.RawConfigParser(strict=False, allow_no_value=True, inline_comment_prefixes=(";", "#"))
    try:
        ini.read_string(text)
    except (configparser.Error, ValueError):
        return None
    names = [section.removeprefix("env:") for section in ini.sections() if section.startswith("env:")]
    if not names:
        return None
    wanted = re.split(r"[,\s]+", (ini.get("platformio", "default_envs", fallback="") or "").strip())
    names.sort(key=lambda name: wanted.index(name) if name in wanted else len(wanted))
    return tuple(env for name in names if (env := _platformio_env(ini, name)) is not None)


def _platformio_env(ini: configparser.RawConfigParser, name: str) -> PlatformioEnv | None:
    def said(key: str, section: str = f"env:{name}", depth: int = 0) -> str:
        own = ini.get(section, key, fallback=None)
        if own:
            return own
        bases = re.split(r"[,\s]+", (ini.get(section, "extends", fallback="") or "").strip())
        for base in filter(None, bases) if depth < 10 else ():
            if found := said(key, base, depth + 1):
                return found
        return "" if depth else ini.get("env", key, fallback="") or ""

    if "espressif32" not in (platform := said("platform")) and "$" not in platform:
        return None
    return PlatformioEnv(
        name, chip_in(said("board_build.mcu")) or chip_in(said("board")), "espidf" in said("framework")
    )


# --- Arduino ----------------------------------------------------------------------------------


def sketch_board(text: str) -> str:
    """The board (FQBN) that a `sketch.yaml` names: its default, else that of its default profile, else the first."""

    def value(key: str, within: str) -> str:
        found = re.search(rf"^\s*{key}:\s*[\"']?([^\s\"'#]+)", within, re.M)
        return found[1] if found else ""

    profile = value("default_profile", text)
    start = re.search(rf"^\s+{re.escape(profile)}:\s*$", text, re.M) if profile else None
    return value("default_fqbn", text) or value("fqbn", text[start.end() :] if start else text)


# --- chips ------------------------------------------------------------------------------------


_SHORT = re.compile(r"(?:^|[^a-z0-9])([schp]\d{1,2})(?:[^a-z0-9]|$)")


def chip_in(board: str) -> str:
    """The chip that the name of a board tells (`esp32-s3-devkitc-1`, `XIAO_ESP32C3`, `lolin_c3_mini`, the last part of
    an FQBN); `""` where it tells none."""
    name = board.rpartition(":")[2].lower()
    joined = re.sub(r"[-_ ]", "", name)
    known = [chip for chip in CHIPS if chip in joined]
    short = _SHORT.search(name)
    by_suffix = f"esp32{short[1]}" if short else ""
    best = max(known, key=len, default="")
    return by_suffix if best in ("", "esp32") and by_suffix in CHIPS else best
