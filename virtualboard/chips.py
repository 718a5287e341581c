"""What differs from chip to chip, as data: identities, register addresses, efuse contents, what is burnt.

Does not know protocols or state; what the ROMs print is in `rom`. Invariant: adding a chip is adding a row; no other
module asks for a chip's name. Addresses are those that esptool 5.6 reads and writes (its `targets/*.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from virtualboard.efuse import CLASSIC, MODERN, EfuseLayout
from virtualboard.named_values import NamedValues
from virtualboard.rom import ESP32_ROM, ESP32C3_ROM, ESP32S3_ROM, RomIdentity


class SpiLayout(NamedValues):
    """Offsets of the SPI flash controller's registers from `base`; ESP32 sends addresses from the top bit down."""

    base: int
    usr: int = 0x18
    usr1: int = 0x1C
    usr2: int = 0x20
    mosi_dlen: int = 0x24
    miso_dlen: int = 0x28
    w0: int = 0x58
    addr_left_aligned: bool = False


class WatchdogLayout(NamedValues):
    """The RTC watchdog, as far as esptool's watchdog reset drives it. `slow_hz` is the RC oscillator that counts."""

    config0: int
    config1: int
    write_protect: int
    key: int = 0x50D83AA1
    slow_hz: int = 136_000


class Security(NamedValues):
    """Security efuses of one specimen. Nothing is encrypted and no signature is checked: flashers look at the bits.

    `secure_download`: the ROM's Secure Download Mode (not on ESP32). `encrypted_download_disabled`: the chip no longer
    encrypts what is written through the loader (release mode of flash encryption).
    """

    flash_encryption: bool = False
    secure_boot: bool = False
    secure_download: bool = False
    encrypted_download_disabled: bool = False


VIRGIN = Security()


class SecurityBits(NamedValues):
    """Where the efuses of `Security` are, as (offset, mask); a mask of 0 where there is none."""

    crypt_count: tuple[int, int]
    secure_boot: tuple[int, int]
    secure_download: tuple[int, int]
    manual_encrypt: tuple[int, int]


_SECURITY_C3 = SecurityBits((0x34, 7 << 18), (0x38, 1 << 20), (0x3C, 1 << 5), (0x30, 1 << 20))


class ChipModel(NamedValues):
    """One chip. `security_chip_id` is None where the ROM lacks GET_SECURITY_INFO; `cpu` is True where firmware runs.

    `stub_entries`: entry points of the flasher stubs that esptool 5.6 ships, with their generation.
    `stub_address_bits`: how far into a large flash the stub reaches (esptool's FLASH_32BIT_ADDR_SUPPORTED).
    `alias`: registers that are also seen elsewhere, as (there, size, here).
    `rom_read_pointer`: where the ROM keeps its flash read function; esptool starts the stub through it when secure boot
    keeps the ROM from jumping to RAM.
    """

    name: str
    title: str
    chip_id: int
    security_chip_id: int | None
    magic: int
    bootloader_offset: int
    efuse_base: int
    spi: SpiLayout
    rom: RomIdentity
    begin_words: int
    no_begin_error: int
    efuses: Callable[[int], Mapping[int, int]]
    watchdog: WatchdogLayout | None = None
    uart_clkdiv: int = 0x60000014
    xtal_hz: int = 40_000_000
    cpu_hz: int = 160_000_000
    cpu: bool = False
    riscv: bool = False
    short_security_info: bool = False  # GET_SECURITY_INFO without chip id and API version
    usb: bool = True  # has a USB-Serial/JTAG of its own
    constants: Mapping[int, int] = MappingProxyType({})
    alias: tuple[int, int, int] = (0, 0, 0)
    stub_entries: Mapping[int, int] = MappingProxyType({})
    stub_address_bits: int = 24
    rom_read_pointer: int | None = None
    security: Security = VIRGIN
    security_efuses: Callable[[Security], Mapping[int, int]] = lambda _security: {}
    security_bits: SecurityBits = _SECURITY_C3
    efuse_layout: EfuseLayout = MODERN


# The ROM word by which esptool tells chips apart that have no chip id.
MAGIC_ADDRESS = 0x40001000


class UnknownMac(ValueError):
    """The text is not a MAC address; the message says what one looks like."""


