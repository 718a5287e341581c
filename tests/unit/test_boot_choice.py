"""Otadata by its meaning: does a board with it start what is wanted, now and later?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flash.boot_choice import starts_wanted
from pipeline.flash_model import Partition
from pipeline.formats.otadata import OtaState, encode, erased, select
from pipeline.formats.partitions import boot_row
from tests.unit.test_otadata import entry, otadata

OTADATA = Partition("otadata", 1, 0, 0xE000, 0x2000)
OTA_0 = Partition("ota_0", 0, 0x10, 0x10000, 0x40000)
OTA_1 = Partition("ota_1", 0, 0x11, 0x50000, 0x40000)
FACTORY = Partition("factory", 0, 0, 0x90000, 0x40000)
SLOTS = (OTADATA, OTA_0, OTA_1)
RESCUE = (OTADATA, FACTORY, OTA_0, OTA_1)
LASTING = [OtaState.VALID, OtaState.UNDEFINED]
PASSING = [OtaState.NEW, OtaState.PENDING_VERIFY, OtaState.INVALID, OtaState.ABORTED, 77]


@pytest.mark.parametrize("state", LASTING)
def test_our_slot_in_a_state_that_lasts_is_ours(state: int) -> None:
    for table in (SLOTS, RESCUE):
        assert starts_wanted(table, otadata(entry(2, 0), entry(3, state)), encode(0, 2))
        assert starts_wanted(table, otadata(entry(4, state), entry(1)), encode(1, 2))
        assert not starts_wanted(table, otadata(entry(2, state)), encode(0, 2)), "the other slot"
        assert not starts_wanted(table, otadata(entry(1, state), entry(2, state)), encode(0, 2))
    assert not starts_wanted(RESCUE, otadata(entry(1, state)), erased()), "factory would not start"
    assert starts_wanted(SLOTS, otadata(entry(1, state)), erased()), "a bootloader makes this of erased otadata"


@pytest.mark.parametrize("state", PASSING)
def test_our_slot_in_a_state_that_passes_is_not_ours(state: int) -> None:
    for table in (SLOTS, RESCUE):
        assert not starts_wanted(table, otadata(entry(1, state)), encode(0, 2))
        assert not starts_wanted(table, otadata(entry(2), entry(3, state)), encode(0, 2))
    assert not starts_wanted(SLOTS, otadata(entry(1, state)), erased())


@pytest.mark.parametrize("state", [OtaState.INVALID, OtaState.ABORTED])
def test_a_rejected_update_leaves_factory_as_it_is(state: int) -> None:
    assert starts_wanted(RESCUE, otadata(entry(1, state), entry(2, state)), erased())
    assert not starts_wanted(RESCUE, otadata(entry(1, OtaState.NEW)), erased())


def test_erased_otadata_starts_factory_and_is_no_choice_of_a_slot() -> None:
    assert starts_wanted(RESCUE, erased(), erased()) and starts_wanted(SLOTS, erased(), erased())
    assert not starts_wanted(SLOTS, erased(), encode(0, 2))
    assert not starts_wanted(SLOTS, otadata(entry(1, crc=0)), encode(0, 2))


STATES = st.sampled_from([*LASTING, *PASSING])
ENTRIES = st.one_of(st.just(b""), st.builds(entry, st.integers(0, 6), STATES), st.just(entry(1, crc=0)))


@given(ENTRIES, ENTRIES, st.sampled_from([SLOTS, RESCUE]), st.sampled_from([erased(), encode(0, 2), encode(1, 2)]))
def test_what_is_ours_starts_the_wanted_row_even_after_a_roll_back(
    first: bytes, second: bytes, table: tuple[Partition, ...], wanted: bytes
) -> None:
    found = otadata(first, second)
    row = boot_row(table, select(wanted, 2))
    if starts_wanted(table, found, wanted):
        assert boot_row(table, select(found, 2)) == row
        # The next reset: what was pending is aborted, what was new is pending; and the one after that.
        for old, new in ((1, 4), (0, 1), (1, 4)):
            aged = bytearray(found)
            for at in (0, 0x1000):
                if aged[at + 24 : at + 28] == old.to_bytes(4, "little"):
                    aged[at + 24 : at + 28] = new.to_bytes(4, "little")
            found = bytes(aged)
            assert boot_row(table, select(found, 2)) == row
