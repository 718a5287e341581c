"""A store that others write to as well: whatever they put there is a miss, and nothing outside the store is touched."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache import blobs as blobs_module
from cache import hexfiles, statefile
from cache.actions import FORMAT, ActionResult, OutputFile, decode_entry, encode_entry
from cache.digest import MAX_BLOB_BYTES, ActionKey, Digest, digest_bytes
from cache.durable import FileLock, read_file
from cache.store import Store

KEY = ActionKey("ab" * 32)
OTHER = ActionKey("cd" * 32)
DATA = b"hello"
HELLO = digest_bytes(DATA)
RESULT = ActionResult((OutputFile("build/a.o", HELLO, False),), None, HELLO, 1234)


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """What waits for a FIFO waits for ever: five minutes are the same, and the test fails."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["in open directories", "by path"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """`by path`: as on Windows, whose system cannot name a file within an open directory."""
    if request.param == "by path":
        monkeypatch.setattr(hexfiles, "_AT", False)
    store = Store(tmp_path / "store")
    store.blobs.put_bytes(DATA)
    store.results.record(KEY, RESULT)
    return store


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody's files, beside the store."""
    for name in ("victim", HELLO.hex, KEY):
        (tmp_path / "outside" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "outside" / name).write_text("precious")
        os.utime(tmp_path / "outside" / name, (1000, 1000))
    return tmp_path / "outside"


def whole(outside: Path) -> bool:
    """Is nothing missing, new, written or touched?"""
    files = {path.name: (path.read_text(), path.stat().st_mtime) for path in outside.iterdir()}
    return files == dict.fromkeys(("victim", HELLO.hex, KEY), ("precious", 1000.0))


def body(**changes: Any) -> dict[str, Any]:
    """The action result of `RESULT` in JSON, changed."""
    digest = {"hash": HELLO.hex, "sizeBytes": "5"}
    file = {"path": "build/a.o", "digest": digest, "isExecutable": False}
    return {
        "outputFiles": [file],
        "stderrDigest": digest,
        "executionMetadata": {"virtualExecutionDuration": "1.234s"},
        **changes,
    }


def forged(key: str, text: str) -> bytes:
    """An entry with this action result, and with a checksum that is right: anybody can write one."""
    checksum = hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()
    return f'{{"actionResult":{text},"format":"{FORMAT}","sha256":"{checksum}"}}'.encode()


def plant(store: Store, text: str, key: ActionKey = KEY) -> Path:
    path = store.results.path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(forged(key, text))
    return path


def use(store: Store, key: ActionKey = KEY) -> None:
    """Whatever a run and the tasks of the cache do with an entry."""
    result = store.results.lookup(key) or store.results.entry(key)
    for digest in () if result is None else result.blobs():
        store.blobs.has(digest)
        store.blobs.read(digest)
        store.blobs.materialize(digest, str(store.root.parent / "made"), executable=False)
    store.results.candidates(key)
    store.results.used(key)
    store.stats()
    store.verify()
    store.gc(0)


def test_what_is_planted_is_else_a_hit(store: Store) -> None:
    plant(store, json.dumps(body()))
    assert store.results.lookup(KEY) == RESULT
    assert store.verify().entries == 0


def digests(hash_: Any, size: Any = "5") -> dict[str, Any]:
    return {"hash": hash_, "sizeBytes": size}


BAD_HASHES: list[Any] = [
    *("../outside/victim", "../../outside/victim", "/etc/hostname", "..", "", HELLO.hex.upper(), HELLO.hex[:-1]),
    *(HELLO.hex + "\n", HELLO.hex + "\0", HELLO.hex[:-1] + "\u0665", None, [HELLO.hex], 5, True),
]
BAD_SIZES: list[Any] = [
    *("-1", "5.0", " 5", "5\n", "+5", "0x5", "05", "1_0", "\u0665", "", "5" * 5000, "NaN", "1e3"),
    *(str(2**62), str(2**63), str(MAX_BLOB_BYTES + 1), 5, 5.0, True, None, [], {}, 2**62, 1e999),
]
BAD_DIGESTS: list[Any] = [
    *(digests(hash_) for hash_ in BAD_HASHES),
    *(digests(HELLO.hex, size) for size in BAD_SIZES),
    *(None, "", [], HELLO.hex, {}),
]


@pytest.mark.parametrize("digest", BAD_DIGESTS, ids=lambda value: repr(value)[:60])
@pytest.mark.parametrize("place", ["output", "stderr", "stdout"])
def test_a_digest_that_is_none_is_a_miss(store: Store, outside: Path, digest: Any, place: str) -> None:
    file = {"path": "build/a.o", "digest": digest, "isExecutable": False}
    changes = {"outputFiles": [file]} if place == "output" else {f"{place}Digest": digest}
    path = plant(store, json.dumps(body(**changes)))
    assert decode_entry(KEY, path.read_bytes()) is None
    assert store.results.lookup(KEY) is None and not path.exists()
    plant(store, json.dumps(body(**changes)))
    use(store)
    assert whole(outside) and not path.exists()


