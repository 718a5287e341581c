"""The ROM's text, checksums, flash, cache and chip functions, as ESP-IDF's headers and the real ROM have them."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rom_caller import RAM, FakeProgram
from virtualboard.rv32_rom_hashes import reflected, straight

TEXT = RAM + 0x1000


def printed(template: str, *arguments: int) -> str:
    program = FakeProgram()
    program.store(TEXT, b"Hello\0")
    program.call("ets_printf", template.encode() + b"\0", *arguments)
    return program.sent.decode()


@pytest.mark.parametrize(
    ("template", "arguments", "text"),
    [
        ("plain\n", (), "plain\r\n"),
        ("%d|%5d|%-5d|%05d", (-7, -7, -7, -7), "-7|   -7|-7   |-0007"),
        ("%x %X %08X", (0, 0xABC, 0xFF), "0 ABC 000000FF"),
        ("%u|%10u|%U|%D", (0xFFFFFFFF, 77, 5, -5), "4294967295|        77|5|-5"),
        ("%s|%2s|%8s|%-8s|%08s", (TEXT,) * 5, "Hello|Hello|   Hello|Hello   |000Hello"),
        ("%s", (0,), "<null>"),
        ("%p %p", (0, 0x3FC80000), "0x00000000 0x3fc80000"),
        ("%c%3c%%", (65, 66), "AB%"),
        ("%ld %lu %lx", (-5, 5, 5), "-5 5 5"),
        ("%.5d|%5.3d|%.2s", (5, 5, TEXT), "5|00005|Hello"),
        ("%i|%hd|%zu|%f|%*d|%+d", (1, 2, 3, 4), "%i|%hd|%zu|%f|%*d|%+d"),
        ("\r\n|\r|\n", (), "\r\n||\r\n"),
        ("%d%d%d%d%d%d%d%d%d", (1, 2, 3, 4, 5, 6, 7, 8, 9), "123456789"),
    ],
)
def test_printf_as_the_real_rom_does_it(template: str, arguments: tuple[int, ...], text: str) -> None:
    """Each line was measured on the ROM of a C3 of revision 3."""
    assert printed(template, *arguments) == text


def test_printf_of_64_bits() -> None:
    """Aligned pairs; only `lld` shows all of it (measured)."""
    assert printed("%lld|", 1, 2, 3) == "12884901890|", "a1 is skipped: the pair begins at a2"
    assert printed("%lld|%d", 0, 0xFFFFFFFF, 0xFFFFFFFF, 9) == "-1|9"
    assert printed("%llx|%llu", 0, 0xFFFFFFFF, 1, 7, 5, 6) == "ffffffff|7"


@given(st.binary(max_size=60))
def test_no_template_raises(template: bytes) -> None:
    FakeProgram().call("ets_printf", template + b"\0", *([TEXT] * 12))


def test_channels_of_printf() -> None:
    program = FakeProgram()
    program.call("ets_install_putc1", 0)
    program.call("ets_printf", b"lost\0")
    program.call("ets_install_putc2", 0x42000000)
    program.call("ets_printf", b"a\0")
    program.call("ets_install_putc2", 0)
    program.call("ets_install_uart_printf")
    program.call("ets_printf", b"b\0")
    assert program.sent == b"ab"


# --- checksums and hashes ------------------------------------------------------------

CHECK = b"123456789"


def test_crcs_by_their_check_values() -> None:
    """Those of "123456789" in the catalogue of parametrised CRCs, by the recipe in ESP-IDF's `rom/crc.h`."""

    def crc(name: str, init: int, bits: int) -> int:
        return FakeProgram().call(name, ~init & (1 << bits) - 1, CHECK, len(CHECK)) ^ (1 << bits) - 1

    assert crc("crc32_le", 0xFFFFFFFF, 32) ^ 0xFFFFFFFF == 0xCBF43926, "CRC-32"
    assert crc("crc32_be", 0xFFFFFFFF, 32) ^ 0xFFFFFFFF == 0xFC891918, "CRC-32/BZIP2"
    assert crc("crc16_le", 0xFFFF, 16) ^ 0xFFFF == 0x906E, "CRC-16/X-25"
    assert crc("crc16_le", 0x0000, 16) == 0x2189, "CRC-16/KERMIT"
    assert crc("crc16_be", 0xFFFF, 16) == 0x29B1, "CRC-16/CCITT-FALSE"
    assert crc("crc16_be", 0x0000, 16) == 0x31C3, "CRC-16/XMODEM"
    assert crc("crc8_be", 0x00, 8) == 0xF4, "CRC-8"
    assert crc("crc8_le", 0xFF, 8) == 0xD0, "CRC-8/ROHC"
    assert FakeProgram().call("esp_crc8", CHECK, len(CHECK)) == 0xA1, "CRC-8/MAXIM"


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_a_crc_of_parts_is_that_of_the_whole(a: bytes, b: bytes) -> None:
    for name in ("crc32_le", "crc32_be", "crc16_le", "crc16_be", "crc8_le", "crc8_be"):
        first = FakeProgram().call(name, 0, a, len(a))
        assert FakeProgram().call(name, first, b, len(b)) == FakeProgram().call(name, 0, a + b, len(a + b)), name
    assert FakeProgram().call("crc32_le", 0, a, len(a)) == zlib.crc32(a) == reflected(0, a, 0xEDB88320, 32)
    assert straight(0, a, 0x04C11DB7, 32) == FakeProgram().call("crc32_be", 0, a, len(a))
    assert FakeProgram().call("mz_crc32", 0, a, len(a)) == zlib.crc32(a)
    assert FakeProgram().call("mz_adler32", 1, a, len(a)) == zlib.adler32(a)


