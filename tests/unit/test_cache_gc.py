"""A gc beside builds: what it remembers, when it leaves, and what stays when it is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cache import census, collect, turns
from cache import store as store_module
from cache.actions import ActionResult, OutputFile
from cache.collect import SPARE_S
from cache.digest import ActionKey, Digest
from cache.fileclock import FileClock
from cache.store import Removed, Store


def key(n: int) -> ActionKey:
    return ActionKey(f"{n % 251:02x}{n:062x}")


def add(store: Store, n: int, *texts: bytes, used_s: float | None = None) -> list[Digest]:
    """An entry that refers to a blob of each of `texts`."""
    digests = [store.blobs.put_bytes(text) for text in texts]
    outputs = tuple(OutputFile(f"build/{at}", digest, False) for at, digest in enumerate(digests))
    store.results.record(key(n), ActionResult(outputs))
    if used_s is not None:
        os.utime(store.results.path(key(n)), (used_s, used_s))
    return digests


def fill(root: Path, count: int = 12) -> Store:
    """Entry n was used at second 1000 + n; two neighbours share a blob."""
    store = Store(root)
    for n in range(count):
        add(store, n, b"%d" % n * 500, b"shared %d" % (n // 2) * 40, used_s=1000 + n)
    return store


def settle(root: Path) -> None:
    """What was written is in the past now, so that stamps are believed."""
    FileClock((str(root),)).met(str(root)).next_tick(1.0)


def is_consistent(store: Store) -> bool:
    """Does each entry that is there have all of its blobs?"""
    entries = [path.name for path in (store.root / "ac.v1").glob("*/*") if not path.name.startswith(".")]
    return all(store.results.is_complete(ActionKey(name)) for name in entries)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entries that a census reads."""
    seen: list[str] = []
    from cache.actions import needs_of

    def counted(key: ActionKey, data: bytes) -> str | None:
        seen.append(key)
        return needs_of(key, data)

    monkeypatch.setattr(census, "needs_of", counted)
    return seen


# --- what is remembered -------------------------------------------------------------------------


def test_an_entry_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    store = fill(tmp_path)
    settle(tmp_path)
    assert store.gc().blobs == 0 and len(reads) == 12
    assert store.gc().blobs == 0 and len(reads) == 12
    add(store, 99, b"new")
    settle(tmp_path)
    store.gc()
    assert reads[12:] == [key(99)]
    os.utime(store.results.path(key(3)))
    assert store.gc(6000).entries > 0 and store.results.lookup(key(3)), "its directory tells nothing of its use"
    assert set(reads[13:]) <= {key(3)}


def test_an_entry_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    store = fill(tmp_path)
    settle(tmp_path)
    store.gc()
    old, _ = add(store, 3, b"3" * 500, b"shared 1" * 40)
    new = add(store, 3, b"another", b"shared 1" * 40, used_s=1003)[0]
    assert store.gc().blobs == 1
    assert store.blobs.has(new) and not store.blobs.has(old) and is_consistent(store)


def test_what_was_just_written_is_not_remembered_as_settled(tmp_path: Path, reads: list[str]) -> None:
    """Within one tick of the clock a rewritten entry may have the old one's size, times and inode."""
    store = fill(tmp_path, 1)

    class Stopped(FileClock):
        def is_past(self, status: os.stat_result, path: str) -> bool:
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(census, "FileClock", Stopped)
        store.gc()
        store.gc()
    assert len(reads) == 2


def damages() -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    yield "gone", lambda data: b""
    yield "cut", lambda data: data[: len(data) // 2]
    yield "flipped", lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:]
    for text in ('{"blobs": 1}', "[]", "null", '{"blobs": {}, "entries": {"ab": [null, {"x": 1}]}}', "[" * 9999):
        yield f"of another form {text[:20]}", lambda data, text=text: _sealed(text)  # type: ignore[misc]
    wrong = '{"blobs":{"ab":[null,{"../../x":-5}]},"entries":{}}'
    yield "negative", lambda data: _sealed(wrong)


def _sealed(text: str) -> bytes:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest().encode() + b"\n" + text.encode()