def parse_mac(mac: str) -> int:
    """`7c:df:a1:00:11:22` as a 48-bit number. Raises UnknownMac."""
    parts = mac.replace("-", ":").split(":")
    try:
        octets = [int(part, 16) for part in parts if len(part) == 2]
    except ValueError:
        octets = []
    if len(octets) != 6 or len(parts) != 6:
        raise UnknownMac(f"{mac!r} is not a MAC address; write it like 7c:df:a1:00:11:22")
    return int.from_bytes(bytes(octets), "big")


class UnknownSecurity(ValueError):
    """The chip has no such efuse; the message says which."""


def burnt(chip: ChipModel, security: Security) -> ChipModel:
    """A specimen of `chip` whose security efuses are burnt. Raises UnknownSecurity."""
    if security.secure_download and chip.security_chip_id is None:
        raise UnknownSecurity(f"{chip.title} has no Secure Download Mode; leave it out for this chip")
    return chip._replace(security=security)


def burnt_security(chip: ChipModel, words: Mapping[int, int]) -> Security:
    """What these efuse words (by address) say; an odd number of bits in the counter means encrypted."""

    def bits(place: tuple[int, int]) -> int:
        return words.get(chip.efuse_base + place[0], 0) & place[1]

    places = chip.security_bits
    return Security(
        flash_encryption=bool(bits(places.crypt_count).bit_count() & 1),
        secure_boot=bool(bits(places.secure_boot)),
        secure_download=bool(bits(places.secure_download)),
        encrypted_download_disabled=bool(bits(places.manual_encrypt)),
    )


def efuse_words(chip: ChipModel, mac: str) -> dict[int, int]:
    """The efuse registers by address: the factory's data and what `chip.security` says is burnt. Raises UnknownMac."""
    words = dict(chip.efuses(parse_mac(mac)))
    for offset, bits in chip.security_efuses(chip.security).items():
        words[offset] = words.get(offset, 0) | bits
    return {chip.efuse_base + offset: word for offset, word in words.items()}


# Key purposes (esptool, KEY_PURPOSES): what the key blocks hold when a feature is burnt.
XTS_AES_128_KEY, SECURE_BOOT_DIGEST0 = 4, 9


def key_purposes(security: Security) -> tuple[int, int]:
    """Purposes of key blocks 0 and 1; the others are empty."""
    return (
        XTS_AES_128_KEY if security.flash_encryption else 0,
        SECURE_BOOT_DIGEST0 if security.secure_boot else 0,
    )


def flash_crypt_count(security: Security) -> int:
    """SPI_BOOT_CRYPT_CNT: an odd number of bits means encrypted; all three are burnt in release mode."""
    if not security.flash_encryption:
        return 0
    return 7 if security.encrypted_download_disabled else 1


def _security_block0(security: Security) -> dict[int, int]:
    """BLOCK0 from +0x30 of ESP32-S3 and -C3 (esptool `targets/esp32c3.py`; ENABLE_SECURITY_DOWNLOAD: the TRM)."""
    if security == VIRGIN:
        return {}
    first, second = key_purposes(security)
    return {
        0x30: security.encrypted_download_disabled << 20,
        0x34: flash_crypt_count(security) << 18 | first << 24 | second << 28,
        0x38: security.secure_boot << 20,
        0x3C: security.secure_download << 5,
    }


def _security_esp32(security: Security) -> dict[int, int]:
    """BLOCK0 of ESP32: FLASH_CRYPT_CNT with the key read-protected, FLASH_CRYPT_CONFIG, ABS_DONE_1 (secure boot V2)."""
    if security == VIRGIN:
        return {}
    encrypted = security.flash_encryption
    return {
        0x00: encrypted << 20 | encrypted << 16,
        0x14: 0xF0000000 if encrypted else 0,
        0x18: security.secure_boot << 5 | security.encrypted_download_disabled << 7,
    }


def _block1(mac: int, *, major: int, minor: int, package: int = 0) -> dict[int, int]:
    """BLOCK1 at +0x44 of ESP32-S3 and -C3 (esptool targets/esp32c3.py: get_minor_chip_version and neighbours)."""
    return {
        0x44: mac & 0xFFFFFFFF,
        0x48: mac >> 32,
        0x50: (minor & 7) << 18 | package << 21,
        0x58: (minor >> 3) << 23 | major << 24,
    }


def _efuses_esp32c3(mac: int) -> dict[int, int]:
    return _block1(mac, major=0, minor=4)