def test_checksums_of_nothing() -> None:
    assert (FakeProgram().call("mz_crc32", 5, 0, 0), FakeProgram().call("mz_adler32", 5, 0, 0)) == (0, 1)


def test_md5() -> None:
    program = FakeProgram()
    for name, *arguments in (("MD5Init", RAM), ("MD5Update", RAM, TEXT, 5), ("MD5Update", RAM, TEXT, 5)):
        program.store(TEXT, b"Hello")
        program.call(str(name), *(int(a) for a in arguments))
    program.call("MD5Final", TEXT, RAM)
    assert program.at(TEXT, 16) == hashlib.md5(b"HelloHello").digest()
    program.call("MD5Final", TEXT + 0x100, RAM)
    assert program.at(TEXT + 0x100, 16) == bytes(16), "a context ends once"
    program.store(TEXT, b"Hello")
    program.store(RAM, struct.pack("<4I", TEXT, TEXT, 2, 3))
    program.call("md5_vector", 2, RAM, RAM + 8, TEXT + 0x200)
    assert program.at(TEXT + 0x200, 16) == hashlib.md5(b"HeHel").digest()
    program.call("hmac_md5", b"key", 3, b"data", 4, TEXT)
    assert program.at(TEXT, 16) == hmac.digest(b"key", b"data", "md5")


@pytest.mark.parametrize(("kind", "name"), [(0, "sha1"), (1, "sha224"), (2, "sha256")])
def test_sha(kind: int, name: str) -> None:
    program = FakeProgram()
    program.call("ets_sha_enable")
    assert program.call("ets_sha_init", RAM, kind) == 0 and program.call("ets_sha_starts", RAM, 0) == 0
    program.store(TEXT, b"abcdef")
    program.call("ets_sha_update", RAM, TEXT, 3, 0)
    program.call("ets_sha_clone", RAM + 0x100, RAM)
    program.call("ets_sha_update", RAM, TEXT + 3, 3, 0)
    program.call("ets_sha_finish", RAM, TEXT)
    program.call("ets_sha_finish", RAM + 0x100, TEXT + 0x100)
    size = hashlib.new(name).digest_size
    assert program.at(TEXT, size) == hashlib.new(name, b"abcdef").digest()
    assert program.at(TEXT + 0x100, size) == hashlib.new(name, b"abc").digest()
    assert program.call("ets_sha_init", RAM, 3) == 1


# --- flash and cache ------------------------------------------------------------


