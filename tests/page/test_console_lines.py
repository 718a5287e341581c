"""A console's entries as lines: in order, none twice, bounded whatever a board sends."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.protocol import Channel, ConsoleChunk, ConsoleEntry, ConsoleNote, NoteKind
from pipeline.service import console_lines
from pipeline.service.console_lines import (
    MAX_TEXT,
    MOST_AT_ONCE,
    LineBacklog,
    PageLine,
    instant_ms,
)

AT = "2026-11-21T00:00:01.500Z"


def chunk(data: bytes, channel: Channel = Channel.CONSOLE) -> ConsoleChunk:
    return ConsoleChunk(1, AT, 1.5, 0, channel, data)


def note(kind: NoteKind, text: str = "it happened") -> ConsoleNote:
    return ConsoleNote(1, AT, 1.5, kind, text, "tx-1")


def all_of(*entries: ConsoleEntry) -> list[PageLine]:
    backlog = LineBacklog(lambda: None)
    for entry in entries:
        backlog(entry)
    return drained(backlog)


def drained(backlog: LineBacklog) -> list[PageLine]:
    found: list[PageLine] = []
    while lines := backlog.take():
        assert len(lines) <= MOST_AT_ONCE
        found += lines
    return found


def texts(lines: list[PageLine]) -> list[str]:
    return [line.get("x", f"-- {line.get('note')}") for line in lines]


def test_lines_have_their_instant_and_no_line_end() -> None:
    assert all_of(chunk(b"one\r\ntwo\nthr")) == [{"t": 1795219201500, "x": "one"}, {"t": 1795219201500, "x": "two"}]


def test_what_a_loader_answers_is_no_line() -> None:
    assert texts(all_of(chunk(b"a"), chunk(b"\xc0\n\n", Channel.LOADER), chunk(b"b\n"))) == ["ab"]


def test_a_note_ends_the_line_before_it_but_for_those_that_come_inside_one() -> None:
    assert texts(all_of(chunk(b"half"), note(NoteKind.RESET), chunk(b"ESP-ROM:\n"))) == [
        "half",
        "-- it happened",
        "ESP-ROM:",
    ]
    assert texts(all_of(chunk(b"half"), note(NoteKind.BOOT), chunk(b" way\n"))) == ["-- it happened", "half way"]


def test_a_prompt_is_told_once_and_again_when_it_is_another() -> None:
    backlog = LineBacklog(lambda: None)
    backlog(chunk(b"login: "))
    assert [backlog.begun(), backlog.begun()] == ["login: ", None]
    backlog(chunk(b"root\n"))
    assert backlog.begun() is None, "lines wait: the order would be wrong"
    assert texts(backlog.take()) == ["login: root"]
    assert [backlog.begun(), backlog.begun()] == ["", None]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_the_lines_do_not_depend_on_the_chunks(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    parts = [data[first:last] for first, last in itertools.pairwise(places)]
    whole = texts(all_of(chunk(data)))
    assert texts(all_of(*map(chunk, parts))) == whole
    assert len(whole) == data.count(b"\n")


def test_a_line_of_ten_megabytes_is_one_line_that_says_what_is_missing() -> None:
    backlog = LineBacklog(lambda: None)
    for _ in range(160):
        backlog(chunk(b"A" * 65536))
    backlog(chunk(b"\nafter\n"))
    first, second = drained(backlog)
    assert len(first["x"]) == MAX_TEXT and first["cut"] == 65536 - MAX_TEXT
    assert second["x"] == "after" and "cut" not in second
    assert backlog.dropped == 0


def test_a_slow_viewer_loses_the_oldest_lines_and_knows_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_lines, "MOST_LINES", 700)
    backlog = LineBacklog(lambda: None)
    for number in range(1000):
        backlog(chunk(b"line %d\n" % number))
    lines = drained(backlog)
    assert backlog.dropped == 300
    assert texts([lines[0], lines[-1]]) == ["line 300", "line 999"]
    assert len(lines) == 700


def test_a_slow_viewer_of_long_lines_costs_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_lines, "MOST_CHARACTERS", 10 * MAX_TEXT)
    backlog = LineBacklog(lambda: None)
    for _ in range(100):
        backlog(chunk(b"B" * MAX_TEXT + b"\n"))
    lines = drained(backlog)
    assert sum(len(line["x"]) for line in lines) <= 10 * MAX_TEXT
    assert backlog.dropped + len(lines) == 100


def test_an_instant_that_is_none_is_zero() -> None:
    assert [instant_ms(""), instant_ms("noon"), instant_ms("1970-01-01T00:00:01.000Z")] == [0, 0, 1000]
