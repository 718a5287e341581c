"""The store's bound: what a gc drops, what it never does, and where the store lies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cache.actions import ActionResult, OutputFile
from cache.digest import ActionKey, Digest
from cache.location import user_cache_dir
from cache.lock import OPEN, try_lock
from cache.store import Removed, Store
from pipeline.cli import cache_tasks

SIZE = 10_000


def key(n: int) -> ActionKey:
    return ActionKey(f"{n:064x}")


def fill(store: Store, count: int, *, shared: bool = False) -> list[Digest]:
    """Entry n was used at second 1000 + n. With `shared` all of them also refer to one blob."""
    common = [OutputFile("build/c", store.blobs.put_bytes(b"c" * 50), False)] if shared else []
    digests = []
    for n in range(count):
        digest = store.blobs.put_bytes(n.to_bytes(2) * (SIZE // 2))
        store.results.record(key(n), ActionResult((OutputFile("build/o", digest, False), *common)))
        os.utime(store.results.path(key(n)), (1000 + n, 1000 + n))
        digests.append(digest)
    return digests


def left(store: Store, count: int) -> list[int]:
    return [n for n in range(count) if store.results.lookup(key(n)) is not None]


def test_gc_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    store = Store(tmp_path, 60_000)
    fill(store, 10, shared=True)
    before = store.stats()
    assert (before.entries, before.blobs) == (10, 11) and before.bytes > 100_000
    assert (before.oldest_s, before.newest_s) == (1000.0, 1009.0)
    removed = store.gc()
    assert left(store, 10) == [6, 7, 8, 9]
    assert (removed.entries, removed.blobs, removed.busy) == (6, 6, False)
    after = store.stats()
    assert after.bytes == removed.left_bytes == before.bytes - removed.bytes <= 48_000
    assert store.gc() == Removed(0, 0, 0, after.bytes), "below the bound nothing is removed"


def test_use_moves_an_entry_to_the_front(tmp_path: Path) -> None:
    store = Store(tmp_path, 30_000)
    fill(store, 5)
    store.results.used(key(0))
    store.gc()
    assert left(store, 5) == [0, 4]
    store.results.used(key(99))


def test_gc_removes_orphans_and_left_over_temporary_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, 1)
    orphan = store.blobs.put_bytes(b"nobody refers to this")
    torn = store.blobs.path(orphan).with_name(".torn.1.abcd.tmp")
    torn.write_bytes(b"half")
    removed = store.gc()
    assert removed.blobs == 2 and not torn.exists() and not store.blobs.has(orphan)
    assert left(store, 1) == [0]


def test_nothing_is_removed_while_a_build_uses_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path, 0)
    fill(store, 2)
    with store.in_use():
        assert Store(tmp_path, 0).gc() == Store(tmp_path).clear() == Removed(busy=True)
        verified = Store(tmp_path).verify()
        assert (verified.entries, verified.blobs, verified.busy) == (0, 0, False), "what is whole stays"
        with Store(tmp_path, 10**9).in_use():
            assert left(store, 2) == [0, 1]
    # The end of the build found the store too large.
    assert left(store, 2) == [] and store.stats().blobs == 0


def test_a_build_bounds_the_store_by_what_all_builds_wrote(tmp_path: Path) -> None:
    for n in range(8):
        store = Store(tmp_path, 50_000)
        with store.in_use():
            digest = store.blobs.put_bytes(bytes([n]) * SIZE)
            store.results.record(key(n), ActionResult((OutputFile("build/o", digest, False),)))
            os.utime(store.results.path(key(n)), (1000 + n, 1000 + n))
        assert Store(tmp_path).stats().bytes <= 50_000 + SIZE + 1000
    assert 7 in left(store, 8) and 0 not in left(store, 8)
    (tmp_path / "usage").write_text("nonsense")
    with store.in_use():
        store.blobs.put_bytes(b"more")
    assert int((tmp_path / "usage").read_text()) >= store.stats().bytes - 100


def test_verify_removes_damage_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digests = fill(store, 4)
    bad = store.blobs.path(digests[1])
    bad.chmod(0o644)
    bad.write_bytes(b"x" * SIZE)
    store.results.path(key(2)).write_bytes(b"{")
    removed = store.verify()
    assert (removed.entries, removed.blobs) == (2, 1)
    assert left(store, 4) == [0, 3]
    assert store.verify().entries == 0


def test_a_build_waits_for_a_gc_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the gc takes the temporary files and blobs of a build that began meanwhile."""
    store = Store(tmp_path)
    handle = os.open(tmp_path / "lock", OPEN, 0o644)
    assert try_lock(handle)
    waits: list[float] = []

    def gc_ends(seconds: float) -> None:
        waits.append(seconds)
        os.close(handle)

    monkeypatch.setattr("cache.store.time.sleep", gc_ends)
    with store.in_use():
        assert len(waits) == 1
        assert Store(tmp_path).gc().busy


