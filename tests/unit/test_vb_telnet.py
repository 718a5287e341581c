"""RFC 2217 negotiation: literal bytes as pyserial sends and expects them, cut anywhere, and garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualboard.telnet import Baud, Data, Event, Lines, Purge, Session


def sub(code: int, value: bytes) -> bytes:
    return bytes([255, 250, 44, code]) + value + bytes([255, 240])


def fresh() -> Session:
    session = Session()
    session.outgoing.clear()
    return session


def test_the_server_offers_first_and_does_not_answer_answers() -> None:
    session = Session()
    assert session.outgoing.hex(" ", 3) == "fffb03 fffd03 fffb00 fffd00 fffb2c fffd2c"
    session.outgoing.clear()
    # What pyserial sends: DO ECHO, WILL SGA, DO SGA, DO COM-PORT, WILL COM-PORT
    assert session.feed(bytes.fromhex("fffd01 fffb03 fffd03 fffd2c fffb2c")) == []
    assert session.outgoing.hex() == "fffb01" + sub(107, b"\xb0").hex()
    assert session.negotiated


def test_unknown_options_are_refused_and_agreed_ones_can_be_withdrawn() -> None:
    session = fresh()
    session.feed(bytes.fromhex("fffd18 fffb1f fffe18 fffc1f"))
    assert session.outgoing.hex(" ", 3) == "fffc18 fffe1f"
    session.outgoing.clear()
    session.feed(bytes.fromhex("fffe00 fffe00 fffd00"))
    assert session.outgoing.hex(" ", 3) == "fffc00 fffb00"


@pytest.mark.parametrize(
    ("sent", "answer", "events"),
    [
        (sub(1, b"\x00\x01\xc2\x00"), sub(101, b"\x00\x01\xc2\x00"), [Baud(115_200)]),
        (sub(1, b"\x00\x00\x00\x00"), sub(101, b"\x00\x00\x25\x80"), []),
        (sub(2, b"\x08"), sub(102, b"\x08"), []),
        (sub(3, b"\x01"), sub(103, b"\x01"), []),
        (sub(4, b"\x01"), sub(104, b"\x01"), []),
        (sub(5, b"\x08"), sub(105, b"\x08"), [Lines(True, False)]),
        (sub(5, b"\x0b"), sub(105, b"\x0b"), [Lines(False, True)]),
        (sub(5, b"\x01"), sub(105, b"\x01"), []),
        (sub(5, b"\x07"), sub(105, b"\x09"), []),
        (sub(5, b"\x0a"), sub(105, b"\x0c"), []),
        (sub(5, b"\x00"), sub(105, b"\x01"), []),
        (sub(7, b""), sub(107, b"\xb0"), []),
        (sub(11, b"\xff\xff"), sub(111, b"\xff\xff"), []),
        (sub(12, b"\x01"), sub(112, b"\x01"), [Purge()]),
        (sub(12, b"\x02"), sub(112, b"\x02"), []),
        (sub(0, b""), sub(100, b"virtualboard"), []),
        (sub(1, b"\x01"), b"", []),
        (sub(99, b"\x01"), b"", []),
        (bytes.fromhex("fffa18 00 fff0"), b"", []),
    ],
)
def test_each_command_is_acknowledged_at_once(sent: bytes, answer: bytes, events: list[Event]) -> None:
    session = fresh()
    assert session.feed(sent) == events
    assert bytes(session.outgoing) == answer


def test_data_and_settings_keep_their_order() -> None:
    session = fresh()
    wire = b"ab" + sub(5, b"\x08") + b"c\xff\xffd" + sub(5, b"\x0b") + b"e"
    assert session.feed(wire) == [
        Data(b"ab"),
        Lines(True, False),
        Data(b"c\xffd"),
        Lines(True, True),
        Data(b"e"),
    ]


def test_outgoing_data_is_escaped() -> None:
    session = fresh()
    session.send(b"\xff\x00\xff")
    assert bytes(session.outgoing) == b"\xff\xff\x00\xff\xff"


@given(st.lists(st.integers(0, 40)))
def test_any_cut_gives_the_same_events(cuts: list[int]) -> None:
    wire = (
        b"ab" + sub(5, b"\x08") + b"c\xff\xffd" + bytes.fromhex("fffd2c") + sub(1, b"\x00\x00\xff\xff\xff\xff") + b"e"
    )
    session, events, at = fresh(), list[Event](), 0
    for cut in [*sorted(cuts), len(wire)]:
        events += session.feed(wire[at : max(at, cut)])
        at = max(at, cut)
    text = b"".join(event.data for event in events if isinstance(event, Data))
    assert text == b"abc\xffde"
    assert [event for event in events if not isinstance(event, Data)] == [Lines(True, False), Baud(0xFFFF)]


@given(st.binary(max_size=200))
def test_garbage_is_survived(data: bytes) -> None:
    session = fresh()
    session.feed(data)
    session.feed(b"\xff\xff\xff\xf0")
    assert len(session.outgoing) < 20 * len(data) + 20
