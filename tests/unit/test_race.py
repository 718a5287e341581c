"""Workers and other machines after the same results: a server that answers when the test says, and what was executed,
restored and asked, counted. Time plays no part but where the clock is the test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cache.actions import ActionResult
from cache.blobs import BlobStore
from cache.digest import ActionKey, Digest
from cache.remote import RemoteCounts, RemoteSpeed, RoundWatch
from pipeline.engine import shared_results
from pipeline.engine.engine import Engine
from pipeline.engine.inquiry import LOOK_S
from tests.unit.engine_space import Built, EngineSpace

SOURCES = 12
WAIT_S = 60.0


class LookClock:
    """Of an engine: it stands still until it is told to run, and then moves with each look."""

    def __init__(self) -> None:
        self.at_s = 1000.0
        self.runs = False
        self.looked = threading.Event()

    def now_s(self) -> float:
        self.looked.set()
        self.at_s += LOOK_S if self.runs else 0.0
        return self.at_s


class ScriptedRemote:
    """A `Remote` that holds everything that was offered, and answers as its script says.

    `find` and `fetch`: called with the names that are asked for and `answer`; each call of `answer(name)` is an answer.
    A round lasts until they return."""

    def __init__(self) -> None:
        self.clock = LookClock()
        self.entries: dict[ActionKey, ActionResult] = {}
        self.data: dict[str, bytes] = {}
        self.known = RemoteSpeed()
        self.find_by: Callable[[Sequence[str], Callable[[str], None]], None] = at_once
        self.fetch_by: Callable[[Sequence[str], Callable[[str], None]], None] = at_once
        self._mine = threading.local()
        self.newest = threading.Event()
        """Of the round that was asked for last: the engine has no use for it any more."""
        self.receive: Callable[[str, int], None] = lambda name, size: None
        """More of a blob that is not whole yet: (name, size)."""
        self.asked: list[list[str]] = []
        self.unwanted = 0
        self.declined = 0

    def find(
        self, keys: Sequence[ActionKey], blobs: BlobStore, watch: RoundWatch | None = None
    ) -> dict[ActionKey, ActionResult]:
        assert watch is not None
        found: dict[ActionKey, ActionResult] = {}

        def answer(name: str) -> None:
            if not watch.is_wanted(name):
                self.unwanted += 1
                return
            result = self.entries.get(ActionKey(name))
            if result is not None:
                found[ActionKey(name)] = result
                for digest in result.blobs():
                    if self.data[digest.hex].startswith(b"{"):
                        blobs.put_bytes(self.data[digest.hex])
            watch.answered(name, 400, came=result is not None)

        self._round(list(keys), watch, self.find_by, answer)
        return found

    def fetch(
        self, digests: Sequence[Digest], blobs: BlobStore, patience_s: float, watch: RoundWatch | None = None
    ) -> frozenset[Digest]:
        assert watch is not None

        def answer(name: str) -> None:
            if not watch.is_wanted(name):
                self.unwanted += 1
                return
            blobs.put_bytes(self.data[name])
            watch.answered(name, len(self.data[name]), came=True)

        self.receive = watch.received
        self._round([digest.hex for digest in digests], watch, self.fetch_by, answer)
        return frozenset(digest for digest in digests if blobs.has(digest))

    def _round(
        self,
        names: list[str],
        watch: RoundWatch,
        script: Callable[[Sequence[str], Callable[[str], None]], None],
        answer: Callable[[str], None],
    ) -> None:
        self.asked.append(names)
        self._mine.ended = self.newest = threading.Event()
        watch.began(len(names), self._mine.ended.set)
        script(names, answer)
        watch.ended()

    @property
    def ended(self) -> threading.Event:
        """Of the round of this thread: one of the stage before may still be under way."""
        ended: threading.Event = self._mine.ended
        return ended

    def until_ended(self) -> None:
        """Say nothing any more, while time passes."""
        self.clock.runs = True
        assert self.ended.wait(WAIT_S)

    def offer(self, key: ActionKey, result: ActionResult, blobs: BlobStore) -> None:
        self.entries[key] = result._replace(duration_ms=400)
        for digest in result.blobs():
            data = blobs.read(digest)
            assert data is not None
            self.data[digest.hex] = data

    def decline(self, results: int) -> None:
        self.declined += results

    def settle(self, timeout_s: float) -> None: ...

    def speed(self) -> RemoteSpeed:
        return self.known

    def counts(self) -> RemoteCounts:
        return RemoteCounts(rounds=len(self.asked))

    def notes(self) -> tuple[str, ...]:
        return ()


def at_once(names: Sequence[str], answer: Callable[[str], None]) -> None:
    for name in names:
        answer(name)


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this one does beside."""
    monkeypatch.setattr(shared_results, "busyness", lambda: 0.0)


