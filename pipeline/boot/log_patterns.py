"""What the lines of a boot log mean: the mask ROMs, the bootloaders and the panic handlers of every ESP32.

`PATTERNS` is the only place that knows their words. Pure; does not know which line came before, ports or time.
Sources: the recorded logs of real mask ROMs (ESP32, ESP32-C3), ESP-IDF's `bootloader_support`, `esp_system` and newlib,
the panic handlers of Rust's esp-backtrace and of Zephyr. Invariant: what a line is depends on that line alone, without
colour codes, and is found in time linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from cache.named_tuple import NamedTuple


class LineKind(StrEnum):
    """What one line of a boot log can mean."""

    BANNER = "banner"
    RESET = "reset"
    LOADER = "loader"
    ROM_REFUSAL = "rom-refusal"
    REFUSED = "refused"
    DOWNLOAD = "download"
    NOT_EXECUTED = "not-executed"
    PANIC = "panic"
    REBOOTING = "rebooting"


_ROM = (
    r"ets |Build:|SPIWP:|SPI mode:|mode:|load:|entry |configsip:|clk_drv:|Saved PC:|ho \d|"
    r"csum err|Checksum failure|SHA-256 comparison failed|Calculated: |Expected: |Attempting to boot|"
    r"secure boot|Secure boot|Valid secure|No secure boot|flash read err|ets_\w+\.c|cmd len |\d+ mmu set |"
    r"invalid header|invalid magic|Invalid chip id|Invalid image block|wrong chip id|region \d+ .*overlaps |"
    r"user code done|Falling back to built-in|waiting for download|USB download|Fatal exception"
)
"""How the lines begin that mask ROMs print."""

_BOOTLOADER_TAGS = (
    r"boot(?:\.\w+|_comm)?|esp_image|bootloader\w*|flash_parts|qio_mode|secure_boot\w*|flash_encrypt\w*|efuse\w*|"
    r"soc_init|mcuboot|esp_bootloader\w*"
)
"""Whole tags: an application may well have a `boot_button`."""

PATTERNS: Mapping[LineKind, str] = {
    # First line of the mask ROMs since ESP32-S2; ESP32's starts with `ets <date>` and has no name.
    LineKind.BANNER: r"ESP-ROM:",
    # `rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)`, once per reset, all chips.
    LineKind.RESET: r"\brst:(0x[0-9a-fA-F]+)(?: \((\w+)\))?",
    # The rest of what the ROM and the second stage bootloader print: everything before the application speaks. A
    # virtual board's own words are no application's either.
    LineKind.LOADER: (
        rf"^(?:{_ROM}|boot: |virtualboard: |"
        rf"[EWIDV] (?:\([^)]{{1,20}}\) )?(?:{_BOOTLOADER_TAGS}):|"
        r"\[esp32\w*\] \[(?:ERR|WRN|INF|DBG)\]|\*\*\* Booting MCUboot)"
    ),
    # The mask ROM does not start the second stage.
    LineKind.ROM_REFUSAL: (
        r"^(?:invalid header|Invalid chip id|Invalid image block|wrong chip id|region \d+ .*overlaps |ets_loader\.c|"
        r"csum err|Checksum failure|SHA-256 comparison failed|flash read err|cmd len )"
    ),
    # Why the ROM or the bootloader would not start an image: the cause of the reset that follows.
    LineKind.REFUSED: (
        r"^(?:boot: error: |boot: .* rejected: |invalid header|Invalid chip id|Invalid image block|wrong chip id|"
        r"region \d+ .*overlaps |ets_loader\.c|csum err|Checksum failure|SHA-256 comparison failed|flash read err|"
        r"cmd len |E (?:\([^)]{1,20}\) )?(?:boot(?:\.\w+)?|esp_image|flash_parts):|\[esp32\w*\] \[ERR\])"
    ),
    LineKind.DOWNLOAD: r"waiting for download",
    # A virtual board says so instead of executing what it has no model for.
    LineKind.NOT_EXECUTED: r"^virtualboard: .*(?:\bis not executed\b|which this board does not have)",
    LineKind.PANIC: (
        # ESP-IDF's panic handler, the ROM's own, and the heads of what it prints for one core
        r"Guru Meditation|panic'ed|^Fatal exception|^Core +\d+ register dump:|Brownout detector|"
        # esp_system_abort(): its callers' texts
        r"abort\(\) was called|^assert failed:|^assertion \"|A stack overflow in task|Stack smashing protect failure|"
        r"^\*\*\*ERROR\*\*\*|^ESP_ERROR_CHECK failed|^Undefined behavior of type |^CORRUPT HEAP: |"
        # C++, Rust, Zephyr
        r"^terminate called |^pure virtual method called|^(?:thread '[^']*' (?:\(\d+\) )?)?panicked at |"
        r"^!! A panic occured |^=+ PANIC =+|^>>> ZEPHYR FATAL ERROR|\bos: >>> ZEPHYR FATAL ERROR"
    ),
    LineKind.REBOOTING: r"^Rebooting\.\.\.",
}
"""Regular expressions. As texts, which `re` compiles when it is first asked: a monitor shows its first byte before."""

_LOADED = "Loaded app from partition at offset "
STARTS = (
    r"^(?:(?:[EWIDV] (?:\([^)]{1,20}\) )?)?boot: Loaded app from partition at offset |boot: \w+ starts from )"
    r"(0x[0-9a-fA-F]{1,8})\b"
)
"""What a second stage says last: from where in flash it starts an application. ESP-IDF's words, and the reference
firmware's."""

