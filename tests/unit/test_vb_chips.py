"""Chip data: efuse words as esptool decodes them, and the efuse registers' addresses."""

from __future__ import annotations

import pytest

from virtualboard.bus import Bus
from virtualboard.chips import (
    CHIPS,
    VIRGIN,
    Security,
    UnknownMac,
    UnknownSecurity,
    burnt,
    efuse_words,
    parse_mac,
)
from virtualboard.nor import NorFlash


def test_esp32c3_efuses_are_mac_and_revision_0_4() -> None:
    words = efuse_words(CHIPS["esp32c3"], "7c:df:a1:00:11:22")
    assert words == {0x60008844: 0xA1001122, 0x60008848: 0x7CDF, 0x60008850: 4 << 18, 0x60008858: 0}


def test_esp32_mac_carries_its_crc() -> None:
    words = efuse_words(CHIPS["esp32"], "24:0a:c4:12:34:56")
    assert words[0x3FF5A004] == 0xC4123456
    assert words[0x3FF5A008] & 0xFFFF == 0x240A


@pytest.mark.parametrize("text", ["", "7c:df:a1:00:11", "7c:df:a1:00:11:2g", "7cdfa1001122", "7c:df:a1:00:11:222"])
def test_a_wrong_mac_is_named(text: str) -> None:
    with pytest.raises(UnknownMac, match="write it like 7c:df:a1:00:11:22"):
        parse_mac(text)


def test_the_registers_of_an_esp32_are_seen_twice() -> None:
    bus = Bus(CHIPS["esp32"], NorFlash(0x10000), "7c:df:a1:00:11:22")
    assert bus.read32(0x60000078) == bus.read32(0x3FF40078) == 0x15122500
    bus.write32(0x6000C010, 0x1234)
    assert bus.read32(0x3FF4C010) == 0x1234
    bus.write32(0x3FF44004, 7)
    assert bus.read32(0x60004004) == 7 and bus.read32(0x60040000) == 0
    c3 = Bus(CHIPS["esp32c3"], NorFlash(0x10000), "7c:df:a1:00:11:22")
    c3.write32(0x6000C010, 1)
    assert c3.read32(0x3FF4C010) == 0, "a chip without an alias"


def test_memory_is_bounded_and_wraps() -> None:
    bus = Bus(CHIPS["esp32c3"], NorFlash(0x4000), "7c:df:a1:00:11:22")
    bus.store(0xFFFFFFFE, b"abcd")
    assert bus.load(0xFFFFFFFE, 4) == b"abcd"
    assert bus.load(0, 2) == b"cd"
    for page in range(5000):
        bus.store(page << 12, b"\x01")
    assert bus.read32(4000 << 12) == 1
    assert bus.read32(4999 << 12) == 0


def test_registers_have_masks_and_efuses_do_not_change() -> None:
    bus = Bus(CHIPS["esp32c3"], NorFlash(0x4000), "7c:df:a1:00:11:22")
    bus.write32(0x50000000, 0x12345678)
    bus.write32(0x50000000, 0xFFFFFFFF, 0x0000FF00)
    assert bus.read32(0x50000000) == 0x1234FF78
    bus.write32(0x60008844, 0)
    assert bus.read32(0x60008844) == 0xA1001122


def test_the_watchdog_resets_only_when_unlocked() -> None:
    bus = Bus(CHIPS["esp32c3"], NorFlash(0x4000), "7c:df:a1:00:11:22")
    bus.write32(0x60008094, 2000)
    bus.write32(0x60008090, 1 << 31)
    assert bus.take_watchdog() is None
    bus.write32(0x600080A8, 0x50D83AA1)
    bus.write32(0x60008090, 1 << 31)
    assert bus.take_watchdog() == pytest.approx(2000 / 136_000)
    assert bus.take_watchdog() is None


def test_what_is_burnt_shows_in_the_efuses() -> None:
    mac = "7c:df:a1:00:11:22"
    everything = Security(
        flash_encryption=True, secure_boot=True, secure_download=True, encrypted_download_disabled=True
    )
    words = efuse_words(burnt(CHIPS["esp32c3"], everything), mac)
    assert {at: word for at, word in words.items() if at < 0x60008840} == {
        0x60008830: 1 << 20,
        0x60008834: 7 << 18 | 4 << 24 | 9 << 28,
        0x60008838: 1 << 20,
        0x6000883C: 1 << 5,
    }
    esp32 = efuse_words(burnt(CHIPS["esp32"], everything._replace(secure_download=False)), mac)
    assert esp32[0x3FF5A000] == 1 << 20 | 1 << 16
    assert esp32[0x3FF5A014] == 0xF1100000
    assert esp32[0x3FF5A018] == 1 << 5 | 1 << 7
    assert efuse_words(burnt(CHIPS["esp32"], VIRGIN), mac) == efuse_words(CHIPS["esp32"], mac)


def test_an_esp32_has_no_secure_download_mode() -> None:
    with pytest.raises(UnknownSecurity, match="ESP32 has no Secure Download Mode"):
        burnt(CHIPS["esp32"], Security(secure_download=True))
