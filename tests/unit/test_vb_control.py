"""The control protocol: both forms of each request, one answer each, and garbage answered like a person's mistake."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualboard.board import Board
from virtualboard.cable import Cable
from virtualboard.chips import CHIPS
from virtualboard.control import HELP, Control
from virtualboard.nor import NorFlash

MAC = "7c:df:a1:00:11:22"


def control(usb: bool = False) -> Control:
    board = Board(CHIPS["esp32c3"], NorFlash(0x10000), MAC, lambda: 5.0, execute=False, usb=usb)
    board.power_on()
    return Control(Cable(board, lambda: 5.0), lambda: "socket://127.0.0.1:1")


def ask(to: Control, line: str | bytes) -> dict[str, Any]:
    answer = to.answer(line if isinstance(line, bytes) else line.encode())
    assert answer.endswith(b"\n") and answer.count(b"\n") == 1
    decoded: dict[str, Any] = json.loads(answer)
    return decoded


@pytest.mark.parametrize("both", ["dtr=1 rts=1", "set rts=1 dtr=1", '{"set": {"dtr": 1, "rts": true}}'])
def test_lines_are_set_at_once_and_what_is_not_named_stays(both: str) -> None:
    to = control()
    assert ask(to, both) == {"ok": True, "mode": "run", "dtr": 1, "rts": 1}
    assert ask(to, "dtr=0") == {"ok": True, "mode": "held in reset", "dtr": 0, "rts": 1}


def test_the_classic_reset_by_hand_enters_download() -> None:
    to = control()
    for line in ("dtr=0 rts=1", "dtr=1 rts=0", "dtr=0"):
        answer = ask(to, line)
    assert answer["mode"] == "download"


@pytest.mark.parametrize("form", ["{}", '{{"{}": true}}', '{{"{}": null}}', '{{"{}": []}}', '{{"{}": {{}}}}'])
def test_buttons(form: str) -> None:
    to = control()
    assert ask(to, form.format("download"))["mode"] == "download"
    assert ask(to, form.format("reset"))["mode"] == "run"


def test_state_says_who_and_where_the_board_is() -> None:
    to = control()
    ask(to, "fault silence:after=9")
    assert ask(to, "state") == {
        "ok": True,
        "mode": "run",
        "dtr": 0,
        "rts": 0,
        "chip": "esp32c3",
        "mac": MAC,
        "serial": "7C:DF:A1:00:11:22",
        "usb": False,
        "port": "socket://127.0.0.1:1",
        "present": True,
        "enumerations": 1,
        "flash": {"size": 0x10000, "file": None},
        "instructions": 0,
        "faults": ["silence:after=9"],
    }


def test_the_digest_is_of_the_flash() -> None:
    to = control()
    expected = {"ok": True, "md5": hashlib.md5(b"\xff" * 0x2000).hexdigest()}
    assert ask(to, "flash-md5 0x1000 8192") == ask(to, '{"flash-md5": [4096, "0x2000"]}') == expected


def test_faults_are_set_listed_and_cleared() -> None:
    to = control()
    assert ask(to, "fault drop:at=5")["faults"] == ["drop:at=5"]
    assert ask(to, '{"fault": "vanish:for=2"}')["faults"] == ["drop:at=5"]  # it struck at once
    assert ask(to, "state")["present"] is False
    assert ask(to, "fault clear")["faults"] == []


def test_a_port_is_present_when_it_has_been_opened_again_and_not_when_it_could_be() -> None:
    now = [5.0]
    board = Board(CHIPS["esp32c3"], NorFlash(0x10000), MAC, lambda: now[0], execute=False)
    cable = Cable(board, lambda: now[0])
    to = Control(cable, lambda: "socket://127.0.0.1:1")
    for enumerations in (2, 3):
        ask(to, "fault vanish:for=2")
        cable.plug_in()
        assert ask(to, "state")["present"] is False, "opened early, and still away"
        ask(to, "fault vanish:for=1")
        now[0] += 2.5
        state = ask(to, "state")
        assert (state["present"], state["enumerations"]) == (False, 2 * enumerations - 1), "back, and not open yet"
        cable.plug_in()
        assert ask(to, "state")["present"] is True


def test_help_names_every_command() -> None:
    listed = ask(control(), "help")["help"]
    assert listed == HELP
    for name in HELP:
        assert not ask(control(), f"{name} x y z").get("error", "").endswith("is not a command")


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("", "the line is empty", "Send help for the list of commands."),
        ("statue", "'statue' is not a command", "Did you mean state?"),
        ("qqqq", "'qqqq' is not a command", "Use one of set, reset, download, state, flash-md5, fault, help."),
        ("dtr=2", "'dtr=2' sets no line", "Write dtr=0, dtr=1, rts=0 or rts=1."),
        ("set", "set names no line", "Write dtr=0, dtr=1, rts=0 or rts=1."),
        ("state now", "state takes nothing", "Send state alone."),
        ("flash-md5 0", "flash-md5 takes an offset and a length", "Write it like flash-md5 0x10000 65536."),
        ("flash-md5 0 -1", "'-1' is not an offset or a length", "Write it like 4096 or 0x1000."),
        ("flash-md5 1 0x10000", "0x10000 bytes at 0x1 leave the flash of 0x10000 bytes", "Give a part inside it."),
        ("fault", "fault takes one fault", "Write it like fault brown-out:write=2, or fault clear."),
        ("fault frost", "'frost' is not a fault", None),
        ('{"set": ', "the line is not JSON", 'Write it like {"set": {"dtr": 0}}, or dtr=0.'),
        ("{}", "the request has 0 keys", 'Give one command each, like {"state": true}.'),
        ('{"fault": 7}', "fault takes one fault", None),
        ('{"set": {"dtr": [1]}}', "'dtr=[1]' sets no line", None),
        ('{"flash-md5": [true, 1]}', "'True' is not an offset or a length", None),
    ],
)
def test_mistakes_are_answered(line: str, error: str, hint: str | None) -> None:
    answer = ask(control(), line)
    assert (answer["ok"], answer["error"]) == (False, error)
    assert answer["hint"] == hint if hint else answer["hint"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(
    st.binary(max_size=80)
    | st.builds(lambda n, v: json.dumps({n: v}).encode(), st.sampled_from(sorted(HELP)), _JSON)
    | st.builds(lambda n, t: f"{n} {t}".encode(), st.sampled_from(sorted(HELP)), st.text(max_size=20))
    | st.just(b"{" + b'"a":{' * 1300)
)
def test_any_line_gets_one_answer(line: bytes) -> None:
    answer = ask(control(), line.replace(b"\n", b" "))
    assert answer["ok"] or answer["hint"]
