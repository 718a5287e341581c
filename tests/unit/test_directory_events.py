"""Saves as the kernel tells them: which are one burst, and what is reported whatever happens to the directories."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("inotify is Linux's", allow_module_level=True)

from pipeline.effects import directory_events
from pipeline.effects.directory_events import DirectoryEvents
from pipeline.effects.inotify import CLOSE_WRITE, CREATE, ISDIR, MODIFY, MOVED_TO, OVERFLOW, InotifyEvent

DEADLINE_S = 120.0


class SeenBursts:
    """Bursts of one directory, in their order."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.bursts: list[frozenset[str]] = []
        self._news = threading.Condition()
        self.events = DirectoryEvents(self._take)
        self.events.watch([str(place)])

    def _take(self, paths: frozenset[str]) -> None:
        with self._news:
            self.bursts.append(paths)
            self._news.notify_all()

    def until(self, found: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(found, DEADLINE_S), self.bursts

    def until_path(self, path: Path) -> None:
        self.until(lambda: any(str(path) in burst for burst in self.bursts))


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SeenBursts]:
    # A machine that is busy may need longer than an editor does: what is one burst is what is tested.
    monkeypatch.setattr(directory_events, "SETTLED_S", 0.3)
    monkeypatch.setattr(directory_events, "QUIET_S", 20.0)
    monkeypatch.setattr(directory_events, "LONGEST_S", 20.0)
    (tmp_path / "src").mkdir()
    made = SeenBursts(tmp_path / "src")
    yield made
    made.events.close()
    made.events._thread.join(DEADLINE_S)
    assert not made.events._thread.is_alive()


def in_place(path: Path) -> None:
    path.write_text("saved\n")


def by_renaming(path: Path) -> None:
    path.with_name("file~").write_text("saved\n")
    path.with_name("file~").chmod(0o640)
    path.with_name("file~").replace(path)


def with_a_backup(path: Path) -> None:
    path.touch()
    path.rename(path.with_name("file~"))
    path.write_text("saved\n")
    path.chmod(0o600)
    path.with_name("file~").unlink()


@pytest.mark.parametrize("save", [in_place, by_renaming, with_a_backup], ids=lambda save: save.__name__)
def test_a_save_is_one_burst_that_ends_with_it(
    reported: SeenBursts, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path], None]
) -> None:
    """Nobody may still write, so that no long quiet is waited for."""
    monkeypatch.setattr(directory_events, "SETTLED_S", 2.0)  # what a save is interrupted for on a busy machine
    save(reported.place / "a.c")
    reported.until(lambda: bool(reported.bursts))
    assert len(reported.bursts) == 1 and str(reported.place / "a.c") in reported.bursts[0]


def test_a_file_that_is_still_written_is_waited_for(reported: SeenBursts) -> None:
    with (reported.place / "a.c").open("w") as stream:
        stream.write("half")
        stream.flush()
        time.sleep(0.5)  # longer than a burst lasts that is over
        assert not reported.bursts
    reported.until(lambda: bool(reported.bursts))


def test_a_file_that_nobody_closes_is_reported_after_a_while(
    reported: SeenBursts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_events, "QUIET_S", 0.01)
    with (reported.place / "a.c").open("w") as stream:
        stream.write("half")
        stream.flush()
        reported.until_path(reported.place / "a.c")


def test_writing_without_end_is_reported_at_the_latest(reported: SeenBursts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_events, "LONGEST_S", 0.1)
    end_s = time.monotonic() + DEADLINE_S
    while not reported.bursts and time.monotonic() < end_s:
        (reported.place / "a.c").touch()
        (reported.place / "a.c").unlink()
    assert reported.bursts


def test_who_opens_a_file_and_writes_nothing_has_saved_nothing(reported: SeenBursts) -> None:
    (reported.place / "a.c").write_text("saved\n")
    reported.until(lambda: bool(reported.bursts))
    os.close(os.open(reported.place / "a.c", os.O_RDWR))
    (reported.place / "b.c").touch()
    reported.until_path(reported.place / "b.c")
    assert str(reported.place / "a.c") not in reported.bursts[-1]


