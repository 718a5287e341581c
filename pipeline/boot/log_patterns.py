"""What the lines of a boot log mean: the mask ROMs, the bootloaders and the panic handlers of every ESP32.

`SIGNS` is the only place that knows their words. Pure; does not know which line came before, ports or time.
Invariant: a sign depends on one line alone, without colour codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum


class Sign(StrEnum):
    """What one line of a boot log can mean."""

    BANNER = "banner"
    RESET = "reset"
    LOADER = "loader"
    BAD_HEADER = "bad-header"
    REFUSED = "refused"
    DOWNLOAD = "download"
    PANIC = "panic"
    REBOOTING = "rebooting"


SIGNS: Mapping[Sign, re.Pattern[str]] = {
    # First line of the mask ROMs since ESP32-S2; ESP32's starts with `ets <date>` and has no name.
    Sign.BANNER: re.compile(r"ESP-ROM:"),
    # `rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)`, once per reset, all chips.
    Sign.RESET: re.compile(r"\brst:(0x[0-9a-fA-F]+)(?: \((\w+)\))?"),
    # The rest of what the ROM and the second stage bootloader print: everything before the application speaks.
    Sign.LOADER: re.compile(
        r"^(ets |Build:|SPIWP:|mode:|load:|entry |configsip:|clk_drv:|Saved PC:|ho \d|csum err|secure boot|"
        r"flash read err|ets_main\.c|invalid header|invalid magic|waiting for download|Checksum failure|"
        r"SHA-256 comparison failed|Calculated: |Expected: |Attempting to boot|boot: |"
        r"[EWIDV] \(\d+\) (boot|esp_image|bootloader|flash_parts|qio_mode|secure_boot|flash_encrypt|efuse)[\w.]*:)"
    ),
    Sign.BAD_HEADER: re.compile(r"invalid header: 0x"),
    # Why the ROM or the bootloader would not start an image: the cause of the reset that follows.
    Sign.REFUSED: re.compile(
        r"^(boot: error: |boot: .* rejected: |Checksum failure|csum err|flash read err|E \(\d+\) (boot|esp_image))"
    ),
    Sign.DOWNLOAD: re.compile(r"waiting for download"),
    Sign.PANIC: re.compile(
        r"Guru Meditation|panic'ed|abort\(\) was called|Brownout detector|^assert failed:|A stack overflow in task"
    ),
    Sign.REBOOTING: re.compile(r"^Rebooting\.\.\."),
}

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def signs(line: str) -> frozenset[Sign]:
    """The signs in one line (without colour codes)."""
    return frozenset(sign for sign, pattern in SIGNS.items() if pattern.search(line))


def plain_line(raw: bytes) -> tuple[str, bool]:
    """One line as text without colours, and whether all of it is printable text."""
    try:
        text = raw.decode("utf-8")
        clean = True
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "backslashreplace")
        clean = False
    text = _ANSI.sub("", text).strip()
    return text, clean and text.replace("\t", " ").isprintable()


def visible(text: str) -> str:
    """`text` with what is not printable shown by its code, so that a device's log cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)