@pytest.mark.parametrize("damage", [pytest.param(how, id=name) for name, how in damages()])
def test_an_index_that_is_none_costs_time_only(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = fill(tmp_path)
    settle(tmp_path)
    store.gc()
    before, index = store.stats(), tmp_path / "index.v1"
    index.write_bytes(damage(index.read_bytes()))
    assert store.stats() == before
    index.write_bytes(damage(index.read_bytes()))
    assert store.gc().blobs == 0 and is_consistent(store)


def test_an_index_that_lies_names_nothing_outside(tmp_path: Path) -> None:
    """Others may write it: its stamps can be right, and its names paths."""
    store = fill(tmp_path / "store")
    settle(tmp_path)
    store.gc()
    (tmp_path / "victim").write_text("precious")
    path = tmp_path / "store/index.v1"
    body = json.loads(path.read_bytes()[65:])
    for group in body["blobs"].values():
        group[1]["../../../victim"] = 4
    for group in body["entries"].values():
        group[1]["../../../victim"] = [4, 5, 6, "../../../victim"]
    path.write_bytes(_sealed(json.dumps(body)))
    store.stats()
    store.gc()
    store.gc(0)
    store.verify()
    assert (tmp_path / "victim").read_text() == "precious"


# --- beside builds ------------------------------------------------------------------------------


def test_a_build_while_a_gc_chooses_keeps_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may refer to a blob that nothing referred to when the gc looked."""
    store = fill(tmp_path)
    orphan = store.blobs.put_bytes(b"nobody refers to this yet")
    choose = collect.choose

    def build_meanwhile(*args: Any) -> Any:
        with Store(tmp_path).in_use():
            add(store, 50, b"nobody refers to this yet")
        return choose(*args)

    monkeypatch.setattr(store_module, "choose", build_meanwhile)
    assert store.gc(0)._replace(left_bytes=0) == Removed(busy=True)
    assert store.blobs.has(orphan) and is_consistent(store)


def test_a_gc_while_a_gc_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, choose = fill(tmp_path), collect.choose

    def gc_meanwhile(*args: Any) -> Any:
        monkeypatch.setattr(store_module, "choose", choose)
        assert Store(tmp_path).gc(4000).entries > 0
        return choose(*args)

    monkeypatch.setattr(store_module, "choose", gc_meanwhile)
    assert store.gc(0).busy and is_consistent(store)


def test_a_gc_leaves_when_a_build_wants_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every round; what is gone then is counted, and no entry lacks a blob."""
    monkeypatch.setattr(collect, "_FIRST", 2)
    monkeypatch.setattr(collect, "_LEAST", 2)
    monkeypatch.setattr(collect, "_MOST", 2)
    goes_on = turns.Turn.goes_on
    for at in range(1, 14):
        store = fill(tmp_path / str(at))
        before, rounds = store.stats(), 0

        def wants_in(self: turns.Turn, path: Path = tmp_path / str(at), at: int = at) -> bool:
            nonlocal rounds
            rounds += 1
            if rounds == at:
                (path / "lock").write_bytes(os.urandom(16))
            return goes_on(self)

        with monkeypatch.context() as patch:
            patch.setattr(turns.Turn, "goes_on", wants_in)
            removed = store.gc(0)
        after = store.stats()
        assert removed.busy and is_consistent(store)
        assert (removed.entries, removed.blobs) == (before.entries - after.entries, before.blobs - after.blobs)
        assert removed.bytes == before.bytes - after.bytes and removed.entries + removed.blobs == 2 * (at - 1)
        assert not store.gc(0).busy and store.stats().bytes == 0


def test_a_turn_is_over_when_somebody_was_there_meanwhile(tmp_path: Path) -> None:
    lock = turns.StoreLock(tmp_path)
    with lock.alone() as turn:
        assert turn is not None and turn.goes_on()
        turn.leave()
        assert turn.again()
        turn.leave()
        with turns.StoreLock(tmp_path).shared():
            assert not turn.again()
        assert not turn.again(), "nobody is there now, but was"


def test_a_slow_disk_is_waited_for_by_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path, 40)
    unlink, threads = os.unlink, set[int]()

    def slow(*args: Any, **kwargs: Any) -> None:
        import threading

        threads.add(threading.get_ident())
        time.sleep(0.001)
        unlink(*args, **kwargs)

    monkeypatch.setattr(os, "unlink", slow)
    assert store.gc(0).entries == 40 and len(threads) > 2
    assert store.stats().bytes == 0