@pytest.fixture
def remote(tmp_path: Path) -> ScriptedRemote:
    """One that another checkout has filled."""
    made = ScriptedRemote()
    assert len(checkout(tmp_path / "one", made).build().ran) == SOURCES + 1
    made.asked.clear()
    made.declined = 0
    return made


@pytest.fixture
def second(tmp_path: Path, remote: ScriptedRemote) -> EngineSpace:
    return checkout(tmp_path / "two", remote)


def checkout(root: Path, remote: ScriptedRemote, sources: int = SOURCES) -> EngineSpace:
    space = EngineSpace(root)
    for n in range(sources):
        space.write(f"src/s{n:03}.c", f'#include "a.h"\nint s{n};\n')
    space.write("inc/a.h", "int h;\n")
    make: Callable[..., Engine] = space.engine

    def engine(*arguments: object) -> Engine:
        made = make(*arguments)
        clock: Any = remote.clock
        made.workspace.host = made.workspace.host._replace(remote=lambda: remote, clock=clock)
        return made

    space.engine = engine  # type: ignore[assignment,method-assign]
    return space


def is_complete(built: Built) -> bool:
    """Was each made or brought, and none twice?"""
    ran = [name for name in built.ran if name.startswith("src/")]
    return len(set(ran)) == len(ran) and built.count("compiled") + built.results[0].counts["restored"] == SOURCES


def test_a_quick_server_leaves_nothing_to_do(tmp_path: Path) -> None:
    """However long the rounds are: 2000 answers a second, three times 1000, against making at 2 cores."""
    remote, many = ScriptedRemote(), 1000
    assert len(checkout(tmp_path / "one", remote, many).build().ran) == many + 1

    def at_a_rate(names: Sequence[str], answer: Callable[[str], None]) -> None:
        for name in names:
            remote.clock.at_s += 1 / 2000
            answer(name)

    remote.find_by = remote.fetch_by = at_a_rate
    built = checkout(tmp_path / "two", remote, many).build()
    assert built.ran == [] and built.count("restored_remote") == many + 2
    assert remote.clock.at_s > 1001 and (remote.unwanted, remote.declined) == (0, 0)


def test_a_silent_server_is_not_waited_for(second: EngineSpace, remote: ScriptedRemote) -> None:
    remote.find_by = lambda names, answer: remote.until_ended()
    built = second.build()
    assert len(built.ran) == SOURCES + 1 and built.count("restored_remote") == 0 and is_complete(built)
    assert second.build().nothing


def test_one_that_stops_answering_has_brought_what_came(second: EngineSpace, remote: ScriptedRemote) -> None:
    def stall(names: Sequence[str], answer: Callable[[str], None]) -> None:
        at_once(names[:5], answer)
        if len(names) > 5:
            remote.until_ended()

    remote.fetch_by = stall
    built = second.build()
    assert built.results[0].counts["restored"] == 5 and is_complete(built)
    # What is fetched first is made last.
    assert [name for name in built.ran if name.startswith("src/")] == [f"src/s{n:03}.c" for n in range(5, SOURCES)]
    assert remote.declined >= SOURCES - 5
    assert second.build().nothing


def test_one_that_stops_in_the_first_round_costs_what_it_said(second: EngineSpace, remote: ScriptedRemote) -> None:
    def stall(names: Sequence[str], answer: Callable[[str], None]) -> None:
        at_once(names[:3] if len(remote.asked) == 1 else (), answer)
        remote.until_ended()

    remote.find_by = stall
    built = second.build()
    assert len(built.ran) == SOURCES + 1 and is_complete(built)
    assert len(remote.asked[0]) == SOURCES
    assert remote.declined >= 3  # of which it is known that they are there


