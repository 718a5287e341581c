"""What is typed at a monitor: what is for the board, and what is for us."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.keyboard import ANSWER_S, TypedCall, TypedCalls, TypedLines, TypedMistake, TypedReset


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (b"hello\n", b"hello\n"),
        (b'{"jsonrpc":"2.0"}\n', b'{"jsonrpc":"2.0"}\n'),
        (b"/call health\n", TypedCall("health", None)),
        (b"/call echo [1, 2]\r\n", TypedCall("echo", [1, 2])),
        (b"/reset\n", TypedReset()),
        (b"//call health\n", b"/call health\n"),
        (b"/help\n", b"/help\n"),
        (b"/callous x\n", b"/callous x\n"),
        (b"/resets\n", b"/resets\n"),
    ],
)
def test_lines_for_the_board_and_for_us(line: bytes, meant: object) -> None:
    assert TypedLines().feed(line) == [meant]


@pytest.mark.parametrize(
    ("line", "fact"),
    [(b"/call\n", "needs the name"), (b"/call x {\n", "not JSON"), (b"/call x 7\n", "an array or an object")],
)
def test_a_mistake_is_told_and_not_sent(line: bytes, fact: str) -> None:
    (found,) = TypedLines().feed(line)
    assert isinstance(found, TypedMistake) and fact in found.text


def test_a_slash_within_a_line_is_none_of_ours() -> None:
    typed = TypedLines()
    assert typed.feed(b"a") == [b"a"] and typed.feed(b"/call x\n") == [b"/call x\n"]
    assert typed.feed(b"/ca") == [] and typed.feed(b"ll x\n") == [TypedCall("x", None)]
    assert typed.feed(b"/reset") == [] and typed.rest() == [TypedReset()] and typed.rest() == []


@given(st.lists(st.sampled_from([b"a\n", b"/x\n", b"//y\n", b"b", b"\r", b"\n", b"\xff/z\n"]), max_size=8), st.data())
def test_no_byte_for_the_board_is_lost(parts: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(parts)
    cut = draw.draw(st.integers(0, len(data)))
    typed = TypedLines()
    found = [*typed.feed(data[:cut]), *typed.feed(data[cut:]), *typed.rest()]
    whole = TypedLines()
    assert b"".join(item for item in found if isinstance(item, bytes)) == b"".join(
        item for item in [*whole.feed(data), *whole.rest()] if isinstance(item, bytes)
    )
    assert all(isinstance(item, bytes) for item in found)


def sent(request: bytes) -> str:
    return str(json.loads(request)["id"])


def test_answers_by_id_by_reset_and_by_time() -> None:
    calls = TypedCalls("me")
    first, second, third = (sent(calls.ask(TypedCall(name, None), 1.0)) for name in ("one", "two", "three"))
    assert calls.answered({"jsonrpc": "2.0", "id": "somebody-1", "result": 1}, 1.1) is None
    answer = calls.answered({"jsonrpc": "2.0", "id": first, "result": {"a": "\x1b"}}, 1.25)
    assert answer == 'one answered after 250 ms: {\n  "a": "\\u001b"\n}'
    error = {"jsonrpc": "2.0", "id": second, "error": {"code": -1, "message": "\x1b[2J"}}
    assert calls.answered(error, 1.5) == "two answered after 500 ms: error -1 (\\x1b[2J)"
    assert calls.late(1.0 + ANSWER_S - 0.1) == []
    assert calls.late(1.0 + ANSWER_S) == ["three: no answer came within 5000 ms"] and calls.late(99.0) == []
    assert calls.answered({"jsonrpc": "2.0", "id": third, "result": 1}, 9.0) is None, "told already"
    calls.ask(TypedCall("four", None), 10.0)
    assert calls.reset("the board was reset") == ["four: the board was reset"] and calls.late(99.0) == []
