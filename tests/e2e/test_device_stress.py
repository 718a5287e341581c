"""Random histories of a board: deploys killed anywhere, foreign writes, swaps, damaged state. Whatever happened, no
outcome claims more than the device could prove, and the next healthy run ends with the images in flash.

A few histories in the ordinary suite; `-m stress` runs hundreds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.formats import otadata
from tests.bench_device import DeviceBench, Killed
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import TIMEOUT_S, Space, copy_project

MACS = ("7c:df:a1:00:11:22", "7c:df:a1:00:11:33")
LEVELS = ("md5", "app-report", "journal")


@pytest.fixture(scope="module")
def builds(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A built project, and three whole applications for it."""
    path = tmp_path_factory.mktemp("builds") / "project"
    copy_project(template, path)
    space = Space(path)
    apps = []
    for old, new in (("pong", "pong"), ("pong", "pang"), ("pang", "pang and a good deal longer")):
        methods = space.file("firmware/core/methods.c")
        methods.write_text(methods.read_text().replace(f'"\\"{old}\\""', f'"\\"{new}\\""'))
        assert space.doit("link").code == 0
        apps.append(next((path / "build").rglob("app.bin")).read_bytes())
    assert len({hashlib.md5(app).digest() for app in apps}) == len(apps)
    return path, apps


class History:
    """One board's life. Every step is what somebody could do."""

    def __init__(self, bench: DeviceBench, apps: list[bytes], seed: int) -> None:
        self.bench = bench
        self.apps = apps
        self.rng = random.Random(seed)
        self.log: list[str] = [f"seed {seed}"]

    def step(self) -> None:
        """One random change of the world, then one deploy that is judged."""
        for _ in range(self.rng.randrange(3)):
            change = self.rng.choice(
                [self.edit, self.flip, self.other_tool, self.other_slot, self.swap, self.press_reset, self.damage,
                 self.forget, self.killed, self.erase]
            )  # fmt: skip
            self.log.append(change.__name__)
            change()
        self.judged_deploy(self.rng.choice(LEVELS))

    # --- what happens to a board ----------------------------------------------------------------

    def edit(self) -> None:
        next((self.bench.root / "build").rglob("app.bin")).write_bytes(self.rng.choice(self.apps))

    def flip(self) -> None:
        image = self.rng.choice(self.bench.images)
        self.bench.flip(image.offset + self.rng.randrange(image.size))

    def erase(self) -> None:
        image = self.rng.choice(self.bench.images)
        self.bench.poke(image.offset, b"\xff" * min(image.size, 0x1000 * self.rng.randrange(1, 9)))

    def other_tool(self) -> None:
        self.bench.poke(self.bench.image("app").offset, self.rng.choice(self.apps))
        if self.rng.random() < 0.7:
            self.bench.reset()

    def other_slot(self) -> None:
        slot = next(row for row in self.bench.build.project.table if row.name == "ota_1")
        self.bench.poke(slot.offset, self.rng.choice(self.apps))
        self.bench.poke(self.bench.image("otadata").offset, otadata.encode(self.rng.randrange(2), 2))
        if self.rng.random() < 0.7:
            self.bench.reset()

    def swap(self) -> None:
        self.bench.plug(self.rng.choice(MACS))

    def press_reset(self) -> None:
        self.bench.reset()

    def damage(self) -> None:
        for journal in self.bench.journals():
            data = journal.read_bytes()
            cut = self.rng.randrange(len(data) + 1)
            choice = self.rng.randrange(4)
            if choice == 0:
                journal.write_bytes(data[:cut])
            elif choice == 1:
                journal.write_bytes(data[:cut] + b"?" + data[cut + 1 :])
            elif choice == 2:
                other = self.rng.choice(list(self.bench.journals()))
                if other != journal:
                    shutil.copy(other, journal)
            else:
                journal.unlink()

    def forget(self) -> None:
        shutil.rmtree(self.bench.root.parent / "cache", ignore_errors=True)

    def killed(self) -> None:
        self.bench.port.written, self.bench.port.kill_after = 0, self.rng.randrange(40_000)
        try:
            self.bench.deploy(self.rng.choice(LEVELS))
        except Killed:
            self.log[-1] += " (in a write)" if not self.bench.all_there else ""
        self.bench.port.kill_after = None

    # --- the judgement --------------------------------------------------------------------------

    def judged_deploy(self, level: str) -> str:
        bench = self.bench
        there = {image.name: bench.holds(image) for image in bench.images}
        selects = self.selects_ours()
        written_before = bench.port.board.flash.read(0, bench.build.config.flash.size_bytes)
        report = bench.deploy(level)
        outcome = report["outcome"]
        self.log.append(f"{level} -> {outcome}")
        fixed = all(held for name, held in there.items() if name != "otadata")
        if outcome in ("verified_unchanged", "app_confirmed", "journal_trusted"):
            unchanged = bench.port.board.flash.read(0, len(written_before)) == written_before
            assert unchanged and report["totals"]["bytes_written"] == 0, self.log
        if outcome == "verified_unchanged":
            assert fixed and selects, self.log
        elif outcome == "app_confirmed":
            assert fixed and there["otadata"], self.log
        elif outcome in ("delta_flashed", "regions_flashed", "full_flashed"):
            assert all(bench.holds(i) for i in bench.images if i.name != "otadata") and self.selects_ours(), self.log
        else:
            assert outcome == "journal_trusted" or report["failure"]["category"] != "unknown", (self.log, report)
        if outcome not in ("failed",):
            assert report["readiness"]["app_elf_sha256"] == bench.build.images.expected_elf(), self.log
            assert report["device"]["mac"] == next(mac for mac, port in bench.boards.items() if port is bench.port)
        return str(outcome)

    def selects_ours(self) -> bool:
        image = self.bench.image("otadata")
        data = self.bench.port.board.flash.read(image.offset, image.size)
        return data == (self.bench.root / image.path).read_bytes() or otadata.select(data, 2) == 0


