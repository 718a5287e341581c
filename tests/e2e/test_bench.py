"""`doit bench` as a user runs it: a suite that cannot run keeps no other from running; and the counters of work, which
must not have become more than `tests/perf/work.json` keeps."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pipeline.measure.bench.work import COMMAND, KEPT
from tests.e2e.space import ROOT, Space, copy_project


@pytest.mark.long
def test_a_failing_suite_is_recorded_and_the_work_has_not_become_more(template: Path, tmp_path: Path) -> None:
    copy_project(template, tmp_path / "project")
    space = Space(tmp_path / "project")
    space.file(KEPT).parent.mkdir(parents=True)
    shutil.copy2(ROOT / KEPT, space.file(KEPT))
    done = space.doit("bench:warm", "--runs", "0", "bench:work", "bench:report")

    found = re.search(r"^BENCH_ID=(\S+) BENCH_OUTCOME=incomplete BENCH_REPORT=(\S+)$", done.out, re.M)
    assert found, done.out + done.err
    report = json.loads(space.file(found[2]).with_suffix(".json").read_text())
    warm, work = report["suites"]
    assert (warm["name"], warm["error"], warm["rows"]) == ("warm", "--runs is 0, but must be at least 1", [])

    worse = [note["text"] for note in work["notes"] if note["title"] == "worse than kept"]
    assert work["error"] == "" and not worse, "\n".join(worse) + work["error"]
    others = [f"{note['title']}: {note['text']}" for note in work["notes"]]
    assert not others, "\n".join([*others, f"run `{COMMAND}` and commit {KEPT}"])
    assert len(work["rows"]) == len(json.loads((ROOT / KEPT).read_text())["rows"])

    assert done.code == 1
    assert "bench:report: error: 1 of 2 suites failed: warm" in done.err
    assert "\x1b" not in done.out