def killed_at(number: int, root: Path) -> bool:
    """A gc in a child that is killed before the nth change that it makes to a directory. False when it made fewer."""
    child = os.fork()
    if child == 0:
        done = 0

        def counted(call: Callable[..., None], *args: Any, **kwargs: Any) -> None:
            nonlocal done
            done += 1
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)
            call(*args, **kwargs)

        os.unlink, os.replace = partial(counted, os.unlink), partial(counted, os.replace)
        Store(root).gc(4000)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_gc_killed_at_any_point_leaves_a_store_that_works(tmp_path: Path) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        store = fill(tmp_path / str(number))
        store.blobs.put_bytes(b"orphan")
        killed = killed_at(number, store.root)
        assert is_consistent(store), number
        assert not store.gc(4000).busy and store.stats().bytes <= 4000 and is_consistent(store)
        assert store.results.lookup(key(11)) is not None
    assert number > 15


# --- without locks, without rights --------------------------------------------------------------


def test_without_locks_what_is_young_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS without a lock daemon, some of FUSE: nobody can say who is there."""

    def none(*_: Any, **__: Any) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(turns, "try_lock", none)
    store, now_s = Store(tmp_path), time.time()
    old = add(store, 1, b"old", used_s=now_s - 2 * SPARE_S)
    add(store, 2, b"young")
    for digest in (*old, store.blobs.put_bytes(b"old orphan")):
        os.utime(store.blobs.path(digest), (now_s - 2 * SPARE_S, now_s - 2 * SPARE_S))
    young = store.blobs.put_bytes(b"orphan of a build that may be under way")
    with store.in_use():
        removed = Store(tmp_path).gc(0)
    assert (removed.entries, removed.blobs, removed.busy) == (1, 2, False)
    assert store.blobs.has(young) and store.results.lookup(key(2)) and is_consistent(store)


def test_what_cannot_be_removed_is_not_counted_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path)
    unlink, theirs = os.unlink, {path.name for path in list((tmp_path / "cas.v1").glob("*/*"))[:3]}

    def refused(path: str, **kwargs: Any) -> None:
        if path in theirs:
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        unlink(path, **kwargs)

    monkeypatch.setattr(os, "unlink", refused)
    removed = store.gc(0)
    left = store.stats()
    assert (removed.entries, removed.blobs) == (12, 15) and left.blobs == 3
    assert removed.left_bytes == left.bytes and not removed.busy


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize(
    ("mode", "umask", "directory", "blob", "entry"),
    [
        (0o2775, 0o077, 0o2775, 0o444, 0o664),
        (0o2770, 0o077, 0o2770, 0o440, 0o660),
        (0o2770, 0o022, 0o2770, 0o444, 0o664),
        (0o755, 0o077, 0o700, 0o400, 0o600),
        (0o700, 0o022, 0o755, 0o444, 0o644),
    ],
)
def test_what_is_made_is_for_whom_the_directory_is_for(
    tmp_path: Path, mode: int, umask: int, directory: int, blob: int, entry: int
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(mode)
    before = os.umask(umask)
    try:
        store = Store(root)
        with store.in_use():
            small = add(store, 1, b"small")[0]
            (tmp_path / "large").write_bytes(b"x" * (1 << 21))
            large = store.blobs.put_file(str(tmp_path / "large"))
    finally:
        os.umask(before)

    def mode_of(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    for digest in (small, large):
        assert mode_of(store.blobs.path(digest)) == blob
        assert mode_of(store.blobs.path(digest).parent) == mode_of(root / "cas.v1") == directory
    assert mode_of(store.results.path(key(1))) == entry
    assert mode_of(root / "lock") == mode_of(root / "usage") == entry
    assert {path.stat().st_gid for path in root.rglob("*")} == {root.stat().st_gid}


def as_nobody(work: Callable[[], bool]) -> bool:
    """What `work` says in a child of another user and group, who is in the group of the store."""
    child = os.fork()
    if child == 0:
        good = False
        with contextlib.suppress(BaseException):
            os.setgroups([4242])
            os.setgid(65534)
            os.setuid(65534)
            os.umask(0o077)
            good = work()
        os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("mode", [0o2770, 0o3770, 0o2750], ids=["shared", "sticky", "to read"])
def test_two_users_of_one_directory(mode: int) -> None:
    """With rights that the other lacks: nothing fails, each reads what both wrote where the directory is for both."""
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as directory:
        Path(directory).chmod(0o755)
        root = Path(directory) / "store"
        root.mkdir()
        os.chown(root, 0, 4242)
        root.chmod(mode)
        before = os.umask(0o027)
        try:
            store = Store(root)
            with store.in_use():
                ours = add(store, 1, b"of root", used_s=1000)[0]
            if mode == 0o2750:
                os.chown(store.blobs.path(ours).parent.parent, 0, 4242)
        finally:
            os.umask(before)

        def other() -> bool:
            theirs = Store(root)
            with theirs.in_use():
                read = theirs.blobs.read(ours) == b"of root"
                moved = theirs.results.used(key(1))
                with contextlib.suppress(OSError):
                    add(theirs, 2, b"of nobody")
            stats, removed, _ = theirs.stats(), theirs.gc(0), theirs.verify()
            assert (root / "usage").exists()
            if mode == 0o2750:
                return not moved and removed.entries == 0 and stats.entries <= 1
            return read and moved and stats.entries == 2 and removed.entries == (2 if mode == 0o2770 else 1)

        assert as_nobody(other)
        with store.in_use():
            assert store.results.lookup(key(1)) is None or store.blobs.read(ours) == b"of root"
        store.gc(0)
        assert store.stats().entries == 0


def test_a_directory_that_went_stale_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS says so of what another machine removed."""
    store = fill(tmp_path, 3)
    digest = store.blobs.put_bytes(b"a blob")
    real = os.open

    def stale(path: Any, *args: Any, **kwargs: Any) -> int:
        if "lock" not in str(path):
            raise OSError(errno.ESTALE, "Stale file handle", path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", stale)
    assert store.results.lookup(key(1)) is None and store.blobs.read(digest) is None
    with store.in_use(), pytest.raises(OSError, match="Stale"):
        store.blobs.put_bytes(b"costs this result and nothing else")
    store.stats()
    assert store.gc(0).entries == store.verify().entries == 0


# --- many at once -------------------------------------------------------------------------------

BUILD = """
import random, sys
from pathlib import Path
from cache.store import Store
from cache.digest import ActionKey
from cache.actions import ActionResult, OutputFile
root, me, times = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
dice = random.Random(me)
for turn in range(times):
    store = Store(root, 150_000)
    with store.in_use():
        made = []
        for n in range(dice.randrange(1, 8)):
            # Most of these are there already, perhaps as orphans: a gc that chose them must not take them now.
            texts = [b"%d" % dice.randrange(60) * 2000 for _ in range(2)]
            digests = [store.blobs.put_bytes(text) for text in texts]
            key = ActionKey(f"{dice.randrange(1 << 256):064x}")
            outputs = tuple(OutputFile(f"build/{at}", digest, False) for at, digest in enumerate(digests))
            store.results.record(key, ActionResult(outputs))
            made.append((key, digests, texts))
        for key, digests, texts in made:
            assert store.results.lookup(key), "an entry of this build is gone"
            assert [store.blobs.read(digest) for digest in digests] == texts
"""
COLLECT = """
import random, sys
from pathlib import Path
from cache.store import Store
root, me, times = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
dice = random.Random(me)
for turn in range(times):
    Store(root).gc(dice.randrange(20_000, 200_000))
"""


def stress(root: Path, builds: int, times: int, kills: int) -> None:
    """Builds and gcs beside each other; some of the gcs are killed wherever they are."""
    store, dice = Store(root), random.Random(1)
    at = Path(__file__).parents[2]

    def start(code: str, me: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, str(root), str(me), str(times)], cwd=at)

    builders = [start(BUILD, me) for me in range(builds)]
    collector = start(COLLECT, 99)
    for _ in range(kills):
        with contextlib.suppress(subprocess.TimeoutExpired):
            collector.wait(0.1 + 0.3 * dice.random())
        collector.kill()
        collector.wait()
        collector = start(COLLECT, dice.randrange(1000))
    assert [child.wait(timeout=300) for child in builders] == [0] * builds
    assert collector.wait(timeout=300) == 0
    assert is_consistent(store)
    removed = store.verify()
    assert (removed.entries, removed.blobs) == (0, 0), "nothing was damaged, no entry lacks a blob"
    store.gc(50_000)
    assert store.stats().bytes <= 50_000


