"""What the client of a shared cache does for somebody who could do without the answers: asks what is wanted, says what
comes as it comes, and ends when it is told to. And how many connections that takes."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from cache.actions import ActionResult, OutputFile
from cache.blobs import BlobStore
from cache.digest import ActionKey, digest_bytes
from cache.remote import RemoteCounts
from pipeline.remote import http_cache, rounds, wire
from pipeline.remote.wire import Garbled, HttpAnswer, Wire
from tests.cache_server import CacheServer
from tests.unit.test_remote_http import (
    AT_ONCE_S,
    DATA,
    DIGEST,
    KEY,
    PATIENCE_S,
    RESULT,
    answer,
    client,
    filled,
    silence,
)

KEYS = [ActionKey(f"{n:064x}") for n in range(100)]
MANY = {digest_bytes(data): data for data in (b"blob %d" % n for n in range(100))}


class NotedRound:
    """A `RoundWatch` that writes down what it is told, and wants what it is told to want."""

    def __init__(self, is_wanted: Callable[[str], bool] = lambda name: True) -> None:
        self.is_wanted = is_wanted
        self.heard: list[tuple[str, int, bool]] = []
        self.parts: list[tuple[str, int]] = []
        self.questions: list[int] = []
        self.end: Callable[[], None] = lambda: None
        self.ends = 0

    def began(self, questions: int, end: Callable[[], None]) -> None:
        self.questions.append(questions)
        self.end = end

    def received(self, name: str, size: int) -> None:
        self.parts.append((name, size))

    def answered(self, name: str, size: int, *, came: bool) -> None:
        self.heard.append((name, size, came))

    def ended(self) -> None:
        self.ends += 1


@pytest.fixture
def server() -> Iterator[CacheServer]:
    with CacheServer() as server:
        yield server


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_cache, "FIND_S", PATIENCE_S)
    monkeypatch.setattr(http_cache, "STALL_S", PATIENCE_S)
    monkeypatch.setattr(http_cache, "WATCHED_S", PATIENCE_S)


def test_each_answer_is_told_of(server: CacheServer, tmp_path: Path, blobs: BlobStore) -> None:
    filled(server, tmp_path)
    mine, watch = client(server), NotedRound()
    assert mine.find([KEY, KEYS[0]], blobs, watch) == {KEY: RESULT}
    (found, size, _), nothing = sorted(watch.heard, reverse=True)
    assert found == KEY and size > 100 and nothing == (KEYS[0], 0, False)
    assert mine.fetch([DIGEST], blobs, PATIENCE_S, watch) == {DIGEST}
    assert watch.heard[2:] == [(DIGEST.hex, len(DATA), True)] and (watch.questions, watch.ends) == ([2, 1], 2)


def test_a_long_answer_is_told_of_while_it_comes(server: CacheServer, blobs: BlobStore) -> None:
    data = bytes(range(256)) * 4000
    digest = digest_bytes(data)
    server.cas.update({digest.hex: data, DIGEST.hex: DATA})
    watch = NotedRound()
    assert client(server).fetch([digest, DIGEST], blobs, PATIENCE_S, watch) == {digest, DIGEST}
    assert len(watch.parts) > 1 and {name for name, _ in watch.parts} == {digest.hex}
    assert sum(size for _, size in watch.parts) == len(data) and len(watch.heard) == 2


def test_what_is_not_wanted_any_more_is_not_asked_for(server: CacheServer, blobs: BlobStore) -> None:
    server.cas.update((digest.hex, data) for digest, data in MANY.items())
    half = {digest.hex for digest in [*MANY][::2]}
    mine = client(server)
    assert {d.hex for d in mine.fetch([*MANY], blobs, PATIENCE_S, NotedRound(half.__contains__))} == half
    assert {path[5:] for _, path in server.requests} == half and len(server.requests) == 50
    assert mine.find(KEYS, blobs, NotedRound(lambda name: False)) == {} and len(server.requests) == 50
    assert mine.counts().failed == 0 and mine.notes() == ()


@pytest.mark.parametrize("kind", ["ac", "cas"])
def test_a_round_ends_when_nothing_of_it_is_wanted(server: CacheServer, blobs: BlobStore, kind: str) -> None:
    """While the other side is silent. It is nobody's failure, and the next round has connections of its own."""
    watch, mine = NotedRound(), client(server)

    def no_more(verb: str, path: str) -> Iterator[bytes]:
        watch.end()
        return silence(server.stopped)

    server.raw = no_more
    began_s = time.monotonic()
    if kind == "ac":
        assert mine.find(KEYS, blobs, watch) == {}
    else:
        assert mine.fetch([*MANY], blobs, PATIENCE_S, watch) == frozenset()
    assert time.monotonic() - began_s < AT_ONCE_S
    assert watch.ends == 1 and watch.heard == []
    assert mine.counts() == RemoteCounts(rounds=1, asked=100) and mine.notes() == ()
    server.raw = lambda verb, path: None
    server.cas[DIGEST.hex] = DATA
    assert mine.fetch([DIGEST], blobs, PATIENCE_S) == {DIGEST}


