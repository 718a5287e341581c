"""`doit gate` with real deploys in scratch copies."""

from __future__ import annotations

import json

import pytest

from tests.e2e.space import Result, Space

SLOW_BASELINE = """\
import time
from pathlib import Path
from pipeline.stages import verify_flash

def slowly(*arguments, real=verify_flash.run):
    time.sleep(0.3 if "115200" in Path("deploy.toml").read_text().partition("monitor_baud")[0] else 0)
    return real(*arguments)

verify_flash.run = slowly

from pipeline.tasks import *
"""


def gate(space: Space, *words: str) -> Result:
    return space.doit("gate", "--phase", "verify-flash", *words)


@pytest.mark.long
def test_a_candidate_that_leaves_another_flash_is_no_go(host_space: Space) -> None:
    before = host_space.file("deploy.toml").read_bytes()
    result = gate(host_space, "--candidate=project.version=9.9.9", "--baseline", "md5", "--pairs", "1")
    assert result.code == 1, result.out + result.err
    assert result.out.startswith("NO-GO: project.version=9.9.9 instead of md5 for verify-flash\n")
    assert "the arms left different flash (warm deploys)" in result.out
    (path,) = host_space.file("reports").glob("gate-*.json")
    found = json.loads(path.read_text())
    assert [(check["scenario"], check["baseline"] == check["candidate"]) for check in found["flash"]] == [
        ("warm deploys", False)
    ]
    (pair,) = found["pairs"]
    assert 0 < pair["baseline"]["phase_ms"] < pair["baseline"]["total_ms"]
    text = path.with_suffix(".md").read_text()
    assert "doit gate --phase verify-flash --candidate=project.version=9.9.9" in text and pair["baseline"]["tx"] in text
    assert host_space.file("deploy.toml").read_bytes() == before
    assert not host_space.file(".deploy/boards").exists()


def test_what_cannot_be_gated_is_refused(host_space: Space) -> None:
    for words, code, fact in (
        (["--candidate", "journal", "--baseline", "md5", "--phase", "verify"], 3, "did you mean 'verify-flash'?"),
        (["--candidate", "md5", "--baseline", "md5"], 3, "both arms are 'md5'"),
        (["--candidate", "fast", "--baseline", "md5"], 3, "--candidate 'fast' is no setting of a deploy"),
        (["--candidate=device.bud=1", "--baseline", "md5"], 3, "unknown key 'bud'"),
        (["--baseline", "md5"], 3, "--candidate is missing"),
    ):
        result = gate(host_space, *words)
        assert result.code == code
        assert fact in result.err, result.err


@pytest.mark.stress
def test_a_candidate_that_helps_is_go(host_space: Space) -> None:
    config = host_space.file("deploy.toml")
    config.write_text(config.read_text() + "\n[gate]\nmin_runs = 4\nmin_pairs = 6\n")
    host_space.edit("deploy.toml", 'port = "virtual:"', 'port = "virtual:"\nbaud = 115200')
    host_space.file("dodo.py").write_text(SLOW_BASELINE)
    for _ in range(5):
        assert host_space.deploy().code == 0
    result = gate(host_space, "--candidate=device.baud=460800", "--baseline=device.baud=115200")
    assert result.code == 0, result.out + result.err
    assert result.out.startswith("GO: ")
    assert "both arms left the same flash in every scenario" in result.out