def test_builds_and_collectors_at_once(tmp_path: Path) -> None:
    stress(tmp_path, builds=2, times=25, kills=2)


@pytest.mark.stress
def test_many_builds_and_collectors_for_long(tmp_path: Path) -> None:
    stress(tmp_path, builds=6, times=400, kills=60)


# --- how many at once ---------------------------------------------------------------------------


def removed(rhythm: collect.Rhythm, rounds: int, alone_s: float, together_s: float, waits_each: float) -> list[bool]:
    """For each round, whether many were removed at once, where a file takes so long."""
    said = []
    for _ in range(rounds):
        said.append(rhythm.together)
        each_s = together_s if rhythm.together else alone_s
        rhythm.learn(rhythm.size, rhythm.size * each_s, round(rhythm.size * waits_each))
    return said


def test_where_the_disk_makes_us_wait_many_wait_at_once() -> None:
    assert removed(collect.Rhythm(), 20, 1e-3, 1e-4, 1.0) == [False] + [True] * 19


def test_on_a_busy_machine_one_removes_alone() -> None:
    """Everything takes long, and nothing waits of itself."""
    assert not any(removed(collect.Rhythm(), 20, 1e-3, 1e-4, 0.1))
    assert not any(removed(collect.Rhythm(), 20, 2e-5, 1e-6, 1.0))


