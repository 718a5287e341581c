"""Chips that speak the loader, judge an image and print their ROM's log, and execute nothing.

Addresses are those that esptool 5.6 reads and writes (its `targets/*.py`). The logs are those of issues: ESP32-S2
(jblanked/FlipperHTTP #13), -C2 (esp-rs), -C5 (espressif/esp-idf #18299), -C6 (adafruit/Adafruit_Wippersnapper_Arduino
#636, esp-rs/espflash #556), -H2, -P4 (espressif/esp-hosted-mcu #67). Their ROMs were never compared with these boards:
what they refuse is taken to be what an ESP32-C3's refuses, and what no log shows is marked as a guess. Invariant: as in
`chips`; a row here is complete for a flasher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from virtualboard import rom
from virtualboard.chips import (
    ChipModel,
    Security,
    SecurityBits,
    SpiLayout,
    WatchdogLayout,
    flash_crypt_count,
    key_purposes,
)
from virtualboard.efuse import MODERN, SMALL

_HP_CAUSES: Mapping[int, str] = MappingProxyType(
    {
        rom.POWERON: "POWERON",
        rom.SW_SYS: "LP_SW_HPSYS",
        0x05: "DEEPSLEEP",
        rom.TG0WDT_SYS: "TG0_WDT_HPSYS",
        rom.TG1WDT_SYS: "TG1_WDT_HPSYS",
        rom.RTCWDT_SYS: "LP_WDT_HPSYS",
        rom.TG0WDT_CPU: "TG0_WDT_CPU",
        rom.SW_CPU: "SW_CPU",
        rom.RTCWDT_CPU: "LP_WDT_CPU",
        rom.BROWN_OUT: "BROWN_OUT",
        rom.RTCWDT_RTC: "LP_WDT_SYS",
        rom.TG1WDT_CPU: "TG1_WDT_CPU",
        0x12: "SUPER_WDT",
        0x14: "EFUSE_HPSYS",
        0x15: "USB_UART_HPSYS",
        0x16: "USB_JTAG_HPSYS",
    }
)
"""Names of the chips with a low-power domain of their own (ESP-IDF, `esp32c6/rom/rtc.h`)."""


def _rom(chip_id: int, banner: tuple[str, str], *, offset: int = 0, boot: str, download: str) -> rom.RomIdentity:
    """What most have in common: the C3's rules. The line in `ets_main.c` that refuses is not known for these."""
    return rom.RomIdentity(
        chip_id=chip_id,
        banner=banner,
        image_offset=offset,
        flash_boot=f"{boot} (SPI_FAST_FLASH_BOOT)",
        download=download,
        assertion="ets_main.c ",
        retry_s=0.65,  # guess: as the C3
        causes=_HP_CAUSES,
    )


def _block1(**words: int) -> Callable[[int], Mapping[int, int]]:
    """BLOCK1 from +0x44: the MAC, and words by their number."""

    def efuses(mac: int) -> Mapping[int, int]:
        more = {0x44 + 4 * int(name.removeprefix("word")): value for name, value in words.items()}
        return {0x44: mac & 0xFFFFFFFF, 0x48: mac >> 32, **more}

    return efuses


def _efuses_c2(mac: int) -> Mapping[int, int]:
    """BLOCK2 from +0x40: the MAC and, above it, revision 1.0."""
    return {0x40: mac & 0xFFFFFFFF, 0x44: mac >> 32 | 1 << 20}


def _security(
    *, manual: tuple[int, int], count: tuple[int, int], boot: tuple[int, int], keys: tuple[int, int, int] | None
) -> Callable[[Security], Mapping[int, int]]:
    """Where the bits are, as (word, shift): DIS_DOWNLOAD_MANUAL_ENCRYPT, SPI_BOOT_CRYPT_CNT, SECURE_BOOT_EN; key
    purposes 0 and 1 as (word, shift, shift)."""

    def burnt(security: Security) -> Mapping[int, int]:
        words: dict[int, int] = {}
        values = (security.encrypted_download_disabled, flash_crypt_count(security), security.secure_boot)
        for (word, shift), value in zip((manual, count, boot), values, strict=True):
            words[word] = words.get(word, 0) | value << shift
        if keys is not None:
            for shift, purpose in zip(keys[1:], key_purposes(security), strict=True):
                words[keys[0]] = words.get(keys[0], 0) | purpose << shift
        return words

    return burnt


