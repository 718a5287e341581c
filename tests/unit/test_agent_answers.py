"""What an agent is answered: crash lines survive every bound, failures are whole, sizes have their room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydantic")

from pipeline.agent.answers import HeardLog, build_result, deploy_result, problem, sized
from pipeline.agent.child_runs import ChildRun
from pipeline.failures import fail
from pipeline.formats.partitions import parse_csv
from pipeline.model import Failure, FailureCategory, Stage
from pipeline.report.document import failure_json

PANIC = [
    b"Guru Meditation Error: Core  0 panic'ed (Load access fault). Exception was unhandled.",
    b"Core  0 register dump:",
    b"MEPC    : 0x42001234  RA      : 0x42001238  SP      : 0x3fc90000  GP      : 0x3fc8a000",
    b"Stack memory:",
    b"3fc90000: 0x00000000 0x42001238 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000",
]


@given(st.integers(0, 30), st.integers(0, 60), st.integers(0, 60))
def test_a_crash_is_heard_whatever_came_before_and_after(most: int, before: int, after: int) -> None:
    heard = HeardLog(most)
    for number in range(before):
        heard.feed(f"I (1) line {number}".encode())
    for line in PANIC:
        heard.feed(line)
    for number in range(after):
        heard.feed(f"I (2) after {number}".encode())
    lines, omitted = heard.end()
    texts = [line.text for line in lines]
    assert heard.crashed
    assert PANIC[0].decode() in texts and PANIC[2].decode() in texts
    ordinary = [line for line in lines if line.kind == "line"]
    assert len(ordinary) <= most
    assert len(lines) + omitted >= before + len(PANIC)
    assert omitted >= before - most


def test_only_what_was_asked_for_and_the_rest_is_counted() -> None:
    heard = HeardLog(2, "heap")
    for text in ("heap 1", "other", "heap 2", "heap 3", "other"):
        heard.feed(text.encode())
    lines, omitted = heard.end()
    assert [line.text for line in lines] == ["heap 2", "heap 3"]
    assert (omitted, heard.crashed) == (3, False)


def test_a_line_without_end_is_cut_with_its_length() -> None:
    heard = HeardLog(5)
    heard.feed(b"x" * 100_000)
    lines, _ = heard.end()
    assert all(len(line.text) < 2100 for line in lines)
    assert sum("characters)" in line.text for line in lines) >= 1


def test_a_failure_keeps_what_to_do_and_a_bounded_detail() -> None:
    failure = fail(
        FailureCategory.PANIC, stage=Stage.TTFB, where="device a on b", message="it panicked", detail="d" * 10_000
    )
    told = problem(failure_json(failure))
    assert told is not None
    assert (told.category, told.stage, told.user_action) == ("panic", "ttfb", failure.user_action)
    assert told.detail.endswith("... (10000 characters)")
    assert problem(None) is None


def test_a_run_that_did_not_begin_says_why() -> None:
    failure = failure_json(
        fail(FailureCategory.CONFIG_ERROR, stage=None, where="deploy.toml:3:1", message="no such key")
    )
    run = ChildRun(2, "", "deploy.toml:3:1: error: no such key\nhint: x", failure=failure)
    for result in (deploy_result(run), build_result(run)):
        assert (result.ok, result.exit_code, result.compiled) == (False, 2, 0)
        assert result.failure is not None and result.failure.category == "config_error"
        (diagnostic,) = result.diagnostics
        assert (diagnostic.path, diagnostic.line, diagnostic.column, diagnostic.text) == (
            "deploy.toml",
            3,
            1,
            "no such key",
        )


def test_counts_of_several_boards_are_counted_once() -> None:
    def finished(device: str, stage: str, **counts: int) -> dict[str, object]:
        data = {"stage": stage, "outcome": "ran", "duration_s": 0.5, "counts": counts}
        return {"kind": "stage_finished", "device": device, "data": data}

    events = [finished(d, s, compiled=c, linked=n) for s, c, n in (("compile", 3, 0), ("link", 0, 1)) for d in "ab"]
    result = build_result(ChildRun(0, "", "", events=tuple(events)))
    assert (result.compiled, result.linked, result.up_to_date) == (3, 1, False)


def test_sizes_have_the_room_of_their_partition() -> None:
    table = parse_csv("app,app,ota_0,0x10000,0x20000,\n", flash_size=1 << 22)
    assert not isinstance(table, Failure)
    report = {"regions": [{"name": n, "offset": o, "size": s} for n, o, s in (("app", 0x10000, 0x100), ("boot", 0, 9))]}
    app, boot = sized(report, table)
    assert (app.partition_size, app.free) == (0x20000, 0x1FF00)
    assert (boot.partition_size, boot.free) == (None, None)
