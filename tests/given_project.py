"""Projects around firmware that something else built: a directory with `deploy.toml`, `dodo.py` and a build."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests import given_firmware as given
from tests.e2e.space import Space

READY = {"esp32c3": "line:^entry 0x"}
NOT_EXECUTED = "line:firmware is not executed"
DODO = '"""Deploy."""\n\nfrom pipeline.tasks import *  # noqa: F403\n'
DIRECTORY = 'directory = "build"'

Layout = Callable[[Path, str], str]


def esp_idf(root: Path, chip: str) -> str:
    given.esp_idf(root / "build", chip)
    return DIRECTORY


def old_esp_idf(root: Path, chip: str) -> str:
    given.esp_idf(root / "build", chip, given.OLD_SPELLING, given.FACTORY)
    manifest = root / "build/flasher_args.json"
    document = json.loads(manifest.read_text())
    del document["flash_files"]["0xe000"]
    manifest.write_text(json.dumps(document))
    return DIRECTORY


def platformio(root: Path, chip: str) -> str:
    given.platformio(root / ".pio/build/desk", chip)
    return 'directory = ".pio/build/desk"'


def files(root: Path, chip: str) -> str:
    images = {"b.bin": given.bootloader(chip), "t.bin": given.table(given.TWO_SLOTS), "a.bin": given.app(chip)}
    given.write(root / "bin", images)
    boot = hex(given.BOOT_OFFSETS[chip])
    return f'files = {{ {boot} = "bin/b.bin", 0x8000 = "bin/t.bin", 65536 = "bin/a.bin" }}'


def project(root: Path, chip: str, layout: Layout, until: str = "") -> Space:
    """A deploy of it is ready by `until`, or else by a line that the chip's ROM or the virtual board prints."""
    root.mkdir()
    (root / "dodo.py").write_text(DODO)
    section = layout(root, chip)
    until = until or READY.get(chip, NOT_EXECUTED)
    (root / "deploy.toml").write_text(given.config(section, readiness=until))
    return Space(root)


PACK = """
import sys
open(sys.argv[1], "wb").write(b"".join(open(path, "rb").read() for path in sys.argv[2:]))
"""
IMAGE = """
[[action]]
name = "pack"
argv = ["python", "tools/pack.py", "{out}", "{in}"]
inputs = ["web/*.html"]
outputs = ["build/web.bin"]

[image.web]
partition = "storage"
file = "build/web.bin"
"""


def with_web(space: Space) -> Space:
    for name, text in (("tools/pack.py", PACK), ("web/a.html", "<a>"), ("web/b.html", "<b>")):
        space.file(name).parent.mkdir(exist_ok=True)
        space.file(name).write_text(text)
    with space.file("deploy.toml").open("a") as config:
        config.write(IMAGE)
    return space
