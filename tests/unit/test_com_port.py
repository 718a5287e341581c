"""RFC 2217's server side by literal bytes, and what a client's lines mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.com_port import (
    MAX_SUBNEGOTIATION,
    ComBaud,
    ComBytes,
    ComLines,
    ComPortSession,
    ComPurge,
)
from pipeline.service.line_intent import LineIntent, LineMeaning

OFFER = bytes.fromhex("fffb03fffd03 fffb00fffd00 fffb2cfffd2c")
WILL_COM_PORT = bytes.fromhex("fffb2c")
READY = bytes.fromhex("fffa2c6bb0fff0")
"""NOTIFY-MODEMSTATE: CTS, DSR and CD."""


def session() -> ComPortSession:
    made = ComPortSession(b"hotplate")
    assert made.outgoing == OFFER
    made.outgoing.clear()
    return made


def answer(made: ComPortSession, data: bytes) -> bytes:
    assert made.feed(data) == []
    out = bytes(made.outgoing)
    made.outgoing.clear()
    return out


def test_options_are_agreed_on_without_a_circle() -> None:
    made = session()
    assert answer(made, WILL_COM_PORT) == READY and made.negotiated
    assert answer(made, WILL_COM_PORT + bytes.fromhex("fffd2c")) == b"", "it was offered: an answer to an answer"
    assert answer(made, bytes.fromhex("fffd01")) == bytes.fromhex("fffb01"), "echo, by us"
    assert answer(made, bytes.fromhex("fffd01")) == b""
    assert answer(made, bytes.fromhex("fffb18")) == bytes.fromhex("fffe18"), "no terminal type"
    assert answer(made, bytes.fromhex("fffd18fffe18fffc18")) == bytes.fromhex("fffc18")
    assert answer(made, bytes.fromhex("fffe00")) == bytes.fromhex("fffc00")


def test_bytes_are_escaped_both_ways_and_keep_their_place() -> None:
    made = session()
    baud = bytes.fromhex("fffa2c01 0001c200 fff0")
    events = made.feed(b"ab\xff\xffc" + baud + b"d")
    reply = bytes.fromhex("fffa2c65 0001c200 fff0")
    assert events == [ComBytes(b"ab\xffc"), ComBaud(115200, reply), ComBytes(b"d")]
    assert made.outgoing == b"", "it is not made yet"
    made.acknowledge(reply)
    assert made.outgoing == reply
    assert made.encoded(b"\xff\x00\xff") == b"\xff\xff\x00\xff\xff"


def test_a_rate_with_ff_in_it_is_escaped() -> None:
    (event,) = session().feed(bytes.fromhex("fffa2c01 0000ffffffff fff0"))
    assert event == ComBaud(0xFFFF, bytes.fromhex("fffa2c65 0000ffffffff fff0"))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("00", "64" + b"hotplate".hex()),
        ("0100000000", "650001c200"),
        ("0208", "6608"),
        ("0200", "6608"),
        ("0303", "6703"),
        ("0402", "6802"),
        ("0500", "6901"),
        ("0503", "6903"),
        ("0504", "6906"),
        ("0505", "6906"),
        ("0507", "6909"),
        ("050a", "690c"),
        ("07", "6bb0"),
        ("0a1f", "6e1f"),
        ("0bff ff", "6fffff"),
        ("0c02", "7002"),
    ],
)
def test_what_concerns_no_board_is_answered_at_once(asked: str, answered: str) -> None:
    sent = bytes.fromhex(f"fffa2c{asked}fff0")
    assert answer(session(), sent) == bytes.fromhex(f"fffa2c{answered}fff0")


def test_lines_and_purges_wait_for_the_port() -> None:
    made = session()
    events = made.feed(bytes.fromhex("fffa2c0508fff0 fffa2c050bfff0 fffa2c0509fff0 fffa2c0c03fff0"))
    assert [(e.dtr, e.rts) for e in events if isinstance(e, ComLines)] == [(True, False), (True, True), (False, True)]
    assert events[3] == ComPurge(bytes.fromhex("fffa2c7003fff0"))
    assert made.outgoing == b""


def test_a_client_may_want_no_data_for_a_while() -> None:
    made = session()
    assert answer(made, bytes.fromhex("fffa2c08fff0")) == b"" and made.suspended
    assert answer(made, bytes.fromhex("fffa2c09fff0")) == b"" and not made.suspended


@given(
    st.lists(st.sampled_from([b"\xff", b"\xfa", b"\xf0", b",", b"\x01", b"\x05", b"\xfb", b"\x00", b"x" * 300])),
    st.data(),
)
def test_any_bytes_in_any_chunks(parts: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(parts)
    whole = session()
    expected = whole.feed(data)
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=5).map(sorted))
    made = session()
    found = [e for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) for e in made.feed(data[a:b])]
    plain = b"".join(e.data for e in found if isinstance(e, ComBytes))
    assert plain == b"".join(e.data for e in expected if isinstance(e, ComBytes))
    assert [e for e in found if not isinstance(e, ComBytes)] == [e for e in expected if not isinstance(e, ComBytes)]
    assert made.outgoing == whole.outgoing
    assert len(made._command or b"") <= MAX_SUBNEGOTIATION


# --- lines --------------------------------------------------------------------------------------


def meanings(*lines: str) -> list[LineMeaning]:
    """Of `dr`, `d`, `r` and ``: which are asserted."""
    intent = LineIntent()
    return [found for one in lines if (found := intent.wants("d" in one, "r" in one)) is not None]


def test_a_flasher_over_a_network_gets_from_reset_to_the_boot_pin() -> None:
    """esptool's ClassicReset, as pyserial sends it: each line by itself."""
    assert meanings("", "r", "dr", "d", "") == [LineMeaning.RESET, LineMeaning.BOOT_PIN, LineMeaning.REST]


def test_a_reset_into_the_application() -> None:
    assert meanings("r", "") == [LineMeaning.RESET, LineMeaning.REST]


def test_opening_and_closing_a_port_does_nothing() -> None:
    """pyserial asserts DTR, then RTS; a terminal that ends may release them in any order."""
    assert meanings("d", "dr", "d", "") == []
    assert meanings("d", "dr", "r", "") == [LineMeaning.RESET, LineMeaning.REST], "RTS alone is a reset on any wire"


def test_both_in_reset_are_given_up_in_the_end() -> None:
    intent = LineIntent()
    assert intent.wants(False, True) is LineMeaning.RESET
    assert intent.wants(True, True) is None and intent.held
    assert intent.give_up() is LineMeaning.REST and intent.give_up() is None
