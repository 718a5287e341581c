"""`doit report`: finding, listing, showing and comparing what a project keeps, and what is damaged there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.report_view import report_text
from pipeline.effects.run_log import prune_reports
from pipeline.events import RUN_LOG_HEADER, encode
from pipeline.measure.baseline.view import render_csv, render_text
from pipeline.measure.bench import generated_project
from pipeline.measure.bench.view import render_markdown as render_bench
from pipeline.model import Failure
from pipeline.report.document import build_report
from pipeline.report.markdown import render_markdown
from pipeline.run.options import Options
from pipeline.run.project import Project, load_project
from tests.golden import baselines, benches, scenarios

ROOT = Path(__file__).parents[2]
SUCCESS, FAILURE, LOGGED = "tx-20261121-083000-beef", "tx-20261121-090000-c0de", "tx-20261121-100000-f00d"


@cache
def made_once(name: str) -> dict[str, Any]:
    made: dict[str, Any] = getattr(baselines, name)()
    return made


def save(project: Path, name: str, data: object) -> None:
    path = project / "reports" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with two deploys, two baselines, and a log whose rendering is gone."""
    generated_project.write_project(tmp_path, 1)
    unchanged, failed = build_report(scenarios.unchanged()), build_report(scenarios.failure())
    save(tmp_path, SUCCESS, unchanged)
    save(tmp_path, FAILURE, {**failed, "transaction_id": FAILURE, "started_at": "2026-11-21T09:00:00.000Z"})
    for made in map(made_once, ("before", "slower")):
        save(tmp_path, made["id"], made)
    log = tmp_path / ".deploy/runs" / f"{LOGGED}.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(RUN_LOG_HEADER + b"".join(map(encode, scenarios.success())))
    loaded = load_project(Options(), tmp_path)
    assert isinstance(loaded, Project)
    return loaded


def text(project: Project, *words: str, kind: str = "", limit: int = 20) -> str:
    found = report_text(project, words, kind, limit)
    assert isinstance(found, str), found
    return found


def refused(project: Project, *words: str, kind: str = "") -> Failure:
    found = report_text(project, words, kind, 20)
    assert isinstance(found, Failure), found
    assert "\n" not in found.line()
    return found


def test_the_list_is_newest_first_and_counts_its_lines(project: Project) -> None:
    lines = text(project).splitlines()
    assert lines[0].split()[:2] == ["id", "started"]
    assert [line.split()[0] for line in lines[2:]] == [
        # a log knows the id that its run was given, and the report made of it says so
        *(SUCCESS, FAILURE, SUCCESS, "baseline-20261121-083000", "baseline-20261120-083000"),
    ]
    assert text(project, "list") == text(project)
    assert len(text(project, limit=2).splitlines()) == 4
    assert len(text(project, limit=0).splitlines()) == 7
    assert "verified_unchanged" in lines[4]
    assert "WITHIN" in lines[4]
    assert "warm: failed" in lines[5]


def test_a_report_is_shown_as_it_was_written(project: Project) -> None:
    report = build_report(scenarios.unchanged())
    assert text(project, "show", SUCCESS) == render_markdown(report)
    assert json.loads(text(project, "show", SUCCESS, kind="json")) == report
    assert text(project, "show", "beef") == text(project, "show", SUCCESS), "the end of an id is enough"
    assert text(project, "show", LOGGED) == render_markdown(build_report(scenarios.success())), "from its log"
    assert text(project, "show") == text(project, "show", LOGGED), "the last one"
    path = project.root / "reports" / f"{SUCCESS}.json"
    assert text(project, "show", str(path)) == text(project, "show", SUCCESS)


def test_a_baseline_is_shown_as_tables_csv_or_markdown(project: Project) -> None:
    made = made_once("slower")
    assert text(project, "show", made["id"]) == render_text(made)
    assert text(project, "show", made["id"], kind="csv") == render_csv(made)
    assert text(project, "show", made["id"], kind="md").startswith("# Baseline Report\n")


def test_two_deploys_side_by_side(project: Project) -> None:
    told = text(project, "diff", SUCCESS, LOGGED)
    rows = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line.split()}
    assert rows["outcome"] == ["verified_unchanged", "delta_flashed"]
    assert rows["totals.compiled"] == ["0", "1"]
    assert rows["compile"] == ["0", "431", "+431", "-"], "a ratio to nothing is none"
    assert rows["verify-flash"] == ["240", "240", "+0", "1.00"]
    assert rows["app"][1:] == ["kept", "0", rows["app"][0], "delta", "8192"]
    assert "firmware/core/rpc.c" in told
    assert "profile" not in rows, "what is equal is not shown"


def test_two_baselines_side_by_side(project: Project) -> None:
    told = text(project, "diff", "baseline-20261120-083000", "baseline-20261121-083000")
    (row,) = (line for line in told.splitlines() if "flash/verify" in line)
    assert row.split()[2:5] == ["244", "544", "2.23"]
    assert row.endswith("yes")
    (mirrored,) = (
        line
        for line in text(project, "diff", "baseline-20261121-083000", "baseline-20261120-083000").splitlines()
        if "flash/verify" in line
    )
    assert mirrored.split()[2:5] == ["544", "244", "0.45"]


