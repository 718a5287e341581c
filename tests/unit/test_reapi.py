"""Results over the Remote Execution API, against a server in this process: work counted, and every kind of lie."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.actions import MAX_CANDIDATES, ActionResult, OutputFile
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest, digest_bytes
from pipeline.config.cache_url import fault_of, parse_cache_url
from pipeline.effects.clock import SystemClock
from pipeline.effects.loopback import listen
from pipeline.formats import reapi
from pipeline.formats.protobuf import decode, encode
from pipeline.remote.reapi import ReapiRemote
from pipeline.remote.reapi_channel import ReapiServer, server_of
from pipeline.remote.reapi_results import action_digest, message_of, result_of
from tests.unit.reapi_server import SMALL_BATCH, ReapiDouble, RpcRefusal
from tests.unit.test_remote_tls import certificate
from tests.unit.test_remote_watch import NotedRound

KEY, BASE, OTHER = (ActionKey(letter * 64) for letter in "abc")
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need seconds for what is answered at once on another."""
    for name in ("HELLO_S", "FIND_S"):
        monkeypatch.setattr(f"pipeline.remote.reapi.{name}", PATIENCE_S)


@pytest.fixture
def server() -> Iterator[ReapiDouble]:
    with ReapiDouble() as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "there")


def client(server: ReapiDouble, **more: Any) -> ReapiRemote:
    return ReapiRemote(server.address, SystemClock(), **{"writes": True, **more})


