"""Saves that are found by looking: every kind of them, in one tick of the clock too, whatever happens to the set."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.effects.file_events import DirectoryWatcher
from pipeline.effects.polled_directories import PolledDirectories

DEADLINE_S = 120.0
POLL_S = 0.005


class PolledReports:
    """What was reported, in its order."""

    def __init__(self, *directories: Path) -> None:
        self.all: list[frozenset[str]] = []
        self._news = threading.Condition()
        self.polled = PolledDirectories(self._take, POLL_S)
        self.polled.watch([str(path) for path in directories])

    def _take(self, paths: frozenset[str]) -> None:
        with self._news:
            self.all.append(paths)
            self._news.notify_all()

    def until(self, *paths: Path, times: int = 1) -> None:
        """Each of these was reported so often."""
        with self._news:
            for path in paths:
                enough = self._news.wait_for(lambda path=path: self.count(path) >= times, DEADLINE_S)  # type: ignore[misc]
                assert enough, (path, self.all)

    def count(self, path: Path) -> int:
        return sum(str(path) in paths for paths in self.all)

    def end(self) -> None:
        self.polled.close()
        self.polled.close()
        self.polled._thread.join(DEADLINE_S)
        assert not self.polled._thread.is_alive()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "src/below").mkdir(parents=True)
    (tmp_path / "src/a.c").write_text("int a;\n")
    return tmp_path / "src"


@pytest.fixture
def reports(place: Path) -> Iterator[PolledReports]:
    made = PolledReports(place)
    yield made
    made.end()


def replaced_with_the_same_time(path: Path) -> None:
    status = path.stat()
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(path.read_bytes())
    os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
    temporary.replace(path)


def written_with_the_same_time(path: Path) -> None:
    status = path.stat()
    path.write_text("int c;\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


SAVES: dict[str, Callable[[Path], object]] = {
    "written": lambda path: path.write_text("int b;\n"),
    "of the same size and time": written_with_the_same_time,
    "replaced": replaced_with_the_same_time,
    "touched": os.utime,
    "removed": Path.unlink,
    "another mode": lambda path: path.chmod(0o600),
}


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
def test_each_kind_of_save(place: Path, reports: PolledReports, save: Callable[[Path], object]) -> None:
    save(place / "a.c")
    reports.until(place / "a.c", times=2)


def test_what_comes_is_renamed_and_becomes_a_directory(place: Path, reports: PolledReports) -> None:
    (place / "b.c").write_text("int b;\n")
    reports.until(place / "b.c")
    (place / "b.c").rename(place / "c.c")
    reports.until(place / "b.c", times=3)
    reports.until(place / "c.c")
    (place / "c.c").unlink()
    (place / "c.c").mkdir()
    reports.until(place / "c.c", times=3)


def test_a_change_is_reported_twice_and_what_lies_below_is_not(place: Path, reports: PolledReports) -> None:
    """The second time is for what came in the tick of the first. What came last ends the test."""
    (place / "below/x.c").write_text("int x;\n")
    (place / "a.c").write_text("int b;\n")
    reports.until(place / "a.c", times=2)
    (place / "z.c").write_text("int z;\n")
    reports.until(place / "z.c", times=2)
    reports.end()
    assert reports.count(place / "a.c") == 2
    assert reports.count(place / "below") == reports.count(place / "below/x.c") == 0


def test_a_directory_that_is_replaced_or_goes(place: Path, reports: PolledReports) -> None:
    place.rename(place.with_name("away"))
    reports.until(place, place / "a.c")
    place.mkdir()
    reports.until(place, times=3)


def test_another_set_loses_nothing(place: Path, tmp_path: Path) -> None:
    """Of a look every two minutes: only what `watch` and `close` do."""
    found: list[frozenset[str]] = []
    polled = PolledDirectories(found.append, DEADLINE_S)
    polled.watch([str(place), str(tmp_path / "not there")])
    (place / "a.c").write_text("int b;\n")
    polled.watch([str(place / "below")])
    (place / "a.c").write_text("not watched any more\n")
    (place / "below/x.c").write_text("int x;\n")
    polled.close()
    polled._thread.join(DEADLINE_S)
    assert found == [{str(place / "a.c"), str(place / "below/x.c")}]


@pytest.mark.parametrize("moved_ns", [1, -(10**10)])
def test_a_watch_that_polls_sees_each_time_of_a_file(place: Path, moved_ns: int) -> None:
    """`watchfiles` sees neither two saves of one second nor an older file that is put back."""
    found = threading.Event()
    watcher = DirectoryWatcher(lambda paths: found.set() if str(place / "a.c") in paths else None, poll=True)
    second_ns = time.time_ns() // 10**9 * 10**9
    os.utime(place / "a.c", ns=(second_ns, second_ns))
    watcher.watch([str(place)])
    os.utime(place / "a.c", ns=(second_ns, second_ns + moved_ns))
    assert found.wait(DEADLINE_S)
    watcher.close()


def test_who_may_not_list_a_directory_hears_of_nothing_in_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> Iterator[os.DirEntry[str]]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)
    made = PolledReports(place)
    (place / "a.c").write_text("int b;\n")
    made.end()
    assert made.all == []
