"""otadata: the bytes that ESP-IDF and Arduino ship, the bootloader's choice, and damage."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.otadata import NO_SEQUENCE, SIZE, OtaState, active_entry, encode, entries, select, sequence_crc

SECTOR = 0x1000


def entry(sequence: int, state: int = 0xFFFFFFFF, crc: int | None = None) -> bytes:
    crc = sequence_crc(sequence) if crc is None else crc
    return struct.pack("<I", sequence) + b"\xff" * 20 + struct.pack("<II", state, crc)


def otadata(first: bytes = b"", second: bytes = b"") -> bytes:
    return first.ljust(SECTOR, b"\xff") + second.ljust(SECTOR, b"\xff")


def test_the_bytes_for_slot_0_are_those_of_boot_app0() -> None:
    expected = bytes.fromhex("01000000" + "ff" * 20 + "ffffffff" + "9a984347") + b"\xff" * (SIZE - 32)
    assert encode(0, 2) == expected


def test_the_bytes_for_slot_1() -> None:
    assert encode(1, 2)[:32] == bytes.fromhex("02000000" + "ff" * 20 + "ffffffff" + "7437f655")


@given(st.integers(1, 16).flatmap(lambda slots: st.tuples(st.integers(0, slots - 1), st.just(slots))))
def test_what_was_encoded_is_selected(case: tuple[int, int]) -> None:
    slot, slots = case
    data = encode(slot, slots)
    assert len(data) == SIZE
    assert select(data, slots) == slot


@pytest.mark.parametrize(("slot", "slots"), [(-1, 2), (2, 2), (0, 0)])
def test_a_slot_that_does_not_exist_is_refused(slot: int, slots: int) -> None:
    with pytest.raises(ValueError, match=f"slot {slot} of {slots}"):
        encode(slot, slots)


@pytest.mark.parametrize("data", [b"", b"\xff" * SIZE, b"\0" * SIZE, b"\xff" * 31])
def test_erased_zeroed_or_missing_data_selects_nothing(data: bytes) -> None:
    assert select(data, 2) is None


@given(first=st.integers(0, NO_SEQUENCE), second=st.integers(0, NO_SEQUENCE), slots=st.integers(1, 16))
def test_the_larger_sequence_wins_modulo_the_slots(first: int, second: int, slots: int) -> None:
    usable = [sequence for sequence in (first, second) if sequence != NO_SEQUENCE]
    expected = (max(usable) - 1) % 2**32 % slots if usable else None
    assert select(otadata(entry(first), entry(second)), slots) == expected


@pytest.mark.parametrize("state", [OtaState.NEW, OtaState.PENDING_VERIFY, OtaState.VALID, OtaState.UNDEFINED, 77])
def test_states_that_boot(state: int) -> None:
    assert select(otadata(entry(1), entry(2, state)), 2) == 1


@pytest.mark.parametrize("state", [OtaState.INVALID, OtaState.ABORTED])
def test_a_rejected_image_gives_way_to_the_other_entry(state: OtaState) -> None:
    assert select(otadata(entry(1), entry(2, state)), 2) == 0
    assert select(otadata(entry(2, state)), 2) is None


def test_a_wrong_crc_gives_way_to_the_other_entry() -> None:
    assert select(otadata(entry(5), entry(6, crc=0)), 2) == 0
    assert select(otadata(entry(6, crc=0)), 2) is None


@given(st.integers(0, SIZE * 8 - 1))
def test_one_flipped_bit_never_selects_another_slot(bit: int) -> None:
    damaged = bytearray(encode(1, 2))
    damaged[bit // 8] ^= 1 << bit % 8
    assert select(bytes(damaged), 2) in (1, None)


@pytest.mark.parametrize("size", [*range(0, 40), SECTOR, SECTOR + 31, SECTOR + 32])
def test_cut_data_selects_from_the_entries_that_are_whole(size: int) -> None:
    data = otadata(entry(1), entry(2))[:size]
    assert select(data, 2) == (1 if size >= SECTOR + 32 else 0 if size >= 32 else None)


def test_equal_sequences_take_the_first_and_no_slots_select_nothing() -> None:
    data = otadata(entry(3, OtaState.VALID), entry(3, OtaState.NEW))
    active = active_entry(data)
    assert active is not None and active.state == OtaState.VALID
    assert select(data, 0) is None


def test_sequence_0_wraps_as_in_the_bootloader() -> None:
    assert 0xFFFFFFFF % 7 == 3
    assert select(otadata(entry(0)), 7) == 3


def test_entries_show_both_sectors() -> None:
    found = entries(otadata(entry(7, OtaState.PENDING_VERIFY), entry(8, crc=1)))
    assert [(e.sequence, e.state, e.crc_ok, e.usable) for e in found] == [
        (7, 1, True, True),
        (8, 0xFFFFFFFF, False, False),
    ]