def test_flash() -> None:
    program = FakeProgram()
    assert program.call("esp_rom_spiflash_erase_sector", 1) == 0
    assert program.call("esp_rom_spiflash_write", 0x1000, b"\x0f\xf0", 2) == 0
    assert program.call("esp_rom_spiflash_write", 0x1000, b"\xff\x3f", 2) == 0
    assert program.call("esp_rom_spiflash_read", 0x1000, TEXT, 4) == 0
    assert program.at(TEXT, 4) == b"\x0f\x30\xff\xff", "bits only go from 1 to 0"
    assert program.call("esp_rom_spiflash_erase_block", 0) == 0 and program.flash.read(0x1000, 2) == b"\xff\xff"
    program.flash.program(0x3F000, b"\0")
    assert program.call("esp_rom_spiflash_erase_chip") == 0 and program.flash.read(0x3F000, 1) == b"\xff"
    for name, arguments in (("read", (0x40000, TEXT, 4)), ("write", (0x3FFFF, TEXT, 4)), ("erase_sector", (0x40,))):
        assert program.call(f"esp_rom_spiflash_{name}", *arguments) == 1, "beyond the flash"


def test_what_the_rom_knows_of_its_flash() -> None:
    program = FakeProgram()
    program._calls.fill_data()
    chip = program.word(0x3FCDFFF0)
    assert chip and struct.unpack("<6I", program.at(chip, 24)) == (0xC84012, 0x200000, 0x10000, 0x1000, 0x100, 0xFFFF)
    assert program.call("spi_flash_get_chip_size") == 0x200000
    assert program.call("esp_rom_spiflash_config_param", 1, 0x40000, 2, 3, 4, 5) == 0
    assert struct.unpack("<6I", program.at(chip, 24)) == (1, 0x40000, 2, 3, 4, 5)
    program.call("esp_rom_spi_flash_update_id")
    assert program.word(chip) == 0xC84012, "the manufacturer on top: C8 is GigaDevice, 40 12 its part of 256 KiB"
    program.call("esp_rom_spiflash_read_status", chip, TEXT)
    assert program.word(TEXT) == 0


@pytest.mark.parametrize(("bus", "window"), [("I", 0x42000000), ("D", 0x3C000000)])
def test_the_mmu(bus: str, window: int) -> None:
    name = f"Cache_{bus}bus_MMU_Set"
    program = FakeProgram()
    assert program.call(name, 0, window + 0x20000, 0x30000, 64, 2, 0) == 0 and program.mapped == {2: 3, 3: 4}
    assert program.call(name, 0, window + 0x7F0000, 0x50000, 64, 1, 0) == 0 and program.mapped[127] == 5
    assert program.call(name, 0, window, 0x70000, 64, 2, 1) == 0 and (program.mapped[0], program.mapped[1]) == (7, 7)
    assert program.call(name, 0, window + 0x100, 0, 64, 1, 0) == program.call(name, 0, window, 4, 64, 1, 0) == 1
    assert program.call(name, 0, window, 0, 32, 1, 0) == 2
    assert program.call(name, 0, window - 0x10000, 0, 64, 1, 0) == program.call(name, 0, window, 0, 64, 129, 0) == 3
    program.call("Cache_MMU_Init")
    assert program.mapped == dict.fromkeys(range(128))


def test_the_cache() -> None:
    program = FakeProgram()
    for name in ("Disable", "Enable", "Suspend", "Resume"):
        program.call(f"Cache_{name}_ICache")
    program.call("Cache_Invalidate_ICache_All")
    program.call("Cache_Invalidate_Addr", 0x42000000, 4)
    assert program.cache == ["off", "on", "off", "on", "empty", "empty"]
    program.call("Cache_Mask_All")
    assert program.registers[0x600C4004] == 3
    assert program.call("Cache_Get_ICache_Line_Size") == 32
    assert [program.call("Cache_Address_Through_IBus", a) for a in (0x42000000, 0x427FFFFF, 0x3C000000)] == [1, 1, 0]
    assert [program.call("Cache_Address_Through_DBus", a) for a in (0x3C000000, 0x3C800000)] == [1, 0]


# --- the chip ------------------------------------------------------------


def test_uart() -> None:
    program = FakeProgram()
    program.call("uart_tx_one_char", 0x141)
    assert program.sent == b"A" and program.call("uart_rx_one_char", TEXT) == 1
    program.received += b"z"
    assert program.call("uart_rx_one_char", TEXT) == 0 and program.at(TEXT, 1) == b"z"


