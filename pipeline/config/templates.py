"""The first `deploy.toml` of a project, with comments that say what to change.

Facts in, text out. Does not know files: which facts hold, `cli/init_look.py` finds out. Invariant: a text from here is
read by `reader.py` without a mistake.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

from pipeline.chips import CHIPS
from pipeline.config.values import DESCRIPTOR_TEXT_MAX
from pipeline.formats.projects import LINUX, FoundProject

ARDUINO_BUILD = "build/arduino"
DODO = '"""Build and deploy."""\n\nfrom pipeline.tasks import *\n'

SMALLEST = """\
[project]
name = "blink"
sources = ["src/*.c"]

[toolchain]
linker_script = "src/app.ld"

[bootloader]
sources = ["boot/*.c"]
linker_script = "boot/boot.ld"

[profile.local-fast]
cflags = ["-O1"]

[partitions]
table = "partitions.csv"

[device.bench]
port = "virtual:"
"""
"""A project that Hotplate itself compiles, as docs/deploy-toml.md shows it."""

_HEAD = """\
# What Hotplate knows of this project; docs/deploy-toml.md explains every key. Made by `doit init`, because
# {because}.
# `doit doctor` says whether a deploy can work, `doit deploy` does it.

[project]
name = {name}

"""

_DEVICE = """
[device.bench]
port = "virtual:"               # a board inside this machine: it needs no hardware
default = true

# A real board: remove the `# ` before these lines, and move `default = true` here.
# [device.desk]
# port = "auto"                 # the one board that is plugged in; or "/dev/ttyUSB0", "COM3", "rfc2217://host:port"
# mac = "7c:df:a1:00:11:22"     # no other board is ever written by mistake; `doit devices:discover` tells it
# baud = 921600

[readiness]
{until}
timeout_ms = 10000
"""

_HOST_ONLY = """
# It is a program for this machine, so there is no [device.NAME] and `doit deploy` ends with stage link.
"""


def template(found: FoundProject) -> str:
    """The text of `deploy.toml` for what was found."""
    head = _HEAD.format(because=_comment(found.because), name=toml_string(_name(found.name)))
    return head + _BODIES[found.kind](found)


def toml_string(text: str) -> str:
    """`text` as a basic string of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name(name: str) -> str:
    """One that an app descriptor has room for."""
    cut = _comment(name).encode("utf-8", "replace")[:DESCRIPTOR_TEXT_MAX].decode("utf-8", "ignore").strip()
    return cut or "firmware"


def _comment(text: str) -> str:
    """What may stand in a comment: one line, in printable characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


EXECUTED = "esp32c3"
"""The chip whose virtual board executes what is in its flash; the others say that they do not."""


def _device(chip: str, line: str = "") -> str:
    """The board, and what makes it ready: `line` (of the log of a firmware that is known to say it), else its first
    byte; a virtual board that executes nothing says so."""
    if line:
        until = f"until = {toml_string(f'line:{line}|not executed')}"
        return _DEVICE.format(until=f"{until}   # virtual boards other than the ESP32-C3 execute nothing")
    if chip == EXECUTED:
        return _DEVICE.format(
            until='until = "byte"   # the device said something; better: "line:" and a line of its log'
        )
    until = 'until = "line:not executed"   # what a virtual board says that executes nothing (all but the ESP32-C3)'
    return _DEVICE.format(until=f'{until}\n# until = "byte"   # of a real board; better: "line:" and a line of its log')


_NINJA = """\
# The statements of its build.ninja, through our engine and cache: docs/ninja.md
[toolchain]
kind = "{kind}"

