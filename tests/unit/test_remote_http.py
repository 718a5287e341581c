"""The client of a shared cache against a server that keeps to the protocol, and against ones that do not. Each of
those is counted, nothing of it reaches the store, and nothing waits beyond its deadline."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.action_result import decode_result
from cache.actions import ActionResult, OutputFile
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest, digest_bytes
from cache.remote import RemoteCounts
from pipeline.remote import http_cache, rounds
from pipeline.remote.http_cache import HttpCache
from pipeline.remote.wire import Endpoint
from tests.cache_server import CacheServer

KEY = ActionKey("ab" * 32)
DATA = b"object " * 1000
DIGEST = digest_bytes(DATA)
RESULT = ActionResult((OutputFile("build/a.o", DIGEST, False),), None, None, 700)
Raw = Callable[[str, str], bytes | Iterator[bytes] | None]


@pytest.fixture
def server() -> Iterator[CacheServer]:
    with CacheServer() as server:
        yield server


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


PATIENCE_S = 60.0
"""A busy machine may need many seconds for an answer that is there at once on another."""
AT_ONCE_S = PATIENCE_S / 2
"""What takes less has not waited until somebody lost patience."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_cache, "FIND_S", PATIENCE_S)
    monkeypatch.setattr(http_cache, "STALL_S", PATIENCE_S)
    monkeypatch.setattr(rounds, "_FIRST_PAUSE_S", 0.001)


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch, patience: None) -> None:
    """Where the other side lets them pass."""
    monkeypatch.setattr(http_cache, "FIND_S", 0.4)
    monkeypatch.setattr(http_cache, "STALL_S", 0.3)


def client(
    server: CacheServer,
    *,
    writes: bool = True,
    authorization: str = "",
    now_s: Callable[[], float] = time.monotonic,
) -> HttpCache:
    mine = HttpCache(
        server.url,
        Endpoint(*server.server_address[:2]),  # type: ignore[arg-type]
        writes=writes,
        authorization=authorization,
        now_s=now_s,
        jitter=lambda: 0.5,
    )
    server.clients.append(mine)
    return mine


def filled(server: CacheServer, tmp_path: Path, result: ActionResult = RESULT, *more: bytes) -> None:
    """What another machine sent."""
    theirs = BlobStore(tmp_path / "theirs")
    for data in (DATA, *more):
        theirs.put_bytes(data)
    sender = client(server)
    sender.offer(KEY, result, theirs)
    sender.settle(PATIENCE_S)
    assert sender.counts().offered == 1 and sender.notes() == ()
    server.forget()


# --- as it should be ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bazel-remote", "plain"])
def test_what_was_sent_is_found(tmp_path: Path, blobs: BlobStore, kind: str) -> None:
    with CacheServer(kind) as server:
        filled(server, tmp_path)
        mine = client(server)
        assert mine.find([KEY, ActionKey("cd" * 32)], blobs) == {KEY: RESULT}
        assert mine.fetch([DIGEST], blobs, PATIENCE_S) == {DIGEST} and blobs.read(DIGEST) == DATA
        assert mine.fetch([DIGEST], blobs, PATIENCE_S) == {DIGEST}
        assert mine.counts() == RemoteCounts(rounds=2, asked=3, found=1, fetched=1, fetched_bytes=7000)
        assert mine.notes() == () and server.connections == 2


def test_many_questions_are_one_round_on_few_connections(server: CacheServer, blobs: BlobStore) -> None:
    many = [f"blob {n}".encode() for n in range(500)]
    server.cas.update((digest_bytes(data).hex, data) for data in many)
    mine = client(server)
    assert len(mine.fetch([digest_bytes(data) for data in many], blobs, PATIENCE_S)) == 500
    assert mine.counts()[:4] == (1, 500, 0, 500)
    assert server.connections <= rounds.MOST_CONNECTIONS
    assert len(server.requests) == 500


