"""What a person is shown of a console: filters, folding, instants, and hostile bytes made visible."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.boot.console_events import QUIET_S
from pipeline.boot.console_view import FOLD_TOLD_S, ConsoleView, ViewOptions
from pipeline.boot.line_pattern import LinePattern
from pipeline.boot.lines import MAX_LINE
from pipeline.boot.log_levels import LevelRules, LogMark, log_mark, parse_rules, without_uptime

AT = "2026-11-29T08:00:00.000Z"


def shown(data: bytes, options: ViewOptions | None = None) -> str:
    view = ConsoleView(options or ViewOptions())
    return view.feed(AT, 1.0, data) + view.quiet(9.0)


# --- levels and tags ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        ("W (12345) wifi: retry", LogMark("W", "wifi")),
        ("E (08:00:01.250) esp_image: bad", LogMark("E", "esp_image")),
        ("[  1234][D][WiFi.cpp:12] begin(): up", LogMark("D", "WiFi.cpp")),
        ("[00:00:01.234,000] <wrn> net_core: late", LogMark("W", "net_core")),
        ("hello (1) x: y", None),
        ("W 12345 wifi: retry", None),
    ],
)
def test_levels_and_tags_of_three_systems(line: str, mark: LogMark | None) -> None:
    assert log_mark(line) == mark


def test_two_lines_that_differ_by_their_uptime_alone() -> None:
    for one, other in (("W (1) a: b", "W (22) a: b"), ("[  1][D][a.c:1] x", "[ 20][D][a.c:1] x")):
        assert without_uptime(one) == without_uptime(other) != one
    assert without_uptime("call (1)") == "call (1)"


@pytest.mark.parametrize(
    ("rules", "line", "shows"),
    [
        ("wifi:W", "I (1) wifi: x", False),
        ("wifi:W", "E (1) wifi: x", True),
        ("wifi:W", "D (1) boot: x", True),
        ("wifi:N *:V", "E (1) wifi: x", False),
        ("wifi *:E", "V (1) wifi: x", True),
        ("wifi *:E", "W (1) boot: x", False),
        ("e", "W (1) boot: x", True),
        ("E", "W (1) boot: x", False),
        ("*:E", "no log at all", True),
        ("*:N", "no log at all", False),
        ("a:b:w", "W (1) a: x", True),
    ],
)
def test_rules_are_those_of_esp_idfs_monitor(rules: str, line: str, shows: bool) -> None:
    found = parse_rules(rules)
    assert isinstance(found, LevelRules)
    assert found.shows(line) == shows


def test_a_bad_rule_is_named() -> None:
    assert parse_rules("ok:I wifi:X") == "'wifi:X' is no TAG:LEVEL with a level of N, E, W, I, D, V"
    assert str(parse_rules(":I")).startswith("':I' is no TAG:LEVEL")


# --- what is shown ------------------------------------------------------------------------------


def test_lines_as_they_are() -> None:
    assert shown(b"one\r\n  two\n\nthree\n") == "one\n  two\n\nthree\n"


def test_only_lines_that_match_and_not_those_that_are_muted() -> None:
    view = ConsoleView(ViewOptions(show=LinePattern("net"), mute=LinePattern("ping")))
    assert view.feed(AT, 1.0, b"net up\nboot\nnet ping\n") == "net up\n"
    assert view.hidden == 2


def test_a_crash_is_never_hidden_or_folded() -> None:
    crash = b"Guru Meditation Error: Core 0 panic'ed (x)\nsame\nsame\nsame\nRebooting...\n"
    view = ConsoleView(ViewOptions(show=LinePattern("wanted"), mute=LinePattern(".")))
    assert view.feed(AT, 1.0, b"other\n" + crash + b"other\n") == crash.decode()
    assert view.hidden == 2
    trace = b"Backtrace: 0x400d1234:0x3ffb2710\n"
    assert shown(2 * trace, ViewOptions(mute=LinePattern("Back"))) == 2 * trace.decode()


def test_a_crash_without_an_end_ends_with_silence() -> None:
    view = ConsoleView(ViewOptions(mute=LinePattern("chatter")))
    assert view.feed(AT, 1.0, b"abort() was called at PC 0x42000010 on core 0\nchatter\n").count("\n") == 2
    view.quiet(1.0 + QUIET_S)
    assert view.feed(AT, 2.0, b"chatter\n") == "" and view.hidden == 1


def test_repeated_lines_are_folded_and_counted() -> None:
    assert shown(b"a\n" * 17 + b"b\n") == "a\n  (x 17)\nb\n"
    assert shown(b"W (1) wifi: retry\nW (2) wifi: retry\nW (3) wifi: retry\n") == "W (1) wifi: retry\n  (x 3)\n"
    assert shown(b"a\na\n", ViewOptions(fold=False)) == "a\na\n"


def test_a_line_that_goes_on_repeating_is_counted_meanwhile() -> None:
    view = ConsoleView(ViewOptions())
    assert view.feed(AT, 1.0, b"a\na\n") == "a\n"
    assert view.feed(AT, 1.0 + FOLD_TOLD_S / 2, b"a\n") == ""
    assert view.feed(AT, 1.0 + FOLD_TOLD_S, b"a\n") == "  (x 4)\n"
    assert view.quiet(3.1) == "" and view.feed(AT, 3.2, b"a\n") == ""
    assert view.quiet(3.3) == "  (x 5)\n"


def test_an_answer_to_a_person_is_no_repetition() -> None:
    view = ConsoleView(ViewOptions())
    assert view.feed(AT, 1.0, b"pong\n") == "pong\n"
    view.typed()
    assert view.feed(AT, 2.0, b"pong\n") == "pong\n"


def test_instants_are_those_of_the_first_byte_of_a_line() -> None:
    view = ConsoleView(ViewOptions(stamp=lambda at: at))
    assert view.feed("t1", 1.0, b"one\ntw") == "t1 one\n"
    assert view.feed("t2", 2.0, b"o\nthree\n") == "t1 two\nt2 three\n"


def test_a_prompt_is_shown_when_the_board_waits() -> None:
    view = ConsoleView(ViewOptions())
    assert view.feed(AT, 1.0, b"a\nesp> ") == "a\n"
    assert view.quiet(1.1) == "esp> " and view.quiet(1.2) == ""
    view.typed()
    assert view.feed(AT, 2.0, b"done\r\nesp> ") == "done\n"
    assert view.quiet(2.1) == "esp> "
    assert view.interrupt() == "\n" and view.interrupt() == ""
    assert view.feed(AT, 3.0, b"more\n") == "more\n"


def test_what_is_not_wanted_is_not_shown_as_a_prompt_either() -> None:
    view = ConsoleView(ViewOptions(show=LinePattern("esp>")))
    assert view.feed(AT, 1.0, b"chat") + view.quiet(1.1) == ""
    assert view.feed(AT, 2.0, b"ter\nesp>") + view.quiet(2.1) == "esp>"


def test_lost_bytes_end_the_line() -> None:
    view = ConsoleView(ViewOptions())
    view.feed(AT, 1.0, b"begun")
    assert view.quiet(1.1) == "begun"
    assert view.lost() == "\n"
    view.feed(AT, 1.5, b"not shown yet")
    assert view.lost() == "not shown yet\n"
    assert view.feed(AT, 2.0, b"other\n") == "other\n"


# --- hostile boards -----------------------------------------------------------------------------

HOSTILE = [
    (b"\x1b]52;c;ZXZpbA==\x07clipboard", "\\x1b]52;c;ZXZpbA==\\x07clipboard"),
    (b"\x1b[2J\x1b[Hwiped", "\\x1b[2J\\x1b[Hwiped"),
    (b"\x1b]0;title\x1b\\", "\\x1b]0;title\\x1b\\"),
    (b"a\rb\x08\x00\x7f", "a\\rb\\x08\\x00\\x7f"),
    ("\u202edesrever\u200b".encode(), "\\u202edesrever\\u200b"),
    (b"\xff\xfe raw", "\\xff\\xfe raw"),
    (b"\x9b31m8-bit", "\\x9b31m8-bit"),
    (b"##[error]x", "#\\x23[error]x"),
]


@pytest.mark.parametrize(("data", "text"), HOSTILE)
def test_what_steers_a_terminal_is_made_visible(data: bytes, text: str) -> None:
    for options in (ViewOptions(), ViewOptions(colour=True)):
        assert shown(data + b"\n", options) == text + "\n"


def test_colours_end_with_their_line_and_nothing_blinks_or_hides() -> None:
    line = b"\x1b[0;31mE (1) a: b\x1b[0m \x1b[1;4m bold\n"
    assert shown(line) == "E (1) a: b  bold\n"
    assert shown(line, ViewOptions(colour=True)) == "\x1b[0;31mE (1) a: b\x1b[0m \x1b[1;4m bold\x1b[0m\n"
    assert shown(b"\x1b[8mhidden\x1b[05mblink\n", ViewOptions(colour=True)) == "hiddenblink\n"


def test_a_line_of_ten_megabytes_is_cut_and_counted() -> None:
    view = ConsoleView(ViewOptions())
    size = 10 << 20
    for _ in range(size // 65536):
        assert view.feed(AT, 1.0, b"x" * 65536) == ""
    out = view.feed(AT, 1.0, b"\nnext\n")
    assert out == "x" * MAX_LINE + f" ... ({size - MAX_LINE} more bytes)\nnext\n"


PARTS = [
    b"line\n",
    b"line\n",
    b"W (1) a: b\n",
    b"W (2) a: b\n",
    b"\x1b[31mred\x1b[0m\n",
    b"\x1b]52;c;x\x07\n",
    b"\xff\n",
]
PARTS += [b"Guru Meditation Error: x\n", b"Rebooting...\n", "€uro\n".encode(), b"half", b"\r\n"]


def steps(draw: st.DataObject, data: bytes) -> Sequence[bytes]:
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=8).map(sorted))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.lists(st.sampled_from(PARTS), max_size=8), st.data())
def test_nothing_steers_and_every_line_is_shown_or_counted(parts: list[bytes], draw: st.DataObject) -> None:
    """Whatever the chunks are and wherever the board falls silent."""
    data = b"".join(parts) + b"\n"
    view = ConsoleView(ViewOptions(mute=LinePattern("a: b"), colour=True))
    out, now_s = "", 1.0
    for piece in steps(draw, data):
        out += view.feed(AT, now_s, piece)
        if draw.draw(st.booleans()):
            now_s += 0.1
            out += view.quiet(now_s)
    out += view.quiet(now_s + 1)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert all(c.isprintable() or c in "\n\t" for c in plain)
    counted, last = 0, 0
    for line in plain.splitlines():
        if (times := re.fullmatch(r"  \(x (\d+)\)", line)) is not None:
            counted, last = counted + int(times[1]) - last, int(times[1])
        else:
            counted, last = counted + 1, 1
    assert counted + view.hidden == data.count(b"\n")
