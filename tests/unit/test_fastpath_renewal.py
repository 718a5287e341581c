"""Very many files that were only touched: read once, and their stamps written, where nothing can hide behind those."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import statefile
from cache.durable import FileLock, write_atomic
from cache.stamps import next_tick
from cache.statebytes import encode
from pipeline import fastpath
from pipeline.fastpath import KIND, FirstLook, Snapshot, identity, load, renewal, stamp_of, state_path, touched
from pipeline.fastpath.listing import listing_of
from pipeline.fastpath.watched import file_clock

ARGV = ("compile", "link")
TEXT = "-- fingerprint\n-- compile\n-- link\n"
SOURCES = tuple(f"src/f{n}.c" for n in range(5))
USED = (*SOURCES, "src/link.h", "src/large.c", "src/empty.c")


class TouchedTree:
    """Files with a state of the fast path, as if a run had just ended well. Few of them are many."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("src", "include", ".deploy/fastpath.v1"):
            (root / name).mkdir(parents=True)
        for path in SOURCES:
            (root / path).write_text(f"{path}\n")
        (root / "include/h.h").write_text("h\n")
        (root / "src/link.h").symlink_to("../include/h.h")
        (root / "src/large.c").write_bytes(b"x" * (renewal._SMALL + 1))
        (root / "src/empty.c").touch()
        (root / "tool").write_text("tool\n")
        self.state = root / state_path("")
        rows = [(path, stamp_of((root / path).stat())) for path in (*USED, "include", "tool")]
        contents = [touched.of_file(path, row[1]) or touched.of_directory(path) for path, row in rows]
        counts = (os.urandom(8).hex(), len(USED), len(rows))
        snapshot = Snapshot(identity(str(root)), {ARGV: TEXT}, (), (), None, {}, *counts, listing_of(rows))
        statefile.save(self.state.with_suffix(touched.SUFFIX), touched.KIND, (snapshot.token, contents))
        write_atomic(self.state, encode(KIND, snapshot.values()), durable=False, own=True)

    def touch(self, *names: str) -> None:
        """Later than the state, and long enough ago for the stamps to be believed."""
        for name in names or USED:
            os.utime(self.root / name)
        next_tick()

    def answer(self) -> str | None:
        found = fastpath.answer(ARGV)
        return found if isinstance(found, str) else None

    def moved(self) -> list[str]:
        """What the next look would have to read."""
        found = load(str(self.state))
        assert found is not None
        places = fastpath.moved(found[0], str(self.root))
        assert places is not None
        return sorted(os.fsdecode(path).removeprefix("./") for path in found[0].paths_at(places).values())


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TouchedTree:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(touched, "MOST", 2)
    return TouchedTree(tmp_path)


def counting_reads(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object] = lambda: None) -> list[object]:
    """The names of small files that were read; `then` is done after the status of the first was taken."""
    read: list[object] = []
    real = os.fstat

    def counted(name: bytes, size: int) -> Any:
        read.append(name)
        with monkeypatch.context() as patch:
            if len(read) == 1:
                patch.setattr(os, "fstat", lambda handle: (real(handle), then())[0])
            return of_small(name, size)

    of_small = renewal._of_small
    monkeypatch.setattr(renewal, "_of_small", counted)
    return read


def test_each_file_is_read_once(tree: TouchedTree, monkeypatch: pytest.MonkeyPatch) -> None:
    read = counting_reads(monkeypatch)
    tree.touch()
    assert tree.answer() == TEXT
    assert len(read) == len(USED) and tree.moved() == []
    assert tree.answer() == TEXT
    assert len(read) == len(USED)


def test_a_directory_that_was_only_listed_and_a_tool_are_renewed_too(tree: TouchedTree) -> None:
    (tree.root / "include/.swap").touch()
    (tree.root / "include/.swap").unlink()
    tree.touch(*SOURCES, "tool")
    assert tree.answer() == TEXT and tree.moved() == []
    (tree.root / "include/new.h").touch()
    tree.touch(*SOURCES)
    assert tree.answer() is None


def test_few_are_read_each_time_and_nothing_is_written(tree: TouchedTree) -> None:
    before = tree.state.read_bytes()
    tree.touch(*SOURCES[:2])
    assert tree.answer() == TEXT and tree.state.read_bytes() == before


def edited(path: Path) -> None:
    """Other bytes of the same size, with the mtime of before."""
    status = path.stat()
    path.write_bytes(path.read_bytes().swapcase())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