def _efuses_esp32s3(mac: int) -> dict[int, int]:
    return _block1(mac, major=0, minor=2)


def _efuses_esp32(mac: int) -> dict[int, int]:
    """BLOCK0: MAC, package 1 (D0WD), revision bits, CK8M_FREQ 128 (must not be 0: ROM baud arithmetic), Vref."""
    return {
        0x04: mac & 0xFFFFFFFF,
        0x08: mac >> 32 | _crc8(mac) << 16,
        0x0C: 1 << 15 | 1 << 13 | 1 << 9,
        0x10: 128 | 16 << 8,
        0x14: 1 << 24 | 1 << 20,
    }


def _crc8(mac: int) -> int:
    """CRC-8 (polynomial 0x31 reflected, as ESP-IDF's esp_mac checks it) of the six bytes."""
    crc = 0
    for byte in mac.to_bytes(6, "big"):
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
    return crc


_ESP32C3 = ChipModel(
    name="esp32c3",
    title="ESP32-C3",
    chip_id=5,
    security_chip_id=5,
    magic=0x1B31506F,
    bootloader_offset=0x0,
    efuse_base=0x60008800,
    efuses=_efuses_esp32c3,
    spi=SpiLayout(base=0x60002000),
    watchdog=WatchdogLayout(config0=0x60008090, config1=0x60008094, write_protect=0x600080A8),
    begin_words=5,
    no_begin_error=0x64,
    cpu=True,
    riscv=True,
    stub_entries=MappingProxyType({0x40380E9A: 2, 0x403806D2: 1}),
    rom=ESP32C3_ROM,
    security_efuses=_security_block0,
)

_ESP32S3 = ChipModel(
    name="esp32s3",
    title="ESP32-S3",
    chip_id=9,
    security_chip_id=9,
    magic=0x00000009,
    bootloader_offset=0x0,
    efuse_base=0x60007000,
    efuses=_efuses_esp32s3,
    spi=SpiLayout(base=0x60002000),
    watchdog=WatchdogLayout(config0=0x60008098, config1=0x6000809C, write_protect=0x600080B0),
    begin_words=5,
    no_begin_error=0x64,
    cpu_hz=240_000_000,
    # GPIO_STRAP: bit 3 is GPIO0 high.
    constants=MappingProxyType({0x60004038: 0x8}),
    stub_entries=MappingProxyType({0x403795A8: 2, 0x40378C94: 1}),
    rom=ESP32S3_ROM,
    security_efuses=_security_block0,
    stub_address_bits=32,
    rom_read_pointer=0x3FCEF688,
)

_ESP32 = ChipModel(
    name="esp32",
    title="ESP32",
    chip_id=0,
    security_chip_id=None,
    magic=0x00F01D83,
    bootloader_offset=0x1000,
    usb=False,
    efuse_base=0x3FF5A000,
    efuses=_efuses_esp32,
    spi=SpiLayout(
        base=0x3FF42000,
        usr=0x1C,
        usr1=0x20,
        usr2=0x24,
        mosi_dlen=0x28,
        miso_dlen=0x2C,
        w0=0x80,
        addr_left_aligned=True,
    ),
    begin_words=4,
    no_begin_error=0x05,
    uart_clkdiv=0x3FF40014,
    cpu_hz=240_000_000,
    # APB_CTL_DATE bit 31 is revision bit 2 (v3); RTCCALICFG1: calibration that makes the crystal exactly 40 MHz.
    # UART_DATE: esptool up to 2.8 and what is built on it tell an ESP32 by it, through the alias of the AHB bus.
    constants=MappingProxyType({0x3FF6607C: 1 << 31, 0x3FF5F06C: 800 << 7, 0x3FF40078: 0x15122500}),
    alias=(0x60000000, 0x40000, 0x3FF40000),
    stub_entries=MappingProxyType({0x400A902C: 2, 0x400BE658: 1}),
    rom=ESP32_ROM,
    security_efuses=_security_esp32,
    security_bits=SecurityBits((0x00, 0x7F << 20), (0x18, 3 << 4), (0, 0), (0x18, 1 << 7)),
    efuse_layout=CLASSIC,
)

# More chips are in `chips_more`.
CHIPS: Mapping[str, ChipModel] = MappingProxyType({chip.name: chip for chip in (_ESP32C3, _ESP32S3, _ESP32)})