def test_clocks() -> None:
    program = FakeProgram()
    assert (program.call("ets_get_cpu_frequency"), program.call("ets_get_apb_freq")) == (40, 40_000_000)
    program.call("ets_update_cpu_frequency", 160)
    assert (program.call("ets_get_cpu_frequency"), program.call("ets_get_apb_freq")) == (160, 80_000_000)
    assert (program.call("ets_get_xtal_freq"), program.call("ets_get_xtal_div")) == (40_000_000, 1)


def test_resets_and_watchdogs() -> None:
    program = FakeProgram()
    assert program.call("rtc_get_reset_reason", 0) == 12
    program.call("software_reset")
    program.call("software_reset_cpu", 0)
    assert program.resets == [3, 12]
    program.call("disable_default_watchdog")
    assert {at: program.registers[at] for at in (0x60008090, 0x6001F048, 0x60020048)} == {
        0x60008090: 0,
        0x6001F048: 0,
        0x60020048: 0,
    }


def test_pins() -> None:
    program = FakeProgram()
    program.call("gpio_output_set", 0b1100, 0b0011, 0b0100, 0)
    program.call("gpio_output_enable", 5)
    program.call("gpio_output_disable", 2)
    program.call("gpio_matrix_out", 8, 128, 1, 0)
    program.call("gpio_matrix_in", 9, 6, 1)
    assert program.registers[0x60004004] == 0b1100 and program.registers[0x60004020] == 1 << 5
    assert program.registers[0x60004574] == 128 | 1 << 8 and program.registers[0x6000416C] == 9 | 1 << 5 | 1 << 6
    pad = 0x60009004 + 4 * 3
    for name, bits in (("pullup", 1 << 8), ("pulldown", 1 << 7)):
        program.call(f"gpio_pad_{name}", 3)
        assert program.registers[pad] == bits
    program.call("gpio_pad_input_enable", 3)
    program.call("gpio_pad_select_gpio", 3)
    program.call("gpio_pad_set_drv", 3, 2)
    assert program.registers[pad] == 1 << 7 | 1 << 9 | 1 << 12 | 2 << 10
    program.call("gpio_pad_input_disable", 3)
    program.registers[0x6000403C] = 0x55
    assert program.registers[pad] & 1 << 9 == 0 and program.call("gpio_input_get") == 0x55


def test_interrupts() -> None:
    program = FakeProgram()
    program.call("intr_matrix_set", 0, 37, 9)
    program.call("esprv_intc_int_set_priority", 9, 2)
    program.call("esprv_intc_int_set_type", 9, 1)
    program.call("esprv_intc_int_set_threshold", 1)
    program.call("esprv_intc_int_enable", 1 << 9 | 1 << 3)
    program.call("ets_isr_mask", 1 << 3)
    base = 0x600C2000
    found = {at - base: value for at, value in program.registers.items()}
    assert found == {4 * 37: 9, 0x114 + 36: 2, 0x108: 1 << 9, 0x194: 1, 0x104: 1 << 9}


def test_efuses() -> None:
    program = FakeProgram()
    assert program.call("ets_efuse_get_wp_pad") == 0x3F
    assert program.call("ets_efuse_secure_boot_enabled") == program.call("ets_efuse_cache_encryption_enabled") == 0
    program.registers |= {0x60008838: 1 << 20, 0x60008834: 1 << 18, 0x6000883C: 1 << 5}
    program.registers |= {0x60008844: 0xA1001122, 0x60008848: 0x7CDF}
    assert program.call("ets_efuse_secure_boot_enabled") == program.call("ets_efuse_cache_encryption_enabled") == 1
    assert program.call("ets_efuse_security_download_modes_enabled") == 1
    program.call("ets_efuse_get_mac", TEXT)
    assert program.at(TEXT, 6) == bytes.fromhex("7cdfa1001122")


def test_analog_registers() -> None:
    program = FakeProgram()
    assert program.call("rom_i2c_readReg", 0x66, 0, 7) == 0xFF
    assert program.call("rom_i2c_readReg_Mask", 0x66, 0, 7, 5, 2) == 0xF
    assert program.call("rom_i2c_writeReg", 0x66, 0, 7, 1) == program.call("rom_i2c_writeReg_Mask", 1, 2, 3) == 0


def test_every_function_is_tested_here_or_beside() -> None:
    """What does nothing and gives 0 is not tested one by one."""
    from virtualboard.rv32_rom_names import ADDRESSES

    assert all(address in ADDRESSES.values() for address in FakeProgram()._calls.table)