CHANGES: dict[str, Callable[[Path], object]] = {
    "same size and mtime": edited,
    "longer": lambda path: path.write_text("longer than it was\n"),
    "gone": Path.unlink,
    "fifo": replaced_by(os.mkfifo),
    "directory": replaced_by(Path.mkdir),
    "link to another": replaced_by(lambda path: path.symlink_to("f3.c")),
    "link to nothing": replaced_by(lambda path: path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_among_files_that_were_touched_goes_to_doit(tree: TouchedTree, name: str) -> None:
    before = tree.state.read_bytes()
    CHANGES[name](tree.root / SOURCES[4])
    tree.touch(*SOURCES[:4])
    assert tree.answer() is None and tree.state.read_bytes() == before


def test_a_file_that_may_not_be_read_goes_to_doit(tree: TouchedTree) -> None:
    tree.touch(*SOURCES[:4])
    path = tree.root / SOURCES[3]
    path.chmod(0)
    try:
        if os.access(path, os.R_OK):  # a superuser reads all
            assert tree.answer() == TEXT
        else:
            assert tree.answer() is None
    finally:
        path.chmod(0o644)


def test_what_moved_by_its_ctime_alone_is_renewed(tree: TouchedTree) -> None:
    for path in SOURCES:
        (tree.root / path).chmod(0o600)
    next_tick()
    assert tree.answer() == TEXT and tree.moved() == []


def test_a_link_that_leads_to_the_same_bytes_is_what_it_was(tree: TouchedTree) -> None:
    (tree.root / "include/again.h").write_text("h\n")
    (tree.root / "src/link.h").unlink()
    (tree.root / "src/link.h").symlink_to("../include/again.h")
    tree.touch(*SOURCES)
    assert tree.answer() is None, "the directory that was listed has one more"
    (tree.root / "include/h.h").unlink()
    (tree.root / "include/again.h").rename(tree.root / "include/h.h")
    (tree.root / "src/link.h").unlink()
    (tree.root / "src/link.h").symlink_to("../include/h.h")
    next_tick()
    assert tree.answer() == TEXT and tree.moved() == []


def test_a_stamp_behind_which_an_edit_could_hide_is_not_written(tree: TouchedTree) -> None:
    """Racily clean: touched in the tick of the clock in which it is read."""
    tree.touch()
    look = fastpath.answer(ARGV)
    assert look == TEXT
    found = load(str(tree.state))
    assert found is not None
    snapshot, places = found[0], range(len(USED))
    clock = file_clock().met(".")
    same = renewal.read_again(snapshot, places, str(tree.state), clock.moment())
    assert same is not None and same.values() == snapshot.values(), "nothing moved: the same stamps"
    tree.touch()
    racy = renewal.read_again(snapshot, places, str(tree.state), clock.at(0))
    assert racy is not None and racy.values() == snapshot.values(), "everything is younger than that"
    settled = renewal.read_again(snapshot, places, str(tree.state), clock.moment())
    assert settled is not None and settled.values() != snapshot.values()


def test_a_file_that_changes_while_it_is_read_is_seen_by_the_next_look(
    tree: TouchedTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new bytes are those of before: what was compared is not what the stamp was of."""
    path = tree.root / SOURCES[0]
    good = path.read_bytes()
    path.write_bytes(good.swapcase())
    tree.touch()
    counting_reads(monkeypatch, lambda: path.write_bytes(good))
    assert tree.answer() == TEXT
    assert tree.moved() == [SOURCES[0]], "the stamp that was written is that from before the edit"


def test_a_file_that_changes_after_it_was_looked_at_goes_to_doit(
    tree: TouchedTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.touch()
    path = tree.root / SOURCES[0]
    counting_reads(monkeypatch, lambda: path.write_bytes(path.read_bytes().swapcase()))
    assert tree.answer() is None


def test_nothing_is_written_while_a_run_is_under_way(tree: TouchedTree) -> None:
    tree.touch()
    before = tree.state.read_bytes()
    lock = FileLock(tree.root / renewal.LOCK)
    assert lock.try_acquire("a run") is None
    assert tree.answer() == TEXT and tree.state.read_bytes() == before
    lock.release()
    assert tree.answer() == TEXT and tree.moved() == []


@pytest.mark.parametrize("what", ["withdrawn", "written anew"])
def test_what_another_run_did_with_the_state_stays(
    tree: TouchedTree, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Between the look and the lock."""
    tree.touch()
    data = tree.state.read_bytes()
    counting_reads(monkeypatch, tree.state.unlink if what == "withdrawn" else lambda: write_atomic_again(tree, data))
    tree.answer()
    if what == "withdrawn":
        assert not tree.state.exists()
    else:
        assert tree.state.read_bytes() == data


def write_atomic_again(tree: TouchedTree, data: bytes) -> None:
    write_atomic(tree.state, data, durable=False, own=True)


@pytest.mark.parametrize("why", ["no place for the lock", "read-only"])
def test_a_state_that_cannot_be_written_is_answered_from(tree: TouchedTree, why: str) -> None:
    tree.touch()
    before = tree.state.read_bytes()
    if why == "read-only":
        tree.state.parent.chmod(0o500)
    else:
        (tree.root / ".deploy/locks").write_text("")
    try:
        assert tree.answer() == TEXT
        if why != "read-only" or not os.access(tree.state.parent, os.W_OK):
            assert tree.state.read_bytes() == before
    finally:
        tree.state.parent.chmod(0o700)


@pytest.mark.parametrize("is_edited", [False, True], ids=["touched", "one edited"])
def test_many_that_the_service_says_moved_are_read_here(
    tree: TouchedTree, monkeypatch: pytest.MonkeyPatch, is_edited: bool
) -> None:
    """It reads no more than a few itself; a run that is handed a look believes that what moved is other content."""
    tree.touch()
    if is_edited:
        edited(tree.root / SOURCES[4])
    stamp = stamp_of(tree.state.stat())
    monkeypatch.setattr(fastpath, "MANY", 2)
    monkeypatch.setattr(fastpath, "_may_have_service", lambda: True)
    monkeypatch.setattr("pipeline.client.endpoint.runtime_dir", lambda: "somewhere")
    monkeypatch.setattr("pipeline.client.verdict.service_says", lambda *asked: (stamp, [*range(len(USED))]))
    told = fastpath.from_service(ARGV)
    assert isinstance(told, FirstLook) if is_edited else told == TEXT and tree.moved() == []


def test_what_a_run_is_handed_was_read(tree: TouchedTree) -> None:
    tree.touch()
    edited(tree.root / SOURCES[0])
    look = fastpath.answer(ARGV)
    assert isinstance(look, FirstLook) and len(look.places) == len(USED)
