"""Deploys as the page tells them: real processes and event logs; what is deployed is made up."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.client.protocol import DeviceRef, Holder
from pipeline.events import RUN_LOG_HEADER
from pipeline.model import Failure
from pipeline.service.environments import MOST, Environments
from pipeline.service.page_deploys import PageDeploys
from pipeline.service.run_progress import LogTail, RunProgress
from tests.page.past import write_past
from tests.page.served import WAIT_S, ServedPage, fake_environment, heard

STAGES = ("fingerprint", "compile", "link", "verify-flash", "reflash", "reattach", "ttfb")


def outcomes(state: dict[str, Any]) -> list[str]:
    return [one["outcome"] for one in state["stages"]]


# --- reading a log that grows -----------------------------------------------------------------


def test_a_log_that_grows_byte_by_byte_says_each_event_once(tmp_path: Path) -> None:
    (tx,) = write_past(tmp_path, "bench", 1)
    whole = (tmp_path / ".deploy/runs" / f"{tx}.log").read_bytes()
    path = tmp_path / "growing.log"
    tail, progress, count = LogTail(path), RunProgress(tx, "bench"), 0
    assert tail.read() == []
    for end in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        for one in tail.read():
            progress.hear(one)
            count += 1
    path.write_bytes(whole)
    for one in tail.read():
        progress.hear(one)
        count += 1
    assert count == whole.count(b"\n") - 1
    assert progress.ended and progress.state()["outcome"] == "verified_unchanged"
    assert set(outcomes(progress.state())) == {"ran", "up-to-date"}
    assert progress.state()["stages"][3]["limit_ms"] == 1500


def test_a_damaged_log_ends_what_can_be_said(tmp_path: Path) -> None:
    (tx,) = write_past(tmp_path, "bench", 1)
    whole = (tmp_path / ".deploy/runs" / f"{tx}.log").read_bytes()
    path = tmp_path / "damaged.log"
    for damage in (whole.replace(b"stage_started", b"stage_startex", 1), b"another 9\n" + whole, RUN_LOG_HEADER, b""):
        path.write_bytes(damage)
        progress = RunProgress(tx, "bench")
        for one in LogTail(path).read():
            progress.hear(one)
        assert progress.state()["tx"] == tx
    path.unlink()
    os.mkfifo(path)
    assert LogTail(path).read() == []


# --- the button -------------------------------------------------------------------------------


class Deploying:
    """PageDeploys in a loop of the test's own."""

    def __init__(self, root: Path, environment: dict[str, str] | None) -> None:
        self.device = DeviceRef(str(root), "bench", "esp32c3", "virtual:")
        self.environments = Environments()
        if environment is not None:
            self.environments.remember(str(root), environment)
        self.told: list[dict[str, Any]] = []
        self.deploys = PageDeploys(self.environments, lambda: "2026-11-29T08:00:00.000Z", self.told.append)

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end_s = time.monotonic() + WAIT_S
        while not (self.told and wanted(self.told[-1])):
            assert time.monotonic() < end_s, self.told[-1:]
            await asyncio.sleep(0.01)
        return self.told[-1]


def test_a_deploy_runs_in_the_project_with_the_callers_environment(tmp_path: Path) -> None:
    async def run() -> None:
        one = Deploying(tmp_path, fake_environment(tmp_path / "bin", DEPLOY_TX_ID="tx-of-before"))
        tx = one.deploys.start(one.device)
        assert isinstance(tx, str)
        state = await one.until(lambda told: outcomes(told)[0] == "running")
        assert state["running"] and state["ours"] and outcomes(state)[1:] == ["not-run"] * 6
        again = one.deploys.start(one.device)
        assert isinstance(again, Failure) and "under way" in again.message
        (tmp_path / "go-fingerprint").touch()
        state = await one.until(lambda told: outcomes(told)[:2] == ["ran", "running"])
        assert state["stages"][0]["duration_ms"] == 123
        (tmp_path / "go-all").touch()
        state = await one.until(lambda told: not told["running"])
        assert (state["outcome"], state["exit_code"], state["failure"]) == ("verified_unchanged", 0, None)
        assert state["output"][0] == f"for the caller in {tx}"
        assert one.deploys.refusal(one.device) is None
        await one.deploys.close()

    asyncio.run(run())


def test_a_deploy_that_fails_says_why(tmp_path: Path) -> None:
    async def run() -> None:
        one = Deploying(tmp_path, fake_environment(tmp_path / "bin", FAKE_FAILS="reflash"))
        (tmp_path / "go-all").touch()
        one.deploys.start(one.device)
        state = await one.until(lambda told: not told["running"])
        assert outcomes(state)[3:6] == ["ran", "failed", "not-run"]
        assert state["failure"]["message"] == "it <i>panicked</i>" and state["exit_code"] == 1
        await one.deploys.close()

    asyncio.run(run())