def test_a_blob_that_is_known_to_be_there_is_not_sent_again(server: CacheServer, blobs: BlobStore) -> None:
    blobs.put_bytes(DATA)
    mine = client(server)
    for n in range(3):
        mine.offer(ActionKey(f"{n:064x}"), RESULT, blobs)
    mine.settle(PATIENCE_S)
    assert mine.counts().offered == 3 and server.count("PUT", "/ac/") == 3
    assert server.count("PUT", "/cas/") <= 2  # two that send at once may not know of each other


def test_a_large_blob_is_asked_for_before_it_is_sent(server: CacheServer, blobs: BlobStore) -> None:
    data = b"x" * (1 << 19)
    large = blobs.put_bytes(data)
    server.cas[large.hex] = data
    mine = client(server)
    mine.offer(KEY, ActionResult((OutputFile("build/a", large, False),)), blobs)
    mine.settle(PATIENCE_S)
    assert [(verb, path[:4]) for verb, path in server.requests] == [("HEAD", "/cas"), ("PUT", "/ac/")]
    assert mine.counts()[5:7] == (1, 0)


def test_small_sets_come_with_their_entry(server: CacheServer, tmp_path: Path, blobs: BlobStore) -> None:
    small, large = b"set", b"set " * 2000
    sets = tuple(OutputFile(f"set/{n}", digest_bytes(data), False) for n, data in enumerate((small, large)))
    filled(server, tmp_path, ActionResult(sets), small, large)
    client(server).find([KEY], blobs)
    assert blobs.read(digest_bytes(small)) == small and not blobs.has(digest_bytes(large))


def test_one_that_only_reads_sends_nothing(server: CacheServer, blobs: BlobStore) -> None:
    blobs.put_bytes(DATA)
    mine = client(server, writes=False)
    mine.offer(KEY, RESULT, blobs)
    mine.settle(PATIENCE_S)
    assert server.requests == [] and mine.counts() == RemoteCounts()


def test_an_entry_without_its_blob_is_withheld(server: CacheServer, tmp_path: Path, blobs: BlobStore) -> None:
    filled(server, tmp_path)
    del server.cas[DIGEST.hex]
    mine = client(server)
    assert mine.find([KEY], blobs) == {} and mine.counts()[:3] == (1, 1, 0)


def test_a_blob_that_is_gone_is_no_lie(server: CacheServer, blobs: BlobStore) -> None:
    mine = client(server)
    assert mine.fetch([DIGEST], blobs, PATIENCE_S) == frozenset()
    assert mine.counts() == RemoteCounts(rounds=1, asked=1) and mine.notes() == ()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_answers(server: CacheServer, blobs: BlobStore, encoding: str) -> None:
    body = gzip.compress(DATA) if encoding == "gzip" else zlib.compress(DATA)
    server.raw = lambda verb, path: answer(body, f"Content-Encoding: {encoding}\r\n")
    assert client(server).fetch([DIGEST], blobs, PATIENCE_S) == {DIGEST}
    assert server.headers[0]["accept-encoding"] == "gzip, deflate"


def test_a_blob_of_many_megabytes_goes_to_the_disk(
    server: CacheServer, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_cache, "_IN_MEMORY", 1000)
    server.cas[DIGEST.hex] = DATA
    assert client(server).fetch([DIGEST], blobs, PATIENCE_S) == {DIGEST}
    assert blobs.read(DIGEST) == DATA and blobs.bytes_written == len(DATA)


def test_the_token_goes_along(blobs: BlobStore) -> None:
    with CacheServer(token="secret") as server:
        server.cas[DIGEST.hex] = DATA
        assert client(server, authorization="Bearer secret").fetch([DIGEST], blobs, PATIENCE_S) == {DIGEST}
        mine = client(server)
        assert mine.find([KEY], blobs) == {} and mine.find([KEY], blobs) == {}
        assert mine.counts().rounds == 1 and "set HOTPLATE_CACHE_TOKEN" in mine.notes()[0]


# --- lies ---------------------------------------------------------------------------------------


