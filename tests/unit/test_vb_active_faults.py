"""What faults do to bytes, to flash and in time, against a slow and obvious model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualboard.active_faults import MAX_FAULTS, ActiveFaults, TooManyFaults, panic_text
from virtualboard.faults import parse_fault
from virtualboard.nor import NorFlash

DATA = bytes(range(1, 201))


def active(*texts: str) -> ActiveFaults:
    out = ActiveFaults(map(parse_fault, texts))
    out.start(100.0)
    return out


def in_pieces(faults: ActiveFaults, to: str, cuts: Sequence[int]) -> bytes:
    edges = [0, *sorted(cuts), len(DATA)]
    return b"".join(faults.line(to, DATA[a:b]) for a, b in pairwise(edges))


def test_no_faults_is_the_identity() -> None:
    faults = active()
    assert faults.line("host", DATA) == DATA
    assert faults.programmed(7, DATA) == [(7, DATA)]
    assert faults.erased(0, 0x3000) == [(0, 0x3000)]
    assert (faults.next_at, faults.strikes(1e9), faults.slow_boot_s(), faults.loops()) == (None, [], 0.0, False)


def test_dropped_and_doubled_bytes_are_those_that_were_named() -> None:
    assert active("drop:at=3,count=2").line("host", DATA[:8]) == bytes([1, 2, 3, 6, 7, 8])
    assert active("duplicate:at=1").line("host", DATA[:3]) == bytes([1, 2, 2, 3])
    assert active("drop:at=3").line("board", DATA) == DATA
    assert active("drop:to=board,at=3").line("board", DATA[:5]) == bytes([1, 2, 3, 5])


def test_garbled_bytes_change_always_and_the_same_seed_garbles_the_same() -> None:
    one, same, other = (active(f"garble:count=200,seed={seed}").line("host", DATA) for seed in (1, 1, 2))
    assert one == same != other
    assert all(a != b for a, b in zip(one, DATA, strict=True))


@given(
    kind=st.sampled_from(["drop", "garble", "duplicate"]),
    at=st.integers(0, 220),
    count=st.integers(1, 30),
    every=st.integers(0, 60),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_where_a_stream_is_cut_does_not_matter(kind: str, at: int, count: int, every: int, cuts: list[int]) -> None:
    every = every and max(every, count)
    text = f"{kind}:at={at},count={count},every={every}"
    whole = active(text).line("host", DATA)
    assert in_pieces(active(text), "host", cuts) == whole
    hit = [i for i in range(len(DATA)) if i >= at and ((i - at) % every if every else i - at) < count]
    if kind == "garble":
        assert [i for i in range(len(DATA)) if whole[i] != DATA[i]] == hit
    else:
        copies = 0 if kind == "drop" else 2
        assert whole == b"".join(bytes([b]) * (copies if i in hit else 1) for i, b in enumerate(DATA))


@pytest.mark.parametrize("kind", ["brown-out", "power-cut", "watchdog"])
def test_a_torn_write_leaves_half_a_sector_and_then_nothing_reaches_the_flash(kind: str) -> None:
    faults, flash = active(f"{kind}:write=2"), NorFlash(0x8000)
    flash.wear = faults
    flash.program(0, bytes(0x1000))
    flash.program(0x1000, bytes(0x4000))
    assert flash.read(0, 0x8000) == bytes(0x1000 + 0x2000 - 128) + b"\xff" * (0x5000 + 128)
    assert [fault.kind for fault in faults.take_struck()] == [kind]
    flash.program(0x7000, b"\x00")
    flash.erase(0, 0x1000)
    assert flash.read(0x7000, 1) == b"\xff" and flash.read(0, 1) == b"\x00"
    faults.dead = False  # the board has power again
    flash.program(0x7000, b"\x00")
    assert flash.read(0x7000, 1) == b"\x00"
    assert faults.take_struck() == [] and faults.texts == []


def test_other_faults_at_a_write_let_it_finish() -> None:
    faults, flash = active("vanish:write=1"), NorFlash(0x1000)
    flash.wear = faults
    flash.program(0, bytes(0x1000))
    assert flash.read(0, 0x1000) == bytes(0x1000)
    assert [fault.kind for fault in faults.take_struck()] == ["vanish"]


@given(
    sectors=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3)), max_size=3),
    offset=st.integers(0, 0x7FFF),
    size=st.integers(0, 0x8000),
)
def test_worn_sectors_keep_what_they_hold(sectors: list[tuple[int, int]], offset: int, size: int) -> None:
    flash = NorFlash(0x8000)
    flash.wear = active(*(f"worn:sector={s * 0x1000 + 5},count={n}" for s, n in sectors))
    size = min(size, 0x8000 - offset)
    flash.program(offset, bytes(size))
    worn = {s + i for s, n in sectors for i in range(n)}
    held = flash.read(0, 0x8000)
    for sector in range(8):
        start = sector * 0x1000
        low, high = max(start, offset), min(start + 0x1000, offset + size)
        expected = bytearray(b"\xff" * 0x1000)
        if sector not in worn and low < high:
            expected[low - start : high - start] = bytes(high - low)
        assert held[start : start + 0x1000] == expected


def test_worn_sectors_are_not_erased() -> None:
    flash = NorFlash(0x8000)
    flash.program(0, bytes(0x8000))
    flash.wear = active("worn:sector=0x2000,count=2")
    flash.erase(0, 0x8000)
    assert flash.read(0, 0x8000) == b"\xff" * 0x2000 + bytes(0x2000) + b"\xff" * 0x4000


def test_strikes_come_at_their_instants_as_often_as_asked() -> None:
    faults = active("watchdog:after=2,times=2", "brown-out:boot=0.5", "vanish:after=3,times=0")
    assert faults.next_at == 102.0
    assert [f.kind for f in faults.strikes(101.9)] == []
    assert [f.kind for f in faults.strikes(102.0)] == ["watchdog"]
    assert [f.kind for f in faults.strikes(104.0)] == ["watchdog", "vanish"]
    assert [f.kind for f in faults.strikes(200.0)] == ["vanish"]
    faults.booted(300.0)
    assert [f.kind for f in faults.strikes(300.5)] == ["brown-out", "vanish"]
    faults.booted(301.0)
    assert [f.kind for f in faults.strikes(302.0)] == []
    assert faults.texts == ["vanish:after=3,times=0"]
    faults.clear()
    assert faults.next_at is None and not faults.texts


def test_slow_boots_and_loops_and_identities() -> None:
    faults = active("slow-boot:by=2,times=1", "slow-boot:by=1", "boot-loop:times=1", "wrong-chip:chip=esp32")
    assert (faults.slow_boot_s(), faults.slow_boot_s()) == (3.0, 1.0)
    assert faults.loops()
    faults.booted(100.0)
    faults.strikes(100.3)
    assert not faults.loops()
    assert faults.identity("esp32c3", "m") == ("esp32", "m")
    assert active("other-mac:mac=7c:df:a1:00:00:01").identity("c", "m") == ("c", "7c:df:a1:00:00:01")


def test_the_number_of_faults_is_bounded() -> None:
    faults = active(*["silence"] * MAX_FAULTS)
    with pytest.raises(TooManyFaults, match=f"has {MAX_FAULTS} faults already\nClear them"):
        faults.add(parse_fault("silence"))


def test_a_panic_prints_the_registers_of_its_architecture() -> None:
    fault = parse_fault("panic:pc=0x42001234,ra=0x42005678")
    riscv = panic_text(fault, riscv=True, sp=0x3FC8F2F0).decode()
    assert riscv.startswith("Guru Meditation Error: Core  0 panic'ed (Load access fault).")
    assert "MEPC    : 0x42001234  RA      : 0x42005678" in riscv and "Stack memory:\r\n3fc8f2f0: " in riscv
    xtensa = panic_text(fault, riscv=False, sp=0x3FFB2710).decode()
    assert "\r\nBacktrace: 0x42001234:0x3ffb2710 0x42005678:0x3ffb2730\r\n" in xtensa
    assert riscv.endswith("Rebooting...\r\n") and xtensa.endswith("Rebooting...\r\n")