def some_result(store: BlobStore) -> ActionResult:
    """Outputs of many sizes: none, small, and more than a batch holds."""
    sizes = (0, 1, 100, SMALL_BATCH // 2, SMALL_BATCH - 200, SMALL_BATCH, 5 * SMALL_BATCH)
    files = [OutputFile(f"build/p/{n}.o", store.put_bytes(os.urandom(size)), n == 1) for n, size in enumerate(sizes)]
    return ActionResult(tuple(files), None, store.put_bytes(b"warning: x"), 1234)


def offered(server: ReapiDouble, store: BlobStore, result: ActionResult, key: ActionKey = KEY) -> ReapiRemote:
    remote = client(server)
    remote.offer(key, result, store)
    remote.settle(PATIENCE_S)
    return remote


def test_what_one_offers_another_finds_and_fetches(server: ReapiDouble, here: BlobStore, there: BlobStore) -> None:
    result = some_result(here)
    first = offered(server, here, result)
    assert first.notes() == () and first.counts().offered == 1 and first.counts().given_up == 0
    assert first.counts().offered_bytes == sum(digest.size for digest in result.blobs())
    second = client(server)
    assert second.find([KEY, OTHER], there) == {KEY: result}
    assert second.fetch(result.blobs(), there, PATIENCE_S) == {*result.blobs()}
    assert all(there.read(digest) is not None for digest in result.blobs())
    counts = second.counts()
    assert (counts.rounds, counts.asked, counts.found, counts.fetched, counts.refused, counts.failed) == (
        *(2, 2, 1),
        *(len(result.blobs()), 0, 0),
    )
    assert second.speed().bytes_per_s > 0 and second.speed().latency_s > 0
    second.settle(0)
    # Two streams between three batches, and the empty one, which nobody need send.
    assert server.calls["BatchReadBlobs"] == 3 and server.calls["Read"] == 2
    assert server.calls["BatchUpdateBlobs"] == 3 and server.calls["Write"] == 2


def test_the_second_time_nothing_is_sent(server: ReapiDouble, here: BlobStore) -> None:
    result = some_result(here)
    offered(server, here, result)
    server.calls.clear()
    again = offered(server, here, result)
    assert again.counts().offered == 1 and again.counts().offered_bytes == 0
    assert server.calls["BatchUpdateBlobs"] == server.calls["Write"] == 0


def test_an_entry_goes_only_when_all_its_blobs_are_there(server: ReapiDouble, here: BlobStore) -> None:
    result = some_result(here)
    here.path(result.outputs[3].digest).unlink()
    remote = offered(server, here, result)
    assert remote.counts().offered == 0 and remote.counts().given_up == 1
    assert server.results == {}


def test_candidate_sets_of_both_sides_are_kept_and_travel_inside(
    server: ReapiDouble, here: BlobStore, there: BlobStore
) -> None:
    def sets(store: BlobStore, *texts: bytes) -> ActionResult:
        return ActionResult(tuple(OutputFile(f"set/{n}", store.put_bytes(text), False) for n, text in enumerate(texts)))

    offered(server, here, sets(here, b"one", b"two"), BASE)
    offered(server, there, sets(there, b"three", b"one"), BASE)
    new = BlobStore(here.root.parent / "new")
    server.calls.clear()
    reader = client(server)
    found = reader.find([BASE], new)[BASE]
    assert [new.read(file.digest) for file in found.outputs] == [b"three", b"one", b"two"]
    assert server.calls["BatchReadBlobs"] == 0
    reader.settle(0)
    many = [b"%d" % n for n in range(MAX_CANDIDATES)]
    offered(server, here, sets(here, *many), BASE)
    reader = client(server)
    assert len(reader.find([BASE], new)[BASE].outputs) == MAX_CANDIDATES
    reader.settle(0)


def test_no_server_means_local_and_is_said_once(here: BlobStore) -> None:
    remote = ReapiRemote(ReapiServer("127.0.0.1", 1), SystemClock(), writes=True)
    assert remote.find([KEY], here) == {} and remote.find([OTHER], here) == {}
    assert remote.fetch([digest_bytes(b"x")], here, PATIENCE_S) == frozenset()
    remote.offer(KEY, ActionResult(()), here)
    remote.settle(0)
    (note,) = remote.notes()
    assert note == "shared cache grpc://127.0.0.1:1: Connection refused; this run goes on without it"
    assert remote.counts().failed == 1 and remote.counts().rounds == 0


def test_a_server_that_says_nothing_costs_its_time_once(here: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.remote.reapi.HELLO_S", 0.3)
    with listen(0) as silent:
        remote = ReapiRemote(ReapiServer(*silent.getsockname()), SystemClock(), writes=True)
        began_s = time.monotonic()
        assert remote.find([KEY], here) == {}
        counts = remote.counts()
        assert time.monotonic() - began_s >= 0.25
        silent.close()  # whoever asked again would hear another word now
        assert remote.find([KEY], here) == {} and remote.fetch([digest_bytes(b"x")], here, 9.0) == frozenset()
        assert remote.counts() == counts and len(remote.notes()) == 1
        assert "it does not answer in time; this run goes on" in remote.notes()[0]
        remote.settle(0)


def test_without_the_package_it_says_which(
    server: ReapiDouble, here: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    remote = client(server)
    assert remote.find([KEY], here) == {} and remote.fetch([digest_bytes(b"x")], here, 1.0) == frozenset()
    assert "needs the package grpcio (pip install 'hotplate[reapi]'); this run goes on" in remote.notes()[0]
    remote.settle(0)


def test_a_server_that_comes_back_at_once_is_asked_again(server: ReapiDouble, here: BlobStore) -> None:
    offered(server, here, some_result(here))
    answer, refusals = server.results[KEY], ["UNAVAILABLE", "UNAVAILABLE"]

    def twice_busy(request: bytes) -> bytes:
        if refusals:
            raise RpcRefusal(refusals.pop())
        return answer

    server.answers[reapi.GET_ACTION_RESULT] = twice_busy
    remote = client(server)
    assert [*remote.find([KEY], here)] == [KEY] and remote.notes() == ()
    remote.settle(0)


@pytest.mark.parametrize("code", ["INTERNAL", "UNIMPLEMENTED"])
def test_after_a_failure_nothing_more_is_asked(server: ReapiDouble, here: BlobStore, code: str) -> None:
    def fail(request: bytes) -> bytes:
        raise RpcRefusal(code, "no\x1b[31m such thing\nmore")

    server.answers[reapi.GET_ACTION_RESULT] = fail
    remote = client(server)
    assert remote.find([KEY], here) == {} and remote.find([KEY], here) == {}
    assert server.calls["GetActionResult"] == 1
    (note,) = remote.notes()
    assert f"it answers {code}: no\\x1b[31m such thing; this run goes on" in note
    remote.settle(0)


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAUTHENTICATED"])
def test_a_server_that_wants_somebody_else(server: ReapiDouble, here: BlobStore, code: str) -> None:
    def refuse(request: bytes) -> bytes:
        raise RpcRefusal(code)

    server.answers[reapi.GET_CAPABILITIES] = refuse
    remote = client(server)
    assert remote.find([KEY], here) == {}
    assert f"does not let this client read ({code}); set HOTPLATE_CACHE_TOKEN" in remote.notes()[0]
    remote.settle(0)


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [
        ({"cache_capabilities": None}, "says nothing of a cache"),
        ({"cache_capabilities": {"digest_functions": [2, 9]}}, "does not name blobs by SHA-256"),
    ],
)
def test_a_server_that_is_of_no_use(
    server: ReapiDouble, here: BlobStore, capabilities: dict[str, Any], words: str
) -> None:
    server.capabilities.update(capabilities)
    remote = client(server)
    assert remote.find([KEY], here) == {}
    assert words in remote.notes()[0]
    assert server.calls["GetActionResult"] == 0
    remote.settle(0)


def test_a_server_that_takes_nothing_is_read_all_the_same(here: BlobStore, there: BlobStore) -> None:
    with ReapiDouble(update=False) as server:
        result = some_result(here)
        blobs = [server.put(here.read(digest) or b"") for digest in result.blobs()]
        server.results[KEY] = encode(reapi.ACTION_RESULT, message_of(KEY, result, {}))
        remote = client(server)
        remote.offer(OTHER, result, here)
        assert remote.find([KEY], there) == {KEY: result}
        assert remote.fetch(blobs, there, PATIENCE_S) == {*blobs}
        remote.settle(PATIENCE_S)
        assert server.calls["FindMissingBlobs"] == server.calls["UpdateActionResult"] == 0
        assert len(remote.notes()) == 1 and "does not take results: it says so" in remote.notes()[0]


def test_writing_refused_for_lack_of_a_token_leaves_reading(server: ReapiDouble, here: BlobStore) -> None:
    def refuse(request: bytes) -> bytes:
        raise RpcRefusal("PERMISSION_DENIED", "token?")

    server.answers[reapi.UPDATE_ACTION_RESULT] = refuse
    remote = client(server)
    remote.offer(KEY, some_result(here), here)
    remote.settle(PATIENCE_S)
    (note,) = remote.notes()
    words = "it does not take results: it answers PERMISSION_DENIED: token?; they stay on this machine"
    assert note == f"shared cache {server.address}: {words}"
    assert remote.counts().offered == 0 and remote.counts().given_up == 1


def test_a_token_goes_with_every_call(server: ReapiDouble, here: BlobStore) -> None:
    remote = client(server, authorization="Bearer s3cret")
    remote.find([KEY], here)
    remote.offer(KEY, some_result(here), here)
    remote.settle(PATIENCE_S)
    assert len(server.metadata) >= 5
    assert all(each["authorization"] == "Bearer s3cret" for each in server.metadata)


def test_a_certificate_must_be_known(here: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = certificate(tmp_path / "pem")
    with ReapiDouble(pem=pem.read_bytes()) as server:
        data = server.put(b"blob")
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        stranger = client(server)
        assert stranger.fetch([data], here, PATIENCE_S) == frozenset()
        assert server.calls.total() == 0 and "certificate" in stranger.notes()[0].lower()
        stranger.settle(0)
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        friend = client(server)
        assert friend.fetch([data], here, PATIENCE_S) == {data} and friend.notes() == ()
        friend.settle(0)


def test_read_only_offers_nothing(server: ReapiDouble, here: BlobStore) -> None:
    remote = client(server, writes=False)
    remote.offer(KEY, some_result(here), here)
    remote.settle(PATIENCE_S)
    assert server.calls.total() == 0 and remote.notes() == ()


# --- lies -------------------------------------------------------------------------------------------


def _moved(result: dict[str, Any], **changes: Any) -> bytes:
    return encode(reapi.ACTION_RESULT, {**result, **changes})


def _file(result: dict[str, Any], **changes: Any) -> bytes:
    first, *rest = result["output_files"]
    return _moved(result, output_files=[{**first, **changes}, *rest])


HUGE = {"hash": "e" * 64, "size_bytes": 10 << 30}
LIES = {
    "another key's": lambda honest, store: encode(reapi.ACTION_RESULT, message_of(OTHER, honest, {})),
    "outside": lambda honest, store: _file(message_of(KEY, honest, {}), path="build/../../x"),
    "parent": lambda honest, store: _file(message_of(KEY, honest, {}), path="../x"),
    "absolute": lambda honest, store: _file(message_of(KEY, honest, {}), path="/etc/passwd"),
    "renamed": lambda honest, store: _file(message_of(KEY, honest, {}), path="build/p/other.o"),
    "executable": lambda honest, store: _file(message_of(KEY, honest, {}), is_executable=True),
    "no digest": lambda honest, store: _file(message_of(KEY, honest, {}), digest=None),
    "no hex": lambda honest, store: _file(message_of(KEY, honest, {}), digest={"hash": "../" * 21, "size_bytes": 1}),
    "negative": lambda honest, store: _file(message_of(KEY, honest, {}), digest={"hash": "e" * 64, "size_bytes": -1}),
    "10 GB": lambda honest, store: _file(message_of(KEY, honest, {}), digest=HUGE),
    "other contents": lambda honest, store: _file(message_of(KEY, honest, {}), contents=b"evil"),
    "a link": lambda honest, store: _moved(
        message_of(KEY, honest, {}), output_symlinks=[{"path": "build/x", "target": "/etc"}]
    ),
    "a directory": lambda honest, store: _moved(message_of(KEY, honest, {}), output_directories=[{"path": "build/x"}]),
    "a failure": lambda honest, store: _moved(message_of(KEY, honest, {}), exit_code=1),
    "no worker": lambda honest, store: _moved(message_of(KEY, honest, {}), execution_metadata=None),
    "10^12 s": lambda honest, store: _moved(
        message_of(KEY, honest, {}),
        execution_metadata={"worker": "x", "virtual_execution_duration": {"seconds": 10**12}},
    ),
    "truncated": lambda honest, store: encode(reapi.ACTION_RESULT, message_of(KEY, honest, {}))[:-3],
    "no message": lambda honest, store: b"\xff" * 40,
}


@pytest.mark.parametrize("lie", LIES)
def test_an_entry_that_is_not_what_was_asked_for(server: ReapiDouble, here: BlobStore, lie: str) -> None:
    server.results[KEY] = LIES[lie](some_result(here), here)
    remote = client(server)
    assert remote.find([KEY], here) == {}
    assert remote.counts().refused == 1 and remote.counts().failed == 0
    assert len(remote.notes()) == 1 and "not one of this program's" in remote.notes()[0]
    remote.settle(0)


def test_an_entry_larger_than_any(server: ReapiDouble, here: BlobStore) -> None:
    server.answers[reapi.GET_ACTION_RESULT] = lambda request: bytes(30 << 20)
    remote = client(server)
    assert remote.find([KEY], here) == {} and remote.counts().failed == 1
    assert "larger than max" in remote.notes()[0]
    remote.settle(0)


def _batch(*rows: tuple[Digest, bytes, int]) -> bytes:
    responses = [
        {"digest": reapi.digest_value(digest), "data": data, "status": {"code": code}} for digest, data, code in rows
    ]
    return encode(reapi.BATCH_READ_BLOBS_RESPONSE, {"responses": responses})


SMALL, LARGE = digest_bytes(b"right"), digest_bytes(bytes(3 * SMALL_BATCH))
BATCH_LIES = {
    "other bytes": (lambda request: _batch((SMALL, b"wrong", 0)), 1),
    "fewer": (lambda request: _batch((SMALL, b"righ", 0)), 1),
    "an error": (lambda request: _batch((SMALL, b"right", 13)), 1),
    "not there": (lambda request: _batch((SMALL, b"", 5)), 0),
    "nothing": (lambda request: b"", 0),
    "something else": (lambda request: _batch((digest_bytes(b"evil"), b"evil", 0)), 0),
    "compressed": (
        lambda request: encode(
            reapi.BATCH_READ_BLOBS_RESPONSE,
            {"responses": [{"digest": reapi.digest_value(SMALL), "data": b"right", "compressor": 1}]},
        ),
        1,
    ),
}


@pytest.mark.parametrize("lie", BATCH_LIES)
def test_small_blobs_that_are_others(server: ReapiDouble, here: BlobStore, lie: str) -> None:
    server.answers[reapi.BATCH_READ_BLOBS], refused = BATCH_LIES[lie]
    remote = client(server)
    assert remote.fetch([SMALL], here, PATIENCE_S) == frozenset()
    assert not any(p.is_file() for p in here.root.rglob("*")) and remote.counts().refused == refused
    assert ("has other bytes" in "".join(remote.notes())) == bool(refused)
    remote.settle(0)


def _parts(*datas: bytes) -> Any:
    return lambda request: (encode(reapi.READ_RESPONSE, {"data": data}) for data in datas)


STREAM_LIES = {
    "other bytes": (_parts(b"\1" * LARGE.size), 1),
    "truncated": (_parts(bytes(LARGE.size - 1)), 1),
    "more": (_parts(bytes(LARGE.size), b"x"), 1),
    "endless": (lambda request: iter(lambda: encode(reapi.READ_RESPONSE, {"data": bytes(60000)}), None), 1),
    "garbled": (lambda request: iter([b"\xff\xff"]), 1),
    "nothing": (_parts(), 1),
}


@pytest.mark.parametrize("lie", STREAM_LIES)
def test_large_blobs_that_are_others(server: ReapiDouble, here: BlobStore, lie: str) -> None:
    server.answers[reapi.READ], refused = STREAM_LIES[lie]
    remote = client(server)
    assert remote.fetch([LARGE], here, PATIENCE_S) == frozenset()
    assert not any(p.is_file() for p in here.root.rglob("*")) and remote.counts().refused == refused
    remote.settle(0)


def test_a_stream_that_breaks_is_no_blob(server: ReapiDouble, here: BlobStore) -> None:
    def broken(request: bytes) -> Iterator[bytes]:
        yield encode(reapi.READ_RESPONSE, {"data": bytes(100)})
        raise RpcRefusal("ABORTED", "disk")

    server.answers[reapi.READ] = broken
    remote = client(server)
    assert remote.fetch([LARGE], here, PATIENCE_S) == frozenset()
    assert not any(p.is_file() for p in here.root.rglob("*")) and "ABORTED: disk" in remote.notes()[0]
    remote.settle(0)


def test_patience_that_ends_leaves_what_came_and_blames_nobody(server: ReapiDouble, here: BlobStore) -> None:
    small = server.put(b"small")

    def stuck(request: bytes) -> Iterator[bytes]:
        held = server.answers  # until the call is given up
        while reapi.READ in held:
            yield encode(reapi.READ_RESPONSE, {"data": b""})

    server.answers[reapi.READ] = stuck
    remote = client(server)
    assert remote.find([KEY], here) == {}  # what is fetched finds the connection made
    assert remote.fetch([LARGE, small], here, 3.0) == {small}
    assert remote.notes() == ()
    server.answers.clear()
    remote.settle(0)


def test_offers_that_take_too_long_are_given_up(server: ReapiDouble, here: BlobStore) -> None:
    import threading

    go_on = threading.Event()

    def stuck(request: bytes) -> bytes:
        go_on.wait(PATIENCE_S)
        raise RpcRefusal("UNAVAILABLE")

    server.answers[reapi.FIND_MISSING_BLOBS] = stuck
    remote = client(server)
    remote.offer(KEY, some_result(here), here)
    remote.settle(0.2)
    go_on.set()
    assert remote.counts().given_up == 1 and remote.counts().offered == 0
    assert "1 results were not sent within 0.2 s" in remote.notes()[0] and len(remote.notes()) == 1


def test_addresses() -> None:
    assert server_of(parse_cache_url("grpc://h:1")) == ReapiServer("h", 1)
    assert server_of(parse_cache_url("grpcs://h")) == ReapiServer("h", 443, "", True)
    server = server_of(parse_cache_url("grpcs://[::1]:443/a/b/"))
    assert server == ReapiServer("::1", 443, "a/b", True) and str(server) == "grpcs://[::1]:443/a/b"
    fault = fault_of("grpc://cache.example.com")
    assert fault is not None and "has no port" in fault[0]
    assert fault_of("grpc://cache.example.com:8980/instance") is None


def test_an_entry_in_bytes(here: BlobStore) -> None:
    """So that other versions and machines find it: literal, except for the digests' text."""
    digest = digest_bytes(b"x")
    result = ActionResult((OutputFile("build/a.o", digest, True),), None, None, 1500)
    data = encode(reapi.ACTION_RESULT, message_of(KEY, result, {}))
    assert data[:13] == b"\x12\x53\x0a\x09build/a.o"
    assert data[13:85] == b"\x12\x44\x0a\x40" + digest.hex.encode() + b"\x10\x01" + b"\x20\x01"
    entry = result_of(KEY, data)
    assert entry is not None and entry.result == result
    assert result_of(OTHER, data) is None
    assert decode(reapi.DIGEST, encode(reapi.DIGEST, action_digest(KEY))) == {"hash": "a" * 64, "size_bytes": 64}


# --- watched ------------------------------------------------------------------------------------


def test_who_watches_hears_of_each_answer_and_of_the_greeting(
    server: ReapiDouble, here: BlobStore, there: BlobStore
) -> None:
    result = some_result(here)
    offered(server, here, result)
    watch, remote = NotedRound(), client(server)
    assert remote.find([KEY, OTHER], there, watch) == {KEY: result}
    assert watch.questions == [1, 2] and watch.ends == 2  # the greeting is a round, since it may last
    assert [(name, came) for name, _, came in watch.heard] == [(KEY, True), (OTHER, False)]
    large = [digest for digest in result.blobs() if digest.size >= SMALL_BATCH]
    remote.fetch(result.blobs(), there, PATIENCE_S, watch)
    assert {name for name, _, came in watch.heard[2:] if came} == {d.hex for d in result.blobs() if d.size}
    assert {name for name, _ in watch.parts} == {digest.hex for digest in large}
    assert sum(size for _, size in watch.parts) == sum(digest.size for digest in large) and watch.ends == 3


def test_a_greeting_that_is_not_answered_is_watched(server: ReapiDouble, here: BlobStore) -> None:
    """A worker may begin while it lasts."""
    watch = NotedRound()
    begun: list[int] = []

    def refuse(request: bytes) -> bytes:
        begun.extend(watch.questions)
        raise RpcRefusal("UNIMPLEMENTED")

    server.answers[reapi.GET_CAPABILITIES] = refuse
    assert client(server).find([KEY], here, watch) == {} and begun == [1] and watch.ends == 1
