"""Stamps that come from another machine's clock: what is settled is judged by that clock."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import fileclock
from cache.digest import digest_bytes
from cache.fileclock import UNASKED_NS, FileClock, filesystem_now_ns
from cache.stamps import StampTable
from tests.unit.file_server import TICK_NS, FileServer

SKEWS = [5.0, 0.5, 0.0, -0.5, -5.0, 3600.0, -3600.0]
LONG_TICK_NS = 600_000_000_007
"""All of a test falls into one tick, or at worst into two."""


def table(place: Path, saved: object = None, *, clock: FileClock | None = None) -> StampTable:
    return StampTable(lambda path: f"{place}/{path}", saved, clock=clock or FileClock([str(place)]))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system than `tmp_path`."""
    # Not among the tests, which others walk at this time.
    for parent in ("/dev/shm", "/tmp", Path(__file__).parents[2]):
        if os.access(parent, os.W_OK) and Path(parent).stat().st_dev != tmp_path.stat().st_dev:
            with tempfile.TemporaryDirectory(dir=parent, prefix=".hotplate-test-") as place:
                yield Path(place)
            return
    pytest.skip("there is one file system only")


@pytest.mark.parametrize("behind_s", SKEWS)
def test_an_edit_within_the_servers_tick_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind_s: float
) -> None:
    FileServer(monkeypatch, behind_s, tick_ns=LONG_TICK_NS)
    one = table(tmp_path)
    (tmp_path / "f").write_bytes(b"one")
    before = one.current("f")
    (tmp_path / "f").write_bytes(b"two")
    now = one.current("f")
    assert before is not None and now is not None and now.digest == digest_bytes(b"two")
    two = table(tmp_path, one.plain())
    (tmp_path / "f").write_bytes(b"six")
    assert two.stat("f") is None
    now = two.current("f")
    assert now is not None and now.digest == digest_bytes(b"six")


@pytest.mark.parametrize("behind_s", SKEWS)
def test_what_is_at_rest_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind_s: float) -> None:
    """A server that is ahead stamps with our future, which is nevertheless its past."""
    FileServer(monkeypatch, behind_s)
    one = table(tmp_path)
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"one")
        one.current(str(number))
    one.settle()
    two = table(tmp_path, one.plain())
    assert all(two.stat(str(number)) is not None for number in range(5)) and two.files_read == 0
    data = b"more"
    (tmp_path / "made").write_bytes(data)
    two.written("made", data, (tmp_path / "made").stat(), digest_bytes(data))
    two.settle()
    assert two.files_read == 1
    three = table(tmp_path, two.plain())
    assert three.current("made") is not None and three.files_read == 0


@pytest.mark.parametrize("behind_s", SKEWS)
def test_what_is_written_later_is_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind_s: float) -> None:
    FileServer(monkeypatch, behind_s)
    clock, device = FileClock([str(tmp_path)]), tmp_path.stat().st_dev
    for known in (False, True):
        # One that has been there for long: a file system that is met afterwards is placed to within two ticks.
        old, new = __file__, str(tmp_path / f"new{known}")
        moment = clock.moment()
        assert (device in moment.known) is known
        Path(new).write_bytes(b"")
        assert clock.is_before(Path(old).stat(), old, moment)
        assert not clock.is_before(Path(new).stat(), new, moment)


def test_two_file_systems_have_two_clocks(tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path.stat().st_dev
    FileServer(monkeypatch, 5.0, device=served)
    clock = FileClock([str(tmp_path)])
    for place in (tmp_path, elsewhere):
        clock.now_ns(place.stat().st_dev, str(place))
    moment = clock.moment()
    assert 4e9 < moment.known[elsewhere.stat().st_dev] - moment.known[served] < 3e11
    assert moment.earliest_ns == moment.known[served]
    for place in (tmp_path, elsewhere):
        path = place / "new"
        path.write_bytes(b"")
        assert not clock.is_before(path.stat(), str(path), moment)
    clock.next_tick()
    moment = clock.moment()
    for place in (tmp_path, elsewhere):
        assert clock.is_before((place / "new").stat(), str(place / "new"), moment)


def test_a_file_system_that_cannot_be_asked_is_believed_a_minute_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fileclock, "_UNNAMED", 0)
    (tmp_path / "f").write_bytes(b"one")
    local_ns = [filesystem_now_ns()]
    clock = FileClock(["/nonexistent"], lambda: local_ns[0])
    assert table(tmp_path, clock=clock).current("f").settled is False  # type: ignore[union-attr]
    moment = clock.moment()
    assert not clock.is_before((tmp_path / "f").stat(), str(tmp_path / "f"), moment)
    local_ns[0] += UNASKED_NS + TICK_NS
    assert table(tmp_path, clock=clock).current("f").settled is True  # type: ignore[union-attr]
    assert clock.is_before((tmp_path / "f").stat(), str(tmp_path / "f"), clock.moment())


