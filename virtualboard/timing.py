"""How long the chip, its flash and its cable take, as data. Does not know what is timed.

Invariant: a profile changes when something happens, never what. Every constant names its source or says that it is a
guess; "W25Q32JV" is the table of typical AC characteristics in Winbond's data sheet of that part, which the parts on
ESP32 modules resemble.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from virtualboard.named_values import NamedValues

_SECTOR, _BLOCK = 0x1000, 0x10000
_LONGEST_S = 3600.0


class BadTiming(ValueError):
    """The text names no timing. The message is for a person: a fact, then a hint on its own line."""


class Timing(NamedValues):
    """Seconds per unit of work.

    `strap_delay_s`: from EN rising to the sampling of the boot strap; a board's EN capacitor makes it 2 to 10 ms.
    `strap_timeout_s`: how long EN may rise with DTR and RTS both asserted before the strap is sampled as it is; over
    RFC 2217 one line follows the other by 50 to 100 ms.
    `jump_s`: from the reply of a command that leaves the loader to the first byte of what runs next; a guess of the
    order of the reply's own time on the wire at 115200 baud.
    `erase_sector_s`, `erase_block_s`: 4 KiB and aligned 64 KiB of flash (block 0: erased sector by sector);
    `program_page_s`: 256 bytes. `md5_s_per_mb`: per 1,000,000 bytes, in the stub as in the ROM.
    `rom_s`, `bootloader_s`, `app_s`: from the strap to the ROM's first byte; then the second stage; then the
    application's own start. The CPU model is much faster than flash and hashing let a chip be, so both of the latter
    pass before its first instruction, and the watchdogs do not count them.
    `paced`: bytes take the time of ten bits at the host's rate. `line_bytes_per_s`: the pace where no rate counts
    (USB); 0 is at once. `latency_s`: from the last bit of a byte to the host's driver. `reenumerate_s`: how long a USB
    port is gone when the chip's USB device starts again.
    """

    strap_delay_s: float = 0.002
    strap_timeout_s: float = 0.25
    jump_s: float = 0.002
    erase_sector_s: float = 0.0
    erase_block_s: float = 0.0
    program_page_s: float = 0.0
    md5_s_per_mb: float = 0.0
    rom_s: float = 0.0
    bootloader_s: float = 0.0
    app_s: float = 0.0
    paced: float = 0.0
    line_bytes_per_s: float = 0.0
    latency_s: float = 0.0
    reenumerate_s: float = 0.0

    @property
    def md5_byte_s(self) -> float:
        """Seconds to hash one byte of flash."""
        return self.md5_s_per_mb / 1e6

    def erase_s(self, offset: int, n: int) -> float:
        """Seconds to erase `n` bytes at `offset`, both whole sectors, as loaders do: aligned blocks in one go."""
        if not self.erase_block_s:
            return n // _SECTOR * self.erase_sector_s
        first = -(-offset // _BLOCK) * _BLOCK
        blocks = max(0, (offset + n) // _BLOCK * _BLOCK - first) // _BLOCK
        return blocks * self.erase_block_s + (n - blocks * _BLOCK) // _SECTOR * self.erase_sector_s

    def byte_s(self, baud: int) -> float:
        """Seconds that one byte is on the line at the host's rate `baud`."""
        if self.paced:
            return 10 / max(1, baud)
        return 1 / self.line_bytes_per_s if self.line_bytes_per_s else 0.0


INSTANT = Timing()

_BOARD = INSTANT._replace(
    erase_sector_s=0.045,  # W25Q32JV tSE
    erase_block_s=0.150,  # W25Q32JV tBE2
    program_page_s=0.0004,  # W25Q32JV tPP
    rom_s=0.020,  # guess, of the order of a boot log's time stamps
    bootloader_s=0.250,  # guess: second stage with its log at 115200 and the hash of a small app
    app_s=0.150,  # guess: start of ESP-IDF up to app_main
    reenumerate_s=0.3,  # guess: esptool looks again after 0.5 s, and that is enough on most hosts
)
_UART = _BOARD._replace(
    paced=1.0,
    latency_s=0.001,  # CP210x, CH34x and an FTDI set to low latency poll each millisecond; FTDI's default is 0.016
)
_USB = _BOARD._replace(
    # Full speed moves at most 19 packets of 64 bytes each millisecond; what the chip keeps up with is a guess.
    line_bytes_per_s=500_000.0,
    latency_s=0.001,  # one frame of full-speed USB
)

PROFILES: Mapping[str, Timing] = MappingProxyType(
    {
        "instant": INSTANT,
        # Guess: the stub raises an ESP32's clock on a UART too, so it hashes about as an S3 on USB does.
        "esp32-uart": _UART._replace(md5_s_per_mb=0.5),
        # ESPConnect issue 52: 7 MB in about 40 s. The stub leaves an S3 on a UART at its slow boot clock.
        "esp32s3-uart": _UART._replace(md5_s_per_mb=5.7),
        # fbuild issue 66: 2.4 MB in about 1 s.
        "esp32s3-usb": _USB._replace(md5_s_per_mb=0.4),
        # Guess: as the S3, at 160 MHz instead of 240.
        "esp32c3-usb": _USB._replace(md5_s_per_mb=0.6),
    }
)


def parse_timing(text: str) -> Timing:
    """`PROFILE[,KEY=VALUE...]`, e.g. `esp32s3-uart,latency_s=0.016`. Raises BadTiming."""
    name, *overrides = text.split(",")
    if name not in PROFILES:
        from difflib import get_close_matches

        near = get_close_matches(name, PROFILES, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(PROFILES)}."
        raise BadTiming(f"{name!r} is not a timing profile\n{hint}")
    values: dict[str, float] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key not in Timing._fields:
            from difflib import get_close_matches

            near = get_close_matches(key, Timing._fields, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(Timing._fields)}."
            raise BadTiming(f"{key!r} is not a time of profile {name}\n{hint}")
        values[key] = _number(key, value)
    return PROFILES[name]._replace(**values)


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    highest = 1e9 if key == "line_bytes_per_s" else _LONGEST_S
    if not 0 <= number <= highest:
        raise BadTiming(f"{key}={value} is not a number from 0 to {highest:g}\nWrite it like {key}=0.016.")
    return number
