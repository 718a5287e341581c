"""The device journal: its bytes, every cell of the transition table, damage."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.digest import Digest
from pipeline.flash.journal import (
    JOURNAL_HEADER,
    DeviceState,
    JournalImage,
    begin,
    commit,
    decode_journal,
    replay,
    written,
)
from pipeline.flash_model import Image
from pipeline.records import decode_records

AT = "2026-11-21T00:00:00.000Z"


def image(name: str, offset: int, size: int = 0x800, mark: str = "a") -> Image:
    return Image(name, name, offset, size, 0x10000, f"build/{name}.bin", Digest(mark * 64, size), mark * 32)


APP, BOOT = image("app", 0x10000), image("bootloader", 0x0)


def state_of(*lines: bytes) -> DeviceState:
    state, _ = decode_journal(JOURNAL_HEADER + b"".join(lines))
    return state


def whole(tx: str, *images: Image) -> list[bytes]:
    return [begin(tx, AT, images), *(written(tx, i.name) for i in images), commit(tx)]


def names(state: DeviceState) -> set[str]:
    """Regions that are believed."""
    return {name for name in state.committed if state.believed(name)}


# --- format -----------------------------------------------------------------------------------


def test_the_format_is_these_bytes() -> None:
    assert JOURNAL_HEADER == b"hotplate-device-journal 1\n"
    assert written("tx-1", "app") == b'e4594c42\t{"name":"app","record":"written","tx":"tx-1"}\n'
    assert commit("tx-1").endswith(b'\t{"record":"commit","tx":"tx-1"}\n')
    images = b'[{"md5":"%s","name":"app","offset":65536,"sha256":"%s","size":2048}]' % (b"a" * 32, b"a" * 64)
    text = b'\t{"at":"2026-11-21T00:00:00.000Z","images":' + images + b',"record":"begin","tx":"tx-1"}\n'
    assert begin("tx-1", AT, [APP]).endswith(text)


# --- what is believed -------------------------------------------------------------------------


def test_an_empty_journal_believes_nothing() -> None:
    assert decode_journal(b"") == (DeviceState(), 0)
    assert decode_journal(JOURNAL_HEADER) == (DeviceState(), len(JOURNAL_HEADER))
    assert DeviceState().believed("app") is None


def test_a_committed_transaction_is_believed() -> None:
    state = state_of(*whole("tx-1", BOOT, APP))
    assert state.believed("app") == JournalImage("app", 0x10000, 0x800, "a" * 64, "a" * 32)
    assert (names(state), state.open, state.note) == ({"app", "bootloader"}, None, None)


@pytest.mark.parametrize("lines", range(1, 3))
def test_an_open_transaction_makes_its_regions_unknown(lines: int) -> None:
    newer = image("app", 0x10000, mark="b")
    state = state_of(*whole("tx-1", BOOT, APP), *whole("tx-2", newer)[:lines])
    assert names(state) == {"bootloader"}
    assert state.unknown == {"app"}
    assert state.committed["app"].sha256 == "a" * 64, "still the reference for a delta"
    assert state.open is not None
    assert (state.open.tx, state.open.written) == ("tx-2", {"app"} if lines == 2 else frozenset())


def test_a_later_transaction_heals_what_one_left_open() -> None:
    newer = image("app", 0x10000, mark="b")
    state = state_of(*whole("tx-1", BOOT, APP), begin("tx-2", AT, [newer]), *whole("tx-3", newer))
    assert names(state) == {"app", "bootloader"}
    assert (state.committed["app"].sha256, state.unknown, state.open) == ("b" * 64, frozenset(), None)


def test_a_transaction_left_open_stays_unknown_although_another_region_is_committed() -> None:
    state = state_of(*whole("tx-1", BOOT, APP), begin("tx-2", AT, [APP]), *whole("tx-3", BOOT))
    assert names(state) == {"bootloader"}
    assert state.unknown == {"app"}


def test_an_explicit_target_records_only_what_it_did() -> None:
    newer = image("app", 0x10000, mark="b")
    state = state_of(*whole("tx-1", BOOT, APP), *whole("tx-2", newer))
    assert state.committed["bootloader"].sha256 == "a" * 64
    assert state.committed["app"].sha256 == "b" * 64


def test_a_commit_believes_only_what_was_written() -> None:
    state = state_of(begin("tx-1", AT, [BOOT, APP]), written("tx-1", "app"), commit("tx-1"))
    assert names(state) == {"app"}
    assert state.unknown == {"bootloader"}


def test_a_region_that_is_written_over_under_another_name_is_not_believed() -> None:
    # Same sector, not one byte in common: erasing for the one destroys the other.
    low, high = image("app", 0x10000, 0x100), image("other", 0x10800, 0x100)
    begun = state_of(*whole("tx-1", low), begin("tx-2", AT, [high]))
    assert begun.unknown == {"app", "other"}
    done = state_of(*whole("tx-1", low), *whole("tx-2", high))
    assert names(done) == {"other"}
    assert done.believed("app") is None
    beside = image("other", 0x11000, 0x100)
    assert names(state_of(*whole("tx-1", low), *whole("tx-2", beside))) == {"app", "other"}


# --- every cell of the table ------------------------------------------------------------------

STARTS: dict[str, list[bytes]] = {"idle": whole("tx-0", BOOT), "open": [*whole("tx-0", BOOT), begin("tx-1", AT, [APP])]}
RECORDS: dict[str, bytes] = {
    "begin": begin("tx-2", AT, [APP]),
    "written": written("tx-1", "app"),
    "written of another tx": written("tx-9", "app"),
    "written of no image of it": written("tx-1", "bootloader"),
    "commit": commit("tx-1"),
    "commit of another tx": commit("tx-9"),
}
FITS = {("idle", "begin"): "open", ("open", "begin"): "open", ("open", "written"): "open", ("open", "commit"): "idle"}


@pytest.mark.parametrize(("start", "record"), list(product(STARTS, RECORDS)))
def test_every_transition(start: str, record: str) -> None:
    data = JOURNAL_HEADER + b"".join(STARTS[start]) + RECORDS[record]
    state, good = decode_journal(data)
    after = FITS.get((start, record))
    if after is None:
        number, kind = len(STARTS[start]) + 1, record.partition(" ")[0]
        assert state.note == f"hotplate-device-journal: record {number} ({kind}) does not fit; verifying all regions"
        assert (names(state), state.open, good) == (set(), None, 0)
    else:
        assert state.note is None
        assert good == len(data)
        assert ("open" if state.open else "idle") == after
        assert names(state) == {"bootloader"}
        assert "app" in state.unknown


# --- damage -----------------------------------------------------------------------------------

JOURNAL = JOURNAL_HEADER + b"".join([*whole("tx-1", BOOT, APP), *whole("tx-2", image("app", 0x10000, mark="b"))])


def test_cut_anywhere_it_never_believes_what_a_write_under_way_touches() -> None:
    for size in range(len(JOURNAL) + 1):
        state, good = decode_journal(JOURNAL[:size])
        assert state.note is None
        assert good <= size
        assert JOURNAL[:good].endswith(b"\n") or good == 0
        if state.open is not None:
            assert not names(state) & {i.name for i in state.open.images}


def test_a_flipped_byte_forgets_everything() -> None:
    for index in range(len(JOURNAL) - 1):
        for flip in (0x01, 0x20, 0x80):
            bad = bytearray(JOURNAL)
            bad[index] ^= flip
            state, good = decode_journal(bytes(bad))
            assert (names(state), state.open, good) == (set(), None, 0), (index, flip)
            assert state.note is not None
            assert state.note.endswith("verifying all regions") or "starting over" in state.note


@settings(deadline=None)
@given(st.lists(st.sampled_from([*RECORDS.values(), *STARTS["open"]]), max_size=12))
def test_any_order_of_records_is_survived_and_open_regions_are_never_believed(lines: Sequence[bytes]) -> None:
    records = decode_records(JOURNAL_HEADER + b"".join(lines), "hotplate-device-journal", 1).records
    state = replay(records)
    assert not names(state) & state.unknown
    if state.open is not None:
        assert {i.name for i in state.open.images} <= state.unknown


TEXT_OFFSET = {"name": "a", "offset": "0", "size": 1, "sha256": "", "md5": ""}


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"record": "begin"},
        {"record": "begin", "tx": "t", "at": "", "images": 7},
        {"record": "begin", "tx": "t", "at": "", "images": [7]},
        {"record": "begin", "tx": "t", "at": "", "images": [{"name": "app"}]},
        {"record": "begin", "tx": "t", "at": "", "images": [TEXT_OFFSET]},
        {"record": "lunch", "tx": "t"},
    ],
)
def test_a_whole_record_of_the_wrong_shape_does_not_fit(record: dict[str, object]) -> None:
    state = replay([record])
    assert state.note is not None
    assert "record 1" in state.note
    assert names(state) == set()