_AS_C3 = _security(manual=(0x30, 20), count=(0x34, 18), boot=(0x38, 20), keys=(0x34, 24, 28))

_ESP32S2 = ChipModel(
    name="esp32s2",
    title="ESP32-S2",
    chip_id=2,
    security_chip_id=2,
    short_security_info=True,
    magic=0x000007C6,
    bootloader_offset=0x1000,
    efuse_base=0x3F41A000,
    efuses=_block1(word3=1 << 18),
    spi=SpiLayout(base=0x3F402000),
    watchdog=WatchdogLayout(config0=0x3F408094, config1=0x3F408098, write_protect=0x3F4080AC),
    uart_clkdiv=0x3F400014,
    begin_words=5,
    no_begin_error=0x64,
    cpu_hz=240_000_000,
    usb=False,  # a USB-OTG port, not a USB-Serial/JTAG
    constants=MappingProxyType({0x3F404038: 0x8}),  # GPIO_STRAP: GPIO0 is high
    rom=_rom(
        2,
        ("ESP-ROM:esp32s2-rc4-20191025", "Build:Oct 25 2019"),
        offset=0x1000,
        boot="0x8",
        download="0x1 (DOWNLOAD(USB/UART0/1/SPI))",
    )._replace(assertion="ets_main.c 386 ", causes=rom.RESET_CAUSES),
    security_efuses=_security(manual=(0x30, 19), count=(0x34, 18), boot=(0x38, 20), keys=(0x34, 24, 28)),
    security_bits=SecurityBits((0x34, 7 << 18), (0x38, 1 << 20), (0x3C, 1 << 5), (0x30, 1 << 19)),
)

_ESP32C2 = ChipModel(
    name="esp32c2",
    title="ESP32-C2",
    chip_id=12,
    security_chip_id=12,
    magic=0x6F51306F,
    bootloader_offset=0x0,
    efuse_base=0x60008800,
    efuses=_efuses_c2,
    spi=SpiLayout(base=0x60002000),
    watchdog=WatchdogLayout(config0=0x60008084, config1=0x60008088, write_protect=0x6000809C),
    begin_words=5,
    no_begin_error=0x64,
    cpu_hz=120_000_000,
    usb=False,
    riscv=True,
    rom=_rom(
        12,
        ("ESP-ROM:esp8684-api2-20220127", "Build:Jan 27 2022"),
        boot="0xc",
        download="0x4 (DOWNLOAD(UART0))",  # guess
    )._replace(causes=rom.RESET_CAUSES),
    security_efuses=_security(manual=(0x30, 6), count=(0x30, 7), boot=(0x30, 21), keys=None),
    security_bits=SecurityBits((0x30, 7 << 7), (0x30, 1 << 21), (0, 0), (0x30, 1 << 6)),
    efuse_layout=SMALL,
)

_ESP32C5 = ChipModel(
    name="esp32c5",
    title="ESP32-C5",
    chip_id=23,
    security_chip_id=23,
    magic=0x5FD1406F,
    bootloader_offset=0x2000,
    efuse_base=0x600B4800,
    efuses=_block1(word2=1 << 4),
    spi=SpiLayout(base=0x60003000),
    watchdog=WatchdogLayout(config0=0x600B1C00, config1=0x600B1C04, write_protect=0x600B1C18),
    begin_words=5,
    no_begin_error=0x64,
    xtal_hz=48_000_000,
    cpu_hz=240_000_000,
    riscv=True,
    constants=MappingProxyType({0x60096110: 48 << 24}),  # PCR_SYSCLK_CONF: the crystal that the ROM expects
    stub_address_bits=32,
    rom=_rom(
        23,
        ("ESP-ROM:esp32c5-eco2-20250121", "Build:Jan 21 2025"),
        offset=0x2000,
        boot="0x18",
        download="0x6 (DOWNLOAD(USB/UART0/SDIO))",  # guess
    )._replace(pins=False, mode_prefix="SPI "),
    security_efuses=_security(manual=(0x30, 20), count=(0x34, 16), boot=(0x38, 25), keys=(0x34, 22, 27)),
    security_bits=SecurityBits((0x34, 7 << 16), (0x38, 1 << 25), (0, 0), (0x30, 1 << 20)),
    efuse_layout=MODERN._replace(cmd=0x1D8),
)

