"""SLIP framing: literal bytes, then any payload through any cuts and any noise."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from virtualboard import slip


def test_literal_bytes() -> None:
    assert slip.encode(b"\x01\xc0\x02\xdb\x03") == b"\xc0\x01\xdb\xdc\x02\xdb\xdd\x03\xc0"
    assert slip.SlipDecoder().feed(b"\xc0\x01\xdb\xdc\x02\xdb\xdd\x03\xc0") == [b"\x01\xc0\x02\xdb\x03"]


def test_noise_outside_frames_is_ignored() -> None:
    assert slip.SlipDecoder().feed(b"ets Jul\xdb\xc0a\xc0noise\xc0b\xc0") == [b"a", b"b"]


def test_a_broken_escape_costs_its_frame_only() -> None:
    decoder = slip.SlipDecoder()
    assert decoder.feed(b"\xc0a\xdbb\xc0\xc0c\xdb\xc0\xc0d\xc0") == [b"d"]


def test_an_oversized_frame_is_dropped_and_forgotten() -> None:
    decoder = slip.SlipDecoder(limit=4)
    assert decoder.feed(b"\xc0abcde\xc0\xc0abcd\xc0") == [b"abcd"]
    for _ in range(100):
        assert decoder.feed(b"\xc0" + b"x" * 50) == []
    assert decoder.feed(b"\xc0\xc0ok\xc0") == [b"ok"]


def test_a_flood_without_an_end_is_not_kept() -> None:
    decoder = slip.SlipDecoder(limit=1000)
    decoder.feed(b"\xc0")
    tracemalloc.start()
    for _ in range(1000):
        decoder.feed(b"x" * 1000)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 10_000


@given(
    st.lists(st.tuples(st.binary(max_size=8).map(lambda b: b.replace(b"\xc0", b"")), st.binary(min_size=1))),
    st.lists(st.integers(0, 200)),
)
def test_any_frames_survive_any_cuts_and_noise(frames: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(noise + slip.encode(payload) for noise, payload in frames)
    decoder, got, at = slip.SlipDecoder(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        got += decoder.feed(stream[at : max(at, cut)])
        at = max(at, cut)
    assert got == [payload for _, payload in frames]


@given(st.lists(st.binary(max_size=64)))
def test_any_bytes_give_frames_within_the_limit(pieces: list[bytes]) -> None:
    decoder = slip.SlipDecoder(limit=8)
    assert all(len(frame) <= 8 for piece in pieces for frame in decoder.feed(piece))


def by_the_byte(stream: bytes) -> list[bytes]:
    """SLIP as a state machine over single bytes: slow and plain."""
    frames: list[bytes] = []
    frame: bytearray | None = None
    escaped = broken = False
    for byte in stream:
        if byte == 0xC0:
            if frame is None or (not frame and not escaped and not broken):
                frame = bytearray()
            else:
                if not escaped and not broken:
                    frames.append(bytes(frame))
                frame = None
            escaped = broken = False
        elif frame is None:
            continue
        elif escaped:
            escaped = False
            broken = broken or byte not in (0xDC, 0xDD)
            frame.append(0xC0 if byte == 0xDC else 0xDB)
        elif byte == 0xDB:
            escaped = True
        else:
            frame.append(byte)
    return frames


@given(st.lists(st.sampled_from([0xC0, 0xDB, 0xDC, 0xDD, 0x00, 0x41]), max_size=60), st.integers(0, 60))
def test_any_stream_is_read_as_by_a_state_machine(codes: list[int], cut: int) -> None:
    stream = bytes(codes)
    decoder = slip.SlipDecoder()
    assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == by_the_byte(stream)
