"""Transactions, devices and profiles: what a run is, beside what it does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.e2e.conftest import ServedBoard
from tests.e2e.space import Space, environment

SECOND = """
[device.shelf]
port = "virtual:"
mac = "7c:df:a1:00:11:33"
groups = ["ci"]
"""


def reports(space: Space) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted((space.path / "reports").glob("tx-*.json"))]


def test_the_environment_names_transaction_and_report_directory(host_space: Space) -> None:
    env = {"DEPLOY_TX_ID": "tx-20261121-120000-beef", "DEPLOY_REPORT_DIR": "elsewhere"}
    first = host_space.deploy(env=env)
    assert first.report["transaction_id"] == "tx-20261121-120000-beef"
    assert (host_space.path / "elsewhere/tx-20261121-120000-beef.md").exists()
    assert not (host_space.path / "reports").exists()
    again = host_space.deploy(env=env)
    assert again.report["transaction_id"] != "tx-20261121-120000-beef", "an id names one transaction"
    assert "note: DEPLOY_TX_ID=tx-20261121-120000-beef is ignored: an earlier run has used it\n" in again.err


def test_an_id_and_a_directory_that_cannot_be_used_are_said(host_space: Space) -> None:
    result = host_space.doit("verify-flash", env={"DEPLOY_TX_ID": "build 7", "DEPLOY_REPORT_DIR": "deploy.toml"})
    assert result.code == 0
    assert "note: DEPLOY_TX_ID=build 7 is ignored: it is not tx-YYYYmmdd-HHMMSS- and 4 to 6 hex digits\n" in result.err
    assert result.out.endswith(" DEPLOY_REPORT=\n"), "no report is named that is not there"


def test_tasks_that_cannot_write_say_where_on_stderr(host_space: Space) -> None:
    """For a script stdout holds results only, and no traceback comes for what is not ours."""
    host_space.file("reports").write_text("a file, where a directory should be\n")
    loop = host_space.doit("loop", "--max", "1")
    assert loop.code == 1 and loop.err.startswith("loop: error: "), loop.err
    bench = host_space.doit("bench:work")  # before it measures for minutes
    assert bench.code == 1 and bench.err.startswith("bench:work: error: "), bench.err
    editor = host_space.doit("hooks:install", "--editor", "nano")
    assert editor.err == (
        "--editor: error: 'nano' is no editor that hooks are known for\n"
        "hint: choose one of vscode, neovim, emacs, zed, jetbrains\n"
    )
    assert (editor.code, editor.out) == (1, ".  hooks:install\n")
    built = next(host_space.file("build").rglob("json.c.o"))
    built.unlink()
    built.mkdir()
    clean = host_space.doit("clean", "compile")
    assert clean.code == 1 and clean.err.startswith("clean compile: error: "), clean.err


def test_a_host_run_writes_the_event_log_alone(host_space: Space) -> None:
    before = set((host_space.path / ".deploy/runs").glob("*.log"))
    result = host_space.doit("link")
    assert (result.code, result.report) == (0, None)
    assert len(set((host_space.path / ".deploy/runs").glob("*.log")) - before) == 1
    assert not (host_space.path / "reports").exists()


def test_a_group_is_one_run_with_a_transaction_per_device(host_space: Space) -> None:
    host_space.file("deploy.toml").write_text(host_space.file("deploy.toml").read_text() + SECOND)
    result = host_space.doit("deploy", "--group", "ci")
    assert result.code == 0, result.out + result.err
    assert len(re.findall(r"^DEPLOY_TX_ID=", result.out, re.M)) == 2
    assert {(r["device"]["name"], r["device"]["mac"], r["outcome"]) for r in reports(host_space)} == {  # type: ignore[index]
        ("bench", "7c:df:a1:00:11:22", "full_flashed"),
        ("shelf", "7c:df:a1:00:11:33", "full_flashed"),
    }
    again = host_space.doit("deploy", "--group", "ci")
    assert again.out.count("DEPLOY_OUTCOME=verified_unchanged") == 2
    parallel = host_space.doit("run", "-n", "2", "deploy", "--group", "ci")
    assert parallel.out.count("DEPLOY_OUTCOME=verified_unchanged") == 2, parallel.out + parallel.err
    only = host_space.doit("deploy:shelf")
    assert only.report["device"]["name"] == "shelf"
    assert only.outcome == "verified_unchanged"


def test_each_board_of_a_group_has_a_ttfb_of_its_own(
    host_space: Space, start_board: Callable[..., ServedBoard]
) -> None:
    """Both boot at once: from the release of reset, each board's stages take as long as its own boot, not what another
    one left of it."""
    host_space.on_process(start_board("--mac", "7c:df:a1:00:11:22").url)
    second = SECOND.replace("virtual:", start_board("--mac", "7c:df:a1:00:11:33").url)
    host_space.file("deploy.toml").write_text(host_space.file("deploy.toml").read_text() + second)
    result = host_space.doit("deploy", "--group", "ci")
    assert result.code == 0, result.out + result.err
    for report in map(json.loads, (path.read_text() for path in host_space.file("reports").glob("tx-*.json"))):
        took = {row["stage"]: row["duration_ms"] for row in report["stages"]}
        assert took["reattach"] + took["ttfb"] >= report["ttfb"]["total_ms"] - 2, report["device"]


def test_a_device_that_was_stopped_says_why(host_space: Space) -> None:
    broken = SECOND.replace("virtual:", "/dev/does-not-exist").replace("[device.shelf]", "[device.aside]")
    text = host_space.file("deploy.toml").read_text()
    host_space.file("deploy.toml").write_text(text.replace("[device.bench]", broken + "\n[device.bench]"))
    result = host_space.doit("deploy", "--group", "ci", "--fail-fast", "--workers", "1")
    assert result.code == 1
    failures = {r["device"]["name"]: r["failure"] for r in reports(host_space)}  # type: ignore[index]
    assert failures["aside"]["category"] == "port_missing"  # type: ignore[index]
    assert "device aside failed" in failures["bench"]["message"]  # type: ignore[index]


def test_a_profile_is_part_of_every_key(host_space: Space) -> None:
    release = host_space.doit("deploy", "--profile", "release")
    assert release.code == 0, release.out + release.err
    assert release.report["profile"] == "release"
    assert release.totals["compiled"] > 0
    back = host_space.deploy()
    assert (back.totals["compiled"], back.totals["linked"]) == (0, 0)
    assert back.outcome == "full_flashed"
    assert back.report["plan"]["full_flash_reason"].startswith("bootloader-moved bootloader: ")
    assert host_space.deploy().outcome == "verified_unchanged"


def test_names_that_do_not_exist(host_space: Space) -> None:
    for option, name, known in (
        ("--device", "bensh", "bench"),
        ("--profile", "releas", "release"),
        ("--group", "cj", "ci"),
    ):
        result = host_space.doit("deploy", option, name)
        assert result.code == 2
        assert f"'{name}'" in result.err and known in result.err


def test_warnings_are_shown_and_replayed(host_space: Space) -> None:
    host_space.edit("firmware/core/main.c", "    port_init();", "    int unused_thing;\n    port_init();")
    text = host_space.file("deploy.toml").read_text()
    host_space.file("deploy.toml").write_text(text.replace('chip = "esp32c3"', 'chip = "esp32c3"\ncflags = ["-Wall"]'))
    first = host_space.doit("compile")
    assert "warning: unused variable 'unused_thing'" in first.err
    assert host_space.doit("clean").code == 0
    assert "warning: unused variable 'unused_thing'" in host_space.doit("compile").err, "a restored result warns too"


def test_an_enforced_budget_fails_a_deploy_that_did_everything(host_space: Space) -> None:
    first = host_space.deploy()
    assert (first.code, first.report["budget"]["enforced"]) == (0, False)
    host_space.edit("deploy.toml", "total = 4000", "total = 1\nenforce = true")
    over = host_space.deploy()
    assert over.code == 1
    assert (over.outcome, over.category) == ("failed", "over_budget")
    budget, failure = over.report["budget"], over.report["failure"]
    assert (budget["fits"], budget["enforced"], budget["total"]["verdict"]) == (False, True, "OVER")
    took = budget["total"]["measured_ms"]
    assert failure["message"] == f"the deploy took {took} ms, but [budget] total is 1 ms (verified_unchanged)"
    assert f"device bench: error: {failure['message']}\nhint: run again if" in over.err
    assert (host_space.path / over.report["report_path"]).read_text().count("OVER") >= 2
    host_space.edit("deploy.toml", "total = 1\n", "total = 3600000\n")
    again = host_space.deploy()
    assert (again.code, again.outcome, again.totals["bytes_written"]) == (0, "verified_unchanged", 0)


def test_reports_are_kept_of_so_many_transactions(host_space: Space) -> None:
    config = host_space.file("deploy.toml")
    config.write_text(config.read_text() + "\n[reports]\nkeep = 2\n")
    directory = host_space.path / "reports"
    directory.mkdir()
    for name in ("baseline-20200101-000000.json", "notes.md", "tx-20200101-000000-abcd.md"):
        (directory / name).write_text("mine")
    ids = [f"tx-20261121-12000{n}-beef" for n in range(3)]
    for tx in ids:
        assert host_space.doit("verify-flash", env={"DEPLOY_TX_ID": tx}).report["transaction_id"] == tx
    kept = {f"{tx}.{suffix}" for tx in ids[1:] for suffix in ("md", "json")}
    others = {"baseline-20200101-000000.json", "notes.md", "history.jsonl"}
    assert {path.name for path in directory.iterdir()} == kept | others


def test_asking_a_board_that_differs_says_what_differs(host_space: Space) -> None:
    result = host_space.doit("verify-flash")
    assert (result.code, result.report["outcome"]) == (0, None), "an erased board holds nothing of this build"
    told = [line for line in result.out.splitlines() if line.startswith("differs: ")]
    assert [line.split()[1] for line in told] == ["bootloader", "partitions", "app", "otadata"]
    region = result.report["regions"][0]
    assert told[0] == (
        f"differs: bootloader at 0x0: the board's MD5 is {region['device_md5_before']}, this build's {region['md5']}"
    )
    assert "differs: " not in host_space.deploy().out


def test_options_that_would_be_ignored_are_not_taken(host_space: Space) -> None:
    """The runs that they measure are children: `--json` would print no event."""
    for task in ("loop", "baseline:warm"):
        refused = host_space.doit(task, "--json")
        assert refused.code == 3 and "--json: error: is no option here" in refused.err


def test_the_group_of_cache_tasks_removes_nothing(host_space: Space) -> None:
    """doit runs every task of a group; the store is that of all projects."""
    assert host_space.doit("link").code == 0
    entries = set(host_space.file(".deploy/user-cache/hotplate").rglob("*"))
    group = host_space.doit("cache")
    assert group.code == 0 and "cache:clear: left alone; name it to run it" in group.out
    assert host_space.doit("cache:*").code == 0
    assert set(host_space.file(".deploy/user-cache/hotplate").rglob("*")) >= entries
    entries = set(host_space.file(".deploy/user-cache/hotplate").rglob("*"))  # with the index that gc made
    assert host_space.doit("cache:clear").code == 0
    assert set(host_space.file(".deploy/user-cache/hotplate").rglob("*")) < entries


def test_the_list_of_reports_for_programs(host_space: Space) -> None:
    assert host_space.doit("report", "list", "--format", "json").out == "[]\n"
    asked = host_space.doit("verify-flash")
    listed = json.loads(host_space.doit("report", "list", "--format", "json").out)
    assert listed == [asked.report]
    assert host_space.doit("report", "list", "--format", "csv").code == 3


@pytest.mark.parametrize("reporter", ["json", "executed-only", "zero", "error-only", "console"])
def test_another_reporter_of_doits(host_space: Space, reporter: str) -> None:
    """It tells us neither that a run begins nor that it ends; the deploy is recorded all the same."""
    done = host_space.doit("-r", reporter, "deploy")
    assert done.code == 0 and "Traceback" not in done.err, done.err
    (report,) = map(json.loads, (path.read_text() for path in host_space.file("reports").glob("tx-*.json")))
    assert report["outcome"] == "full_flashed"
    assert [row["stage"] for row in report["stages"] if row["outcome"] == "ran"] == [
        "verify-flash", "reflash", "reattach", "ttfb",
    ]  # fmt: skip
    assert "DEPLOY_OUTCOME=full_flashed" in done.err
    if reporter == "json":
        assert {task["name"] for task in json.loads(done.out)["tasks"]} >= {"link", "ttfb:bench"}
    host_space.edit("firmware/core/main.c", "    port_init();", "    port_init(;")
    failed = host_space.doit("-r", reporter, "deploy")
    assert failed.code == 1 and "Traceback" not in failed.err + failed.out, failed.err
    assert host_space.doit("compile").code == 1, "the lock is free"


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream_is_no_traceback(host_space: Space, closed: str) -> None:
    command = f"{sys.executable} -m doit deploy {closed}>&-"
    done = subprocess.run(
        command, shell=True, cwd=host_space.path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert next(host_space.file("reports").glob("tx-*.json"))