def test_benchmarks_are_listed_shown_and_compared(project: Project) -> None:
    made = benches.report()
    save(project.root, made["id"], made)
    later = {**made, "id": "bench-20261121-093000", "command": "doit bench --runs 3"}
    later["suites"] = json.loads(json.dumps(made["suites"]))
    later["suites"][0]["rows"][0] |= {"ours": 206.6, "ratio": 3.27}
    save(project.root, later["id"], later)
    save(project.root, "bench-20261121-094000", {**made, "schema": 99})

    listed = [line for line in text(project).splitlines() if line.startswith("bench-")]
    assert [line.split()[0] for line in listed] == [later["id"], made["id"]], "another schema is no report"
    assert "engine device watch work: incomplete" in listed[0]
    assert text(project, "show", made["id"], kind="md") == render_bench(made)
    assert "missed: engine: warm no-op, 10000 units, doit\n" in text(project, "show", made["id"])
    assert json.loads(text(project, "show", made["id"], kind="json")) == made

    told = text(project, "diff", made["id"], later["id"]).splitlines()
    assert ["command", "doit bench", "doit bench --runs 3"] in [re.split("  +", line.strip()) for line in told]
    (row,) = (line for line in told if "warm no-op" in line and "3.27" in line)
    assert row.split()[-6:] == ["103.3", "206.6", "ms", "2.00", "1.63", "3.27"]
    assert "a bench and a deploy cannot be compared" in refused(project, "diff", made["id"], SUCCESS).message


def test_what_cannot_be_shown_is_refused_in_a_line(project: Project) -> None:

    assert "did you mean" in refused(project, "show", "tx-20261121-083000-baef").message
    assert "'tx-20261121' could be 3 reports" in refused(project, "show", "tx-20261121").message
    assert "cannot be understood" in refused(project, "bla").message
    assert "cannot be compared" in refused(project, "diff", SUCCESS, "baseline-20261120-083000").message
    assert "--format 'csv'" in refused(project, "show", SUCCESS, kind="csv").message
    assert "is no report" in refused(project, "show", "./nowhere.json").message


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"schema": 1}',
        '{"schema": 99}',
        '{"schema": 1, "kind": "baseline", "budget": {}}',
        '{"schema": 1, "budget": {"total": {}, "phases": [1]}}',
    ],
)
def test_a_damaged_file_is_no_report(project: Project, damage: str) -> None:
    (project.root / "reports" / f"{SUCCESS}.json").write_text(damage)
    assert SUCCESS not in [line.split()[0] for line in text(project).splitlines()[3:]]
    assert "there is no report" in refused(project, "show", SUCCESS).message
    for name in ("baseline-20261120-083000", "baseline-20261121-083000"):
        (project.root / "reports" / f"{name}.json").write_text(damage)
    assert len(text(project).splitlines()) == 4, "the log and the other deploy"


def test_no_reports_at_all(project: Project) -> None:
    for path in [*project.reports_dir.iterdir(), *(project.state_dir / "runs").iterdir()]:
        path.unlink()
    assert text(project) == "there are no reports in reports/\n"
    assert "there is no report 'last'" in refused(project, "show").message


def test_the_command_is_known_to_doit_and_prints_nothing_else(project: Project) -> None:
    command = [sys.executable, "-m", "doit", "report", "show", "beef", "--format", "json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["transaction_id"] == SUCCESS
    wrong = subprocess.run(
        [*command[:4], "shw"], cwd=project.root, env=env, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stdout) == (3, "")
    assert wrong.stderr.splitlines()[1].startswith("hint: use: doit report list")


# --- retention --------------------------------------------------------------------------------


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_only_old_renderings_of_transactions_are_removed(tmp_path: Path) -> None:
    mine = [f"tx-2026112{day}-080000-abcd.{suffix}" for day in range(1, 5) for suffix in ("md", "json")]
    foreign = {
        "README.md",
        "baseline-20200101-000000.json",
        "baseline-20200101-000000.md",
        "tx-20200101-000000-abcd.txt",
        "tx-20200101-000000-abcd.notes.md",
        "tx-19990101.md",
        "tx-mine.json",
    }
    for name in (*mine, *foreign):
        (tmp_path / name).write_text("x")
    (tmp_path / "tx-20200101-000000-dead.md").mkdir()
    foreign.add("tx-20200101-000000-dead.md")
    assert prune_reports(tmp_path, 9) == []
    deleted = prune_reports(tmp_path, 2, {"tx-20261121-080000-abcd"})
    assert {path.name for path in deleted} == set(mine[2:4])
    assert names(tmp_path) == {*foreign, *mine[:2], *mine[4:]}
    assert prune_reports(tmp_path, 2, {"tx-20261121-080000-abcd"}) == []
    assert prune_reports(tmp_path / "nowhere", 1) == []
