"""The chips of the ESP32 family: the one table of what the build and the flasher need to know about each.

Pure; does not know images, boards or ports. Source: esptool's targets and the chips' technical reference manuals. The
virtual board keeps a table of its own, since it knows nothing of `pipeline/`. Invariant: a chip of this table can be
named in `toolchain.chip`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from cache.named_tuple import NamedTuple

SECTOR = 0x1000
"""Erase granularity of every flash chip that the ROM loader supports."""


class RomRules(NamedTuple):
    """What a mask ROM accepts in the header of the image that it starts; measured on the ROMs of ESP32 and ESP32-C3,
    and taken to be the C3's for all chips after the ESP32.

    `segments`: the most it loads; `modes`: how many values of the mode byte it knows; `freqs`: codes of the flash
    frequency, empty for any. `ram`: memory that the ROM needs while it loads, where that is known; nothing may go over
    it. `checks_segments`: it judges each segment's address and length."""

    segments: int = 16
    modes: int = 11
    freqs: tuple[int, ...] = (0, 1, 2, 0xF)
    ram: range = range(0)
    checks_segments: bool = True


class Chip(NamedTuple):
    """One chip: the id in its image headers, where its ROM looks for the bootloader, the flash frequencies that its
    header can express, how many bits of a flash address esptool's stub sends (the ROM's loader sends 24, whatever the
    chip), where its efuses are read (0: only esptool knows how), its ROM's rules, and the pin that a BOOT button
    pulls low. Sources: esptool's targets (`FLASH_32BIT_ADDR_SUPPORTED` for the address bits), the chips' technical
    reference manuals and, for the pin, hardware design guidelines."""

    image_chip_id: int
    bootloader_offset: int
    isa: Literal["riscv", "xtensa"]
    flash_freqs: tuple[str, ...] = ("80m", "40m", "26m", "20m")
    stub_address_bits: int = 24
    efuse_base: int = 0
    rom: RomRules = RomRules()
    boot_gpio: int = 9

    @property
    def flash_reach(self) -> int:
        """Bytes of flash that a loader session can hash and write; what lies behind them answers as if it began again
        at 0."""
        return 1 << self.stub_address_bits


ROM_REACH = 1 << 24
"""Bytes of flash that a ROM's own commands reach."""


CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        "esp32": Chip(
            0,
            0x1000,
            "xtensa",
            efuse_base=0x3FF5A000,
            rom=RomRules(segments=32, modes=6, freqs=(), checks_segments=False),
            boot_gpio=0,
        ),
        "esp32s2": Chip(2, 0x1000, "xtensa", boot_gpio=0),
        "esp32s3": Chip(9, 0x0, "xtensa", stub_address_bits=32, efuse_base=0x60007000, boot_gpio=0),
        "esp32c2": Chip(12, 0x0, "riscv", ("60m", "30m", "20m", "15m")),
        "esp32c3": Chip(5, 0x0, "riscv", efuse_base=0x60008800, rom=RomRules(ram=range(0x3FCDE160, 0x3FCDF664))),
        "esp32c5": Chip(23, 0x2000, "riscv", ("80m", "40m", "20m"), stub_address_bits=32, boot_gpio=28),
        "esp32c6": Chip(13, 0x0, "riscv", ("80m", "40m", "20m")),
        "esp32c61": Chip(20, 0x0, "riscv", ("80m", "40m", "20m"), stub_address_bits=32),
        "esp32h2": Chip(16, 0x0, "riscv", ("48m", "24m", "16m", "12m")),
        "esp32p4": Chip(18, 0x2000, "riscv", stub_address_bits=32, boot_gpio=35),
    }
)

FLASH_MODES = ("qio", "qout", "dio", "dout")
"""Index = byte 2 of the image header."""

FLASH_SIZES = ("1MB", "2MB", "4MB", "8MB", "16MB", "32MB", "64MB", "128MB")
"""Index = high nibble of byte 3 of the image header."""


def flash_size_bytes(name: str) -> int:
    """`"4MB"` -> 4194304, for a name of FLASH_SIZES."""
    return int(name.removesuffix("MB")) * 1024 * 1024


def flash_freq_code(chip: str, name: str) -> int:
    """The low nibble of byte 3 of the image header, for a name of `Chip.flash_freqs`."""
    return _freq_codes(chip)[name]


def flash_freq_name(chip: str, code: int) -> str:
    """The name of a code in the header, `""` where it is not known. Two names of the ESP32-C6 share one code (its ROM
    has a divider wrong): the first one is meant."""
    return next((name for name, known in _freq_codes(chip).items() if known == code), "")


def _freq_codes(chip: str) -> Mapping[str, int]:
    """The fractions of the source clock: /1, /2, /3, /4, of which some chips lack the third."""
    names = CHIPS[chip].flash_freqs
    codes = dict(zip(names, (0xF, 0, 1, 2) if len(names) == 4 else (0xF, 0, 2), strict=True))
    return {**codes, "80m": 0} if chip == "esp32c6" else codes


def chip_name(image_chip_id: int) -> str:
    """`esp32c3` for 5; `chip id 77` for an id that this table does not have."""
    return next(
        (name for name, chip in CHIPS.items() if chip.image_chip_id == image_chip_id), f"chip id {image_chip_id}"
    )
