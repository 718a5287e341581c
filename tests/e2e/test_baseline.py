"""`doit baseline:*` as a user runs it: what it measures, what it leaves alone, and that planted slowness is found."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.measure.bench import generated_project
from tests.e2e.conftest import ServedBoard
from tests.e2e.space import TIMEOUT_S, Space, copy_project, environment

FAKE_ZIG = """#!{python} -IS
import re, shutil, sys
words = sys.argv[1:]
out = words[words.index("-o") + 1]
if "-c" not in words:
    shutil.copyfile({elf!r}, out)
    sys.exit()
source = words[words.index("-c") + 1]
text = open(source).read()
if "#error" in text:
    sys.exit(source + ":1:2: error: planted")
used = ["include/" + name for name in re.findall('#include "([^"]+)"', text)]
with open(out, "w") as file:
    file.write("\\n".join(re.sub("/[*].*?[*]/", "", open(name).read()).strip() for name in [source, *used]))
with open(words[words.index("-MF") + 1], "w") as file:
    print(out + ": " + " ".join([source, *used]), file=file)
"""
"""A compiler of 10 ms, so that a baseline of ten runs is a test: objects are sources without comments."""


class FinishedCommand(NamedTuple):
    code: int
    out: str
    err: str
    baseline: Any


def baseline(project: Path, mode: str, *args: str, runs: int, env: dict[str, str]) -> FinishedCommand:
    """One baseline, and its JSON (None when there is none)."""
    command = [sys.executable, "-m", "doit", f"baseline:{mode}", "--runs", str(runs), *args]
    done = subprocess.run(
        command, cwd=project, env=environment(**env), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    found = re.search(r"^BASELINE_ID=(\S+) BASELINE_OUTCOME=(\S+) BASELINE_REPORT=(\S+)$", done.stdout, re.M)
    made: Any = json.loads((project / found[3]).with_suffix(".json").read_text()) if found else None
    assert found is None or (made["id"], made["outcome"]) == (found[1], found[2])
    return FinishedCommand(done.returncode, done.stdout, done.stderr, made)


def contents(root: Path) -> dict[str, str]:
    """Every file below `root` but the reports."""
    return {
        str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "reports" not in path.parts and "__pycache__" not in path.parts
    }


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A project of three sources with the fast compiler; not a git repository."""
    project = tmp_path / "project"
    generated_project.write_project(project, 3)
    zig = generated_project.write_compiler(tmp_path / "tools")
    zig.write_text(FAKE_ZIG.format(python=sys.executable, elf=str(zig.parent / "template.elf")))
    zig.chmod(0o755)
    return project


