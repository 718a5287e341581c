"""The terminal: the table at 80 columns, colour only where it is wanted, one redrawn line, silence in a pipe."""

from __future__ import annotations

import ast
import errno
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.report.terminal as module
from pipeline.failures import fail
from pipeline.model import FailureCategory, Stage
from pipeline.report.document import build_report
from pipeline.report.terminal import Progress, TerminalLook, failure_block, look_of, module_table, stage_table
from tests.golden.scenarios import RUNS

PIPE = TerminalLook(tty=False, colour=False, columns=80)
TTY = TerminalLook(tty=True, colour=False, columns=80)
COLOUR = TerminalLook(tty=True, colour=True, columns=80)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class FakeTty(io.StringIO):
    """A terminal that remembers what it was sent, and what is on its current line."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> str:
        return self.getvalue().rsplit("\r\x1b[K", 1)[-1]


# --- look -------------------------------------------------------------------------------------


def test_colour_needs_a_terminal_and_no_objection() -> None:
    assert look_of(io.StringIO(), {}) == PIPE
    assert look_of(FakeTty(), {}).colour
    assert look_of(FakeTty(), {"NO_COLOR": ""}).colour, "an empty NO_COLOR does not object"
    assert look_of(FakeTty(), {"NO_COLOR": "1"})[:2] == (True, False)
    assert look_of(FakeTty(), {"TERM": "dumb"})[:2] == (False, False)


# --- streams that go away ---------------------------------------------------------------------


class Gone(io.StringIO):
    """A pipe whose reader went away, or a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_reader_that_went_away_is_a_reason_and_no_exception() -> None:
    assert module.say(io.StringIO(), "x") == ""
    assert module.say(Gone(), "x") == "No space left on device"
    closed = io.StringIO()
    closed.close()
    assert "closed" in module.say(closed, "x")


def test_a_word_that_the_stream_cannot_encode_is_shown_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    assert module.say(stream, "firmware/ä.c\n") == ""
    assert raw.getvalue() == b"firmware/\\xe4.c\n"


def test_after_a_write_failed_the_rest_goes_nowhere_and_fails_no_more() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        assert module.say(stream, "x") == "Broken pipe"
        assert module.say(stream, "y") == ""


# --- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_the_table_fits_80_columns_and_is_plain_in_a_pipe(name: str) -> None:
    report = build_report(RUNS[name]())
    plain = stage_table(report, PIPE)
    assert len(plain) == 3 + len(Stage) + 4 + bool(report["size"])
    assert all(len(line) <= 80 and line.isascii() and line.isprintable() for line in plain)
    coloured = stage_table(report, COLOUR)
    assert [ANSI.sub("", line) for line in coloured] == plain
    assert coloured != plain


def test_over_budget_is_red_and_not_run_has_no_time() -> None:
    report = build_report(RUNS["killed"]())
    report["budget"]["phases"][2] |= {"limit_ms": 10, "margin_ms": -2, "verdict": "OVER"}
    lines = stage_table(report, COLOUR)
    assert lines[3] == "\x1b[31mfingerprint    ran                      12       10       -2  OVER\x1b[0m"
    assert lines[9] == "\x1b[2mttfb           not-run                         1000           NOT_MEASURED\x1b[0m"
    assert lines[-2] == "bottleneck: compile"


def test_the_counts_that_a_second_run_must_show() -> None:
    assert stage_table(build_report(RUNS["unchanged"]()), PIPE)[-1] == (
        "compiled=0, restored=0, linked=0, bytes_written=0"
    )


# --- failures ---------------------------------------------------------------------------------


def test_a_failure_is_a_fact_its_detail_and_a_hint() -> None:
    failure = fail(
        FailureCategory.PORT_BUSY,
        stage=Stage.VERIFY_FLASH,
        where="device desk on ttyUSB0",
        message="held by process 7 (picocom)",
        detail="line 1\nline 2\x1b[2J",
    )
    assert failure_block(failure, PIPE) == [
        "device desk on ttyUSB0: error: held by process 7 (picocom)",
        "  | line 1",
        r"  | line 2\x1b[2J",
        "hint: close the program that holds the port, then run again",
    ]
    assert failure_block(failure, COLOUR)[0].startswith("\x1b[31mdevice desk")


def test_a_long_detail_is_cut_to_its_end_and_says_so() -> None:
    detail = "\n".join(f"{n} {'x' * 200}" for n in range(20))
    failure = fail(FailureCategory.PANIC, stage=Stage.TTFB, where="d", message="m", detail=detail)
    lines = failure_block(failure, TTY)
    assert lines[1] == "  ... 8 more lines in the report"
    assert lines[2].startswith("  | 8 x")
    assert len(lines) == 1 + 1 + 12 + 1
    assert all(len(line) <= 80 for line in lines[2:-1])
    assert failure_block(failure, PIPE)[2] == f"  | 8 {'x' * 200}", "a pipe has no width: a program reads it"


def test_a_detail_that_the_message_holds_is_not_said_again() -> None:
    failure = fail(
        FailureCategory.ACTION_FAILED, stage=Stage.LINK, where="d", message="a: x is missing", detail="x is missing"
    )
    assert failure_block(failure, PIPE) == ["deploy.toml:1:1: error: d: a: x is missing", f"hint: {failure.hint}"]


