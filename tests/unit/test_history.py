"""The history: what a line holds, damage, growth, and the rates that are counted from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.effects.host import machine_facts, machine_id
from pipeline.effects.run_log import append_line
from pipeline.failures import UserAction
from pipeline.report.history import (
    CODE,
    ENVIRONMENT,
    OPERATOR,
    OURS,
    HistoryRow,
    by_category,
    cause,
    comparable,
    failure_rates,
    parse_history,
)
from pipeline.report.markdown import encode_history, history_row
from tests.golden import exports as golden
from tests.golden.scenarios import RUNS

ROOT = Path(__file__).parents[2]


def lines(count: int) -> list[bytes]:
    return [encode_history(golden.row(number, "unchanged")) for number in range(count)]


def test_a_line_says_what_the_report_says_in_numbers() -> None:
    row = parse_history(encode_history(golden.row(7, "failure"))).rows[0]
    assert (row.device, row.chip, row.outcome, row.category, row.stage) == (
        "bench",
        "esp32c3",
        "failed",
        "panic",
        "ttfb",
    )
    assert row.phases == {
        **{"startup": 142, "dispatch": 39, "fingerprint": 12, "compile": 431, "link": 88},
        **{"verify-flash": 240, "reflash": 150, "reattach": 10, "ttfb": 260},
    }
    assert row.total_ms == 1556 and not row.warm and not row.complete
    unchanged = parse_history(encode_history(golden.row(7, "unchanged"))).rows[0]
    assert unchanged.warm and unchanged.complete and unchanged.ttfb_ms == 31


def test_a_line_names_no_person_path_or_port() -> None:
    report = golden.report("failure")
    report["device"]["port"] = "/dev/tty.private"
    text = encode_history(history_row(report, "", "0123456789ab", "0.1.0")).decode()
    for private in ("/dev/tty.private", report["device"]["mac"], "crashed while booting", "rpc.c", "reports/"):
        assert private not in text


def test_the_version_is_that_of_the_package() -> None:
    assert f'version = "{pipeline.__version__}"' in (ROOT / "pyproject.toml").read_text()


# --- damage -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 2000), st.binary(max_size=20))
def test_damage_costs_no_more_than_the_lines_that_it_hits(place: int, junk: bytes) -> None:
    whole = lines(5)
    data = b"".join(whole)
    place = min(place, len(data))
    damaged = data[:place] + junk + data[place + len(junk) :]
    found = parse_history(damaged)
    untouched = [line for line in whole if line in damaged]
    assert len(found.rows) >= len(untouched) - 1
    assert {row.transaction_id for row in found.rows} >= {
        json.loads(line)["transaction_id"]
        for line in untouched
        if damaged.count(b"\n" + line) or damaged.startswith(line)
    }


def test_every_torn_tail_loses_one_line() -> None:
    whole = lines(2)
    for length in range(1, len(whole[1]) - 1):
        found = parse_history(whole[0] + whole[1][:length])
        assert (len(found.rows), found.damaged) == (1, 1)
    assert len(parse_history(b"".join(whole)[:-1]).rows) == 2, "only the line end is missing"


OLD_FIELDS = {*HistoryRow._fields} - {"size"}
"""Those that every version has written."""


def test_shapes_that_are_no_row() -> None:
    good = golden.row(1, "unchanged")
    bad: list[Any] = [[], 1, None, {}, {**good, "device": ""}, {**good, "phases": {"a": "b"}}, {**good, "warm": 1}]
    bad += [{key: value for key, value in good.items() if key != gone} for gone in good if gone in OLD_FIELDS]
    bad += [{**good, "size": {"ram": "1"}}, {**good, "size": [1]}]
    bad += [{**good, "failure": 3}, {**good, "ttfb": None}, {**good, "total_ms": True}]
    data = b"".join(json.dumps(value).encode() + b"\n" for value in bad)
    assert parse_history(data) == ((), len(bad), 0)
    other = json.dumps({**good, "schema": 2, "phases": None}).encode()
    assert parse_history(other + b"\n\n\xff\xfe\n" + b"[" * 200_000) == ((), 2, 1)


def test_a_transaction_counts_once() -> None:
    twice = lines(1) * 2
    assert len(parse_history(b"".join(twice)).rows) == 1


# --- the file ---------------------------------------------------------------------------------


def test_a_line_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    first, second, third = lines(3)
    append_line(path, first, 1 << 20)
    path.write_bytes(path.read_bytes() + second[:40])
    append_line(path, third, 1 << 20)
    found = parse_history(path.read_bytes())
    assert [row.started_at[14:16] for row in found.rows] == ["00", "02"] and found.damaged == 1


def test_the_history_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    most = 10 * len(lines(1)[0])
    for line in lines(50):
        append_line(path, line, most)
    aside = tmp_path / "history.1.jsonl"
    assert sorted(tmp_path.iterdir()) == [aside, path]
    assert path.stat().st_size <= most and aside.stat().st_size <= most
    found = parse_history(aside.read_bytes() + path.read_bytes()).rows
    assert [row.transaction_id for row in found] == [
        golden.row(n, "unchanged")["transaction_id"] for n in range(30, 50)
    ][-len(found) :]
    assert len(found) > 10


def test_the_machine_has_one_name(tmp_path: Path) -> None:
    first = machine_id(tmp_path / "state")
    assert first == machine_facts()["id"] == machine_id(tmp_path / "state")
    (kept,) = (tmp_path / "state").iterdir()
    kept.write_bytes(b"\xff damaged")
    assert machine_id(tmp_path / "state") == first
    (tmp_path / "file").write_text("")
    assert machine_id(tmp_path / "file") == first, "without a place to keep it"


# --- rates ------------------------------------------------------------------------------------


def made(*outcomes: tuple[str, str]) -> tuple[HistoryRow, ...]:
    """Rows from (user action or "", version)."""
    base = parse_history(encode_history(golden.row(0, "unchanged"))).rows[0]
    rows = []
    for number, (action, version) in enumerate(outcomes):
        at = f"2026-11-21T08:{number:02d}:00.000Z"
        row = base._replace(transaction_id=f"tx-{number}", started_at=at, version=version, user_action=action)
        rows.append(row._replace(category="x" if action else "", device="bench"))
    return tuple(rows)


def test_three_failure_rates() -> None:
    rows = made(
        ("fix_code", "0.0.9"),
        ("", "0.0.9"),
        ("replug", "0.1.0"),
        ("none", "0.1.0"),
        ("retry", "0.1.0"),
        ("", "0.1.0"),
        ("", "0.1.0"),
        ("", "0.1.0"),
    )
    assert [(rate.failed, rate.runs) for rate in failure_rates(rows)] == [(4, 8), (2, 6), (1, 4)]
    assert [rate.percent for rate in failure_rates(())] == [None, None, None]
    assert list(by_category(rows)) == [("code", "x"), ("environment", "x"), ("operator", "x"), ("ours", "x")]


def test_every_action_of_the_failure_map_has_one_cause() -> None:
    groups = (OPERATOR, ENVIRONMENT, CODE, OURS)
    assert sorted(action for group in groups for action in group) == sorted(UserAction)
    assert cause(made(("an action of the future", ""))[0]) == "ours", "what nobody knows counts"


def test_only_complete_deploys_of_the_newest_machine_are_compared() -> None:
    rows = parse_history(b"".join(encode_history(golden.row(n, name)) for n, name in enumerate(RUNS))).rows
    assert [row.outcome for row in comparable(rows)] == ["delta_flashed", "verified_unchanged"]
    moved = (*rows, rows[0]._replace(machine="another"))
    assert [row.machine for row in comparable(moved)] == ["another"]
    assert comparable(()) == []
