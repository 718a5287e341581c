"""A runner's question whether the code on disk is what it has loaded: every way to change it, and what is looked at."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("inotify is Linux's", allow_module_level=True)

from pipeline.effects.inotify import Inotify, MountTable
from pipeline.service import code_watch
from pipeline.service.code_watch import LoadedCode, code_paths
from pipeline.service.path_watch import PathWatch


class Code:
    """Two modules, a directory of modules, and a place where there is none."""

    def __init__(self, root: Path, *, watched: bool) -> None:
        self.root = root / "site"
        self.root.mkdir()
        self.one, self.two, self.none = (self.root / name for name in ("one.py", "two.py", "none.py"))
        self.one.write_text("1")
        self.two.write_text("2")

        def make() -> PathWatch:
            if not watched:
                raise OSError("no inotify here")
            return PathWatch(Inotify())

        self.loaded = LoadedCode(map(str, (self.one, self.two, self.none, self.root)), make)


@pytest.fixture(params=[True, False], ids=["watched", "looked at"])
def code(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Code]:
    made = Code(tmp_path, watched=request.param)
    yield made
    made.loaded.let_go()


def edited(code: Code) -> None:
    code.one.write_text("3")


def edited_with_its_old_time(code: Code) -> None:
    before = code.one.stat()
    code.one.write_text("3")
    os.utime(code.one, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(code: Code) -> None:
    (code.root.parent / "new").write_text("3")
    (code.root.parent / "new").replace(code.two)


def removed(code: Code) -> None:
    code.two.unlink()


def came(code: Code) -> None:
    code.none.write_text("0")


def installed(code: Code) -> None:
    (code.root / "more").mkdir()


def another_directory(code: Code) -> None:
    code.root.rename(code.root.parent / "old")
    code.root.mkdir()


CHANGES = [edited, edited_with_its_old_time, replaced, removed, came, installed, another_directory]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_seen_at_the_next_question(code: Code, change: Callable[[Code], None]) -> None:
    assert code.loaded.is_as_loaded()
    change(code)
    assert not code.loaded.is_as_loaded()
    code.loaded.watch()
    assert not code.loaded.is_as_loaded(), "and stays seen"


def test_what_is_watched_is_not_looked_at(tmp_path: Path) -> None:
    code = Code(tmp_path, watched=True)
    looked = code.loaded.looked
    (tmp_path / "beside").write_text("")
    code.one.read_text()
    assert all(code.loaded.is_as_loaded() for _ in range(3)) and code.loaded.looked == looked
    code.loaded.let_go()
    assert code.loaded.is_as_loaded() and code.loaded.looked == looked + 1
    code.loaded.watch()
    assert code.loaded.is_as_loaded() and code.loaded.looked == looked + 2
    code.loaded.let_go()


@pytest.mark.parametrize("what", ["mounts", "sleep", "queue"])
def test_after_what_notifications_do_not_tell_each_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    code = Code(tmp_path, watched=True)
    looked = code.loaded.looked
    if what == "mounts":
        monkeypatch.setattr(MountTable, "changed", lambda _: frozenset([os.fsencode(code.root)]))
    elif what == "sleep":
        monkeypatch.setattr(code_watch, "slept_s", lambda: 1e9)
    else:
        monkeypatch.setattr("pipeline.effects.inotify.MOST_BYTES", 0)
    assert code.loaded.is_as_loaded() and code.loaded.looked == looked + 1
    code.loaded.let_go()


def test_what_cannot_be_watched_is_tried_a_few_times(tmp_path: Path) -> None:
    code = Code(tmp_path, watched=False)
    for _ in range(2 * code_watch.MOST_TRIES):
        code.loaded.watch()
    assert code.loaded._tries == 0 and code.loaded.is_as_loaded()


def test_all_of_our_code_is_watched() -> None:
    found = code_paths()
    assert code_watch.__file__ in found and pytest.__file__ in found
