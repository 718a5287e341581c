"""The chips of the second table in their ROM's log: what differs from the C3's, by the lines of real boards."""

from __future__ import annotations

import pytest

from tests.unit.test_rom_boot import make_image
from virtualboard import rom
from virtualboard.chip_table import chip_named


def log_of(name: str, cause: int = rom.POWERON, **fields: int) -> list[str]:
    chip = chip_named(name)
    image = make_image([(0x40875720, b"\x13\0\0\0")], entry=0x4086C410, chip_id=fields.get("chip_id", chip.chip_id))
    flash = (b"\xff" * chip.bootloader_offset + image).ljust(0x10000, b"\xff")
    boot = rom.boot(lambda at, n: flash[at : at + n], len(flash), cause, chip.rom.saved_pc, chip.rom)
    return boot.log.decode().splitlines()


@pytest.mark.parametrize(
    ("name", "cause", "lines"),
    [
        ("esp32c6", rom.POWERON, ["rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)", "SPIWP:0xee"]),
        (
            "esp32c6",
            rom.TG0WDT_SYS,
            ["rst:0x7 (TG0_WDT_HPSYS),boot:0xc (SPI_FAST_FLASH_BOOT)", "Saved PC:0x4001a9f4", "SPIWP:0xee"],
        ),
        ("esp32c6", 0x15, ["rst:0x15 (USB_UART_HPSYS),boot:0xc (SPI_FAST_FLASH_BOOT)", "Saved PC:0x4001a9f4"]),
        ("esp32c5", rom.POWERON, ["rst:0x1 (POWERON),boot:0x18 (SPI_FAST_FLASH_BOOT)", "SPI mode:DIO, clock div:1"]),
        ("esp32p4", rom.POWERON, ["rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)", "SPI mode:DIO, clock div:1"]),
        (
            "esp32p4",
            rom.RTCWDT_RTC,
            [
                "rst:0x10 (LP_WDT_SYS),boot:0x8 (SPI_FAST_FLASH_BOOT)",
                *("Core0 Saved PC:0x00000000", "Core1 Saved PC:0x00000000", "SPI mode:DIO, clock div:1"),
            ],
        ),
        ("esp32s2", rom.SW_SYS, ["rst:0x3 (RTC_SW_SYS_RST),boot:0x8 (SPI_FAST_FLASH_BOOT)", "Saved PC:0x00000000"]),
        ("esp32c2", rom.POWERON, ["rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)", "SPIWP:0xee"]),
        ("esp32h2", rom.POWERON, ["rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)", "SPIWP:0xee"]),
    ],
)
def test_the_lines_of_a_boot(name: str, cause: int, lines: list[str]) -> None:
    log = log_of(name, cause)
    assert log[:2] == list(chip_named(name).rom.banner)
    assert log[2 : 2 + len(lines)] == lines
    assert log[-2:] == ["load:0x40875720,len:0x4", "entry 0x4086c410"]


def test_the_s2_refuses_with_its_line_number() -> None:
    assert log_of("esp32s2", chip_id=0)[-2:] == [
        "Invalid chip id. Expected 2 read 0. Bootloader for wrong chip?",
        "ets_main.c 386 ",
    ]


def test_the_download_log_of_a_c6() -> None:
    assert rom.download_log(0x15, chip_named("esp32c6").rom) == (
        b"ESP-ROM:esp32c6-20220919\r\nBuild:Sep 19 2022\r\n"
        b"rst:0x15 (USB_UART_HPSYS),boot:0x4 (DOWNLOAD(USB/UART0/SDIO_FEI_FEO))\r\nwaiting for download\r\n"
    )


def test_an_unknown_chip_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        chip_named("esp8266")
