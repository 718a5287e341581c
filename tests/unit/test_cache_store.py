"""CAS and action cache on a real directory; formats by literal bytes."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from cache import blobs as blobs_module
from cache.actions import MAX_CANDIDATES, ActionCache, ActionResult, OutputFile, decode_entry, encode_entry
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest, digest_bytes
from cache.hexfiles import HexFiles

HELLO = Digest("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", 5)
KEY = ActionKey("ab" * 32)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def test_blob_is_where_its_digest_says(store: BlobStore, tmp_path: Path) -> None:
    assert not store.has(HELLO)
    assert store.put_bytes(b"hello") == HELLO
    path = tmp_path / "store/cas.v1/2c" / HELLO.hex
    assert path.read_bytes() == b"hello" and not path.stat().st_mode & 0o222
    assert store.has(HELLO) and not store.has(Digest(HELLO.hex, 6))
    assert store.read(HELLO) == b"hello"


def test_second_put_writes_nothing(store: BlobStore) -> None:
    store.put_bytes(b"hello")
    before = store.path(HELLO).stat().st_ino
    store.put_bytes(b"hello")
    assert store.path(HELLO).stat().st_ino == before


def test_a_write_that_the_system_takes_in_parts_is_whole(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[: max(1, len(data) // 2)]))
    digest = store.put_bytes(bytes(range(200)))
    assert store.read(digest) == bytes(range(200))


def test_temporary_names_are_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two programs with one process id, as in two containers, and of one that writes a file twice."""
    names = []
    replace = os.replace

    def seen(temp: str, place: str, **where: int | None) -> None:
        names.append(temp)
        replace(temp, place, **where)

    monkeypatch.setattr(os, "replace", seen)
    for _ in range(2):
        results = ActionCache(tmp_path, BlobStore(tmp_path))
        for _ in range(3):
            results.record(KEY, ActionResult(()))
    assert len(set(names)) == len(names) == 6
    assert all(name.rpartition("/")[2].startswith(".") and name.endswith(".tmp") for name in names)


def test_base_keys_with_the_same_sets_have_equal_entries_of_their_own(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    results, one, two = ActionCache(tmp_path, blobs), blobs.put_bytes(b"one"), blobs.put_bytes(b"two")
    bases = [ActionKey(f"{n:064x}") for n in range(3)]
    for base, sets in zip(bases, [(one,), (one,), (one, two)], strict=True):
        for digest in sets:
            results.put_first(base, digest)
    assert [ActionCache(tmp_path, blobs).sets(base) for base in bases] == [(one,), (one,), (two, one)]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 17, 100])
def test_put_file_of_any_size(store: BlobStore, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "_CHUNK", 8)
    data = bytes(range(size))
    (tmp_path / "file").write_bytes(data)
    for _ in range(2):
        digest = store.put_file(str(tmp_path / "file"))
        assert digest == digest_bytes(data) and store.read(digest) == data
    assert list((tmp_path / "store").rglob("*.tmp")) == []


@pytest.mark.parametrize("size", [0, 5, 1 << 17])
def test_materialize_copies_and_never_links(store: BlobStore, tmp_path: Path, size: int) -> None:
    data = b"x" * size
    digest = store.put_bytes(data)
    target = tmp_path / "out/deep/file"
    made = store.materialize(digest, str(target), executable=True)
    assert made is not None and made[0] == data and made[1].st_ino == target.stat().st_ino
    assert target.read_bytes() == data and os.access(target, os.X_OK)
    assert target.stat().st_mode & stat.S_IWUSR, "an output can be written to"
    assert target.stat().st_ino != store.path(digest).stat().st_ino
    target.write_bytes(b"scribble")
    assert store.read(digest) == data
    made = store.materialize(digest, str(target), executable=False)
    assert made is not None and made[0] == data and made[1].st_ctime_ns == target.stat().st_ctime_ns
    assert not os.access(target, os.X_OK) and target.read_bytes() == data


def test_damaged_blob_is_removed_and_not_used(store: BlobStore, tmp_path: Path) -> None:
    store.put_bytes(b"hello")
    path = store.path(HELLO)
    path.chmod(0o644)
    path.write_bytes(b"hellO")
    assert store.has(HELLO), "its size is right"
    assert store.materialize(HELLO, str(tmp_path / "out"), executable=False) is None
    assert not (tmp_path / "out").exists() and not path.exists()
    store.put_bytes(b"hello")
    assert store.read(HELLO) == b"hello"