def answer(body: bytes, more: str = "", status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{more}\r\n".encode() + body


def chunked(*pieces: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(pieces)


def endless(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


def ten_gigabytes() -> Iterator[bytes]:
    yield answer(b"", length=10 << 30)
    yield from endless(bytes(1 << 16))


def unsized() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    yield from endless(bytes(1 << 16))


def endless_header() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    yield from endless(b"X-Header: yes\r\n")


BOMB = gzip.compress(bytes(1 << 24))
LIES: dict[str, Callable[[], bytes | Iterator[bytes]]] = {
    "other bytes": lambda: answer(DATA[::-1]),
    "one bit": lambda: answer(b"O" + DATA[1:]),
    "too short": lambda: answer(DATA[:-1]),
    "too long": lambda: answer(DATA + b"x"),
    "truncated": lambda: answer(DATA[:100], length=len(DATA)),
    "nothing at all": lambda: answer(b""),
    "ten gigabytes": ten_gigabytes,
    "without end": unsized,
    "a redirect": lambda: answer(b"", "Location: http://127.0.0.1:1/\r\n", "302 Found"),
    "a redirect with the body": lambda: answer(DATA, "Location: /other\r\n", "301 Moved Permanently"),
    "a page": lambda: answer(b"<html>Welcome to the hotel</html>"),
    "a part": lambda: answer(DATA, "Content-Range: bytes 0-6999/7000\r\n", "206 Partial Content"),
    "two lengths": lambda: answer(DATA, "Content-Length: 3\r\n"),
    "length and chunks": lambda: answer(DATA, "Transfer-Encoding: chunked\r\n"),
    "a negative length": lambda: answer(DATA, length=-1),
    "no chunk": lambda: chunked(b"xyz\r\n"),
    "a negative chunk": lambda: chunked(b"-1\r\n", DATA),
    "a huge chunk": lambda: chunked(b"ffffffffffffffff\r\n", DATA),
    "a longer chunk": lambda: chunked(b"3\r\nabcdef\r\n0\r\n\r\n"),
    "chunks without end": lambda: endless_chunks(b"1\r\nx\r\n"),
    "extensions without end": lambda: endless_chunks(b"1;" + b"y" * 4000 + b"\r\nx\r\n"),
    "trailers without end": lambda: endless_chunks(b"0\r\n" + b"X: y\r\n" * 100),
    "a gzip bomb": lambda: answer(BOMB, "Content-Encoding: gzip\r\n"),
    "no gzip": lambda: answer(DATA, "Content-Encoding: gzip\r\n"),
    "half a gzip": lambda: answer(gzip.compress(DATA)[:-9], "Content-Encoding: gzip\r\n"),
    "more after gzip": lambda: answer(gzip.compress(DATA) + b"more", "Content-Encoding: gzip\r\n"),
    "brotli": lambda: answer(DATA, "Content-Encoding: br\r\n"),
    "no HTTP": lambda: b"SSH-2.0-OpenSSH_9.2\r\n",
    "no status": lambda: b"HTTP/1.1 twohundred OK\r\n\r\n",
    "no header": lambda: b"HTTP/1.1 200 OK\r\n\x00\xff\r\n\r\n",
    "headers without end": endless_header,
    "a line without end": lambda: endless(b"HTTP/1.1 200 " + b"a" * 5000),
    "half an answer": lambda: b"HTTP/1.1 200 OK\r\nContent-Le",
    "a status of its own": lambda: answer(DATA, status="299 Fine"),
}


def endless_chunks(piece: bytes) -> Iterator[bytes]:
    yield chunked()
    yield from endless(piece)


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_and_nothing_is_stored(server: CacheServer, blobs: BlobStore, name: str) -> None:
    server.raw = lambda verb, path: LIES[name]()
    mine = client(server)
    began_s = time.monotonic()
    assert mine.fetch([DIGEST], blobs, PATIENCE_S) == frozenset()
    assert time.monotonic() - began_s < AT_ONCE_S
    assert not blobs.has(DIGEST) and blobs.bytes_written == 0 and not any(p.is_file() for p in blobs.root.rglob("*"))
    assert mine.counts() == RemoteCounts(rounds=1, asked=1, refused=1)
    assert len(server.requests) == 1 and len(mine.notes()) == 1
    assert mine.notes()[0].startswith(f"shared cache {server.url}: an answer was refused: ")


@pytest.mark.parametrize("name", ["other bytes", "ten gigabytes", "a page", "a gzip bomb", "no HTTP", "a redirect"])
def test_a_lie_about_an_entry_is_refused(server: CacheServer, blobs: BlobStore, name: str) -> None:
    server.raw = lambda verb, path: LIES[name]()
    mine = client(server)
    assert mine.find([KEY], blobs) == {} and mine.counts() == RemoteCounts(rounds=1, asked=1, refused=1)


def test_the_entry_of_another_key_is_refused(server: CacheServer, tmp_path: Path, blobs: BlobStore) -> None:
    filled(server, tmp_path)
    other = ActionKey("cd" * 32)
    server.ac[other] = server.ac[KEY]
    mine = client(server)
    assert mine.find([other, KEY], blobs) == {KEY: RESULT}
    assert mine.counts() == RemoteCounts(rounds=1, asked=2, found=1, refused=1)


def test_answers_that_are_one_too_many_shift_nothing(server: CacheServer, blobs: BlobStore) -> None:
    """Two answers to the first question: the second is taken for that to the next one, and refused by its bytes."""
    both = {digest_bytes(data).hex: data for data in (b"first", b"other")}
    server.raw = lambda verb, path: answer(both[path[-64:]]) + answer(b"extra")
    mine = client(server)
    digests = [Digest(name, len(data)) for name, data in both.items()]
    got = mine.fetch(digests, blobs, PATIENCE_S)
    assert all(blobs.read(digest) is not None for digest in got)
    assert mine.counts().refused >= 1 and not blobs.has(digest_bytes(b"extra"))


def test_a_liar_is_not_asked_for_ever(server: CacheServer, blobs: BlobStore) -> None:
    server.raw = lambda verb, path: answer(b"nonsense")
    mine = client(server)
    keys = [ActionKey(f"{n:064x}") for n in range(8)]
    assert mine.find(keys, blobs) == {} and mine.counts().refused == 8
    assert mine.find(keys, blobs) == {} and mine.counts().rounds == 1
    assert len(mine.notes()) == 1


# --- bad networks -------------------------------------------------------------------------------


def drip(stopped: threading.Event) -> Iterator[bytes]:
    for byte in answer(DATA):
        yield bytes([byte])
        if stopped.wait(0.01):
            return


def silence(stopped: threading.Event) -> Iterator[bytes]:
    stopped.wait(2 * PATIENCE_S)
    yield b""


@pytest.mark.usefixtures("short_deadlines")
@pytest.mark.parametrize("kind", [drip, silence])
def test_slow_ones_end_at_the_deadline_and_are_not_asked_again(
    server: CacheServer, blobs: BlobStore, kind: Callable[[threading.Event], Iterator[bytes]]
) -> None:
    server.raw = lambda verb, path: kind(server.stopped)
    mine = client(server)
    began_s = time.monotonic()
    assert mine.find([KEY], blobs) == {} and mine.fetch([DIGEST], blobs, PATIENCE_S) == frozenset()
    assert time.monotonic() - began_s < AT_ONCE_S
    assert mine.counts() == RemoteCounts(rounds=1, asked=1, failed=1)
    assert mine.notes() == (f"shared cache {server.url}: it does not answer in time; this run goes on without it",)


def test_some_answers_in_time_are_used_and_the_rest_is_not_waited_for(
    server: CacheServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but 0.4 s of the time has passed as soon as the one answer is there."""
    filled(server, tmp_path)
    slow = ActionKey("cd" * 32)
    server.raw = lambda verb, path: silence(server.stopped) if slow in path else None
    ahead_s = 0.0
    there = threading.Event()
    answered, result = rounds._Round.answered, rounds._Round.result

    def now_s() -> float:
        return time.monotonic() + ahead_s

    def one_answered(one: rounds._Round) -> None:
        nonlocal ahead_s
        answered(one)
        ahead_s = PATIENCE_S - 0.4
        there.set()

    def waited(one: rounds._Round, wait_s: float) -> rounds.RoundOutcome:
        assert there.wait(PATIENCE_S)
        return result(one, one.until_s - now_s())

    monkeypatch.setattr(rounds._Round, "answered", one_answered)
    monkeypatch.setattr(rounds._Round, "result", waited)
    mine = client(server, now_s=now_s)
    assert mine.find([KEY, slow], BlobStore(tmp_path / "mine")) == {KEY: RESULT}
    assert "only 1 of 2 questions were answered in time; this run goes on without it" in mine.notes()[0]


def test_what_ran_out_of_time_is_late_also_when_its_thread_sees_it_first(
    server: CacheServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the round may wake long after its deadline; the tries that fit in between are no failures."""
    filled(server, tmp_path)
    slow = ActionKey("cd" * 32)
    ahead_s = 0.0
    taken = threading.Event()

    def decoded(key: ActionKey, body: bytes) -> object:
        found = decode_result(key, body)
        taken.set()
        return found

    def much_later(verb: str, path: str) -> bytes | None:
        nonlocal ahead_s
        if slow not in path:
            return None
        taken.wait(PATIENCE_S)
        ahead_s = 2 * PATIENCE_S
        return b""

    monkeypatch.setattr(http_cache, "decode_result", decoded)

    server.raw = much_later
    mine = client(server, now_s=lambda: time.monotonic() + ahead_s)
    assert mine.find([KEY, slow], BlobStore(tmp_path / "mine")) == {KEY: RESULT}
    assert mine.counts().failed == 1 and server.count("GET", slow) == 1
    assert "only 1 of 2 questions were answered in time; this run goes on without it" in mine.notes()[0]


def test_patience_that_was_short_is_nobodys_fault(server: CacheServer, blobs: BlobStore) -> None:
    server.raw = lambda verb, path: drip(server.stopped)
    mine = client(server)
    assert mine.fetch([DIGEST], blobs, 0.1) == frozenset()
    assert mine.notes() == () and mine.counts().failed == 0
    assert 0 < mine.speed().bytes_per_s < 1000


def test_nobody_there_is_said_once(blobs: BlobStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    mine = HttpCache(
        "http://nobody",
        Endpoint("127.0.0.1", port),
        writes=True,
        authorization="",
        now_s=time.monotonic,
        jitter=lambda: 0,
    )
    began_s = time.monotonic()
    for _ in range(3):
        assert mine.find([KEY], blobs) == {} and mine.fetch([DIGEST], blobs, PATIENCE_S) == frozenset()
    mine.offer(KEY, RESULT, blobs)
    mine.settle(PATIENCE_S)
    assert time.monotonic() - began_s < AT_ONCE_S
    assert mine.counts() == RemoteCounts(rounds=1, asked=1, failed=1, given_up=1)
    assert mine.notes() == ("shared cache http://nobody: Connection refused; this run goes on without it",)


def test_a_connection_that_breaks_is_tried_again(server: CacheServer, blobs: BlobStore) -> None:
    server.cas[DIGEST.hex] = DATA
    broken = iter([b"", b""])
    server.raw = lambda verb, path: next(broken, None)
    mine = client(server)
    assert mine.fetch([DIGEST], blobs, PATIENCE_S) == {DIGEST}
    assert len(server.requests) == 3 and mine.notes() == ()


def test_a_server_that_closes_after_each_answer(server: CacheServer, blobs: BlobStore) -> None:
    many = {digest_bytes(data): data for data in (b"blob %d" % n for n in range(20))}
    by_path = {f"/cas/{digest.hex}": data for digest, data in many.items()}
    server.raw = lambda verb, path: answer(by_path[path], "Connection: close\r\n")
    mine = client(server)
    assert mine.fetch([*many], blobs, PATIENCE_S) == set(many) and mine.counts()[:2] == (1, 20)


def test_an_idle_connection_that_was_closed_costs_nothing(server: CacheServer, blobs: BlobStore) -> None:
    server.cas[DIGEST.hex] = DATA
    mine = client(server)
    mine.find([KEY], blobs)
    for wire in mine._reading._idle:
        wire._socket.shutdown(socket.SHUT_RDWR)
    assert mine.fetch([DIGEST], blobs, PATIENCE_S) == {DIGEST} and mine.counts().failed == 0


@pytest.mark.parametrize("status", ["503 Busy", "429 Too Many Requests", "500 Oops"])
def test_a_server_that_cannot_now(server: CacheServer, blobs: BlobStore, status: str) -> None:
    server.raw = lambda verb, path: answer(b"", status=status)
    mine = client(server)
    assert mine.find([KEY], blobs) == {}
    assert len(server.requests) == 3 and mine.counts() == RemoteCounts(rounds=1, asked=1, failed=1)
    assert "it is too busy, or broken" in mine.notes()[0]


def test_one_that_fails_for_one_question_is_asked_on(server: CacheServer, blobs: BlobStore) -> None:
    server.cas[DIGEST.hex] = DATA
    bad = Digest("0" * 64, 5)
    server.raw = lambda verb, path: answer(b"", status="500 Oops") if bad.hex in path else None
    mine = client(server)
    assert mine.fetch([bad, DIGEST, *(Digest(f"{n:064x}", 5) for n in range(1, 5))], blobs, PATIENCE_S) == {DIGEST}
    assert mine.counts().failed == 1 and mine.notes() == ()


# --- sending ------------------------------------------------------------------------------------


def test_one_that_takes_nothing_is_told_once_and_still_read(server: CacheServer, blobs: BlobStore) -> None:
    blobs.put_bytes(DATA)
    server.raw = lambda verb, path: answer(b"", status="403 Forbidden") if verb == "PUT" else None
    mine = client(server)
    for n in range(9):
        mine.offer(ActionKey(f"{n:064x}"), RESULT, blobs)
    mine.settle(PATIENCE_S)
    assert mine.counts().offered == 0 and mine.counts().given_up == 9
    assert server.count("PUT") <= 2 and len(mine.notes()) == 1 and "does not take results" in mine.notes()[0]


def test_a_blob_that_is_too_large_for_it(server: CacheServer, blobs: BlobStore) -> None:
    server.most_body = 100_000
    large, small = blobs.put_bytes(b"x" * 300_000), blobs.put_bytes(b"small")
    mine = client(server)
    for key, digest in ((KEY, large), (ActionKey("cd" * 32), small)):
        mine.offer(key, ActionResult((OutputFile("build/a", digest, False),)), blobs)
    mine.settle(PATIENCE_S)
    assert list(server.ac) == ["cd" * 32] and (mine.counts().offered, mine.counts().given_up) == (1, 1)
    assert "one of 300000 bytes was refused (413)" in mine.notes()[0]


@pytest.mark.parametrize("kind", [drip, silence])
def test_settling_ends_when_it_should(
    server: CacheServer, blobs: BlobStore, kind: Callable[[threading.Event], Iterator[bytes]]
) -> None:
    blobs.put_bytes(DATA)
    server.raw = lambda verb, path: kind(server.stopped)
    mine = client(server)
    for n in range(9):
        mine.offer(ActionKey(f"{n:064x}"), RESULT, blobs)
    began_s = time.monotonic()
    mine.settle(0.2)
    assert time.monotonic() - began_s < http_cache._SENDING_S / 2
    assert mine.counts().offered == 0 and "9 results were not sent within 0.2 s" in mine.notes()[0]


def test_offering_does_not_wait(server: CacheServer, blobs: BlobStore) -> None:
    blobs.put_bytes(DATA)
    server.raw = lambda verb, path: silence(server.stopped)
    mine = client(server)
    began_s = time.monotonic()
    for n in range(100):
        mine.offer(ActionKey(f"{n:064x}"), RESULT, blobs)
    assert time.monotonic() - began_s < http_cache._SENDING_S / 2
    mine.settle(0)
