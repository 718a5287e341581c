"""`[image] identity = "loaded"` in a build of ninja: a comment edit writes nothing, whichever driver builds."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.device.elf_store import ElfStore, identities
from pipeline.formats import elf
from tests.e2e.space import environment
from tests.e2e.test_ninja import EspLike
from tests.unit.ninja_space import NINJA

pytestmark = [
    pytest.mark.skipif(not shutil.which("cmake"), reason="CMake is not installed"),
    pytest.mark.skipif(not shutil.which("riscv64-unknown-elf-g++"), reason="no C++ compiler for RISC-V is installed"),
    pytest.mark.skipif(not NINJA, reason="ninja is not installed"),
    pytest.mark.long,
]
STAMP = "build/.bin_timestamp"
LOADED = '\n[image]\nidentity = "loaded"\n'


class LoadedSpace(EspLike):
    """The fixture with that key."""

    def __init__(self, path: Path, cache: Path) -> None:
        super().__init__(path, cache)
        config = path / "deploy.toml"
        config.write_text(config.read_text() + LOADED)

    def ninja(self) -> str:
        done = subprocess.run(
            [NINJA, "-C", str(self.path / "build")],
            env=environment(**self._own),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def image(self) -> bytes:
        return (self.path / "build/esp_like.bin").read_bytes()

    def named(self) -> str:
        """What the image calls its ELF file."""
        return self.image()[0xB0 : 0xB0 + 32].hex()

    def elf(self) -> bytes:
        return (self.path / "build/esp_like.elf").read_bytes()


def of_loaded(data: bytes) -> str:
    stripped = elf.strip(data)
    assert isinstance(stripped, bytes)
    return hashlib.sha256(stripped).hexdigest()


def comment(space: LoadedSpace, old: str, new: str) -> None:
    space.edit("firmware/core/text.c", f"#include {old}\n", f"#include {new}\n")


def test_a_comment_edit_writes_nothing_and_both_drivers_agree(tmp_path: Path) -> None:
    space = LoadedSpace(tmp_path / "one", tmp_path / "cache")
    first = space.deploy()
    assert (first.code, first.outcome) == (0, "full_flashed"), first.out + first.err
    before, image = space.elf(), space.image()
    assert space.named() == of_loaded(before) == first.report["readiness"]["app_elf_sha256"]
    assert len(space.left_for_ninja()) <= 4
    assert space.deploy().totals["bytes_written"] == 0

    # A line more moves every line number below it, and so the ELF file.
    comment(space, '"text.h"', '"text.h"\n// seen')
    edited = space.deploy()
    assert (edited.outcome, edited.totals["bytes_written"]) == ("verified_unchanged", 0), edited.out + edited.err
    assert space.elf() != before
    assert space.image() == image
    ran = space.actions()["executed"]
    assert "build/esp_like.elf" in ran
    assert not any(STAMP in name for name in ran), ran
    assert len(space.left_for_ninja()) <= 4, space.left_for_ninja()

    # ninja makes an image of its own, which names the whole file; ours comes back from the cache.
    comment(space, '"text.h"\n// seen', '"text.h"\n\n// seen twice')
    assert "esp_like.elf" in space.ninja()
    assert space.named() == hashlib.sha256(space.elf()).hexdigest()
    taken = space.deploy()
    assert (taken.outcome, taken.totals["bytes_written"]) == ("verified_unchanged", 0), taken.out + taken.err
    assert space.image() == image
    did = space.actions()
    both = {"loaded sections of build/esp_like.elf", "elf app"}  # side by side
    assert (set(did["executed"]), did["restored"]) == (both, [STAMP]), did
    assert len(space.left_for_ninja()) <= 4, space.left_for_ninja()

    # By whichever name a board calls it, the file is found.
    kept = ElfStore(space.path, space.path / ".deploy", tmp_path / "cache/hotplate")
    for name in identities(space.elf()):
        found = kept.find(name)
        assert found is not None
        assert found.data == space.elf()
