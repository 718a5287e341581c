"""The frames of the service: literal bytes, every cut, damage, and values that cross unchanged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.protocol import (
    MAX_BODY,
    Channel,
    ConsoleChunk,
    ConsoleNote,
    DeviceRef,
    FrameReader,
    Holder,
    Message,
    NoteKind,
    ProtocolError,
    decode_entry,
    decode_failure,
    encode,
    encode_entry,
    encode_failure,
    encode_verdict,
    prefix,
    read_fields,
)
from pipeline.failures import fail
from pipeline.model import FailureCategory, Stage

BAUD = b"\x01\x00\x00\x00\x1f\x00\x00\x00\x02" + b'{"is":"baud","n":7,"baud":9600}' + b"xy"


def test_literal_frame() -> None:
    assert encode(Message.BAUD, b"xy", n=7, baud=9600) == BAUD
    (frame,) = FrameReader().feed(BAUD)
    assert (frame.message, frame.header["baud"], frame.body) == ("baud", 9600, b"xy")


def test_literal_verdict() -> None:
    wire = b"\x02\x00\x00\x00\x03\x00\x00\x00\x01" + b"a\0b" + b"!"
    assert encode_verdict(b"a", b"b", body=b"!") == wire
    (frame,) = FrameReader().feed(wire)
    assert (frame.message, frame.header["fields"], frame.body) == ("", [b"a", b"b"], b"!")


@given(st.lists(st.integers(1, 40), max_size=10))
def test_cuts_do_not_matter(cuts: list[int]) -> None:
    wire = BAUD * 3
    reader, frames, place = FrameReader(), [], 0
    for cut in [*cuts, len(wire)]:
        frames += reader.feed(wire[place : place + cut])
        place += cut
    frames += reader.feed(wire[place:])
    assert [frame.header["n"] for frame in frames] == [7, 7, 7]
    assert reader.pending == 0


@given(st.integers(0, len(BAUD) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_no_traceback(place: int, flip: int) -> None:
    damaged = BAUD[:place] + bytes([BAUD[place] ^ flip]) + BAUD[place + 1 :]
    try:
        frames = FrameReader().feed(damaged)
    except ProtocolError:
        return
    assert len(frames) <= 1


@pytest.mark.parametrize(
    "wire",
    [
        prefix(3, 2, 0) + b"{}",
        prefix(1, 0xFFFFFFFF, 0),
        prefix(1, 2, MAX_BODY + 1) + b"{}",
        prefix(1, 2, 0) + b"[]",
        prefix(1, 2, 0) + b"\xff\xff",
        prefix(1, 200_000, 0) + b"[" * 200_000,
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_what_is_no_frame(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(wire)


def test_no_frame_is_buffered_beyond_its_size() -> None:
    reader = FrameReader()
    assert reader.feed(BAUD[:-1]) == []
    assert reader.pending == len(BAUD) - 1


@pytest.mark.parametrize(
    "entry",
    [
        ConsoleChunk(3, "2026-11-29T08:00:00.000Z", 1.5, 10, Channel.LOADER, b"\x00\xff"),
        ConsoleNote(4, "2026-11-29T08:00:00.000Z", 1.5, NoteKind.PREEMPTED, "preempted", "tx-20261129-080000-abcd"),
    ],
)
def test_entries_cross_unchanged(entry: ConsoleChunk | ConsoleNote) -> None:
    (frame,) = FrameReader().feed(encode_entry(entry))
    assert decode_entry(frame) == entry


def test_a_failure_crosses_unchanged() -> None:
    failure = fail(FailureCategory.PORT_BUSY, stage=Stage.VERIFY_FLASH, where="device a on b", message="in use")
    (frame,) = FrameReader().feed(encode_failure(failure))
    assert decode_failure(frame) == failure


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (DeviceRef, {"root": "/p", "name": "a", "chip": "esp32c3"}),
        (DeviceRef, {"root": "/p", "name": "a", "chip": "esp32c3", "port": 7}),
        (Holder, {"pid": True, "command": "x"}),
        (Holder, {"pid": "1", "command": "x"}),
    ],
)
def test_fields_are_checked(kind: type, header: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        read_fields(kind, header)


def test_unknown_fields_are_ignored() -> None:
    assert read_fields(Holder, {"pid": 1, "command": "x", "later": 2}) == Holder(1, "x")


def test_a_member_that_is_none() -> None:
    entry = ConsoleChunk(1, "at", 0.0, 0, Channel.CONSOLE, b"")
    (frame,) = FrameReader().feed(encode_entry(entry))
    with pytest.raises(ProtocolError):
        decode_entry(frame._replace(header={**frame.header, "channel": "sideways"}))
