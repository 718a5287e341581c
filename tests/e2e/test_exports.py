"""History, status and exports of real runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from pipeline.report.live_results import decode_merged
from tests.e2e.space import ROOT, Space, environment
from tests.e2e.test_runs import SECOND
from tests.unit.test_exports import check_junit, check_trace
from tests.unit.test_status import check_page


def history(space: Space) -> list[dict[str, Any]]:
    return [json.loads(line) for line in space.file("reports/history.jsonl").read_text().splitlines()]


def stream(out: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in out.splitlines()]
    assert all(row["schema"] == 1 for row in found)
    return found


def test_one_run_in_every_format(host_space: Space) -> None:
    options = ("--json", "--trace", "out/trace.json", "--junit", "out/junit.xml")
    # A translation unit of which only the comment changes is compiled, so that the trace has an action.
    host_space.edit("firmware/modules/blink.c", '#include "modules.h"', '#include "modules.h" // moved')
    done = host_space.doit("deploy", *options, env={"GITHUB_STEP_SUMMARY": "out/summary.md"})
    assert done.code == 0, done.err
    every = stream(done.out)
    written = [row for row in every if row["type"] == "progress" and row["label"] == "app"]
    assert written[-1]["done"] == written[-1]["total"] > 0
    lines = [row for row in every if row["type"] != "progress"]
    assert [row["type"] for row in lines] == ["event"] * (len(lines) - 1) + ["report"]
    kinds = [row["kind"] for row in lines[:-1]]
    assert kinds[0] == "run_started" and kinds[-1] == "run_finished" and kinds.count("action") >= 1
    assert json.loads(host_space.file(lines[-1]["path"]).read_text()) == lines[-1]["report"]
    assert re.search(r"^total .* full_flashed", done.err, re.M) and "DEPLOY_OUTCOME=full_flashed" in done.err
    rows = check_trace(host_space.file("out/trace.json").read_text())
    compiled = [row for row in rows if row.get("cat") == "action" and row["args"]["outcome"] == "executed"]
    assert [row["name"] for row in compiled if "blink" in row["name"]] != []
    stages = {row["name"]: row for row in rows if row.get("cat") == "stage"}
    inside = stages["compile"]["ts"] <= compiled[0]["ts"] <= stages["compile"]["ts"] + stages["compile"]["dur"]
    assert set(stages) >= {"compile", "verify-flash", "reflash", "ttfb"} and inside
    (suite,) = check_junit(host_space.file("out/junit.xml").read_text())
    assert suite.get("tests") == "7" and suite.get("failures") == suite.get("errors") == "0"
    assert "## Deploy `bench`: full_flashed" in host_space.file("out/summary.md").read_text()
    plain = host_space.deploy()
    assert plain.outcome == "verified_unchanged" and not plain.out.startswith("{")
    first, second = history(host_space)
    assert (first["outcome"], first["warm"], second["warm"]) == ("full_flashed", False, True)
    assert first["machine"] == second["machine"] and re.fullmatch("[0-9a-f]{12}", first["machine"])
    assert second["total_ms"] == plain.report["budget"]["total"]["measured_ms"]


def test_a_failed_run_is_exported_too_and_a_lost_file_is_a_note(host_space: Space) -> None:
    host_space.edit("firmware/modules/blink.c", '#include "modules.h"', '#include "modules.h"\n#error "broken"')
    host_space.file("reports/history.jsonl").mkdir(parents=True)
    done = host_space.doit("deploy", "--json", "--junit", "junit.xml", "--trace", "deploy.toml/trace.json")
    assert done.code == 1
    assert "note: reports/history.jsonl: the history cannot be written" in done.err
    assert "note: deploy.toml/trace.json: cannot be written" in done.err and "Traceback" not in done.err
    last = stream(done.out)[-1]
    assert (last["type"], last["report"]["failure"]["category"]) == ("report", "compile_error")
    (suite,) = check_junit(host_space.file("junit.xml").read_text())
    bad = suite.find("testcase[@name='compile']/failure")
    assert bad is not None and bad.get("type") == "compile_error" and "broken" in (bad.text or "")
    host_space.file("deploy.toml").write_text("[project\n")
    done = host_space.doit("deploy", "--json")
    (line,) = stream(done.out)
    assert (done.code, line["type"], line["failure"]["category"]) == (2, "failure", "config_error")


def test_a_host_run_streams_events_alone(host_space: Space) -> None:
    done = host_space.doit("link", "--json")
    assert done.code == 0 and stream(done.out)[-1]["kind"] == "run_finished"
    assert not host_space.file("reports").exists(), "the history is of deploys"


def test_status_and_page_of_two_devices(host_space: Space) -> None:
    text = host_space.file("deploy.toml").read_text().replace('until = "rpc:ready"', 'until = "rpc:health"')
    host_space.file("deploy.toml").write_text(text + SECOND)
    assert host_space.doit("deploy", "--group", "ci").code == 0
    group = history(host_space)
    assert len({row["run"] for row in group}) == 1 and len({row["transaction_id"] for row in group}) == 2
    first = host_space.doit("status")
    assert first.code == 0 and max(map(len, first.out.splitlines())) <= 80
    assert re.search(
        r"^\| `shelf` .* \| 7 passed .* \| \d+ KB +\|$", host_space.file("reports/status/index.md").read_text(), re.M
    )
    last_good = host_space.file("reports/status/live-results-all-last-good.json")
    assert [one.current for one in decode_merged(json.loads(last_good.read_text())).entries] == [True, True]
    host_space.edit("firmware/modules/blink.c", '#include "modules.h"', '#include "modules.h"\n#error "broken"')
    assert host_space.deploy().code == 1
    assert [row["failure"] and row["failure"]["category"] for row in history(host_space)] == [
        None,
        None,
        "compile_error",
    ]
    # What its report said of the other board is kept, though the report is gone.
    shelf = next(row for row in group if row["device"] == "shelf")
    for suffix in ("md", "json"):
        host_space.file(f"reports/{shelf['transaction_id']}.{suffix}").unlink()
    host_space.file(f".deploy/runs/{shelf['transaction_id']}.log").unlink()
    before = last_good.read_text()
    again = host_space.doit("status")
    assert again.code == 0 and "FAIL build (compile_error)" in again.out
    merged = decode_merged(json.loads(host_space.file("reports/status/live-results-all.json").read_text()))
    found = {one.device: one for one in merged.entries}
    assert (found["bench"].current, found["shelf"].current) == (True, False)
    assert found["shelf"].checks["write"] == "pass" and found["shelf"].as_of == shelf["transaction_id"]
    assert found["bench"].failure is not None and "broken" in found["bench"].failure["detail"]
    assert last_good.read_text() == before
    page = host_space.doit("report", "html")
    assert (page.code, page.out) == (0, "reports/index.html\n")
    links = check_page(host_space.file("reports/index.html").read_text()).links
    assert all(host_space.file(f"reports/{link}").is_file() for link in links) and len(links) == 2


def test_a_killed_run_is_in_the_history_and_none_of_this_is_imported_unasked(host_space: Space) -> None:
    done = host_space.deploy()
    runs = host_space.file(".deploy/runs")
    log = (runs / f"{done.report['transaction_id']}.log").read_bytes()
    (runs / "tx-20200101-000000-beef.log").write_bytes(b"".join(log.splitlines(keepends=True)[:-2]))
    child = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "doit", "deploy"],
        cwd=host_space.path,
        env=environment(XDG_STATE_HOME=str(host_space.path / ".deploy/user-state")),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert [row["outcome"] for row in history(host_space)] == ["full_flashed", "interrupted", "verified_unchanged"]
    found = set(re.findall(r"\| +(pipeline\.\S+)", child.stderr))
    assert "pipeline.cli.reporter" in found
    unused = {
        "pipeline.run.exports",
        *(f"pipeline.cli.{name}" for name in ("status", "report_html", "report_view")),
        *(
            f"pipeline.report.{name}"
            for name in ("perfetto", "junit", "ndjson", "step_summary", "timeline", "history", "live_results", "html")
        ),
    }
    assert all((ROOT / f"{name.replace('.', '/')}.py").exists() for name in unused)
    assert found & unused == set()