def test_many_processes_write_and_collect_at_once(tmp_path: Path) -> None:
    """Each reads back what it wrote while it holds the store; a gc in between must not take it away."""
    code = """
import sys
from pathlib import Path
from cache.store import Store
from cache.digest import ActionKey
from cache.actions import ActionResult, OutputFile
me = int(sys.argv[2])
for n in range(20):
    store = Store(Path(sys.argv[1]), 30_000)
    with store.in_use():
        data = bytes([me, n]) * 2000
        digest = store.blobs.put_bytes(data)
        key = ActionKey(f"{me * 100 + n:064x}")
        store.results.record(key, ActionResult((OutputFile("build/o", digest, False),)))
        assert store.results.lookup(key) and store.blobs.read(digest) == data
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    children = [subprocess.Popen([*command, str(n)], cwd=Path(__file__).parents[2]) for n in range(3)]
    assert [child.wait(timeout=300) for child in children] == [0, 0, 0]
    Store(tmp_path, 30_000).gc()
    assert Store(tmp_path, 30_000).stats().bytes <= 30_000


def test_tables(tmp_path: Path) -> None:
    fill(Store(tmp_path), 2)
    found, table = cache_tasks.stats(tmp_path, 1_000_000)
    assert found.entries == 2
    assert [line.split()[0] for line in table.splitlines()] == [
        "place",
        "results",
        "blobs",
        "size",
        "bound",
        "used",
        "used",
        "compiled",
    ]
    assert "used last           1970-01-01 00:16 UTC" in table
    assert cache_tasks.gc(tmp_path, 1_000_000)[0].entries == 0
    assert cache_tasks.verify(tmp_path, 1_000_000)[0].blobs == 0
    removed, table = cache_tasks.clear(tmp_path, 1_000_000)
    assert removed.entries == 2 and "freed            20." in table
    with Store(tmp_path).in_use():
        assert "in use by a build" in cache_tasks.clear(tmp_path, 0)[1]
    assert [cache_tasks.size_text(n) for n in (0, 999, 1000, 5_000_000, 7_200_000_000)] == [
        "0 B", "999 B", "1.0 kB", "5.0 MB", "7.2 GB"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("platform", "environment", "wanted"),
    [
        ("linux", {"HOME": "/home/me"}, "/home/me/.cache/hotplate"),
        ("linux", {"HOME": "/home/me", "XDG_CACHE_HOME": "/fast"}, "/fast/hotplate"),
        ("linux", {"HOME": "/home/me", "XDG_CACHE_HOME": "relative"}, "/home/me/.cache/hotplate"),
        ("linux", {"HOME": "/home/me", "XDG_CACHE_HOME": ""}, "/home/me/.cache/hotplate"),
        ("linux", {"HOME": ""}, None),
        ("linux", {}, None),
        ("darwin", {"HOME": "/Users/me", "XDG_CACHE_HOME": "/fast"}, "/Users/me/Library/Caches/hotplate"),
        ("darwin", {"HOME": ""}, None),
        ("win32", {"LOCALAPPDATA": "C:\\Users\\me\\AppData\\Local"}, "C:\\Users\\me\\AppData\\Local\\hotplate\\Cache"),
        ("win32", {"HOME": "/home/me"}, None),
    ],
)
def test_place_of_the_shared_cache(platform: str, environment: dict[str, str], wanted: str | None) -> None:
    assert user_cache_dir(environment, platform) == wanted


def test_locks(tmp_path: Path) -> None:
    one, two, three = (os.open(tmp_path / "lock", OPEN) for _ in range(3))
    assert try_lock(one, shared=True) and try_lock(two, shared=True) and not try_lock(three)
    os.close(one)
    assert not try_lock(three)
    os.close(two)
    assert try_lock(three)
    seen: list[bool] = []
    other = os.open(tmp_path / "lock", OPEN)
    thread = threading.Thread(target=lambda: seen.append(try_lock(other, shared=True)))
    thread.start()
    thread.join()
    assert seen == [False]
    os.close(other)
    os.close(three)