@pytest.mark.parametrize("unnamed", [True, False])
def test_nothing_is_left_and_each_file_system_is_asked_through_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    if not unnamed:
        monkeypatch.setattr(fileclock, "_UNNAMED", 0)
    opened: list[str] = []
    real = fileclock._scratch_in

    def scratch_in(place: str, *, named: bool) -> int:
        opened.append(place)
        return real(place, named=named)

    monkeypatch.setattr(fileclock, "_scratch_in", scratch_in)
    one = table(tmp_path)
    for number in range(20):
        (tmp_path / str(number)).write_bytes(b"one")
        one.current(str(number))
    one.settle()
    assert opened == [str(tmp_path)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(20)))


def test_files_at_rest_cost_one_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / str(number)).write_bytes(b"one")
    fileclock.FileClock([str(tmp_path)]).next_tick()
    asked: list[int] = []
    real = FileClock.now_ns

    def now_ns(self: FileClock, device: int, near: str = "") -> int:
        asked.append(device)
        return real(self, device, near)

    monkeypatch.setattr(FileClock, "now_ns", now_ns)
    one = table(tmp_path)
    assert all(one.current(str(number)).settled for number in range(50))  # type: ignore[union-attr]
    assert len(asked) == 1
    two = table(tmp_path, one.plain())
    assert all(two.current(str(number)) is not None for number in range(50)) and len(asked) == 1


# --- what is remembered -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "saved",
    [
        *(5, "x", [], {}, (), (1,), ({}, {}), ([], ()), (None, None), ({}, (1,)), ({}, (), ()), ({}, ("x",))),
        *(({"f": row}, ()) for row in (b"", b"x", None, 5, "x", (1, 2), b"\xff" * 100, b"(\xff\xff\xff\x7f")),
    ],
    ids=repr,
)
def test_anything_that_was_saved_is_as_nothing(tmp_path: Path, saved: object) -> None:
    (tmp_path / "f").write_bytes(b"one")
    one = table(tmp_path, saved)
    assert one.stat("f") is None
    entry = one.current("f")
    assert entry is not None and entry.digest == digest_bytes(b"one")
    one.settle()
    assert "f" in one.plain()[0]


def test_a_size_that_no_file_has_is_another_stamp(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    good = table(tmp_path)
    good.current("f")
    row = good.plain()[0]["f"]
    for number in (2**62, 2**64 - 1):
        one = table(tmp_path, ({"f": number.to_bytes(8, "little") + row[8:]}, ()))
        assert one.stat("f") is None and one.current("f") == good.current("f")


def test_what_is_no_regular_file_is_an_error_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    one = table(tmp_path)
    for name in ("fifo", "link", "zero", "loop"):
        for ask in (one.current, one.read, one.stamp):
            with pytest.raises(OSError, match=r"Not a regular file|Too many levels"):
                ask(name)
    for name in ("a\0b", "\ud800", "x" * 300, "/" * 5000):
        for ask in (one.current, one.read, one.stamp):
            try:
                assert ask(name) is None
            except OSError as error:
                assert error.strerror


@pytest.mark.parametrize("behind_s", SKEWS)
def test_what_is_written_after_an_earlier_moment_is_not_settled_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind_s: float
) -> None:
    """As deploy.toml, edited while the process that read it was starting."""
    FileServer(monkeypatch, behind_s)
    (tmp_path / "new").write_bytes(b"")
    for met in (False, True):
        clock = FileClock([str(tmp_path)])
        if met:
            clock.meet(tmp_path.stat().st_dev, str(tmp_path / "new"))
        born = clock.at(filesystem_now_ns() - 3_000_000_000)
        assert not clock.was_settled((tmp_path / "new").stat(), str(tmp_path / "new"), born)
        assert clock.was_settled((tmp_path / "new").stat(), str(tmp_path / "new"), clock.at(1 << 62))
