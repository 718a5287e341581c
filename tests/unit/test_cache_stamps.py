"""Stamps: what is read again and what is not."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from cache import stamps
from cache.digest import digest_bytes, fingerprint_bytes
from cache.stamps import CHUNK, StampTable, filesystem_now_ns, is_settled, next_tick


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(b"one")
    next_tick()
    return tmp_path


def table(root: Path, saved: object = None) -> StampTable:
    return StampTable(lambda path: f"{root}/{path}", saved)


def test_settled_means_ctime_before_the_read() -> None:
    assert is_settled(999, 1000)
    assert not is_settled(1000, 1000), "the same tick: a change after the read would not move ctime"
    assert not is_settled(2000, 1000), "a clock that was set back proves nothing"


def test_whole_seconds_need_two_seconds() -> None:
    second = 10**9
    assert not is_settled(5 * second, 6 * second + 1)
    assert is_settled(5 * second, 7 * second + 1)


def test_unchanged_is_not_read_again(root: Path) -> None:
    one = table(root)
    entry = one.current("a")
    assert entry is not None and entry.digest == digest_bytes(b"one") and entry.fingerprint == fingerprint_bytes(b"one")
    assert entry.settled and one.files_read == 1 and one.changed
    two = table(root, one.plain())
    assert two.current("a") == entry and two.stat("a") == entry
    assert two.files_read == 0 and not two.changed


def test_touch_keeps_the_digest(root: Path) -> None:
    one = table(root)
    before = one.current("a")
    os.utime(root / "a", (1, 1))
    next_tick()
    assert one.stat("a") is None, "its stamp moved: stat does not read"
    after = one.current("a")
    assert before is not None and after is not None
    assert after.sha256 == before.sha256 and after.stamp != before.stamp and one.files_read == 2
    assert one.stat("a") == after


def test_unsettled_entry_is_read_again_although_its_stamp_is_equal(root: Path) -> None:
    one = table(root)
    one.current("a")
    now = one.remembered("a")
    assert now is not None
    # What a change within the tick of the read leaves behind: the stamp of the new bytes, the digest of the old.
    row = bytes(stamps.Entry(now.stamp, fingerprint_bytes(b"old"), digest_bytes(b"old").hex, False))
    two = table(root, ({"a": row}, ("a",)))
    assert two.stat("a") is None
    entry = two.current("a")
    assert entry is not None and entry.sha256 == digest_bytes(b"one").hex and entry.settled


def test_file_just_written_is_settled_later(tmp_path: Path) -> None:
    one = table(tmp_path)
    for number in range(20):
        (tmp_path / "f").write_bytes(b"%d" % (number % 10))
        entry = one.current("f")
        assert entry is not None and entry.sha256 == digest_bytes(b"%d" % (number % 10)).hex
    one.settle()
    entry = one.remembered("f")
    assert entry is not None and entry.settled


def test_what_was_written_is_believed_until_it_is_settled(root: Path) -> None:
    one = table(root)
    (root / "b").write_bytes(b"two")
    entry = one.written("b", b"two", (root / "b").stat(), digest_bytes(b"two"))
    assert entry is not None and entry.digest == digest_bytes(b"two") and not entry.settled
    assert entry.fingerprint == fingerprint_bytes(b"two") and one.files_read == 0
    one.settle()
    assert one.files_read == 1 and one.current("b") == entry.as_settled()
    assert one.files_read == 1


def test_what_somebody_else_wrote_meanwhile_is_seen(root: Path) -> None:
    one = table(root)
    (root / "b").write_bytes(b"two")
    # Of the same size, and maybe in the same tick of the clock: then its stamp is equal too.
    (root / "b").write_bytes(b"six")
    assert one.written("b", b"two", (root / "b").stat(), digest_bytes(b"two")) is not None
    one.settle()
    entry = one.current("b")
    assert entry is not None and entry.digest == digest_bytes(b"six") and entry.settled
    assert one.written("b", b"seven", (root / "b").stat(), digest_bytes(b"seven")) is None, (
        "its size says that it is another"
    )


def test_missing_and_directories(root: Path) -> None:
    one = table(root)
    assert one.current("none") is None and one.current("a/below") is None and one.stat("none") is None
    one.current("a")
    (root / "a").unlink()
    assert one.stat("a") is None and one.current("a") is None and one.remembered("a") is None
    (root / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        one.current("a")


def test_large_file_is_hashed_in_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "CHUNK", 4)
    data = bytes(range(11))
    (root / "big").write_bytes(data)
    entry = table(root).current("big")
    assert entry is not None
    assert entry.digest == digest_bytes(data) and entry.fingerprint == fingerprint_bytes(data)


def test_file_that_grows_while_it_is_read_is_not_settled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is of all bytes that were read, and nothing is believed about them next time."""
    monkeypatch.setattr(stamps, "CHUNK", 4)
    real = stamps._stamp
    calls = []

    def grow(status: os.stat_result, path: str) -> stamps.Stamp:
        calls.append(path)
        if len(calls) == 1:
            with (root / "a").open("ab") as stream:
                stream.write(b"more and more")
        return real(status, path)

    monkeypatch.setattr(stamps, "_stamp", grow)
    one = table(root)
    entry, _ = one._read("a", None)
    assert entry is not None and not entry.settled and entry.digest == digest_bytes(b"onemore and more")