def store_through_a_mapping(path: Path, cut_off: Callable[[], None] | None = None) -> None:
    """`cut_off`: is called when the file was emptied and has its length again."""
    with path.open("r+b") as stream:
        if cut_off is not None:
            stream.truncate(0)
            stream.truncate(5)
            cut_off()
        with mmap.mmap(stream.fileno(), 5) as mapped:
            mapped[:] = b"saved"


@pytest.mark.parametrize("cut_off", [False, True])
def test_what_is_written_through_a_mapping_is_reported_when_it_is_closed(
    reported: SeenBursts, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    monkeypatch.setattr(directory_events, "QUIET_S", 0.01)
    path = reported.place / "a.c"
    path.write_text("earlier\n")
    reported.until_path(path)

    def until_that_is_a_burst() -> None:
        reported.until(lambda: len(reported.bursts) >= 2)

    store_through_a_mapping(path, until_that_is_a_burst if cut_off else None)
    reported.until(lambda: len(reported.bursts) >= 2 + cut_off)
    assert reported.bursts[-1] == {str(path)}


def test_the_first_of_a_file_may_be_its_close(reported: SeenBursts, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "a.c").write_text("earlier\n")
    reported.events.watch([str(more)])
    store_through_a_mapping(more / "a.c")
    reported.until_path(more / "a.c")


def test_nothing_is_known_of_files_whose_directory_is_dropped(reported: SeenBursts, tmp_path: Path) -> None:
    (reported.place / "a.c").touch()
    reported.until_path(reported.place / "a.c")
    assert [*reported.events._reported[str(reported.place)]] == ["a.c"]
    reported.events.watch([str(tmp_path)])
    assert reported.events._reported == {str(tmp_path): {}}


def test_a_directory_that_is_dropped_and_one_that_is_added(reported: SeenBursts, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (reported.place / "before").touch()
    reported.events.watch([str(more), str(tmp_path / "none")])
    (reported.place / "after").touch()
    (more / "last").touch()
    reported.until_path(more / "last")
    reported.until_path(reported.place / "before")
    assert not any(str(reported.place / "after") in burst for burst in reported.bursts)


def test_one_that_may_not_be_listed_is_left_out(
    reported: SeenBursts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, mode in (("parent", 0o755), ("parent/more", 0o755), ("parent/hidden", 0o311)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    monkeypatch.chdir(tmp_path / "parent")  # what lies above may be closed to others
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        reported.events.watch(["hidden", "more"])
    finally:
        os.seteuid(user)
    (tmp_path / "parent/more/a.c").touch()
    reported.until(lambda: frozenset({"more/a.c"}) in reported.bursts)


def test_a_directory_by_two_names_is_reported_by_both(reported: SeenBursts, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(reported.place)
    reported.events.watch([str(link), str(reported.place)])
    (reported.place / "a.c").touch()
    reported.until_path(reported.place / "a.c")
    reported.until_path(link / "a.c")


def test_one_that_is_replaced_is_reported_itself(reported: SeenBursts) -> None:
    reported.place.rename(reported.place.with_name("old"))
    reported.place.mkdir()
    reported.until_path(reported.place)
    reported.events.watch([str(reported.place)])
    (reported.place / "a.c").touch()
    reported.until_path(reported.place / "a.c")


def test_after_a_full_queue_every_directory_is_reported(reported: SeenBursts, monkeypatch: pytest.MonkeyPatch) -> None:
    drain = reported.events._inotify.drain
    monkeypatch.setattr(reported.events._inotify, "drain", lambda: [InotifyEvent(-1, OVERFLOW, b"")] if drain() else [])
    (reported.place / "a.c").touch()
    reported.until_path(reported.place)
    monkeypatch.undo()


def test_what_keeps_a_burst_open() -> None:
    burst = directory_events._Burst(time.monotonic())
    for path, mask in (("d", CREATE | ISDIR), ("a", CREATE), ("a", MODIFY), ("a", CLOSE_WRITE), ("b", MOVED_TO)):
        burst.take(path, mask)
        still = burst.open
        assert still == ({"a"} if path == "a" and mask != CLOSE_WRITE else set())
    assert burst.paths == {"d", "a", "b"}