_ROM_REFUSES = (
    *("invalid header", "Invalid chip id", "Invalid image block", "wrong chip id", "ets_loader.c", "csum err"),
    *("Checksum failure", "SHA-256 comparison failed", "flash read err", "cmd len "),
)


class _Words(NamedTuple):
    """What of a pattern is plain text. A line that begins with one of `starts` or has one of `words` in it matches; of
    the others only one that begins with one of `maybe_starts` or has one of `maybe_words` in it can."""

    starts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    maybe_starts: tuple[str, ...] = ()
    maybe_words: tuple[str, ...] = ()

    def say(self, line: str) -> bool | None:
        """Does `line` match? None: the pattern must tell."""
        if line.startswith(self.starts) or any(word in line for word in self.words):
            return True
        maybe = line.startswith(self.maybe_starts) or any(word in line for word in self.maybe_words)
        return None if maybe else False


_WORDS: Mapping[LineKind, _Words] = {
    LineKind.BANNER: _Words(words=("ESP-ROM:",)),
    LineKind.RESET: _Words(maybe_words=("rst:0x",)),
    LineKind.LOADER: _Words(
        starts=(
            *("ets ", "Build:", "SPIWP:", "SPI mode:", "mode:", "load:", "entry ", "configsip:", "clk_drv:", "boot: "),
            *("Saved PC:", "csum err", "Checksum failure", "SHA-256 comparison failed", "Calculated: ", "Expected: "),
            *("Attempting to boot", "secure boot", "Secure boot", "Valid secure", "No secure boot", "flash read err"),
            *("cmd len ", "invalid header", "invalid magic", "Invalid chip id", "Invalid image block"),
            *("wrong chip id", "user code done", "Falling back to built-in", "waiting for download", "USB download"),
            *("Fatal exception", "virtualboard: ", "*** Booting MCUboot"),
        ),
        maybe_starts=("E ", "W ", "I ", "D ", "V ", "ho ", "ets_", "region ", "[esp32"),
        maybe_words=(" mmu set ",),
    ),
    LineKind.ROM_REFUSAL: _Words(_ROM_REFUSES, maybe_starts=("region ",)),
    LineKind.REFUSED: _Words(
        ("boot: error: ", *_ROM_REFUSES), maybe_starts=("region ", "E ", "[esp32"), maybe_words=(" rejected: ",)
    ),
    LineKind.DOWNLOAD: _Words(words=("waiting for download",)),
    LineKind.NOT_EXECUTED: _Words(maybe_starts=("virtualboard: ",)),
    LineKind.PANIC: _Words(
        starts=(
            *("Fatal exception", "assert failed:", 'assertion "', "***ERROR***", "ESP_ERROR_CHECK failed"),
            *("Undefined behavior of type ", "CORRUPT HEAP: ", "terminate called ", "pure virtual method called"),
            *("!! A panic occured ", ">>> ZEPHYR FATAL ERROR"),
        ),
        words=(
            *("Guru Meditation", "panic'ed", "Brownout detector", "abort() was called", "A stack overflow in task"),
            "Stack smashing protect failure",
        ),
        maybe_starts=("Core ", "="),
        maybe_words=("panicked at ", "os: >>> ZEPHYR FATAL ERROR"),
    ),
    LineKind.REBOOTING: _Words(("Rebooting...",)),
}
"""The patterns once more, as far as no regular expression is needed: most lines of a boot are told by these, and to
compile the patterns takes longer than the boot of a small firmware."""

DEEP_SLEEP = 0x5
"""Reset cause of a wake from deep sleep, on every chip: the application asked for it."""

MAX_SEARCHED = 4096
"""Characters of a line in which kinds are looked for."""

_ANSI = r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[()][A-Za-z0-9]|[=>78cM])"


def line_kinds(line: str) -> frozenset[LineKind]:
    """What one line (without colour codes) is."""
    head = line[:MAX_SEARCHED]
    found = []
    for kind, words in _WORDS.items():
        said = words.say(head)
        if said or (said is None and re.search(PATTERNS[kind], head)):
            found.append(kind)
    return frozenset(found)


def reset_cause(line: str) -> int | None:
    """The cause in a line of kind RESET."""
    found = re.search(PATTERNS[LineKind.RESET], line[:MAX_SEARCHED])
    return int(found[1], 16) if found else None


def started_at(line: str) -> int | None:
    """The flash offset from which a bootloader says that it starts an application."""
    if line.startswith("boot: "):  # the reference firmware's words, told as STARTS would
        said = line[6:].removeprefix(_LOADED)
        name, starts, rest = ("_", True, said) if said != line[6:] else said.partition(" starts from ")
        return _offset(rest) if starts and name.replace("_", "a").isalnum() else None
    found = re.match(STARTS, line) if "boot: " in line and "0x" in line else None
    return int(found[1], 16) if found else None


def _offset(text: str) -> int | None:
    """`0x` and up to eight digits, where no letter or digit follows."""
    digits = len(text[2:]) - len(text[2:].lstrip("0123456789abcdefABCDEF"))
    behind = text[2 + digits : 3 + digits]
    if text[:2] != "0x" or not 0 < digits <= 8 or behind == "_" or behind.isalnum():
        return None
    return int(text[2 : 2 + digits], 16)


def plain_line(raw: bytes) -> tuple[str, bool]:
    """One line as text without colours, and whether all of it is printable text."""
    try:
        text = raw.decode("utf-8")
        clean = True
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "backslashreplace")
        clean = False
    text = (re.sub(_ANSI, "", text) if "\x1b" in text else text).strip()
    return text, clean and text.replace("\t", " ").isprintable()


def visible(text: str) -> str:
    """`text` with what is not printable shown by its code, so that a device's log cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)