[ninja]
directory = {directory}
"""
_FIRMWARE = """\
# If it makes firmware, say which of its files goes where in flash, and to which board:
# [prebuilt]
# files = { 0x0 = "build/bootloader.bin", 0x8000 = "build/partitions.bin", 0x10000 = "build/app.bin" }
# [device.bench]
# port = "virtual:"
"""
_GIVEN = """\
# {maker}: docs/prebuilt.md
[toolchain]
kind = "prebuilt"
"""


def _esp_idf(found: FoundProject) -> str:
    text = _NINJA.format(kind="esp-idf", directory='"build"')
    text += "# Where there is no build.ninja yet, `idf.py reconfigure` makes it.\n"
    return text + (_HOST_ONLY if found.chip == LINUX else _device(found.chip, "Calling app_main"))


def _cmake(found: FoundProject) -> str:
    del found
    text = _NINJA.format(kind="cmake", directory='"build"') + "# targets = []   # empty: the defaults of the build\n"
    text += '\n[cmake]\narguments = ["-DCMAKE_BUILD_TYPE=RelWithDebInfo"]\n'
    return f'{text}# toolchain_file = "cmake/riscv.cmake"\n{_HOST_ONLY}{_FIRMWARE}'


def _ninja(found: FoundProject) -> str:
    text = _NINJA.format(kind="ninja", directory=toml_string(found.place))
    text += "# targets = []   # empty: the defaults of the build\n"
    text += '# configure = ["meson", "setup", "build"]   # what makes build.ninja where there is none\n'
    return f"{text}{_HOST_ONLY}{_FIRMWARE}"


def _platformio(found: FoundProject) -> str:
    text = _GIVEN.format(maker="PlatformIO builds it, and what it built is deployed") + "\n[prebuilt]\n"
    if found.others:
        text += f"# Other environments: {_comment(', '.join(found.others))}\n"
    text += f'build = ["pio", "run", "-e", {toml_string(found.of)}]\n'
    return text + f"directory = {toml_string(f'.pio/build/{found.of}')}\n" + _device(found.chip)


def _arduino(found: FoundProject) -> str:
    directory, _, sketch = found.place.rpartition("/")
    boot = CHIPS[found.chip or "esp32"].bootloader_offset
    places = {boot: f"{sketch}.bootloader.bin", 0x8000: f"{sketch}.partitions.bin", 0x10000: f"{sketch}.bin"}
    board = ["--fqbn", found.of or "esp32:esp32:esp32"]
    words = ["arduino-cli", "compile", *board, "--output-dir", ARDUINO_BUILD, directory or "."]
    text = _GIVEN.format(maker="arduino-cli builds it, and what it built is deployed") + "\n[prebuilt]\n"
    if not found.of:
        text += "# Put in your board after --fqbn: nothing here says which it is. `arduino-cli board list` may.\n"
    text += f"build = [{', '.join(map(toml_string, words))}]\n"
    text += "# The bootloader lies at 0x1000 on ESP32 and S2, at 0x2000 on C5 and P4, else at 0x0.\n[prebuilt.files]\n"
    for offset, name in places.items():
        text += f"{offset:#x} = {toml_string(f'{ARDUINO_BUILD}/{name}')}\n"
    return text + _device(found.chip)


def _prebuilt(found: FoundProject) -> str:
    text = _GIVEN.format(maker="It is deployed as it is")
    if found.others:
        text += f"chip = {toml_string(found.chip)}   # or {_comment(', '.join(found.others))}\n"
    text += "\n[prebuilt]\n"
    if found.of == "directory":
        text += f"directory = {toml_string(found.place)}\n"
    else:
        text += f"files = {{ 0x0 = {toml_string(found.place)} }}\n"
    return text + '# build = ["make"]   # what builds it, run before each deploy\n' + _device(found.chip)


_BODIES: Mapping[str, Callable[[FoundProject], str]] = MappingProxyType(
    {
        "esp-idf": _esp_idf,
        "platformio": _platformio,
        "arduino": _arduino,
        "cmake": _cmake,
        "ninja": _ninja,
        "prebuilt": _prebuilt,
    }
)
KINDS = tuple(_BODIES)
