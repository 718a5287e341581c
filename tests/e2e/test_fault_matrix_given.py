"""The fault matrix for the two chips whose firmware is not executed: an ESP32 and an ESP32-S3 with prebuilt firmware.

A healthy boot ends with the line that the virtual board prints in the firmware's place, and times are those of a UART
board, so that there is a boot to break. Everything else is `test_fault_matrix`.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from pipeline.model import DEVICE_STAGES, Stage
from tests.contract import random_faults
from tests.e2e.inprocess import deploy
from tests.e2e.test_fault_matrix import APP, LOADER, REATTACH, REFLASH, TTFB, VERIFY, MatrixBoard
from tests.given_project import Layout, esp_idf, platformio, project

MATRIX = [
    (VERIFY, "boot-loop:boot=0.1", "boot_loop"),
    (VERIFY, "vanish:for=9,name=new", "port_missing"),
    # An answer of the ESP32's ROM has no checksum: noise can look like another chip's. Either way nothing is written.
    (VERIFY, "garble:to=host,at=0,every=40", "sync_failed wrong_device"),
    (VERIFY, "garble:to=board,at=0,every=40,count=3", "sync_failed"),
    (VERIFY, "wrong-chip:chip=esp32c3", "wrong_device"),
    (REFLASH, "brown-out:write=1", "write_failed"),
    # Before the first write the stub is started once more, at the next lower rate.
    (REFLASH, "watchdog", ""),
    (REFLASH, "power-cut:write=1", "write_failed"),
    (REFLASH, "silence", "sync_failed"),
    (REFLASH, "vanish", "port_missing"),
    (REFLASH, "drop:to=board,at=30,count=5", ""),
    (REFLASH, "drop:to=board,at=30,count=5,every=200", LOADER),
    (REFLASH, "worn:sector=0x10000", "verify_mismatch"),
    (REFLASH, "slow-line:baud=230400", ""),
    (REATTACH, "brown-out:boot=0.1,times=0", "boot_loop"),
    (REATTACH, "silence", "no_output"),
    (REATTACH, "vanish:for=9", "port_missing"),
    (REATTACH, "vanish:for=0.3", ""),
    (TTFB, "panic:boot=0", "panic"),
    (TTFB, "garble:to=host,at=0,every=9", "rpc_timeout"),
    (TTFB, "slow-boot:by=9", "no_output"),
    (TTFB, "slow-boot:by=3", ""),
]
CHIPS: list[tuple[str, Layout]] = [("esp32", platformio), ("esp32s3", esp_idf)]


class GivenBoard(MatrixBoard):
    """A project with prebuilt firmware, deployed once."""

    def __init__(self, chip: str, layout: Layout, path: Path) -> None:
        space = project(path, chip, layout)
        space.edit("deploy.toml", "timeout_ms = 2000", "timeout_ms = 5000")
        space.edit("deploy.toml", 'port = "virtual:"', 'port = "virtual:"\ntiming = "esp32-uart"')
        self.path, self.flash = space.path, space.flash
        first = deploy(self.path)
        assert first.category == "", first.report["failure"]

    def spoil(self, offset: int = APP + 0x345) -> None:
        super().spoil(offset)


@pytest.fixture(scope="module", params=CHIPS, ids=[chip for chip, _ in CHIPS])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GivenBoard:
    chip, layout = request.param
    path = tmp_path_factory.mktemp("given")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path / "cache"))
        return GivenBoard(chip, layout, path / "project")


@pytest.mark.parametrize(("stage", "fault", "expected"), MATRIX, ids=[f"{s}-{f}" for s, f, _ in MATRIX])
def test_a_fault_has_its_name_and_heals(board: GivenBoard, stage: Stage, fault: str, expected: str) -> None:
    board.spoil()
    run = deploy(board.path, {stage: [fault]}, hosts=False)
    assert run.category in expected.split() if expected else run.category == "", run.report["failure"]
    board.check_aftermath(run, fault)


def test_a_slower_rate_is_said(board: GivenBoard) -> None:
    board.spoil()
    run = deploy(board.path, {REFLASH: ["slow-line:baud=230400"]}, hosts=False)
    assert run.category == "" and run.outcome != "verified_unchanged"
    (reflash,) = (stage for stage in run.report["stages"] if stage["stage"] == "reflash")
    assert [(r["kind"], r["before"], r["after"]) for r in reflash["reasons"]] == [("slower-baud", "460800", "115200")]


@pytest.mark.stress
def test_random_faults_never_do_harm(board: GivenBoard) -> None:
    seen: Counter[str] = Counter()
    for seed in range(int(os.environ.get("HOTPLATE_FAULT_RUNS", "150"))):
        rng = random.Random(seed)
        stage, faults = rng.choice(DEVICE_STAGES), random_faults.script(seed)
        if rng.random() < 0.8:
            board.spoil(APP + rng.randrange(0x150, 0xC00))
        run = deploy(board.path, {stage: faults}, hosts=False)
        board.check_aftermath(run, f"seed {seed}: {stage} {faults}")
        seen[run.category or run.outcome] += 1
    print(f"random fault runs: {sum(seen.values())}, {dict(seen.most_common())}")