def test_stop_is_what_ctrl_c_is(tmp_path: Path) -> None:
    async def run() -> None:
        one = Deploying(tmp_path, fake_environment(tmp_path / "bin"))
        tx = one.deploys.start(one.device)
        assert isinstance(tx, str)
        await one.until(lambda told: outcomes(told)[0] == "running")
        assert one.deploys.stop("tx-20261129-080000-ffff") is not None
        assert one.deploys.stop(tx) is None
        state = await one.until(lambda told: not told["running"])
        assert state["exit_code"] == 130 and state["output"][-1] == "interrupted"
        assert one.deploys.stop(tx) is not None, "it has ended"
        await one.deploys.close()

    asyncio.run(run())


def test_without_an_environment_nothing_is_started(tmp_path: Path) -> None:
    one = Deploying(tmp_path, None)
    refusal = one.deploys.start(one.device)
    assert isinstance(refusal, Failure) and refusal.hint.startswith("run `hotplate deploy` once")
    assert one.told == []


def test_a_project_that_is_gone_is_said(tmp_path: Path) -> None:
    async def run() -> None:
        one = Deploying(tmp_path / "gone", fake_environment(tmp_path / "bin"))
        refusal = one.deploys.start(one.device)
        assert isinstance(refusal, Failure) and "cannot be started" in refusal.message

    asyncio.run(run())


def test_a_deploy_survives_the_service(tmp_path: Path) -> None:
    """It may be writing: it ends as it would have, with its log whole."""

    async def begin() -> tuple[str, int]:
        one = Deploying(tmp_path, fake_environment(tmp_path / "bin"))
        tx = one.deploys.start(one.device)
        assert isinstance(tx, str)
        await one.until(lambda told: outcomes(told)[0] == "running")
        await one.deploys.close()
        shown = one.deploys._shown[tx]
        assert shown.process is not None and shown.process.stdout is not None
        shown.process.stdout.close()
        pid, shown.process.returncode = shown.process.pid, 0  # nobody waits for it any more
        return tx, pid

    tx, pid = asyncio.run(begin())
    (tmp_path / "go-all").touch()
    assert os.waitpid(pid, 0)[1] == 0
    progress = RunProgress(tx, "bench")
    for one in LogTail(tmp_path / ".deploy/runs" / f"{tx}.log").read():
        progress.hear(one)
    assert progress.ended


def test_a_deploy_of_somebody_else_is_followed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.service.page_deploys.GRACE_S", 0.2)
    done, dead = write_past(tmp_path, "bench", 2)
    log = tmp_path / ".deploy/runs" / f"{dead}.log"
    log.write_bytes(log.read_bytes()[:2000])

    async def run() -> None:
        one = Deploying(tmp_path, None)
        one.deploys.notice(one.device, done)
        one.deploys.notice(one.device, done)
        one.deploys.notice(one.device, "../../etc/passwd")
        state = await one.until(lambda told: not told["running"])
        assert (state["tx"], state["ours"], state["outcome"]) == (done, False, "verified_unchanged")
        assert [told["tx"] for told in one.deploys.states()] == [done]
        one.deploys.notice(one.device, dead)
        one.deploys.let_go({})
        state = await one.until(lambda told: told["tx"] == dead and not told["running"])
        assert state["outcome"] is None, "it was killed"
        await one.deploys.close()

    asyncio.run(run())


def test_environments_are_few_and_the_newest() -> None:
    environments = Environments()
    for number in range(MOST + 5):
        environments.remember(f"/project{number}", {"PATH": str(number), "DEPLOY_TX_ID": "x"})
    assert environments.of("/project4") is None
    assert environments.of("/project5") == {"PATH": "5"}
    environments.remember("/project5", {"PATH": "new"})
    environments.remember("/another", {})
    assert environments.of("/project5") == {"PATH": "new"} and environments.of("/project6") is None


def test_a_page_starts_a_deploy_and_is_told(served: ServedPage, tmp_path: Path) -> None:
    served.call(served.environments.remember, served.device.root, fake_environment(tmp_path / "bin"))
    with served.live() as live:
        live.send(json.dumps({"do": "deploy", "device": served.key, "n": 1}))
        assert heard(live, lambda message: message["is"] == "answer")["failure"] is None
        Path(served.device.root, "go-all").touch()
        state = heard(live, lambda message: message["is"] == "deploy" and not message["running"])
        assert state["key"] == served.key and state["outcome"] == "verified_unchanged"
        with served.live() as later:
            assert heard(later, lambda message: message["is"] == "deploy")["tx"] == state["tx"]


def test_the_holder_of_a_lease_is_followed(served: ServedPage) -> None:
    (tx,) = write_past(Path(served.device.root), "bench", 1)
    served.call(setattr, served.console, "holder", Holder(4711, "hotplate deploy", tx=tx))
    with served.live() as live:
        state = heard(live, lambda message: message["is"] == "deploy" and message["outcome"] is not None)
        assert (state["tx"], state["ours"]) == (tx, False)