def test_keep_only(root: Path) -> None:
    one = table(root)
    one.current("a")
    one.changed = False
    one.keep_only(["a"])
    assert not one.changed
    one.keep_only([])
    assert one.changed and one.plain() == ({}, ())


def test_an_object_file_is_no_text_that_includes_something(tmp_path: Path) -> None:
    """It is not searched for marks: most of what is built is one."""
    (tmp_path / "a.o").write_bytes(b"\x7fELF one MARK two")
    (tmp_path / "a.c").write_bytes(b" \x7fELF one MARK two")
    table = StampTable(lambda path: f"{tmp_path}/{path}", None, (b"MARK",))
    found = {name: table.current(name) for name in ("a.o", "a.c")}
    assert {name: entry is not None and entry.marked for name, entry in found.items()} == {"a.o": False, "a.c": True}


def test_marks(tmp_path: Path) -> None:
    """Kept with the entry, from whatever way it was made."""
    (tmp_path / "with").write_bytes(b"one MARK two")
    (tmp_path / "without").write_bytes(b"one two")
    (tmp_path / "large").write_bytes(b"x" * (CHUNK + 1))
    one = StampTable(lambda path: f"{tmp_path}/{path}", None, (b"MARK", b"OTHER"))
    marked = {path: entry.marked for path in ("with", "without", "large") if (entry := one.current(path))}
    assert marked == {"with": True, "without": False, "large": True}
    data = b"an OTHER"
    (tmp_path / "written").write_bytes(data)
    entry = one.written("written", data, (tmp_path / "written").stat(), digest_bytes(data))
    assert entry is not None and entry.marked
    two = StampTable(lambda path: f"{tmp_path}/{path}", one.plain(), (b"MARK", b"OTHER"))
    for path in ("with", "without", "large", "written"):
        before, now = one.remembered(path), two.current(path)
        assert before is not None and now is not None and now.marked == before.marked


def test_nothing_is_stamped_with_an_instant_before_the_clock(tmp_path: Path) -> None:
    """Else an edit right after the look at the clock would count as one from before it."""
    for number in range(300):
        path = tmp_path / str(number)
        before_ns = filesystem_now_ns()
        path.write_bytes(b"")
        assert path.stat().st_ctime_ns >= before_ns


