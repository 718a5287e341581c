"""What is made of many runs, or for other programs: pinned files, from the scenarios and a history that is made up.

`python -m tests.golden.scenarios` writes them anew. No files, no clock.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.model import Event
from pipeline.report.document import build_report
from pipeline.report.history import DeployHistory, parse_history
from pipeline.report.html import Facts, render_page
from pipeline.report.junit import render_junit
from pipeline.report.live_results import Merged, encode_merged, entry
from pipeline.report.markdown import encode_history, history_row
from pipeline.report.ndjson import event_line, report_line
from pipeline.report.perfetto import render_trace
from pipeline.report.status_pages import StatusDevice, SuiteFile, pages, unit_page
from pipeline.report.step_summary import render_summary
from pipeline.report.timeline import timeline
from tests.golden.scenarios import RUNS

DEVICES = (
    StatusDevice("bench", "esp32c3"),
    StatusDevice("desk", "ESP32-S3 (QFN56) (revision v0.2)"),
    StatusDevice("new", "esp32"),
)


def report(name: str) -> dict[str, Any]:
    return build_report(RUNS[name]())


def row(number: int, name: str, *, device: str = "bench", version: str = "0.1.0", chip: str = "") -> dict[str, Any]:
    """The scenario `name` as the transaction of minute `number`."""
    value = history_row(report(name), "", "0123456789ab", version)
    tx = f"tx-20261121-{8 + number // 60:02d}{number % 60:02d}00-beef"
    at = f"2026-11-21T{8 + number // 60:02d}:{number % 60:02d}:00.000Z"
    named = {"transaction_id": tx, "run": tx, "started_at": at, "device": device, "version": version}
    return {**value, **named, **({"chip": chip} if chip else {})}


def rows() -> list[dict[str, Any]]:
    """Forty minutes of work: two boards, an older version of the program, one run that was slow, some that failed."""
    names = ["success", "unchanged", "unchanged", "failure", "success", "unchanged", "interrupted", "unchanged"]
    found = [row(n, names[n % len(names)], version="0.0.9" if n < 8 else "0.1.0") for n in range(32)]
    found[20]["phases"] = {**found[20]["phases"], "verify-flash": 90_000}
    found[20]["total_ms"] += 90_000
    found += [row(40 + n, "unchanged", device="desk", chip="ESP32-S3 (QFN56) (revision v0.2)") for n in range(3)]
    found.append(row(50, "failure"))
    return found


def history() -> DeployHistory:
    return parse_history(b"".join(map(encode_history, rows())))


def live() -> Merged:
    """`bench` failed in the newest run; `desk` is carried over."""
    last = {one.device: one for one in history().rows}
    newest = last["bench"].run
    entries = (entry(last["bench"], report("failure"), newest), entry(last["desk"], None, newest))
    return Merged(entries, {"passed": 364, "failed": 1, "skipped": 2})


def logs(name: str) -> list[tuple[str, list[Event]]]:
    return [("bench", RUNS[name]())]


def stream(name: str) -> str:
    lines = [event_line("tx-20261121-083000-beef", "bench", event) for event in RUNS[name]()]
    done = report(name)
    return "".join([*lines, report_line(done, done["report_path"].removesuffix(".md") + ".json")])


def page() -> str:
    newest = {"bench": ("tx-20261121-085000-beef", timeline(RUNS["success"]()))}
    limits = {"total": 4000, "startup": 200, "dispatch": 100, "verify-flash": 200, "ttfb": 1000}
    links = {"tx-20261121-085000-beef": "tx-20261121-085000-beef.md"}
    return render_page(history(), Facts("reference", "2026-11-21T09:00:00.000Z", limits, newest, links))


def exports() -> dict[str, str]:
    """File name -> content."""
    status = {f"status_{name}": text for name, text in pages(DEVICES, live(), history().rows).items()}
    suites = [
        SuiteFile("tests/test_json.c", 12, 1, (("nested", "expected 3\n```\nfound 4"),)),
        SuiteFile("tests/a.c", 9, 0, ()),
    ]
    return {
        **status,
        "status_test-results.md": unit_page(suites),
        "status_live-results-all.json": json.dumps(encode_merged(live()), indent=1) + "\n",
        "export_history.jsonl": "".join(encode_history(row(n, name)).decode() for n, name in enumerate(RUNS)),
        "export_trace_success.json": render_trace(logs("success")),
        "export_trace_killed.json": render_trace(logs("killed")),
        "export_junit.xml": render_junit([report(name) for name in RUNS]),
        "export_stream_unchanged.ndjson": stream("unchanged"),
        "export_stream_failure.ndjson": stream("failure"),
        "export_step_summary.md": render_summary([report("unchanged"), report("failure")]),
        "export_page.html": page(),
    }
