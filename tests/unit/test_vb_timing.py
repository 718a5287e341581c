"""Timing profiles: what each operation costs, and overrides that are read or refused with a hint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualboard.timing import INSTANT, PROFILES, BadTiming, Timing, parse_timing


def test_the_profiles_have_the_names_that_configurations_use() -> None:
    assert list(PROFILES) == ["instant", "esp32-uart", "esp32s3-uart", "esp32s3-usb", "esp32c3-usb"]
    assert PROFILES["instant"] is INSTANT


def test_instant_takes_no_time_but_what_the_electrical_model_needs() -> None:
    free = {key: value for key, value in INSTANT._asdict().items() if value}
    assert free == {"strap_delay_s": 0.002, "strap_timeout_s": 0.25, "jump_s": 0.002}


def test_the_published_md5_speeds() -> None:
    # fbuild issue 66: 2.4 MB in about 1 s on USB. ESPConnect issue 52: 7 MB in about 40 s on a UART.
    assert 2_400_000 * PROFILES["esp32s3-usb"].md5_byte_s == pytest.approx(1.0, rel=0.05)
    assert 7_000_000 * PROFILES["esp32s3-uart"].md5_byte_s == pytest.approx(40, rel=0.05)


@pytest.mark.parametrize(
    ("offset", "size", "sectors", "blocks"),
    [
        (0, 0x1000, 1, 0),
        (0x1000, 0xF000, 15, 0),
        (0, 0x10000, 0, 1),
        (0xF000, 0x22000, 2, 2),
        (0x8000, 0x10000, 16, 0),
        (0x10000, 0, 0, 0),
    ],
)
def test_aligned_blocks_are_erased_in_one_go(offset: int, size: int, sectors: int, blocks: int) -> None:
    timing = Timing(erase_sector_s=1.0, erase_block_s=1000.0)
    assert timing.erase_s(offset, size) == sectors + 1000 * blocks
    assert Timing(erase_sector_s=1.0).erase_s(offset, size) == size // 0x1000


def test_a_byte_takes_ten_bits_where_it_is_paced_and_the_lines_share_on_usb() -> None:
    assert PROFILES["esp32-uart"].byte_s(115_200) == 10 / 115_200
    assert PROFILES["esp32-uart"].byte_s(0) == 10
    assert PROFILES["esp32c3-usb"].byte_s(115_200) == PROFILES["esp32c3-usb"].byte_s(9600) == 1 / 500_000
    assert INSTANT.byte_s(300) == 0.0


def test_overrides_replace_single_times() -> None:
    timing = parse_timing("esp32s3-usb,md5_s_per_mb=0.6,latency_s=0.016")
    assert timing == PROFILES["esp32s3-usb"]._replace(md5_s_per_mb=0.6, latency_s=0.016)
    assert parse_timing("instant") is INSTANT or parse_timing("instant") == INSTANT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("esp32s3", "'esp32s3' is not a timing profile\nDid you mean esp32s3-usb?"),
        ("", "'' is not a timing profile\nChoose one of instant, esp32-uart, esp32s3-uart, esp32s3-usb, esp32c3-usb."),
        ("instant,latency=1", "'latency' is not a time of profile instant\nDid you mean latency_s?"),
        ("instant,zzz=1", "'zzz' is not a time of profile instant\nChoose one of strap_delay_s, strap_timeout_s, "),
        ("instant,rom_s=-1", "rom_s=-1 is not a number from 0 to 3600\nWrite it like rom_s=0.016."),
        ("instant,rom_s=nan", "rom_s=nan is not a number from 0 to 3600\n"),
        ("instant,rom_s", "rom_s= is not a number"),
    ],
)
def test_wrong_timings_are_named(text: str, message: str) -> None:
    with pytest.raises(BadTiming) as caught:
        parse_timing(text)
    assert str(caught.value).startswith(message)


@given(st.text(max_size=40) | st.builds("instant,{}={}".format, st.sampled_from(Timing._fields), st.text(max_size=8)))
def test_any_text_is_a_timing_or_a_message(text: str) -> None:
    try:
        timing = parse_timing(text)
    except BadTiming as bad:
        assert "\n" in str(bad)
    else:
        assert all(0 <= value <= 1e9 for value in timing)
