"""What a device or a compiler says is never ours: forged lines through every output and exporter, hostile numbers."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Mapping
from enum import IntEnum, StrEnum
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.events import Readiness, decode_log, encode
from pipeline.failures import fail
from pipeline.formats.diagnostics import LONGEST, Origin, is_error, line_of, plain
from pipeline.model import DeployOutcome, Event, FailureCategory, Stage
from pipeline.records import json_text, parse_json
from pipeline.report import html
from pipeline.report.document import build_report
from pipeline.report.history import parse_history
from pipeline.report.junit import render_junit
from pipeline.report.live_results import Merged, entry
from pipeline.report.markdown import encode_history, history_row, last_line, render_markdown
from pipeline.report.ndjson import event_line, failure_line, report_line
from pipeline.report.perfetto import render_trace
from pipeline.report.status_pages import StatusDevice, pages
from pipeline.report.step_summary import render_summary
from pipeline.report.terminal import TerminalLook, failure_block, module_table, say_failure, stage_table, told_lines
from pipeline.report.timeline import timeline
from pipeline.text import quoted, visible, visible_text
from tests.golden.scenarios import Script, start

PIPE = TerminalLook(tty=False, colour=False, columns=80)
FORGED = (
    "DEPLOY_TX_ID=tx-20261121-083000-beef DEPLOY_OUTCOME=verified_unchanged DEPLOY_DEVICE=bench DEPLOY_REPORT=",
    "::stop-commands::token",
    "   ::add-mask::***",
    "\u00a0::error file=a.c,line=1::forged",
    "##[error]forged",
    "text ##[add-mask]forged",
    "##vso[task.setvariable variable=x]y",
    "##teamcity[testFailed name='x']",
    "src/a.c:1:1: error: forged",
    "DEPLOY_TX_ID=tx DEPLOY_OUTCOME=ok:1:1: error: forged",
    "[watch] build finished",
    "-- ttfb:bench",
    "bench: error: forged\x1b[2J\x1b]0;title\x07",
    "a\u2028::stop-commands::x",
    "a\r::stop-commands::x",
    "a\x85DEPLOY_TX_ID=x",
    "\u202egnp.exe",
)
COMMAND = re.compile(r"##\w*\[")


def failed(stage: Stage, category: FailureCategory, lines: str, where: str = "device bench on virtual:") -> list[Event]:
    """A run whose device (or compiler) said `lines`, in every field that can hold them."""
    script = Script()
    start(script)
    failure = fail(category, stage=stage, where=where, message=f"it said: {lines}", hint=f"see: {lines}", detail=lines)
    module = {"name": lines, "setup_ok": True, "at_fault": False, "held": None, "health": lines}
    script.stage(Stage.TTFB, 100, Readiness("failed", "panic", modules=(module,), note=lines))
    script.say(failure)
    return script.events


def is_forged(line: str) -> bool:
    """Could a script, a CI service or a person take this line for one of ours, or is it steering a terminal?"""
    bare = line.strip()
    return (
        bare.startswith(("::", "DEPLOY_", "[watch]", "-- "))
        or COMMAND.search(line) is not None
        or not line.replace("\t", "").isprintable()
    )


def check_lines(text: str) -> None:
    for line in text.split("\n"):
        assert not is_forged(line), line


OUTPUTS: Mapping[str, Callable[[list[Event]], str]] = {
    "markdown": lambda events: render_markdown(build_report(events)),
    "summary": lambda events: render_summary([build_report(events)]),
    "junit": lambda events: render_junit([build_report(events)]),
    "trace": lambda events: render_trace([("bench", events)]),
    "stream": lambda events: "".join(event_line("tx", "bench", event) for event in events),
    "stream, end": lambda events: report_line(build_report(events), None),
    "report": lambda events: json_text(build_report(events), indent=2),
    "history": lambda events: encode_history(history_row(build_report(events), "", "m", "1")).decode(),
    "modules": lambda events: "\n".join(module_table(build_report(events), PIPE)),
    "table": lambda events: "\n".join(stage_table(build_report(events), PIPE)),
    "status": lambda events: "\n".join(status(events).values()),
}


def status(events: list[Event]) -> dict[str, str]:
    report = build_report(events)
    history = parse_history(encode_history(history_row(report, "", "m", "1")))
    merged = [entry(row, report, row.run) for row in history.rows]
    return pages([StatusDevice("bench", "esp32c3")], Merged(tuple(merged)), history.rows)


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("line", FORGED)
def test_no_output_holds_a_forged_line(name: str, line: str) -> None:
    """Alone, after a line that looks like a diagnostic, and after a line of any other kind."""
    for before in ("", "src/a.c:1:1: error: x\n", "boot\n"):
        check_lines(OUTPUTS[name](failed(Stage.TTFB, FailureCategory.PANIC, before + line)))


@pytest.mark.parametrize("line", FORGED)
@pytest.mark.parametrize("stage", [Stage.VERIFY_FLASH, Stage.REFLASH, Stage.REATTACH, Stage.TTFB])
def test_what_a_device_says_is_marked_on_a_terminal(stage: Stage, line: str) -> None:
    detail = f"src/a.c:1:1: error: x\n{line}"
    failure = fail(FailureCategory.PANIC, stage=stage, where="device bench", message="crashed", detail=detail)
    head, *said, hint = failure_block(failure, PIPE)
    assert head == "device bench: error: crashed" and hint.startswith("hint: ")
    assert said and all(one.startswith("  | ") for one in said)
    check_lines("\n".join(said))


@pytest.mark.parametrize("line", FORGED)
def test_of_a_build_only_diagnostics_stand_unmarked(line: str) -> None:
    """They are what editors read; a line beside them is not."""
    detail = f"src/a.c:1:1: error: x\n    1 | int\n{line}"
    failure = fail(FailureCategory.COMPILE_ERROR, stage=Stage.COMPILE, where="src/a.c", message="x", detail=detail)
    stream = io.StringIO()
    say_failure(failure, stream)
    assert "\nsrc/a.c:1:1: error: x\n  |     1 | int\n" in f"\n{stream.getvalue()}"
    check_lines(stream.getvalue())
    check_lines("\n".join(told_lines(detail)))
    assert told_lines("src/a.c:1:2: warning: unused\n  1 | int x;") == [
        "src/a.c:1:2: warning: unused",
        "  |   1 | int x;",
    ]


@pytest.mark.parametrize("line", FORGED)
def test_what_is_said_in_one_line_is_visible_wherever_it_is_said(line: str) -> None:
    """Fact, place and hint of a failure, which may hold file names, values of deploy.toml and words of a device."""
    failure = fail(FailureCategory.CONFIG_ERROR, stage=None, where=f"a {line}", message=line, hint=f"use {line}")
    for text in (failure.line(), line_of(failure), failure.hint, failure_line(failure).rstrip("\n")):
        assert text.isprintable() and COMMAND.search(text) is None


def test_junit_and_stream_hold_what_was_said() -> None:
    said = "\n".join(FORGED)
    events = failed(Stage.TTFB, FailureCategory.PANIC, said)
    root = ElementTree.fromstring(render_junit([build_report(events)]))
    [body] = [case.text for case in root.iter("failure")]
    assert body is not None and body.endswith("\n".join(quoted(said)))
    assert json.loads(report_line(build_report(events), None))["report"]["failure"]["detail"] == said
    assert json.loads(json_text({"text": said}))["text"] == said


def test_the_last_line_is_one_line_of_words() -> None:
    report = build_report(failed(Stage.TTFB, FailureCategory.PANIC, "x"))
    report["device"] |= {"name": "a\nDEPLOY_TX_ID=b", "port": "##[error]x\x1b[2J"}
    text = last_line(report)
    assert text.isprintable() and text.count("DEPLOY_TX_ID=") == 2
    assert text.startswith("DEPLOY_TX_ID=tx-20261121-083000-beef ") and COMMAND.search(text) is None


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or (value or "").startswith("javascript") for name, value in attrs)


@pytest.mark.parametrize("text", [*FORGED, "<script>alert(1)</script>", '"><img src=x onerror=y>'])
def test_a_page_holds_no_element_of_others(text: str) -> None:
    report = build_report(failed(Stage.TTFB, FailureCategory.PANIC, text))
    report["device"] |= {"name": text or "x", "chip": text}
    report["profile"] = report["toolchain"] = text
    history = parse_history(encode_history(history_row(report, "", text, text)))
    events = failed(Stage.TTFB, FailureCategory.PANIC, text)
    facts = html.Facts(text, "2026-11-21T08:30:00Z", {}, {text: ("tx", timeline(events))}, {})
    found = Tags()
    found.feed(html.render_page(history, facts))
    assert not found.tags & {"script", "img", "iframe", "object"}
    for page in pages([StatusDevice(text, text)], _merged(history.rows, report), history.rows).values():
        check_lines(page)
        assert all(len(set(map(_cells, table))) == 1 for table in _tables(page))


def _merged(rows: Any, report: Mapping[str, Any]) -> Any:
    return Merged(tuple(entry(row, report, row.run) for row in rows))


def _tables(page: str) -> list[list[str]]:
    return [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]


def _cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


# --- values -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text(max_size=60))
@example("####[x]")
@example("##" * 30 + "[")
def test_visible_leaves_nothing_that_steers(text: str) -> None:
    shown = visible(text)
    assert shown.replace("\t", "").isprintable() and COMMAND.search(shown) is None
    assert visible(shown) == shown, "what is visible stays as it is"
    assert COMMAND.search(visible_text(text)) is None
    assert not any(map(is_forged, quoted(text)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_null(value: float) -> None:
    assert json_text({"a": [value, {"b": (value, 1.5)}], "c": "x"}) == '{"a": [null, {"b": [null, 1.5]}], "c": "x"}'
    events = failed(Stage.TTFB, FailureCategory.PANIC, "x")
    forged = [*events[:-1], events[-1]._replace(data={**events[-1].data, "more": value})]
    assert "NaN" not in event_line("tx", "bench", forged[-1]) and "Infinity" not in event_line("tx", "", forged[-1])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", '{"a": [NaN]}', '{"a": 1e400}'])
def test_what_is_read_holds_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="no number of JSON"):
        parse_json(text)


@pytest.mark.parametrize("number", [b"1e999", b"NaN", b"-Infinity"])
def test_a_log_ends_before_an_instant_that_is_none(number: bytes) -> None:
    import zlib

    events = failed(Stage.TTFB, FailureCategory.PANIC, "x")
    line = re.sub(rb'"since_s":[0-9.]+', b'"since_s":' + number, encode(events[-1]).split(b"\t")[1].rstrip(b"\n"))
    damaged = b"%08x\t%s\n" % (zlib.crc32(line), line)
    good = b"".join(map(encode, events[:-1]))
    found, note = decode_log(b"hotplate-run-log 1\n" + good + damaged)
    assert found == events[:-1] and note is not None
    assert build_report(found)["outcome"] == DeployOutcome.INTERRUPTED.value, "as of a run that was killed there"


@pytest.mark.parametrize("number", ["1e999", "NaN", "-1", "1" + "0" * 400, '"x"', "true", "[]"])
def test_a_line_of_the_history_with_a_number_that_is_none_is_damaged(number: str) -> None:
    line = encode_history(history_row(build_report(failed(Stage.TTFB, FailureCategory.PANIC, "x")), "", "m", "1"))
    forged = re.sub(rb'"total_ms":[0-9]+', b'"total_ms":' + number.encode(), line, count=1)
    assert forged != line
    assert parse_history(line + forged).damaged == 1


# --- time -------------------------------------------------------------------------------------

PIECES = ("a", "/", "-", ":", "(", ")", ".o", "1", " ", ";", ">>> ", "ld", "error: ", "multiple definition of ")
HEADS = ("", "ld: ", "ld: error: ", ">>> defined in ", "a.o:", "multiple definition of ")


def test_a_line_takes_as_long_as_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it holds: the patterns have no choice between two ways to read it. What is longer passes unread."""
    for head in HEADS:
        for one in PIECES:
            for other in PIECES:
                line = (head + (one + other) * LONGEST)[: LONGEST - 16]
                plain(["ld: error: x", line], Origin({}))
                is_error(line)
    dump = "x: " * LONGEST
    assert plain([dump], Origin({})) == [dump]


class WordOfReport(StrEnum):
    KEPT = "kept"


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(WordOfReport.KEPT)
KEYS = st.text() | st.just(WordOfReport.KEPT)
NESTED = st.recursive(PLAIN, lambda of: st.lists(of) | st.dictionaries(KEYS, of) | st.tuples(of), max_leaves=12)


@given(NESTED)
def test_indented_json_is_what_json_makes(value: Any) -> None:
    try:
        expected = json.dumps(value, allow_nan=False, indent=2)
    except ValueError:
        expected = json_text(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=2)
    assert json_text(value, indent=2) == expected.replace("##", r"#\u0023")


class SizeOfReport(IntEnum):
    THREE = 3


@pytest.mark.parametrize("value", [{1: 2}, {None: []}, {"a": {True: 1}}, [{"a": SizeOfReport(3)}]], ids=repr)
def test_other_values_are_left_to_json(value: Any) -> None:
    assert json_text(value, indent=2) == json.dumps(value, indent=2)


def test_what_json_does_not_know_is_an_error() -> None:
    with pytest.raises(TypeError):
        json_text({"a": {1, 2}}, indent=2)
