"""The actions of a manifest that were kept: believed while the manifest says what it said, and not a byte longer."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cache.fileclock import FileClock
from cache.stamps import next_tick
from pipeline.fastpath import stamp_of
from pipeline.model import Action, Stage, Statement, Tool
from pipeline.toolchain import ninja_kept
from pipeline.toolchain.ninja_kept import KeptActions

SAID = ("root", 2, "meant", "/bin", (None,))


class KeptSpace:
    """A manifest, a tool and what was made of them."""

    def __init__(self, root: Path) -> None:
        self.state, self.manifest, self.tool = root, root / "build.ninja", root / "cc"
        self.manifest.write_text("rule cc\n")
        self.tool.write_text("program\n")
        statement = Statement("out", ("a.o",), "cc a.c")
        action = Action("a.o", Stage.COMPILE, ("a.c",), ("a.o",), ("cc:", "a.c"), statement=statement)
        files, absent = (str(self.manifest), str(self.tool)), (str(root / "missing"),)
        probes = {str(root / "a.c"): False}
        tools = {"cc:": Tool("cc:", "/bin/cc", "", "1")}
        contents = {str(self.manifest): hashlib.sha256(b"rule cc\n").hexdigest()}
        self.read = KeptActions((action,), tools, files, (str(self.manifest),), absent, probes, contents)
        next_tick()
        self.kept = ninja_kept.save(self.state, SAID, self.read)

    def load(self) -> KeptActions | None:
        return ninja_kept.load(self.state, SAID)


@pytest.fixture
def space(tmp_path: Path) -> KeptSpace:
    return KeptSpace(tmp_path)


def test_what_was_kept_is_what_was_read(space: KeptSpace) -> None:
    found = space.load()
    assert found == space.kept and ninja_kept.load(space.state, (*SAID, "more")) is None


def test_a_manifest_that_was_written_again_as_it_was_is_not_read(space: KeptSpace) -> None:
    text = space.manifest.read_text()
    space.manifest.unlink()
    assert space.load() is None
    space.manifest.write_text(text)
    next_tick()
    found = space.load()
    assert found == space.read._replace(stamps={str(space.manifest): stamp_of(space.manifest.stat())})


def test_the_stamp_of_a_manifest_is_told_if_a_change_would_move_it(
    space: KeptSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert space.kept.stamps == {str(space.manifest): stamp_of(space.manifest.stat())}
    space.manifest.write_text(space.manifest.read_text())
    monkeypatch.setattr(FileClock, "is_past", lambda *_: False)
    assert space.load() == space.read


def test_a_manifest_that_was_written_after_it_was_read_is_not_kept(space: KeptSpace) -> None:
    space.manifest.write_text("rule ld\n")
    next_tick()
    assert ninja_kept.save(space.state, SAID, space.read) == space.read
    assert space.load() is None


def test_another_manifest_of_the_same_size_and_time_is_read(space: KeptSpace) -> None:
    before = space.manifest.stat()
    space.manifest.write_text("rule ld\n")
    os.utime(space.manifest, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert space.load() is None


def test_of_a_tool_the_stamp_counts(space: KeptSpace) -> None:
    space.tool.touch()
    assert space.load() is None


@pytest.mark.parametrize("name", ["a.c", "missing"])
def test_what_came_meanwhile_is_asked_about(space: KeptSpace, name: str) -> None:
    (space.state / name).touch()
    assert space.load() is None


def test_a_manifest_that_is_no_file_any_more_is_read(space: KeptSpace) -> None:
    space.manifest.unlink()
    space.manifest.mkdir()
    assert space.load() is None
