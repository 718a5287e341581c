"""Since when a path leads to what it leads to: mtimes that are set back, links, and directories that are renamed."""

from __future__ import annotations

import os
from pathlib import Path

from cache.fileclock import filesystem_now_ns
from cache.stamps import next_tick
from pipeline.engine.file_times import FileTimes


def _came(path: Path) -> int:
    return FileTimes().came_ns(str(path))


def _now() -> int:
    next_tick()
    now = filesystem_now_ns()
    next_tick()
    return now


def test_a_file_that_was_written_and_one_whose_mtime_was_set_back(tmp_path: Path) -> None:
    path = tmp_path / "a/b"
    path.parent.mkdir()
    path.write_text("one")
    assert _came(path) == path.stat().st_mtime_ns
    before = _now()
    assert _came(path) < before
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert _came(path) > before


def test_names_that_come_and_go_beside_it_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    before = _now()
    (tmp_path / "b").write_text("")
    (tmp_path / "b").unlink()
    assert _came(path) < before


def test_links_and_what_they_lead_over(tmp_path: Path) -> None:
    old, path, over = tmp_path / "dir/old", tmp_path / "link", tmp_path / "over"
    old.parent.mkdir()
    old.write_text("one")
    over.symlink_to("dir")
    path.symlink_to("over/old")
    before = _now()
    assert 0 < _came(path) < before
    over.unlink()
    over.symlink_to("dir")
    assert _came(path) > before
    before = _now()
    (tmp_path / "dir").rename(tmp_path / "there")
    assert _came(path) == 0
    (tmp_path / "there").rename(tmp_path / "dir")
    assert _came(path) > before


def test_a_directory_above_that_was_renamed(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c"
    path.parent.mkdir(parents=True)
    path.write_text("one")
    before = _now()
    (tmp_path / "a").rename(tmp_path / "other")
    assert _came(tmp_path / "other/b/c") > before


def test_nothing_a_circle_and_a_file_in_the_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    (tmp_path / "file").write_text("")
    assert _came(tmp_path / "none/at/all") == _came(tmp_path / "x") == _came(tmp_path / "file/below") == 0