def test_drops_and_workers_meet_in_the_middle(second: EngineSpace, remote: ScriptedRemote) -> None:
    """A blob comes each time that a compile has begun. None is asked for that is being made by then."""
    begun, given, is_over = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def during(name: str) -> None:
        begun.release()
        while not given.acquire(timeout=0.01) and not is_over.is_set():
            pass

    def drip(names: Sequence[str], answer: Callable[[str], None]) -> None:
        remote.clock.runs = True
        for name in names:
            while not begun.acquire(timeout=0.01):
                if remote.ended.is_set():
                    break
            answer(name)
            given.release()
        is_over.set()

    second.tools.during = during

    remote.fetch_by = drip
    built = second.build()
    restored = built.results[0].counts["restored"]
    assert is_complete(built) and 0 < restored < SOURCES and built.results[0].counts["restored_remote"] == restored


def test_one_that_is_slower_than_making_is_not_waited_for(second: EngineSpace, remote: ScriptedRemote) -> None:
    remote.known = RemoteSpeed(0.05, 100.0)
    remote.find_by = lambda names, answer: remote.until_ended()
    remote.data.clear()
    assert len(second.build().ran) == SOURCES + 1


def test_what_comes_for_an_action_under_way_is_not_used(second: EngineSpace, remote: ScriptedRemote) -> None:
    """All blobs come while the last source is being compiled, its own, too."""
    come = threading.Event()
    came = threading.Event()

    def during(name: str) -> None:
        if not come.is_set():
            come.set()
            assert came.wait(WAIT_S)

    def late(names: Sequence[str], answer: Callable[[str], None]) -> None:
        remote.clock.runs = True
        assert come.wait(WAIT_S)
        at_once(names, answer)
        came.set()

    second.tools.during = during
    remote.fetch_by = late
    built = second.build()
    assert built.results[0].counts["restored"] == SOURCES - 1
    assert built.ran[0] == f"src/s{SOURCES - 1:03}.c" and remote.unwanted == 1
    assert second.build().nothing


def test_a_compile_that_fails_ends_the_round(second: EngineSpace, remote: ScriptedRemote) -> None:
    second.write(f"src/s{SOURCES - 1:03}.c", "#error\n")
    remote.find_by = lambda names, answer: remote.until_ended()
    built = second.build()
    assert not built.ok and [f.action for f in built.results[0].failures] == [f"compile src/s{SOURCES - 1:03}.c"]
    assert remote.newest.is_set() and len(built.ran) < SOURCES
    second.write(f"src/s{SOURCES - 1:03}.c", "int good;\n")
    remote.find_by = at_once
    assert second.build().ok


def test_an_interruption_ends_the_round(second: EngineSpace, remote: ScriptedRemote) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    second.tools.during = interrupt
    remote.find_by = lambda names, answer: remote.until_ended()
    with pytest.raises(KeyboardInterrupt):
        second.build()
    assert remote.newest.wait(WAIT_S)
    second.tools.during = lambda name: None
    remote.find_by = at_once
    assert second.build().ok


def test_what_nobody_has_is_made_without_waiting_for_the_rest(second: EngineSpace, remote: ScriptedRemote) -> None:
    """Its answer is there, and those that have something are still being fetched, however long: the clock stands."""
    second.write("src/s003.c", "int other;\n")
    made = threading.Event()
    second.tools.during = lambda name: made.set()

    def wait(names: Sequence[str], answer: Callable[[str], None]) -> None:
        assert made.wait(WAIT_S)
        at_once(names, answer)

    remote.fetch_by = wait
    built = second.build()
    assert built.ran == ["ld build/local-fast/app.elf", "src/s003.c"]
    assert built.results[0].counts["restored_remote"] == SOURCES - 1


def test_a_long_link_that_is_being_fetched_is_not_made(second: EngineSpace, remote: ScriptedRemote) -> None:
    """Its fetch takes 2 s and more, and it 400 s: that others said with its entry."""
    for key, result in remote.entries.items():
        if result.outputs[0].path.endswith(".elf"):
            remote.entries[key] = result._replace(duration_ms=400_000)

    def slowly(names: Sequence[str], answer: Callable[[str], None]) -> None:
        for name in names:
            if remote.data[name].startswith(b"ELF"):
                for _ in range(40):
                    remote.clock.at_s += 0.05
                    remote.receive(name, 1000)
                    remote.clock.looked.clear()
                    assert remote.clock.looked.wait(WAIT_S)
            answer(name)

    remote.fetch_by = slowly
    built = second.build()
    assert built.ran == [] and built.count("restored_remote") == SOURCES + 2