BAD_FILES: list[Any] = [None, {}, "", "x", 1, [None], [[]], ["x"], {"0": 1}]
BAD_PATHS: list[Any] = [
    *("../x", "build/../../x", "build/..", "/etc/x", "build", "build/", "build//x", "build/./x", "./build/x"),
    *("", ".", "..", "src/main.c", "buildx/y", "build\\x", "build/x\\y", "build/\0", "build/x\0y", "C:/x"),
    *("build/" + "x" * 5000, 5, None, ["build/x"], True),
]
BAD_DURATIONS: list[Any] = [
    *("1e999s", "NaNs", "nans", "infs", "-1.000s", "1s", "", "s", "1.0000s", " 1.000s", "1.000s\n", "1_0.000s"),
    *("9" * 400 + ".000s", 1.5, 1e999, None, [], True),
]
NOTHING: list[Any] = [None, [], "", 5, {}]


def one_file(path: Any, executable: Any) -> dict[str, Any]:
    return body(outputFiles=[{"path": path, "digest": digests(HELLO.hex), "isExecutable": executable}])


BAD_BODIES: list[Any] = [
    *(body(outputFiles=value) for value in BAD_FILES),
    *(one_file(path, False) for path in BAD_PATHS),
    *(one_file("build/x", executable) for executable in [0, 1, "true", *NOTHING]),
    *(body(executionMetadata={"virtualExecutionDuration": duration}) for duration in BAD_DURATIONS),
    *(body(executionMetadata=value) for value in NOTHING),
    *NOTHING,
]


@pytest.mark.parametrize("value", BAD_BODIES, ids=lambda value: json.dumps(value)[-90:][:60])
def test_any_other_value_is_a_miss(store: Store, outside: Path, value: Any) -> None:
    path = plant(store, json.dumps(value))
    assert store.results.lookup(KEY) is None and not path.exists()
    plant(store, json.dumps(value))
    use(store)
    assert whole(outside)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"outputFiles":' * 50_000, "", "\0", "NaN", "Infinity", '{"outputFiles":[1e999]}', "1" * 5000],
    ids=lambda text: text[:20],
)
def test_any_other_text_is_a_miss(store: Store, text: str) -> None:
    path = plant(store, text)
    assert store.results.lookup(KEY) is None and not path.exists()
    plant(store, text)
    use(store)


def test_an_entry_of_any_length_is_read_in_bounded_memory(store: Store) -> None:
    path = store.results.path(KEY)
    os.truncate(path, 1 << 40)
    assert store.results.lookup(KEY) is None and not path.exists()
    path.write_bytes(b"x")
    os.truncate(path, 1 << 40)
    use(store)
    assert not path.exists()


def test_a_blob_of_any_length_is_read_in_bounded_memory(store: Store) -> None:
    path = store.blobs.path(HELLO)
    for size in (1 << 40, MAX_BLOB_BYTES + 1):
        path.chmod(0o644)
        os.truncate(path, size)
        assert not store.blobs.has(HELLO) and store.blobs.read(HELLO) is None and not path.exists()
        assert store.blobs.read(Digest(HELLO.hex, size)) is None
        store.blobs.put_bytes(DATA)
        assert store.blobs.read(HELLO) == DATA


def test_a_gigabyte_of_holes_is_hashed_before_it_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "_HASHED_FIRST", 4096)
    monkeypatch.setattr(store.blobs.files, "read", lambda *arguments, **more: pytest.fail("read as a whole"))
    path = store.blobs.path(HELLO)
    path.chmod(0o644)
    os.truncate(path, 1 << 20)
    assert store.blobs.read(Digest(HELLO.hex, 1 << 20)) is None and not path.exists()


def test_a_large_blob_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "_HASHED_FIRST", 4)
    assert store.blobs.read(HELLO) == DATA


def test_what_is_larger_than_a_blob_may_be_is_not_stored(store: Store, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (3 << 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blobs_module, "MAX_BLOB_BYTES", 2 << 20)
        with pytest.raises(OSError, match="too large"):
            store.blobs.put_file(str(tmp_path / "large"))
    assert not list(store.root.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["../outside/victim", "..", "", "/etc/hostname", "x" * 64, KEY.upper(), KEY + "\n"])
def test_a_key_or_digest_from_a_state_file_is_no_path(store: Store, outside: Path, name: str) -> None:
    digest, key = Digest(name, 8), ActionKey(name)
    assert not store.blobs.has(digest) and store.blobs.read(digest) is None
    assert store.blobs.materialize(digest, str(outside.parent / "made"), executable=False) is None
    assert store.results.lookup(key) is None and not store.results.used(key)
    assert store.results.candidates(key) == ()
    with pytest.raises(OSError, match="64 hex digits"):
        store.results.record(key, RESULT)
    with pytest.raises(OSError, match="64 hex digits"):
        store.results.add_candidate(key, b"x")
    assert whole(outside)


# --- what lies in the place of a file ---------------------------------------------------------


def as_fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def as_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "victim")


