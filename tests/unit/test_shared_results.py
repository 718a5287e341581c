"""Two checkouts and a shared cache between them: what is executed, restored and asked, counted; and what is fetched
when the network is slow, by the rates of a fake one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cache.action_result import signature
from cache.actions import ActionResult, OutputFile
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest, digest_bytes
from cache.remote import Remote, RemoteCounts, RemoteSpeed, RoundWatch
from pipeline.config.schema import CacheSettings
from pipeline.effects.clock import SystemClock
from pipeline.engine import shared_results
from pipeline.engine.engine import Engine
from pipeline.model import Action
from pipeline.remote import http_cache
from pipeline.remote.opening import open_remote
from tests.cache_server import CacheServer
from tests.unit.engine_space import EngineSpace

PATIENCE_S = 60.0
ALL = ["ld build/local-fast/app.elf", "src/a.c", "src/b.c", "src/c.c"]


class Shared:
    """Checkouts, each with a store of its own, and one server."""

    def __init__(self, tmp_path: Path, server: CacheServer) -> None:
        self._tmp_path, self.server = tmp_path, server
        self.remotes: list[Remote] = []
        self.mode = "read-write"

    def checkout(self, name: str, sources: int = 0) -> EngineSpace:
        """A new one, with a client of its own."""
        space = EngineSpace(self._tmp_path / name).sample()
        for n in range(sources):
            space.write(f"src/more{n}.c", f'#include "a.h"\nint more{n};\n')
        remote = open_remote(CacheSettings(remote=self.server.url, remote_mode=self.mode), {}, SystemClock())
        assert not isinstance(remote, str)
        self.remotes.append(remote)
        self.server.clients.append(remote)
        return with_remote(space, remote)

    def counts(self) -> RemoteCounts:
        """Of the last checkout, when all is sent."""
        self.remotes[-1].settle(PATIENCE_S)
        return self.remotes[-1].counts()


def with_remote(space: EngineSpace, remote: Remote) -> EngineSpace:
    make: Callable[..., Engine] = space.engine

    def engine(*arguments: object) -> Engine:
        made = make(*arguments)
        made.workspace.host = made.workspace.host._replace(remote=lambda: remote)
        return made

    space.engine = engine  # type: ignore[assignment,method-assign]
    return space


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time does not pass while answers are waited for: what is counted must not depend on how busy this machine is."""
    monkeypatch.setattr(shared_results, "busyness", lambda: 1e9)