def test_many_at_once_that_are_not_quicker_are_tried_once() -> None:
    assert removed(collect.Rhythm(), 20, 2e-4, 1.9e-4, 1.0) == [False] + [True] * 4 + [False] * 15


def test_a_round_is_short_and_never_one_file_a_worker() -> None:
    rhythm = collect.Rhythm()
    removed(rhythm, 20, 2e-5, 2e-5, 0.0)
    assert rhythm.size == pytest.approx(collect.ROUND_S / 2e-5, rel=0.1)
    removed(rhythm, 20, 1e-2, 1e-2 / 16, 1.0)
    assert rhythm.together and rhythm.size == 128


def test_many_at_once_remove_what_one_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for root in (alone, together):
        fill(root, 300)
    one = Store(alone).gc(50_000)
    monkeypatch.setattr(collect, "_waits", iter(range(0, 10**9, 1000)).__next__)
    monkeypatch.setattr(collect, "_SLOW_S", 0.0)
    monkeypatch.setattr(collect, "_GAIN", 1e9)
    many = Store(together).gc(50_000)
    assert many == one and one.entries > 100
    assert {p.name for p in together.rglob("??/*")} == {p.name for p in alone.rglob("??/*")}
    assert is_consistent(Store(together))


def test_neighbours_in_a_round_lie_in_different_directories() -> None:
    by_group = {"aa": [f"a{n}" for n in range(20)], "bb": ["b0"], "cc": [f"c{n}" for n in range(9)]}
    order = collect._in_turn(by_group)
    assert sorted(order) == sorted((group, name) for group, names in by_group.items() for name in names)
    assert [group for group, _ in order] == ["aa"] * 8 + ["bb"] + ["cc"] * 8 + ["aa"] * 8 + ["cc"] + ["aa"] * 4
    assert collect._in_turn({}) == []