def test_another_link_to_a_large_file_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As zig in a new environment: only the link count, and so ctime, moved."""
    data = os.urandom(stamps.CHUNK + 1)
    (tmp_path / "tool").write_bytes(data)
    table = StampTable(lambda path: str(tmp_path / path))
    first = table.current("tool")
    assert first is not None and first.sha256 == hashlib.sha256(data).hexdigest()
    (tmp_path / "hard").hardlink_to(tmp_path / "tool")
    (tmp_path / "soft").symlink_to("tool")
    saved = StampTable(lambda path: str(tmp_path / path), table.plain())
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "sha256", None)
        for name in ("tool", "hard", "soft"):
            found = saved.current(name)
            assert found is not None and (found.sha256, found.fingerprint) == (first.sha256, first.fingerprint)
    other = data[:-1] + bytes([data[-1] ^ 1])
    (tmp_path / "hard").unlink()
    (tmp_path / "hard").write_bytes(other)
    changed = saved.current("hard")
    assert changed is not None and changed.sha256 == hashlib.sha256(other).hexdigest()


def test_many_files_come_back(tmp_path: Path) -> None:
    names = [f"f{n}" for n in range(10)]
    for name in names:
        (tmp_path / name).write_text(name)
    next_tick()
    one = table(tmp_path)
    entries = {name: one.current(name) for name in names}
    assert one.files_read == 10
    assert {name: one.current(name) for name in names} == entries and one.files_read == 10
    assert {name: table(tmp_path, one.plain()).stat(name) for name in names} == entries


def test_bytes_that_were_hashed_just_now(root: Path) -> None:
    one = table(root)
    entry, data = one.current_bytes("a")
    assert entry is not None and (entry.digest, data) == (digest_bytes(b"one"), b"one")
    assert one.current_bytes("a") == (entry, None), "known: nothing was read"
    (root / "a").touch()
    again, data = one.current_bytes("a")
    assert again is not None and data is None, "read, but its digest is the old one's"
    assert one.current_bytes("nothing") == (None, None)


def test_an_inode_of_more_than_64_bits_counts_whole_and_is_not_kept(root: Path) -> None:
    stamp = stamps.Stamp(3, -1, 1 << 63, (5 << 64) | 7, True)
    entry = stamps.Entry(stamp, fingerprint_bytes(b"one"), digest_bytes(b"one").hex, True)
    assert entry.stamp == stamp and entry.is_of(stamp) and entry.digest == digest_bytes(b"one")
    assert not entry.is_of(stamp._replace(inode=7)) and not entry.is_of(stamp._replace(inode=(6 << 64) | 7))
    one = table(root)
    one._put("a", entry)
    one.current("b")
    rows, _ = one.plain()
    assert rows == {"a": b""}, "no row that could be taken for that of another file"
    again = table(root, (rows, ()))
    assert again.plain()[0] == {"a": b""} and again.remembered("a") is None
    found = again.current("a")
    assert found is not None and found.sha256 == digest_bytes(b"one").hex and again.files_read == 1


@pytest.mark.parametrize(
    "instant", [0, 1, -1, 1 << 62, -(1 << 62), (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 90, -(1 << 90)]
)
def test_any_instant_comes_back(instant: int) -> None:
    """In the bytes of before: 96 bits with a sign."""
    stamp = stamps.Stamp(7, instant, instant + 1, 9, False)
    entry = stamps.Entry(stamp, fingerprint_bytes(b""), digest_bytes(b"").hex, True)
    assert entry.stamp == stamp and entry.is_of(stamp) and not entry.is_of(stamp._replace(ctime_ns=instant))
    assert entry[8:32] == b"".join(each.to_bytes(12, "little", signed=True) for each in (instant, instant + 1))


def test_a_row_takes_no_more_memory_than_its_bytes(root: Path) -> None:
    """There are a hundred thousand of them in a large project."""
    one = table(root)
    entry = one.current("a")
    assert entry is not None and one.remembered("a") is entry
    assert sys.getsizeof(entry) <= sys.getsizeof(bytes(entry)) + 16