def test_many_writers_of_one_blob(store: BlobStore) -> None:
    threads = [threading.Thread(target=store.put_bytes, args=(b"hello",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read(HELLO) == b"hello"
    assert len(list(store.path(HELLO).parent.iterdir())) == 1


RESULT = ActionResult((OutputFile("build/a.o", HELLO, True),), None, HELLO, 1234)
ENTRY = (
    b'{"actionResult":{"executionMetadata":{"virtualExecutionDuration":"1.234s"},"outputFiles":[{"digest":{"hash":'
    b'"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","sizeBytes":"5"},"isExecutable":true,'
    b'"path":"build/a.o"}],"stderrDigest":{"hash":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",'
    b'"sizeBytes":"5"}},"format":"ac.v1","sha256":"%s"}'
)


def test_entry_bytes() -> None:
    data = encode_entry(KEY, RESULT)
    result = ENTRY[len(b'{"actionResult":') : ENTRY.index(b',"format"')]
    assert data == ENTRY % hashlib.sha256(KEY.encode() + b"\n" + result).hexdigest().encode()
    assert decode_entry(KEY, data) == RESULT


def test_entry_under_another_key_is_not_believed() -> None:
    assert decode_entry(ActionKey("cd" * 32), encode_entry(KEY, RESULT)) is None


def test_entry_truncated_or_flipped_is_a_miss() -> None:
    data = encode_entry(KEY, RESULT)
    assert all(decode_entry(KEY, data[:length]) is None for length in range(len(data)))
    for position in range(len(data)):
        for bit in (0x01, 0x20, 0x80):
            flipped = data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]
            assert decode_entry(KEY, flipped) in (None, RESULT)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b'{"actionResult":1,"format":"ac.v1","sha256":""}', b"[" * 9999]
)
def test_any_other_json_is_a_miss(data: bytes) -> None:
    assert decode_entry(KEY, data) is None


def test_hit_only_with_all_blobs(store: BlobStore, tmp_path: Path) -> None:
    cache = ActionCache(tmp_path / "store", store)
    assert cache.lookup(KEY) is None
    store.put_bytes(b"hello")
    cache.record(KEY, RESULT)
    assert (tmp_path / "store/ac.v1/ab" / KEY).exists()
    assert cache.lookup(KEY) == RESULT
    store.path(HELLO).unlink()
    assert cache.lookup(KEY) is None


def test_candidates_newest_first_and_bounded(store: BlobStore, tmp_path: Path) -> None:
    cache = ActionCache(tmp_path / "store", store)
    assert cache.candidates(KEY) == ()
    for number in (1, 2, 1):
        cache.add_candidate(KEY, b"set %d" % number)
    assert cache.candidates(KEY) == (b"set 1", b"set 2")
    for number in range(100):
        cache.add_candidate(KEY, b"more %d" % number)
    found = cache.candidates(KEY)
    assert len(found) == MAX_CANDIDATES and found[0] == b"more 99"
    store.path(digest_bytes(b"more 98")).unlink()
    assert cache.candidates(KEY)[:2] == (b"more 99", b"more 97")


def test_candidates_that_many_base_keys_share_are_read_of_each(store: BlobStore, tmp_path: Path) -> None:
    """What an entry says is remembered, not that it is one: damage is found in each."""
    first = ActionCache(tmp_path / "store", store)
    bases = [ActionKey(digest_bytes(b"%d" % n).hex) for n in range(4)]
    for base in bases:
        first.add_candidate(base, b"all" if base != bases[1] else b"another")
    first.path(bases[2]).write_bytes(first.path(bases[0]).read_bytes())
    second = ActionCache(tmp_path / "store", store)
    assert [second.candidates(base) for base in bases] == [(b"all",), (b"another",), (), (b"all",)]
    assert not second.path(bases[2]).exists()


def test_sets_of_others_stay_when_ours_is_put_first(tmp_path: Path) -> None:
    """None was here, those of another machine came, and what is made here after that is one more."""
    blobs = BlobStore(tmp_path)
    cache = ActionCache(tmp_path, blobs)
    theirs, ours = blobs.put_bytes(b"theirs"), blobs.put_bytes(b"ours")
    assert cache.sets(KEY) == ()
    cache.take_candidates(KEY, [theirs])
    assert cache.sets(KEY) == (theirs,)
    cache.put_first(KEY, ours)
    assert cache.sets(KEY) == (ours, theirs)


def test_who_writes_late_uses_no_handle_of_those_who_have_ended(tmp_path: Path) -> None:
    """A thread that has seen `top` held open, and goes on only when it is not any more."""
    files = HexFiles(tmp_path / "top")
    held = files.held_open()
    held.__enter__()
    files.write("a" * 64, b"first")
    lock, late = files._holding, []

    class Late:
        def __enter__(self) -> None:
            files._holding = lock
            held.__exit__(None, None, None)
            late.append(True)
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    files._holding = Late()  # type: ignore[assignment]
    files.write("b" * 64, b"second")
    assert late == [True] and files._held == -1
    assert files.read("b" * 64, most=10) == b"second"