# --- progress ---------------------------------------------------------------------------------


def test_progress_is_one_line_redrawn() -> None:
    tty = FakeTty()
    progress = Progress(tty, TTY)
    progress("compile", 0, 4)
    assert tty.screen == "compile [" + "." * 40 + "]   0 %"
    progress("compile", 2, 4)
    assert tty.screen == "compile [" + "#" * 20 + "." * 20 + "]  50 %"
    progress("flash app", 4, 4)
    assert tty.screen == "flash app [" + "#" * 40 + "] 100 %"
    progress.finish()
    assert tty.screen == ""
    assert "\n" not in tty.getvalue()


def test_an_unchanged_line_is_not_drawn_again() -> None:
    tty = FakeTty()
    progress = Progress(tty, TTY)
    for done in range(1000):
        progress("flash", done, 1_000_000)
    assert tty.getvalue().count("\r") == 1
    progress.finish()
    progress.finish()
    assert tty.getvalue().count("\r") == 2


def test_a_pipe_stays_silent() -> None:
    pipe = io.StringIO()
    progress = Progress(pipe, PIPE)
    progress("compile", 1, 2)
    progress.finish()
    assert pipe.getvalue() == ""


@settings(deadline=None)
@given(st.text(max_size=200), st.integers(-5, 200), st.integers(-5, 100), st.integers(20, 200))
def test_the_line_never_wraps_nor_steers_the_terminal(label: str, done: int, total: int, columns: int) -> None:
    tty = FakeTty()
    Progress(tty, TerminalLook(tty=True, colour=False, columns=columns))(label, done, total)
    assert len(tty.screen) < columns
    assert tty.screen.isprintable()
    assert tty.screen.endswith(" %" if total else ".")


@pytest.mark.parametrize("end", [lambda tty: tty.close(), lambda tty: setattr(tty, "write", _broken)])
def test_a_terminal_that_went_away_does_not_stop_the_work(end: Callable[[FakeTty], None]) -> None:
    tty = FakeTty()
    progress = Progress(tty, TTY)
    progress("compile", 1, 2)
    end(tty)
    progress("compile", 2, 2)
    progress.finish()


def _broken(_: str) -> int:
    raise BrokenPipeError


def test_the_module_imports_neither_doit_nor_rich() -> None:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {name for name in names if name.split(".")[0] in {"doit", "rich"}}


def test_a_wait_of_unknown_length_is_dots() -> None:
    tty = FakeTty()
    progress = Progress(tty, TerminalLook(tty=True, colour=False, columns=40))
    for count in (1, 2, 3, 11):
        progress("waiting for rpc:health", count, 0)
        assert tty.screen == "waiting for rpc:health " + "." * (1 if count == 11 else count)
    progress.finish()
    assert tty.screen == ""


def test_modules_are_listed_and_cannot_steer_the_terminal() -> None:
    modules = [
        {"name": "blink", "setup_ok": True, "at_fault": False, "held": 0, "health": "3 flashes"},
        {"name": "samp\x1b[2Jler", "setup_ok": False, "at_fault": True, "held": None, "health": ""},
    ]
    lines = module_table({"readiness": {"modules": modules}}, TerminalLook(tty=False, colour=False, columns=80))
    assert lines == ["module blink        ok, 0 bytes held, 3 flashes", r"module samp\x1b[2Jler not set up, at fault"]
    assert module_table({"readiness": {"modules": []}}, TerminalLook(tty=False, colour=False, columns=80)) == []


def test_each_board_has_a_line_of_its_own() -> None:
    """Redrawn in place; what else is printed stands above, and nothing is left behind at the end."""
    tty = FakeTty()
    progress = Progress(tty, TTY)
    progress.of_lane("one", "app", 1, 2)
    progress.of_lane("two", "waiting for byte", 1, 0)
    progress.of_lane("one", "app", 2, 2)
    assert shown(tty) == ["one app [" + "#" * 40 + "] 100 %", "two waiting for byte ."]
    assert progress.between(lambda: tty.write("a line\n")) == 7
    assert shown(tty) == ["a line", ""]
    progress.lane_over("one")
    progress.of_lane("two", "waiting for byte", 2, 0)
    assert shown(tty) == ["a line", "two waiting for byte .."]
    progress.finish()
    assert shown(tty) == ["a line", ""]


def test_lines_that_do_not_fit_are_not_drawn() -> None:
    tty = FakeTty()
    progress = Progress(tty, TerminalLook(tty=True, colour=False, columns=80, lines=4))
    for number in range(9):
        progress.of_lane(f"b{number}", "app", 1, 2)
    assert [line.split()[0] for line in shown(tty)] == ["b0", "b1", "b2"]


def shown(tty: FakeTty) -> list[str]:
    """The lines of a terminal that knows line ends, cursor up and erasing a line."""
    lines, at = [""], 0
    for part in re.split(r"(\r\x1b\[K|\x1b\[A|\n)", tty.getvalue()):
        if part == "\n":
            at += 1
            lines[at:] = lines[at:] or [""]
        elif part == "\x1b[A":
            at -= 1
        elif part == "\r\x1b[K":
            lines[at] = ""
        else:
            lines[at] += part
    while len(lines) > at + 1 and not lines[-1]:
        lines.pop()
    return lines
