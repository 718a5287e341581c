"""labgrid's own coordinator and exporter, on loopback, with virtual boards: whole deploys to a place, and who has it.

labgrid cannot share an environment with esptool, so that it has one of its own: `.ci/run` makes it from
requirements-labgrid.lock. Without it these tests are skipped.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.remote.farm_labgrid import LabgridSession, open_session
from tests.contract.board_process import BoardProcess
from tests.e2e.space import Result, Space

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(os.environ.get("HOTPLATE_LABGRID", "") or ROOT / ".deploy/ci-labgrid") / "bin"
DEADLINE_S = 120.0

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (PROGRAMS / "labgrid-coordinator").exists(), reason="no labgrid: .ci/run installs it in .deploy/ci-labgrid"
    ),
]


class RealFarm:
    """Coordinator, exporter and two virtual boards: the places esp-1 and esp-2."""

    def __init__(self, place: Path, closing: ExitStack) -> None:
        self._place, self._closing = place, closing
        self._board = [closing.enter_context(BoardProcess(place / f"{n}.flash", "--mac", MACS[n])) for n in (0, 1)]
        line = self._start("labgrid-coordinator", "-l", "127.0.0.1:0", until=b"listening on")
        self.address = line.decode().split()[-1]
        (place / "exporter.yaml").write_text(
            "".join(
                f"board-{n}:\n  NetworkSerialPort:\n    host: 127.0.0.1\n    port: {board.port}\n"
                for n, board in enumerate(self._board, 1)
            )
        )
        self._start("labgrid-exporter", "-c", self.address, "-n", "rack", "exporter.yaml", until=b"")
        for n in (1, 2):
            self.client("-p", f"esp-{n}", "create")
            self.client("-p", f"esp-{n}", "add-match", f"rack/board-{n}/*")
        self.client("-p", "esp-2", "set-tags", "pool=ci")
        self.session: LabgridSession = open_session(self.address, "test/watcher")
        closing.callback(self.session.close)
        self.until(lambda: len(self.session.resources()) == 2)

    def client(self, *words: str, user: str = "ann") -> str:
        """labgrid's own client, as somebody else on another machine."""
        env = {**os.environ, "LG_HOSTNAME": "labhost", "LG_USERNAME": user}
        command = [str(PROGRAMS / "labgrid-client"), "-x", self.address, *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def holder(self, place: str) -> str:
        self.session.settle()
        seen = self.session.place(place)
        assert seen is not None
        return seen.acquired

    def until(self, happened: Callable[[], bool]) -> None:
        assert self.session.wait(happened, DEADLINE_S)

    def _start(self, program: str, *words: str, until: bytes) -> bytes:
        """The line of its output that holds `until`."""
        child = self._closing.enter_context(
            subprocess.Popen(
                [str(PROGRAMS / program), *words],
                cwd=self._place,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,  # else what comes with a line cannot be waited for
            )
        )
        self._closing.callback(child.kill)
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while until:
                assert selector.select(DEADLINE_S), f"{program} says nothing"
                line = child.stdout.readline()
                if until in line:
                    return bytes(line.strip())
                assert line, f"{program} has ended"
        return b""


MACS = ("7c:df:a1:00:33:01", "7c:df:a1:00:33:02")


@pytest.fixture(scope="module")
def real_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFarm]:
    with ExitStack() as closing:
        yield RealFarm(tmp_path_factory.mktemp("labgrid"), closing)


def _reason(result: Result, kind: str) -> tuple[str, str]:
    """From what to what."""
    return next((one["before"], one["after"]) for one in result.report["reasons"] if one["kind"] == kind)


def test_deploys_to_a_place_and_everything_that_can_be_in_their_way(host_space: Space, real_farm: RealFarm) -> None:
    """One story, since each deploy and each process of labgrid takes its seconds."""
    space, farm = host_space, real_farm
    space.on_process("labgrid://esp-1")
    farm_env = {"LG_COORDINATOR": farm.address}

    first = space.deploy(env=farm_env)
    assert (first.code, first.outcome) == (0, "full_flashed"), first.err
    assert first.report["device"]["mac"] == MACS[0] and first.report["device"]["port"] == "labgrid://esp-1"
    assert _reason(first, "farm-place")[0] == f"esp-1 of {farm.address}"
    assert _reason(first, "farm-place")[1].startswith("board at 127.0.0.1:")
    assert farm.holder("esp-1") == "", "released with the lease"
    again = space.deploy(env=farm_env)
    assert (again.outcome, again.totals["bytes_written"]) == ("verified_unchanged", 0)

    farm.client("-p", "esp-1", "acquire")
    busy = space.deploy(env=farm_env)
    assert (busy.code, busy.category) == (1, "port_busy")
    assert busy.report["failure"]["message"] == "place 'esp-1' is acquired by labhost/ann"
    assert farm.holder("esp-1") == "labhost/ann"
    listed = space.doit("devices", env=farm_env)
    assert f"bench: place esp-1 of {farm.address}, board at 127.0.0.1, acquired by labhost/ann" in listed.out
    under = space.deploy(env={**farm_env, "LG_PLACE": "esp-1", "LG_HOSTNAME": "labhost", "LG_USERNAME": "ann"})
    assert under.outcome == "verified_unchanged" and farm.holder("esp-1") == "labhost/ann", "it stays acquired"
    taken = space.doit("deploy", "--take", "--reason", "hot fix", env=farm_env)
    assert taken.outcome == "verified_unchanged"
    assert _reason(taken, "farm-place-taken") == ("labhost/ann", "esp-1")
    assert farm.holder("esp-1") == ""


def test_a_lease_keeps_the_place_and_kill_9_frees_it(host_space: Space, real_farm: RealFarm) -> None:
    space, farm = host_space, real_farm
    space.on_process(f"labgrid://{farm.address}/?pool=ci")
    leased = space.start("lease", "--reason", "soak")
    assert leased.stdout is not None
    assert re.search(r"leased: bench \(place esp-2, board at 127\.0\.0\.1:\d+\)", leased.stdout.readline())
    assert farm.holder("esp-2")
    os.kill(leased.pid, signal.SIGKILL)
    farm.until(lambda: not any(place.acquired for place in farm.session.places()))
    leased.communicate(timeout=DEADLINE_S)
    assert "Reservation" not in farm.client("reservations"), "nor is anything reserved"