def as_link_to_its_like(path: Path, outside: Path) -> None:
    path.symlink_to(outside / path.name)


def as_loop(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def as_dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nothing")


def as_endless_device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def as_directory(path: Path, outside: Path) -> None:
    (path / "below").mkdir(parents=True)
    (path / "link").symlink_to(outside)
    (path / "below/link").symlink_to(outside / "victim")


def as_socket(path: Path, outside: Path) -> None:
    import socket

    os.mknod(path, 0o140644) if hasattr(os, "mknod") else socket.socket(socket.AF_UNIX).bind(str(path))


IN_PLACE = [
    as_fifo,
    as_link,
    as_link_to_its_like,
    as_loop,
    as_dangling_link,
    as_endless_device,
    as_directory,
    as_socket,
]


@pytest.mark.parametrize("put", IN_PLACE)
def test_what_is_no_file_is_a_miss_and_is_replaced(
    store: Store, outside: Path, put: Callable[[Path, Path], None]
) -> None:
    for path in (store.blobs.path(HELLO), store.results.path(KEY)):
        path.unlink()
        put(path, outside)
    assert not store.blobs.has(HELLO) and store.blobs.read(HELLO) is None
    assert store.results.lookup(KEY) is None and store.results.candidates(KEY) == ()
    for path in (store.blobs.path(HELLO), store.results.path(KEY)):
        if not os.path.lexists(path):
            put(path, outside)
    assert not store.results.used(KEY) and whole(outside)
    store.blobs.put_bytes(DATA)
    store.results.record(KEY, RESULT)
    assert store.results.lookup(KEY) == RESULT and store.blobs.read(HELLO) == DATA
    assert whole(outside)


@pytest.mark.parametrize("task", ["gc", "verify", "clear"])
@pytest.mark.parametrize("put", IN_PLACE)
def test_tasks_remove_what_is_no_file(
    store: Store, outside: Path, put: Callable[[Path, Path], None], task: str
) -> None:
    other = store.blobs.put_bytes(b"other")
    store.results.record(OTHER, ActionResult((OutputFile("build/b.o", other, False),)))
    for path in (store.blobs.path(HELLO), store.results.path(KEY)):
        path.unlink()
        put(path, outside)
    removed = getattr(store, task)()
    assert not removed.busy and removed.left_bytes == store.stats().bytes
    assert not any(os.path.lexists(path) for path in (store.blobs.path(HELLO), store.results.path(KEY)))
    assert (store.results.lookup(OTHER) is not None) == (task != "clear")
    assert whole(outside)


@pytest.mark.parametrize("which", ["cas.v1", "ac.v1", "group"])
def test_a_link_in_the_place_of_a_directory_is_not_followed(store: Store, outside: Path, which: str) -> None:
    places = [store.blobs.path(HELLO).parent, store.results.path(KEY).parent]
    links = places if which == "group" else [store.root / which]
    for place in links:
        shutil.rmtree(place)
        place.symlink_to(outside)
    # What is there is no hit, and is not removed for it.
    assert store.results.lookup(KEY) is None and (which == "ac.v1" or store.blobs.read(HELLO) is None)
    assert not store.results.used(OTHER) and whole(outside)
    for task in ("stats", "gc", "verify", "clear"):
        getattr(store, task)()
        assert whole(outside)
    for place in links:
        if not place.is_symlink():
            place.symlink_to(outside)
    for put in (lambda: store.blobs.put_bytes(DATA), lambda: store.results.record(KEY, RESULT)):
        try:
            put()
        except OSError as error:
            assert which != "group" or hexfiles._AT is False, error
    assert whole(outside)
    if which == "group" and hexfiles._AT:
        assert store.results.lookup(KEY) == RESULT, "a link is damage, and damage is mended"


def test_directories_of_others_are_left_alone(store: Store) -> None:
    for place in (store.root / "mine", store.blobs.root / "mine", store.results.path(KEY).parents[1] / "mine"):
        (place / "below").mkdir(parents=True)
        (place / "file").write_text("precious")
        (place / HELLO.hex).write_text("precious")
    use(store)
    store.clear()
    assert len(list(store.root.rglob("precious"))) == 0 and len(list(store.root.rglob("file"))) == 3


@pytest.mark.parametrize("put", IN_PLACE)
def test_the_files_beside_are_not_followed_either(
    store: Store, outside: Path, put: Callable[[Path, Path], None]
) -> None:
    for name in ("usage", "lock"):
        (store.root / name).unlink(missing_ok=True)
        put(store.root / name, outside)
    with store.in_use():
        store.blobs.put_bytes(b"more")
    use(store)
    assert whole(outside) and store.blobs.put_bytes(DATA) == HELLO


@pytest.mark.parametrize("text", ["9" * 5000, "-5", "1e999", "NaN", "\0", "x" * 100_000])
def test_a_sum_that_is_none_is_counted_anew(store: Store, text: str) -> None:
    (store.root / "usage").write_text(text)
    with store.in_use():
        store.blobs.put_bytes(b"more")
    assert 0 <= int((store.root / "usage").read_text()) <= store.stats().bytes + 100


# --- state files and locks --------------------------------------------------------------------


@pytest.mark.parametrize("put", IN_PLACE)
def test_a_state_file_that_is_none_starts_over(
    tmp_path: Path, outside: Path, put: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "some.state"
    put(path, outside)
    value, note = statefile.load(path, "test 1")
    assert value is None
    assert note.endswith("; starting over") or put in (as_dangling_link, as_link_to_its_like), "there is none"
    statefile.save(path, "test 1", (1, 2))
    assert statefile.load(path, "test 1") == ((1, 2), "") and whole(outside)


@pytest.mark.parametrize("put", [as_link, as_dangling_link, as_loop])
def test_a_lock_is_not_taken_through_a_link(tmp_path: Path, outside: Path, put: Callable[[Path, Path], None]) -> None:
    """Who holds a lock writes into it."""
    put(tmp_path / "lock", outside)
    with pytest.raises(OSError):
        FileLock(tmp_path / "lock").try_acquire("me")
    assert whole(outside)


def test_what_is_read_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"Not a regular file|Is a directory"):
            read_file(str(path))
    (tmp_path / "file").write_bytes(b"x" * 40_000)
    (tmp_path / "link").symlink_to("file")
    assert len(read_file(str(tmp_path / "link"))) == 40_000
    with pytest.raises(OSError):
        read_file(str(tmp_path / "link"), follow=False)
    with pytest.raises(OSError, match="too large"):
        read_file(str(tmp_path / "file"), most=39_999)


# --- at random --------------------------------------------------------------------------------


def test_entries_mutated_at_random_are_misses_or_sound(store: Store, outside: Path) -> None:
    """A thousand, each with a checksum that is right."""
    rng = random.Random(1812)
    text = encode_entry(KEY, RESULT)[len(b'{"actionResult":') : -len(b',"format":"ac.v1","sha256":""}') - 64].decode()
    pieces = [
        "..",
        "/",
        "\0",
        "1e999",
        "NaN",
        "null",
        "[]",
        "{}",
        '"',
        "\\",
        str(2**62),
        "-1",
        "true",
        "[" * 500,
        "\ud800",
    ]
    for _ in range(1000):
        mutated = text
        for _ in range(rng.randint(1, 3)):
            at, length = rng.randrange(len(mutated)), rng.choice((0, 0, 1, 5, 20))
            mutated = mutated[:at] + rng.choice([*pieces, chr(rng.randrange(256))]) + mutated[at + length :]
        data = mutated.encode("utf-8", "surrogatepass")
        checksum = hashlib.sha256(KEY.encode() + b"\n" + data).hexdigest().encode()
        result = decode_entry(KEY, b'{"actionResult":%s,"format":"ac.v1","sha256":"%s"}' % (data, checksum))
        for digest in () if result is None else result.blobs():
            assert store.blobs.path(digest).parents[1] == store.blobs.root
            store.blobs.read(digest)
        for file in () if result is None else result.outputs:
            assert file.path.startswith(("build/", "set/")) and "/../" not in f"{file.path}/"
    assert whole(outside) and store.blobs.read(HELLO) == DATA


# --- damage that keeps the size ---------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 1 << 20, (2 << 20) + 1])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_flipped_blob_is_rewritten_when_equal_bytes_are_stored_again(
    store: Store, tmp_path: Path, size: int, by_file: bool
) -> None:
    data = bytes(size)
    (tmp_path / "file").write_bytes(data)

    def put() -> Digest:
        return store.blobs.put_file(str(tmp_path / "file")) if by_file else store.blobs.put_bytes(data)

    path = store.blobs.path(put())
    for at in {0, size // 2, size - 1}:
        path.chmod(0o644)
        path.write_bytes(data[:at] + b"\x01" + data[at + 1 :])
        before = store.blobs.bytes_written
        digest = put()
        assert store.blobs.read(digest) == data and store.blobs.bytes_written == before + size
        inode = path.stat().st_ino
        put()
        assert path.stat().st_ino == inode and store.blobs.bytes_written == before + size
    assert not list(store.root.rglob("*.tmp"))