def small_env(project: Path) -> dict[str, str]:
    paths = [str(project.parent / "tools"), environment()["PYTHONPATH"]]
    return {"PYTHONPATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(project.parent / "cache")}


def compared(made: Any, step: str) -> Any:
    """The row of a step in before/after."""
    return next(row for row in made["compared"]["rows"] if row["step"] == step)


def outside(made: Any) -> set[str]:
    """The steps that got slower or faster beyond the spread."""
    return {row["step"] for row in made["compared"]["rows"] if row["outside_spread"]}


@pytest.mark.long
def test_a_full_baseline_measures_the_real_loop_and_touches_nothing(host_space: Space, tmp_path: Path) -> None:
    project, scratch, cache = host_space.path, tmp_path / "tmp", tmp_path / "cache"
    scratch.mkdir()
    before = contents(project)
    env = {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(scratch)}
    done = baseline(project, "full", runs=1, env=env)
    assert done.code == 0, done.out + done.err
    made = done.baseline
    assert (contents(project), list(scratch.iterdir()), cache.exists()) == (before, [], False)
    counts = {(run["run"], run["edit"]): run for run in made["runs"]}
    assert list(counts) == [
        *[("cold-1", ""), ("warm-1", ""), ("warm-2", "")],
        *[("edit-1", "comment"), ("edit-1", "header"), ("edit-1", "real")],
    ]
    cold, first, warm = (counts[name, ""] for name in ("cold-1", "warm-1", "warm-2"))
    assert cold == {**first, "run": "cold-1"}, "both begin from nothing"
    assert cold["compiled"] > 30
    assert cold["restored"] == 0, "the cache is empty"
    assert cold["bytes_written"] > 80_000, "the board is erased"
    assert (warm["compiled"], warm["linked"], warm["bytes_written"]) == (0, 0, 0)
    comment, header, real = (counts["edit-1", edit] for edit in ("comment", "header", "real"))
    assert (comment["compiled"], comment["linked"], comment["bytes_written"]) == (1, 0, 0)
    assert header["compiled"] > 5
    assert (real["compiled"], real["linked"]) == (1, 1)
    assert real["bytes_written"] > 0
    assert made["first_run"][-1]["cold_start_paid_again"] is False
    assert made["git"] == {"sha": "", "dirty": False}
    reports = project / "reports"
    assert {path.suffix for path in reports.iterdir()} == {".csv", ".md", ".json"}
    rows = list(csv.reader((reports / f"{made['id']}.csv").read_text().splitlines()))
    assert rows[0] == ["run", "category", "step", "status", "duration_s"]
    assert len(rows) == 1 + 3 * 8 + 3
    assert {row[3] for row in rows[1:]} == {"ok", "up-to-date"}
    parts = sum(float(row[4]) for row in rows if row[0] == "warm-2" and row[1] != "deploy")
    assert parts <= float(next(row[4] for row in rows if row[:3] == ["warm-2", "deploy", "total"]))


def slow_link(small: Path, runs: int) -> Any:
    """The second of two cold baselines; between them an action of stage link became 300 ms slower."""
    env = small_env(small)
    (small / "pack.py").write_text("import sys, time\ntime.sleep(0.0)\nopen(sys.argv[1], 'w').write('packed')\n")
    with (small / "deploy.toml").open("a") as config:
        # It reads a product of the link, so it is part of that stage.
        config.write('\n[[action]]\nname = "pack"\nargv = ["python", "pack.py", "{out}"]\n')
        config.write('inputs = ["build/local-fast/app.elf"]\noutputs = ["build/packed"]\n')
    first = baseline(small, "cold", "--no-deploy", runs=runs, env=env)
    assert first.code == 0, first.out + first.err
    assert first.baseline["compared"] is None
    (small / "pack.py").write_text((small / "pack.py").read_text().replace("0.0", "0.3"))
    second = baseline(small, "cold", "--no-deploy", runs=runs, env=env)
    assert second.baseline["compared"]["id"] == first.baseline["id"]
    assert f"before and after, against {first.baseline['id']}" in second.out
    return second.baseline


def lost_hit(small: Path, runs: int) -> Any:
    """The second of two warm baselines; between them the project got a header that is new on every run."""
    env = small_env(small)
    first = baseline(small, "warm", "--no-deploy", runs=runs, env=env)
    assert first.code == 0, first.out + first.err
    assert {run["compiled"] for run in first.baseline["runs"][1:]} == {0}
    # What people do: a header with the time of the build in it.
    stamp = "Path('include/h00.h').write_text(f'#define BUILT {time.time_ns()}\\n')\n"
    dodo = small / "dodo.py"
    dodo.write_text(f"from pathlib import Path\nimport time\n{stamp}{dodo.read_text()}")
    return baseline(small, "warm", "--no-deploy", runs=runs, env=env).baseline


@pytest.mark.long
def test_300_ms_planted_in_one_stage_show_under_that_step(small: Path) -> None:
    slow = slow_link(small, runs=2)
    # How long it took before depends on what else this machine does; that it takes 300 ms now does not.
    row = compared(slow, "link")
    assert row["after_ms"] >= 300
    assert row["ratio"] == pytest.approx(row["after_ms"] / row["before_ms"], rel=0.01)


@pytest.mark.long
def test_a_lost_cache_hit_shows_under_compile(small: Path) -> None:
    lost = lost_hit(small, runs=2)
    assert {run["compiled"] for run in lost["runs"][1:]} == {4}, "three sources and the bootloader's, every time"
    assert {row["status"] for row in lost["rows"] if row["step"] == "compile"} == {"ok"}
    row = compared(lost, "compile")
    assert row["before_ms"] < row["after_ms"]


@pytest.mark.stress
def test_a_board_that_is_not_ours_is_not_erased_and_gets_its_build_back(
    template: Path, tmp_path: Path, start_board: Callable[[], ServedBoard]
) -> None:
    board = start_board()
    copy_project(template, tmp_path / "project")
    space = Space(tmp_path / "project", board.url, board.flash)
    assert space.deploy().outcome == "full_flashed"
    journals = space.path / ".deploy/devices.v1"
    assert list(journals.iterdir())
    done = baseline(space.path, "full", runs=1, env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.code == 0, done.out + done.err
    assert done.baseline["board"].startswith("real, never erased")
    counts = {(run["run"], run["edit"]): run for run in done.baseline["runs"]}
    assert counts["cold-1", ""]["compiled"] > 30
    assert counts["cold-1", ""]["bytes_written"] == 0, "it holds what the project built"
    assert counts["edit-1", "real"]["bytes_written"] > 0
    assert not list(journals.iterdir()), "what is believed of the board was forgotten"
    after = space.deploy()
    assert (after.outcome, after.totals["bytes_written"]) == ("verified_unchanged", 0)


@pytest.mark.stress
def test_both_are_outside_the_spread_on_a_quiet_machine(small: Path) -> None:
    assert "link" in outside(slow_link(small, runs=6))
    assert "compile" in outside(lost_hit(small, runs=6))


def test_a_failing_step_is_recorded_and_the_rest_runs(small: Path) -> None:
    bench = small / "src/d000/u00000.c"
    bench.write_text("#error\n")
    done = baseline(small, "warm", "--no-deploy", runs=1, env=small_env(small))
    assert done.code == 1
    rows = [(row["run"], row["step"], row["status"]) for row in done.baseline["rows"]]
    for run in ("warm-1", "warm-2"):
        assert (run, "compile", "fail:compile_error") in rows
        assert (run, "link", "not-run") in rows
    assert "compile_error" in done.out
    assert "2 of the runs failed" in done.out + done.err


@pytest.mark.parametrize(
    ("args", "said"),
    [(["--runs", "0"], "--runs is 0"), (["--device", "nobody"], "no device 'nobody'")],
)
def test_what_cannot_be_measured_is_refused(small: Path, args: list[str], said: str) -> None:
    done = baseline(small, "warm", *args, runs=1, env=small_env(small))
    assert done.code != 0
    assert said in done.out + done.err
    assert not (small / "reports").exists()
