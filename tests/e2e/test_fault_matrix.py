"""Each fault of the virtual board at each stage of a deploy: a failure with the right name, a free port, a report, and
a next run that heals the board, by the MD5 of its flash and not by what anybody says.

`-m stress` draws the faults, their times and their stage at random; `HOTPLATE_FAULT_RUNS` says how often (default 300).
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.failures import FAILURE_MAP
from pipeline.model import DEVICE_STAGES, FailureCategory, Stage
from tests.contract import random_faults
from tests.e2e.inprocess import InProcessRun, deploy
from tests.e2e.space import copy_project
from virtualboard.nor import NorFlash

FLASH_SIZE = 4 << 20
APP = 0x10000
FLASHED = {"delta_flashed", "regions_flashed", "full_flashed"}

VERIFY, REFLASH, REATTACH, TTFB = DEVICE_STAGES
LOADER = "port_missing sync_failed write_failed"
"""Names for a loader session that broke in the middle: which one depends on the command that was under way."""

MATRIX = [
    (VERIFY, "boot-loop:boot=0", "boot_loop"),
    (VERIFY, "vanish:for=0.3", ""),
    (VERIFY, "vanish:for=9,name=new", "port_missing"),
    (VERIFY, "garble:to=host,at=0,every=40", "sync_failed"),
    (VERIFY, "garble:to=board,at=0,every=40,count=3", "sync_failed"),
    (VERIFY, "wrong-chip:chip=esp32s3", "wrong_device"),
    (REFLASH, "brown-out:write=1", "write_failed"),
    # Before the first write the stub is started once more, at the next lower rate.
    (REFLASH, "watchdog", ""),
    (REFLASH, "power-cut:write=1", "write_failed"),
    (REFLASH, "silence", "sync_failed"),
    (REFLASH, "silence:write=1", "write_failed"),
    (REFLASH, "vanish", "port_missing"),
    (REFLASH, "drop:to=board,at=30,count=5", ""),
    (REFLASH, "drop:to=board,at=30,count=5,every=200", LOADER),
    (REFLASH, "worn:sector=0x12000", "verify_mismatch"),
    (REFLASH, "slow-line:baud=230400", ""),
    (REFLASH, "panic:boot=0", "panic"),
    (REATTACH, "brown-out:boot=0,times=0", "boot_loop"),
    (REATTACH, "silence", "no_output"),
    (REATTACH, "power-cut:for=9", "no_output"),
    (REATTACH, "vanish:for=9", "port_missing"),
    (REATTACH, "vanish:for=0.3", ""),
    (TTFB, "panic:boot=0", "panic"),
    (TTFB, "garble:to=host,at=0,every=40", "rpc_timeout"),
    (TTFB, "slow-boot:by=9", "no_output"),
    (TTFB, "slow-boot:by=3", ""),
    (TTFB, "watchdog:boot=0", ""),
    (TTFB, "vanish:for=9", "port_missing"),
    (TTFB, "vanish:for=0.3,name=new", ""),
]


@pytest.fixture(scope="module")
def board(template: Path, tmp_path_factory: pytest.TempPathFactory) -> MatrixBoard:
    return MatrixBoard(template, tmp_path_factory.mktemp("matrix"))


class MatrixBoard:
    """A project that was deployed once, and its board's flash."""

    def __init__(self, template: Path, path: Path) -> None:
        self.path = path
        copy_project(template, path)
        self.flash = path / ".deploy/boards/bench.flash"
        assert deploy(path).outcome == "full_flashed"

    def spoil(self, offset: int = APP + 0x2345) -> None:
        """A bit of the application turns, so that the next deploy has something to write."""
        with self.flash.open("r+b") as flash:
            flash.seek(offset)
            byte = flash.read(1)[0]
            flash.seek(offset)
            flash.write(bytes([byte ^ 0x40]))

    @staticmethod
    def holds(flash: bytes, regions: list[dict[str, Any]]) -> bool:
        """Does the flash hold these images, by their MD5? otadata may legitimately differ: the boot proves it."""
        spans = ((r["md5"], flash[r["offset"] : r["offset"] + r["size"]]) for r in regions if r["name"] != "otadata")
        return all(hashlib.md5(data).hexdigest() == md5 for md5, data in spans)

    def check_aftermath(self, run: InProcessRun, context: str) -> None:
        """After any run: a known failure or none, a report that says so, a free port; and then a healthy run heals."""
        failure = run.report["failure"]
        if failure is not None:
            row = FAILURE_MAP[FailureCategory(failure["category"])]
            assert failure["category"] != "unknown", f"{context}: {failure}"
            assert failure["stage"] in {str(stage) for stage in row.stages}, f"{context}: {failure}"
            assert run.outcome == "failed", context
        else:
            assert run.outcome in FLASHED | {"verified_unchanged"}, context
        NorFlash(FLASH_SIZE, self.flash).close()  # raises when somebody still holds the board
        before = self.flash.read_bytes()
        healed = deploy(self.path, hosts=False)
        assert healed.category == "", f"{context}: {healed.report['failure']}"
        assert self.holds(self.flash.read_bytes(), healed.report["regions"]), context
        whole = self.holds(before, healed.report["regions"])
        assert healed.outcome in ({"verified_unchanged"} | FLASHED if whole else FLASHED), context


@pytest.mark.parametrize(("stage", "fault", "expected"), MATRIX, ids=[f"{s}-{f}" for s, f, _ in MATRIX])
def test_a_fault_has_its_name_and_heals(board: MatrixBoard, stage: Stage, fault: str, expected: str) -> None:
    board.spoil()
    run = deploy(board.path, {stage: [fault]}, hosts=False)
    assert run.category in expected.split() if expected else run.category == "", run.report["failure"]
    if fault.startswith("vanish") and not expected and stage is TTFB:
        assert run.report["ttfb"]["notes"]["reenumerated"].startswith("the port was gone for ")
        assert run.report["marks"]["reenumerated"] >= 300
    board.check_aftermath(run, fault)


def test_every_kind_of_fault_that_breaks_something_is_in_the_matrix() -> None:
    from virtualboard.faults import KINDS

    # An `other-mac` is refused only where deploy.toml names a MAC (tests/e2e/test_failures.py), and bytes that come
    # twice are noise like dropped and garbled ones.
    assert {fault.partition(":")[0] for _, fault, _ in MATRIX} == set(KINDS) - {"other-mac", "duplicate"}


@pytest.mark.stress
def test_random_faults_never_do_harm(board: MatrixBoard) -> None:
    seen: Counter[str] = Counter()
    for seed in range(int(os.environ.get("HOTPLATE_FAULT_RUNS", "300"))):
        rng = random.Random(seed)
        stage, faults = rng.choice(DEVICE_STAGES), random_faults.script(seed)
        if rng.random() < 0.8:
            board.spoil(APP + rng.randrange(0x100, 0xF000))
        run = deploy(board.path, {stage: faults}, hosts=False)
        board.check_aftermath(run, f"seed {seed}: {stage} {faults}")
        seen[run.category or run.outcome] += 1
    print(f"random fault runs: {sum(seen.values())}, {dict(seen.most_common())}")