_ESP32C6 = ChipModel(
    name="esp32c6",
    title="ESP32-C6",
    chip_id=13,
    security_chip_id=13,
    magic=0x2CE0806F,
    bootloader_offset=0x0,
    efuse_base=0x600B0800,
    efuses=_block1(word3=1 << 18),
    spi=SpiLayout(base=0x60003000),
    watchdog=WatchdogLayout(config0=0x600B1C00, config1=0x600B1C04, write_protect=0x600B1C18),
    begin_words=5,
    no_begin_error=0x64,
    riscv=True,
    rom=_rom(
        13,
        ("ESP-ROM:esp32c6-20220919", "Build:Sep 19 2022"),
        boot="0xc",
        download="0x4 (DOWNLOAD(USB/UART0/SDIO_FEI_FEO))",
    )._replace(saved_pc=0x4001A9F4),
    security_efuses=_AS_C3,
)

_ESP32C61 = ChipModel(
    name="esp32c61",
    title="ESP32-C61",
    chip_id=20,
    security_chip_id=20,
    magic=0x33F0206F,
    bootloader_offset=0x0,
    efuse_base=0x600B4800,
    efuses=_block1(word2=1 << 4),
    spi=SpiLayout(base=0x60003000),
    watchdog=WatchdogLayout(config0=0x600B1C00, config1=0x600B1C04, write_protect=0x600B1C18),
    begin_words=5,
    no_begin_error=0x64,
    riscv=True,
    stub_address_bits=32,
    rom=_rom(
        20,
        ("ESP-ROM:esp32c61-20240131", "Build:Jan 31 2024"),  # guess: the date
        boot="0xc",
        download="0x4 (DOWNLOAD(USB/UART0/SDIO))",  # guess
    )._replace(pins=False, mode_prefix="SPI "),
    security_efuses=_security(manual=(0x30, 14), count=(0x30, 23), boot=(0x34, 26), keys=(0x34, 0, 4)),
    security_bits=SecurityBits((0x30, 7 << 23), (0x34, 1 << 26), (0, 0), (0x30, 1 << 14)),
)

_ESP32H2 = ChipModel(
    name="esp32h2",
    title="ESP32-H2",
    chip_id=16,
    security_chip_id=16,
    magic=0xD7B73E80,
    bootloader_offset=0x0,
    efuse_base=0x600B0800,
    efuses=_block1(word3=2 << 18),
    spi=SpiLayout(base=0x60003000),
    watchdog=WatchdogLayout(config0=0x600B1C00, config1=0x600B1C04, write_protect=0x600B1C1C),
    begin_words=5,
    no_begin_error=0x64,
    xtal_hz=32_000_000,
    cpu_hz=96_000_000,
    riscv=True,
    rom=_rom(
        16,
        ("ESP-ROM:esp32h2-20221101", "Build:Nov  1 2022"),
        boot="0xc",
        download="0x4 (DOWNLOAD(USB/UART0/SPI))",  # guess
    ),
    security_efuses=_AS_C3,
)

_ESP32P4 = ChipModel(
    name="esp32p4",
    title="ESP32-P4",
    chip_id=18,
    security_chip_id=18,
    magic=0x0ADDBAD0,
    bootloader_offset=0x2000,
    efuse_base=0x5012D000,
    efuses=_block1(word2=1 << 4 | 3),
    spi=SpiLayout(base=0x5008D000),
    watchdog=WatchdogLayout(config0=0x50116000, config1=0x50116004, write_protect=0x50116018),
    uart_clkdiv=0x500CA014,
    begin_words=5,
    no_begin_error=0x64,
    cpu_hz=360_000_000,
    riscv=True,
    constants=MappingProxyType({0x500E0038: 0x8}),  # GPIO_STRAP: bit 3 is set outside download mode
    stub_address_bits=32,
    rom=_rom(
        18,
        ("ESP-ROM:esp32p4-eco2-20240710", "Build:Jul 10 2024"),
        offset=0x2000,
        boot="0x8",
        download="0x7 (DOWNLOAD(USB/UART0/SPI))",  # guess
    )._replace(pins=False, mode_prefix="SPI ", cores=2),
    security_efuses=_AS_C3,
)

MORE_CHIPS: Mapping[str, ChipModel] = MappingProxyType(
    {chip.name: chip for chip in (_ESP32S2, _ESP32C2, _ESP32C5, _ESP32C6, _ESP32C61, _ESP32H2, _ESP32P4)}
)