@pytest.fixture
def real_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same reason the time that it takes says nothing of the link, which is held to be slow where taking in
    what is small lasts 0.2 s, and what a compile of no time would take is no bound for a fetch."""
    monkeypatch.setattr(http_cache, "_RATED_FROM_S", 1e9)
    for name in ("FIND_S", "STALL_S", "WATCHED_S"):
        monkeypatch.setattr(http_cache, name, PATIENCE_S)
    monkeypatch.setattr(shared_results, "LEAST_PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(shared_results, "MOST_PATIENCE_S", PATIENCE_S)


@pytest.fixture(params=["bazel-remote", "plain"])
def shared(tmp_path: Path, request: pytest.FixtureRequest, real_server: None) -> Iterator[Shared]:
    with CacheServer(request.param) as server:
        yield Shared(tmp_path, server)


@pytest.fixture
def one(tmp_path: Path, real_server: None) -> Iterator[Shared]:
    with CacheServer() as server:
        yield Shared(tmp_path, server)


def test_the_second_checkout_executes_nothing(shared: Shared) -> None:
    first = shared.checkout("one")
    assert first.build().ran == ALL
    # 2 for each action with a depfile, 1 for the others
    assert shared.counts().offered == 2 * 3 + 2
    second = shared.checkout("two")
    built = second.build()
    assert built.ran == [] and second.outputs() == {p: d for p, d in first.outputs().items() if not p.endswith(".d")}
    assert (built.count("restored"), built.count("restored_remote")) == (5, 5)
    assert built.count("fetched_bytes") == shared.counts().fetched_bytes > 0
    assert shared.counts().refused == shared.counts().failed == shared.counts().given_up == 0
    shared.server.forget()
    assert second.build().nothing and shared.server.requests == []


@pytest.mark.parametrize("sources", [0, 40])
def test_the_rounds_do_not_depend_on_the_number_of_actions(one: Shared, sources: int) -> None:
    one.checkout("one", sources).build()
    one.counts()
    built = one.checkout("two", sources).build()
    assert built.ran == [] and built.count("restored_remote") == sources + 5
    # Compile: base keys with their sets, full keys, blobs. Link: full key, blob. Image: full key; its bytes are here.
    assert one.counts().rounds == 3 + 2 + 1
    assert one.counts().asked <= 3 * (sources + 5)


def test_what_nobody_has_is_made_and_sent(one: Shared) -> None:
    one.checkout("one").build()
    one.counts()
    second = one.checkout("two")
    second.write("src/c.c", "int other;\n")
    built = second.build()
    assert built.ran == ["ld build/local-fast/app.elf", "src/c.c"] and built.count("restored_remote") == 2
    assert one.counts().offered == 2 + 2
    third = one.checkout("three")
    third.write("src/c.c", "int other;\n")
    assert third.build().ran == []


def test_another_header_is_another_result(one: Shared) -> None:
    one.checkout("one").build()
    one.counts()
    second = one.checkout("two")
    second.write("inc/a.h", "int other;\n")
    assert second.build().ran == ["ld build/local-fast/app.elf", "src/a.c", "src/b.c"]
    one.counts()
    # Both sets of headers are the same, and both contents are known.
    assert one.checkout("three").build().ran == []


def test_a_header_that_would_be_found_first_is_seen(one: Shared) -> None:
    one.checkout("one").build()
    one.counts()
    second = one.checkout("two")
    second.write("first/a.h", "int first;\n")
    assert second.build().ran == ["ld build/local-fast/app.elf", "src/a.c", "src/b.c"]


def test_warnings_come_along(one: Shared) -> None:
    for name in ("one", "two"):
        space = one.checkout(name)
        space.write("src/c.c", "int c; // WARN\n")
        built = space.build()
        assert [warning for result in built.results for warning in result.warnings] == [
            ("compile src/c.c", "src/c.c:1: warning: hm\n")
        ]
        one.counts()
    assert built.ran == []


def test_what_is_not_to_be_shared_is_neither_asked_for_nor_sent(one: Shared) -> None:
    def private(action: Action) -> Action:
        return action._replace(cacheable=action.name != "compile src/c.c")

    for name in ("one", "two"):
        space = one.checkout(name)
        space.change = private
        built = space.build()
        one.counts()
    assert built.ran == ["src/c.c"] and built.count("restored_remote") == 4


def test_one_that_only_reads_sends_nothing(one: Shared) -> None:
    one.mode = "read"
    assert one.checkout("one").build().ran == ALL
    assert one.counts().offered == 0 and one.server.count("PUT") == 0


def test_a_damaged_blob_is_made_again(one: Shared) -> None:
    one.checkout("one").build()
    one.counts()
    name = next(name for name, data in one.server.cas.items() if data.startswith(b"ELF"))
    one.server.cas[name] = one.server.cas[name][:-1] + b"x"
    second = one.checkout("two")
    assert second.build().ran == ["ld build/local-fast/app.elf"]
    assert one.counts().refused == 1
    assert second.build().nothing


def digest_of(file: dict[str, Any]) -> Digest:
    return Digest(file["digest"]["hash"], int(file["digest"]["sizeBytes"]))


def test_an_entry_with_other_outputs_than_declared_is_not_used(one: Shared) -> None:
    """Signed as it should be, and below build/: by somebody who may write to the server."""
    one.checkout("one").build()
    one.counts()
    evil = b"evil"
    one.server.cas[digest_bytes(evil).hex] = evil
    for key, entry in one.server.ac.items():
        outputs = [OutputFile(file["path"], digest_of(file), False) for file in entry["outputFiles"]]
        if outputs[0].path.startswith("build/"):
            outputs.append(OutputFile("build/local-fast/evil", digest_bytes(evil), False))
            result = ActionResult(tuple(outputs))
            one.server.ac[key] = {
                "outputFiles": [
                    {"path": f.path, "digest": {"hash": f.digest.hex, "sizeBytes": str(f.digest.size)}} for f in outputs
                ],
                "executionMetadata": {"worker": signature(ActionKey(key), result)},
            }
    second = one.checkout("two")
    assert second.build().ran == ALL
    assert one.counts().found >= 5 and one.counts().fetched == 0
    assert not (second.root / "build/local-fast/evil").exists()


def test_a_set_that_is_none_is_not_kept(one: Shared) -> None:
    one.checkout("one").build()
    one.counts()
    bad = digest_bytes(b"no set")
    one.server.cas[bad.hex] = b"no set"
    for key, entry in one.server.ac.items():
        if entry["outputFiles"][0]["path"].startswith("set/"):
            result = ActionResult((OutputFile("set/0", bad, False),))
            one.server.ac[key] = {
                "outputFiles": [{"path": "set/0", "digest": {"hash": bad.hex, "sizeBytes": "6"}}],
                "executionMetadata": {"worker": signature(ActionKey(key), result)},
            }
    second = one.checkout("two")
    assert second.build().ran == ["src/a.c", "src/b.c", "src/c.c"]
    assert second.build().nothing


def test_a_failure_ends_a_run_that_asks(one: Shared) -> None:
    space = one.checkout("one")
    space.write("src/b.c", "#error\n")
    built = space.build()
    assert not built.ok and [f.action for r in built.results for f in r.failures] == ["compile src/b.c"]


# --- is it worth it? ----------------------------------------------------------------------------


class FakeNetwork:
    """A `Remote` whose entries and blobs are here, and whose rate is known after the first fetch."""

    def __init__(self, speed: RemoteSpeed, duration_ms: int, loses: bool = False) -> None:
        self._speed, self._duration_ms, self._loses = speed, duration_ms, loses
        self._entries: dict[ActionKey, ActionResult] = {}
        self._data: dict[Digest, bytes] = {}
        self.fetches: list[int] = []
        self.patience: list[float] = []
        self.declined = 0
        self._is_rated = False

    def find(
        self, keys: Sequence[ActionKey], blobs: BlobStore, watch: RoundWatch | None = None
    ) -> dict[ActionKey, ActionResult]:
        return {key: self._entries[key] for key in keys if key in self._entries}

    def fetch(
        self, digests: Sequence[Digest], blobs: BlobStore, patience_s: float, watch: RoundWatch | None = None
    ) -> frozenset[Digest]:
        if any(self._data[digest].startswith(b"{") for digest in digests):
            return frozenset(blobs.put_bytes(self._data[digest]) for digest in digests)
        self.fetches.append(len(digests))
        self.patience.append(patience_s)
        self._is_rated = True
        return frozenset() if self._loses else frozenset(blobs.put_bytes(self._data[digest]) for digest in digests)

    def offer(self, key: ActionKey, result: ActionResult, blobs: BlobStore) -> None:
        self._entries.setdefault(key, result._replace(duration_ms=self._duration_ms))
        for digest in result.blobs():
            data = blobs.read(digest)
            assert data is not None
            self._data[digest] = data

    def decline(self, results: int) -> None:
        self.declined += results

    def settle(self, timeout_s: float) -> None: ...

    def speed(self) -> RemoteSpeed:
        return self._speed if self._is_rated else RemoteSpeed(self._speed.latency_s)

    def counts(self) -> RemoteCounts:
        return RemoteCounts(rounds=len(self.fetches))

    def notes(self) -> tuple[str, ...]:
        return ()


def large(space: EngineSpace) -> EngineSpace:
    """Six objects of 40 kB."""
    for n in range(3):
        space.write(f"src/more{n}.c", f"int more{n};\n")
    for path in (space.root / "src").glob("*.c"):
        path.write_text(path.read_text() + f"char {path.stem}[] = {'x' * 40_000!r};\n")
    return space


@pytest.mark.parametrize(
    ("rate", "duration_ms", "fetched", "declined", "ran"),
    [
        (2.5e6, 400, [4, 2, 1], 0, 0),  # 20 Mbit/s: 16 ms for what takes 400
        (2.5e4, 400, [4], 2 + 1, 3),  # 0.2 Mbit/s: 1600 ms; the link of all takes as long
        (2.5e6, 10, [4], 2 + 1, 3),  # what takes no time to make
    ],
)
def test_what_is_fetched_is_what_is_quicker(
    tmp_path: Path, rate: float, duration_ms: int, fetched: list[int], declined: int, ran: int
) -> None:
    network = FakeNetwork(RemoteSpeed(0.05, rate), duration_ms)
    large(with_remote(EngineSpace(tmp_path / "one").sample(), network)).build()
    network._is_rated = False
    second = large(with_remote(EngineSpace(tmp_path / "two").sample(), network))
    built = second.build()
    assert (network.fetches, network.declined, len(built.ran)) == (fetched, declined, ran)
    assert second.build().nothing


def test_patience_is_what_making_would_take(tmp_path: Path) -> None:
    network = FakeNetwork(RemoteSpeed(0.05, 2.5e6), 3000, loses=True)
    large(with_remote(EngineSpace(tmp_path / "one").sample(), network)).build()
    network._is_rated = False
    built = large(with_remote(EngineSpace(tmp_path / "two").sample(), network)).build()
    assert len(built.ran) == 7
    # 4 of 3 s on 2 cores, then the link; nothing of a stage is tried again after nothing came
    assert network.patience[:2] == [6.0, 1.5]


def test_functions_of_this_program_are_not_asked_for_over_a_long_way(tmp_path: Path) -> None:
    network = FakeNetwork(RemoteSpeed(0.2, 2.5e6), 400)
    with_remote(EngineSpace(tmp_path / "one").sample(), network).build()
    built = with_remote(EngineSpace(tmp_path / "two").sample(), network).build()
    assert built.ran == [] and (built.count("restored_remote"), built.count("built")) == (4, 1)