def test_what_came_before_the_end_is_kept(server: CacheServer, blobs: BlobStore) -> None:
    server.cas.update((digest.hex, data) for digest, data in MANY.items())
    watch = NotedRound()

    def answered(name: str, size: int, *, came: bool) -> None:
        watch.heard.append((name, size, came))
        if len(watch.heard) == 10:
            watch.end()

    watch.answered = answered  # type: ignore[method-assign]
    there = client(server).fetch([*MANY], blobs, PATIENCE_S, watch)
    assert 10 <= len(there) < 100 and all(blobs.has(digest) for digest in there)
    assert {name for name, _, _ in watch.heard[:10]} <= {digest.hex for digest in there}


def test_who_was_silent_for_long_is_not_asked_again(server: CacheServer, blobs: BlobStore) -> None:
    """Also where nobody waited to the end."""
    ahead_s, watch = 0.0, NotedRound()

    def no_more(verb: str, path: str) -> Iterator[bytes]:
        nonlocal ahead_s
        ahead_s += 0.6
        watch.end()
        return silence(server.stopped)

    server.raw = no_more
    mine = client(server, now_s=lambda: ahead_s)
    assert mine.find([KEY], blobs, watch) == {} and mine.notes() == () and mine.speed().silent_s == 0.6
    assert mine.find([KEY], blobs, watch) == {}
    assert mine.notes() == (f"shared cache {server.url}: it does not answer in time; this run goes on without it",)
    assert mine.find([KEY], blobs, watch) == {} and mine.counts() == RemoteCounts(rounds=2, asked=2, failed=1)


@pytest.mark.parametrize(("many_in_a_step", "connections"), [(0, 1), (1 << 30, rounds.MOST_CONNECTIONS)])
def test_more_connections_are_opened_where_answers_come_slowly(
    server: CacheServer,
    blobs: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
    many_in_a_step: int,
    connections: int,
) -> None:
    held = threading.Event()

    def hold(verb: str, path: str) -> None:
        if server.connections == connections:
            held.set()
        assert held.wait(PATIENCE_S)

    monkeypatch.setattr(rounds, "_MANY_IN_A_STEP", many_in_a_step)
    monkeypatch.setattr(rounds, "_STEP_S", 0.001)
    server.cas.update((digest.hex, data) for digest, data in MANY.items())
    server.raw = hold
    assert len(client(server).fetch([*MANY], blobs, PATIENCE_S)) == 100 and server.connections == connections


def test_an_entry_may_come_compressed(server: CacheServer, tmp_path: Path, blobs: BlobStore) -> None:
    sets = tuple(OutputFile(f"set/{n}", digest_bytes(b"set %d" % n), False) for n in range(20))
    filled(server, tmp_path, ActionResult(sets), *(b"set %d" % n for n in range(20)))
    body = gzip.compress(json.dumps(server.ac[KEY]).encode())
    server.raw = lambda verb, path: answer(body, "Content-Encoding: gzip\r\n")
    watch = NotedRound()
    assert client(server).find([KEY], blobs, watch) == {KEY: ActionResult(sets)}
    assert "gzip" in server.headers[-1]["accept-encoding"]
    bomb = gzip.compress(b"{" + b" " * (1 << 26))
    server.raw = lambda verb, path: answer(bomb, "Content-Encoding: gzip\r\n")
    mine = client(server)
    assert mine.find([KEY], blobs) == {} and mine.counts().refused == 1


def test_a_rate_that_only_entries_tell_is_known_when_they_are_slow(server: CacheServer, blobs: BlobStore) -> None:
    ahead_s = 0.0

    def slowly(verb: str, path: str) -> bytes:
        nonlocal ahead_s
        ahead_s += 0.1
        return answer(b"", status="404 Not Found")

    server.raw = slowly
    mine = client(server, now_s=lambda: time.monotonic() + ahead_s)
    mine.find(KEYS[:10], blobs, NotedRound())
    assert 0 < mine.speed().bytes_per_s < 256 * 10 / 0.5


def test_what_is_heard_of_an_interrupted_connection_is_no_answer() -> None:
    """A lane that sees the end of one asks whether the round is over, at once."""
    one = rounds._Round([], 1.0, 1)
    heard: list[bool] = []

    class Interrupted:
        def interrupt(self) -> None:
            heard.append(one.is_over)

    one.uses(cast(Wire, Interrupted()), now=True)
    one.cut()
    assert heard == [True] and one.result(0.0).unwanted == 0


def test_compressed_nothing_without_end_is_not_read_to_its_end() -> None:
    """Empty blocks of deflate, which no count of what they stand for bounds."""
    blocks = b"\0\0\0\xff\xff" * 2000
    read = 0

    class Endless:
        def some(self, most: int) -> bytes:
            nonlocal read
            data = blocks[:most] if read else gzip.compress(b"")[:10] + blocks[: most - 10]
            read += len(data)
            assert read < 10 * len(DATA) + 10 * wire.CHUNK
            return data

    answer = HttpAnswer(cast(Wire, Endless()), 200, {"content-encoding": "gzip"}, False)
    with pytest.raises(Garbled, match="longer than what it may stand for"):
        answer.body(len(DATA), may_be_encoded=True)
