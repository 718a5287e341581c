"""What is kept of a console, from where it was asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.log_levels import LevelRules, parse_rules
from pipeline.cli.history_view import shown, since
from pipeline.model import Failure
from pipeline.service.history import HistoryLine, read_history

FILE = """\
2026-11-29T07:00:00.000Z | I (1) app: old
2026-11-29T07:50:00.000Z -- preempted tx=tx-20261129-075000-aaaa preempted by tx-20261129-075000-aaaa (pid 7)
2026-11-29T07:50:01.000Z | ESP-ROM:esp32c3-api1-20210207
2026-11-29T07:50:01.001Z | rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)
2026-11-29T07:50:01.002Z -- reset the board was reset: rst:0x1 (POWERON)
2026-11-29T07:50:01.100Z | {"jsonrpc":"2.0","method":"ready"}
2026-11-29T07:50:01.101Z -- boot elf=abcdef firmware abcdef says that it runs
damaged \x1b line
2026-11-29T07:59:00.000Z -- preempted tx=tx-20261129-075900-bbbb preempted by tx-20261129-075900-bbbb (pid 8)
2026-11-29T07:59:30.000Z | W (1) wifi: retry
yesterday | no instant
"""
NOW = datetime(2026, 11, 29, 8, 0, tzinfo=UTC)


@pytest.fixture
def lines(tmp_path: Path) -> list[HistoryLine]:
    (tmp_path / "bench.log").write_text(FILE)
    return read_history(tmp_path / "bench.log")


def texts(found: object) -> list[str]:
    assert isinstance(found, list)
    return [line.text.split()[0] for line in found]


def test_from_a_time_a_boot_a_deploy_or_a_transaction(lines: list[HistoryLine]) -> None:
    assert len(texts(since(lines, "", NOW))) == 10
    assert texts(since(lines, "2m", NOW)) == ["preempted", "W"]
    assert texts(since(lines, "1h", NOW))[0] == "I"
    assert texts(since(lines, "boot", NOW))[:2] == ["ESP-ROM:esp32c3-api1-20210207", "rst:0x1"]
    assert texts(since(lines, "deploy", NOW))[0] == "preempted" and len(texts(since(lines, "deploy", NOW))) == 3
    assert len(texts(since(lines, "tx-20261129-0750", NOW))) == 9
    for wrong in ("tx-9", "10 minutes", "-5m"):
        assert isinstance(since(lines, wrong, NOW), Failure)
    assert since([], "boot", NOW) == [] and since([], "deploy", NOW) == []


def test_what_is_searched_for_stands_alone(lines: list[HistoryLine]) -> None:
    def plain(grep: str = "", mute: str = "", levels: str = "") -> list[str]:
        rules = parse_rules(levels) if levels else None
        assert rules is None or isinstance(rules, LevelRules)
        found = shown(lines, LinePattern(grep) if grep else None, LinePattern(mute) if mute else None, rules)
        return [text.partition(" ")[2] for text in found if not text.startswith("-- ")]

    assert len(plain()) == 10 and "-- firmware abcdef says that it runs (elf abcdef)" in plain()
    assert plain(grep="wifi|POWERON") == [
        "rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)",
        "-- the board was reset: rst:0x1 (POWERON)",
        "W (1) wifi: retry",
    ]
    assert len(plain(mute="retry")) == 9 and len(plain(levels="wifi:E")) == 9


def test_each_day_is_named_and_times_are_local(lines: list[HistoryLine]) -> None:
    first, second, *_ = shown(lines, None, None, None)
    at = datetime(2026, 11, 29, 7, 0, tzinfo=UTC).astimezone()
    assert (first, second) == (f"-- {at:%Y-%m-%d}", f"{at:%H:%M:%S}.000 I (1) app: old")