def live(builds: tuple[Path, list[bytes]], tmp_path: Path, seed: int, steps: int) -> list[str]:
    """One history on a fresh project; ends with a healthy deploy that must leave everything in flash."""
    shutil.copytree(builds[0], tmp_path / "project")
    bench = DeviceBench(tmp_path / "project")
    try:
        history = History(bench, builds[1], seed)
        for _ in range(steps):
            history.step()
        assert history.judged_deploy("md5") in (
            *("verified_unchanged", "delta_flashed", "regions_flashed", "full_flashed"),
        ), history.log
        assert history.judged_deploy("md5") == "verified_unchanged", history.log
        return history.log
    finally:
        bench.close()


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_no_outcome_claims_more_than_was_proven(
    builds: tuple[Path, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    live(builds, tmp_path, seed, 6)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(100, 130))
def test_no_outcome_of_hundreds_claims_more(
    builds: tuple[Path, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = live(builds, tmp_path, seed, 10)
    outcomes = [line.rpartition(" ")[2] for line in log if "->" in line]
    assert len(outcomes) == 12
    print({outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))})


# --- kill -9 of the deploying process -----------------------------------------------------------


class Tap:
    """A TCP proxy before a board process that kills a process once so many bytes went to the board."""

    def __init__(self, board: ServedBoard) -> None:
        self._target = int(board.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"
        self.kill_after: int | None = None
        self.victim = 0
        self.seen = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            board = socket.create_connection(("127.0.0.1", self._target))
            for source, target, counted in ((client, board, True), (board, client, False)):
                threading.Thread(target=self._pump, args=(source, target, counted), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with source, contextlib.suppress(OSError):
            try:
                while data := source.recv(1024):
                    if counted:
                        self._count(len(data))
                    target.sendall(data)
            finally:
                target.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> None:
        self.seen += size
        if self.kill_after is not None and self.seen >= self.kill_after:
            self.kill_after = None
            os.killpg(self.victim, signal.SIGKILL)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends an `accept` under way
        self._listener.close()


@pytest.fixture
def tapped(template: Path, tmp_path: Path, start_board: Callable[[], ServedBoard]) -> Iterator[tuple[Space, Tap]]:
    copy_project(template, tmp_path / "project")
    board = start_board()
    tap = Tap(board)
    yield Space(tmp_path / "project", tap.url, board.flash), tap
    tap.close()


def kill_once(space: Space, tap: Tap, after: int) -> bool:
    """Erase the board, kill a deploy after so many bytes, deploy again; True if the kill struck."""
    app = 0x10000
    space.flip(app + 0x100)
    space.flip(app + 0x9000)
    space.flip(0x100)
    tap.seen = 0
    child = space.start("deploy")
    tap.victim, tap.kill_after = child.pid, after
    output, _ = child.communicate(timeout=TIMEOUT_S)
    struck = child.returncode == -signal.SIGKILL
    tap.kill_after = None
    healed = space.deploy()
    assert healed.code == 0, (after, output, healed.out, healed.err)
    assert healed.outcome in ("verified_unchanged", "delta_flashed", "regions_flashed", "full_flashed")
    for region in healed.report["regions"]:
        size, offset = region["size"], region["offset"]
        if region["name"] != "otadata":
            held = space.flash.read_bytes()[offset : offset + size]
            assert hashlib.md5(held).hexdigest() == region["md5"], (after, region["name"])
    assert not struck or re.search("an earlier run was killed", healed.out)
    return struck


@pytest.mark.parametrize("after", [900, 12_000, 22_000])
def test_a_killed_process_is_healed_by_the_next(tapped: tuple[Space, Tap], after: int) -> None:
    assert kill_once(*tapped, after), "the deploy ended before the kill"


@pytest.mark.stress
def test_a_hundred_killed_processes_are_healed(tapped: tuple[Space, Tap]) -> None:
    rng = random.Random(9)
    struck = sum(kill_once(*tapped, rng.randrange(1, 40_000)) for _ in range(100))
    print(f"{struck} of 100 kills struck")
    assert struck >= 60
