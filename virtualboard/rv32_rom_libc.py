"""The mask ROM's C library, done by the host: memory and strings, characters, numbers in text.

Each function does what the C standard (or newlib, for the others) says its namesake does, on the memory of a `Caller`.
Does not know a CPU. Invariant: a function reads no further than its C meaning lets it, and one that would never end in
C (no terminator anywhere) ends at `LIMIT`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from virtualboard.rv32_caller import LIMIT, Caller, RomFunction, signed

_DIGIT_CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGITS, _LOWER = frozenset(_DIGIT_CHARACTERS[:10].encode()), frozenset(_DIGIT_CHARACTERS[10:].encode())
_UPPER = frozenset(_DIGIT_CHARACTERS[10:].upper().encode())
_LETTERS = _UPPER | _LOWER
_SPACE = frozenset(b" \t\n\v\f\r")
_PRINTED = frozenset(range(0x20, 0x7F))
_PUNCTUATION = _PRINTED - _LETTERS - _DIGITS - {0x20}


def _lower(text: bytes) -> bytes:
    return text.lower()  # of ASCII only, as in the C locale


# --- memory ----------------------------------------------------------------------------------------


def memset(c: Caller) -> int:
    c.store(c.argument(0), bytes([c.argument(1) & 0xFF]) * min(c.argument(2), LIMIT))
    return c.argument(0)


def bzero(c: Caller) -> int:
    c.store(c.argument(0), bytes(min(c.argument(1), LIMIT)))
    return 0


def memmove(c: Caller) -> int:
    c.store(c.argument(0), c.load(c.argument(1), c.argument(2)))
    return c.argument(0)


def memcmp(c: Caller) -> int:
    return _order(c.load(c.argument(0), c.argument(2)), c.load(c.argument(1), c.argument(2)))


def memchr(c: Caller) -> int:
    at = c.load(c.argument(0), c.argument(2)).find(c.argument(1) & 0xFF)
    return 0 if at < 0 else c.argument(0) + at


def memrchr(c: Caller) -> int:
    at = c.load(c.argument(0), c.argument(2)).rfind(bytes([c.argument(1) & 0xFF]))
    return 0 if at < 0 else c.argument(0) + at


def memccpy(c: Caller) -> int:
    data = c.load(c.argument(1), c.argument(3))
    at = data.find(c.argument(2) & 0xFF)
    kept = data if at < 0 else data[: at + 1]
    c.store(c.argument(0), kept)
    return 0 if at < 0 else c.argument(0) + len(kept)


def _order(a: bytes, b: bytes) -> int:
    return (a > b) - (a < b)


# --- strings ----------------------------------------------------------------------------------------


def strlen(c: Caller) -> int:
    return len(c.text(c.argument(0)))


def strnlen(c: Caller) -> int:
    return len(c.text(c.argument(0), c.argument(1)))


def strcpy(c: Caller) -> int:
    c.store(c.argument(0), c.text(c.argument(1)) + b"\0")
    return c.argument(0)


def strncpy(c: Caller) -> int:
    n = min(c.argument(2), LIMIT)
    c.store(c.argument(0), c.text(c.argument(1), n).ljust(n, b"\0"))
    return c.argument(0)


def strcat(c: Caller) -> int:
    c.store(c.argument(0) + len(c.text(c.argument(0))), c.text(c.argument(1)) + b"\0")
    return c.argument(0)


def strncat(c: Caller) -> int:
    c.store(c.argument(0) + len(c.text(c.argument(0))), c.text(c.argument(1), c.argument(2)) + b"\0")
    return c.argument(0)


def strlcpy(c: Caller) -> int:
    source = c.text(c.argument(1))
    if c.argument(2):
        c.store(c.argument(0), source[: c.argument(2) - 1] + b"\0")
    return len(source)


def strlcat(c: Caller) -> int:
    room = c.argument(2)
    have, source = c.text(c.argument(0), room), c.text(c.argument(1))
    if len(have) < room:
        c.store(c.argument(0) + len(have), source[: room - len(have) - 1] + b"\0")
    return len(have) + len(source)


def strcmp(c: Caller) -> int:
    return _order(c.text(c.argument(0)), c.text(c.argument(1)))


def strncmp(c: Caller) -> int:
    n = c.argument(2)
    return _order(c.text(c.argument(0), n), c.text(c.argument(1), n))


def strcasecmp(c: Caller) -> int:
    return _order(_lower(c.text(c.argument(0))), _lower(c.text(c.argument(1))))


def strncasecmp(c: Caller) -> int:
    n = c.argument(2)
    return _order(_lower(c.text(c.argument(0), n)), _lower(c.text(c.argument(1), n)))


def strchr(c: Caller) -> int:
    at = (c.text(c.argument(0)) + b"\0").find(c.argument(1) & 0xFF)
    return 0 if at < 0 else c.argument(0) + at


def strrchr(c: Caller) -> int:
    at = (c.text(c.argument(0)) + b"\0").rfind(bytes([c.argument(1) & 0xFF]))
    return 0 if at < 0 else c.argument(0) + at


def strstr(c: Caller) -> int:
    at = c.text(c.argument(0)).find(c.text(c.argument(1)))
    return 0 if at < 0 else c.argument(0) + at


def strcasestr(c: Caller) -> int:
    at = _lower(c.text(c.argument(0))).find(_lower(c.text(c.argument(1))))
    return 0 if at < 0 else c.argument(0) + at


def _span(text: bytes, among: bytes, *, inside: bool) -> int:
    return next((at for at, byte in enumerate(text) if (byte in among) != inside), len(text))


def strspn(c: Caller) -> int:
    return _span(c.text(c.argument(0)), c.text(c.argument(1)), inside=True)


def strcspn(c: Caller) -> int:
    return _span(c.text(c.argument(0)), c.text(c.argument(1)), inside=False)


def strsep(c: Caller) -> int:
    """`char *strsep(char **string, const char *delimiters)`: newlib's, which finds no empty token at the end."""
    start = c.word(c.argument(0))
    text = c.text(start) if start else b""
    if not text:
        c.store_word(c.argument(0), 0)
        return 0
    n = _span(text, c.text(c.argument(1)), inside=False)
    c.store_word(c.argument(0), start + n + 1 if n < len(text) else 0)
    if n < len(text):
        c.store(start + n, b"\0")
    return start


def strtok_r(c: Caller) -> int:
    """`char *strtok_r(char *string, const char *delimiters, char **rest)`"""
    start = c.argument(0) or c.word(c.argument(2))
    if not start:
        return 0
    delimiters = c.text(c.argument(1))
    text = c.text(start)
    skipped = _span(text, delimiters, inside=True)
    start, text = start + skipped, text[skipped:]
    n = _span(text, delimiters, inside=False)
    c.store_word(c.argument(2), start + n + 1 if n < len(text) else 0)
    if n < len(text):
        c.store(start + n, b"\0")
    return start if text else 0


def strlwr(c: Caller) -> int:
    c.store(c.argument(0), c.text(c.argument(0)).lower())
    return c.argument(0)


def strupr(c: Caller) -> int:
    c.store(c.argument(0), c.text(c.argument(0)).upper())
    return c.argument(0)


# --- characters ---------------------------------------------------------------------------------------


def _is(members: frozenset[int]) -> RomFunction:
    return lambda c: int(c.argument(0) in members)


def toupper(c: Caller) -> int:
    return c.argument(0) - 0x20 if c.argument(0) in _LOWER else c.argument(0)


def tolower(c: Caller) -> int:
    return c.argument(0) + 0x20 if c.argument(0) in _UPPER else c.argument(0)


# --- numbers ------------------------------------------------------------------------------------------


def absolute(c: Caller) -> int:
    return abs(signed(c.argument(0)))


def _digit(byte: int) -> int:
    return int(chr(byte), 36) if byte in _DIGITS or byte in _LETTERS else 99


def _number(c: Caller, base: int) -> tuple[int, int, bool]:
    """What `strtol` reads at its first argument: value without limits, bytes used (0: nothing), whether it had `-`."""
    text = c.text(c.argument(0))
    at = _span(text, bytes(_SPACE), inside=True)
    negative = text[at : at + 1] == b"-"
    at += text[at : at + 1] in (b"-", b"+")
    if base in (0, 16) and text[at : at + 2].lower() == b"0x" and _digit((text[at + 2 : at + 3] or b"~")[0]) < 16:
        at, base = at + 2, 16
    elif base == 0:
        base = 8 if text[at : at + 1] == b"0" else 10
    first = at
    value = 0
    while at < len(text) and _digit(text[at]) < base:
        value, at = value * base + _digit(text[at]), at + 1
    return value, at if at > first else 0, negative


def _to_number(c: Caller, end: int, base: int, limits: Callable[[int, bool], int]) -> int:
    value, used, negative = _number(c, base)
    if end:
        c.store_word(end, c.argument(0) + used)
    return limits(value, negative)


def _long(value: int, negative: bool) -> int:
    return max(-(1 << 31), -value) if negative else min(value, (1 << 31) - 1)


def _unsigned_long(value: int, negative: bool) -> int:
    if value > 0xFFFFFFFF:
        return 0xFFFFFFFF
    return -value if negative else value


def strtol(c: Caller) -> int:
    return _to_number(c, c.argument(1), signed(c.argument(2)), _long)


def strtoul(c: Caller) -> int:
    return _to_number(c, c.argument(1), signed(c.argument(2)), _unsigned_long)


def atoi(c: Caller) -> int:
    return _to_number(c, 0, 10, _long)


def in_base(value: int, base: int) -> str:
    """Digits of a number that is not negative, in a base from 2 to 36."""
    digits = ""
    while value or not digits:
        value, digit = divmod(value, base)
        digits = _DIGIT_CHARACTERS[digit] + digits
    return digits


def utoa(c: Caller) -> int:
    """`char *utoa(unsigned value, char *string, int base)`"""
    return _write_number(c, c.argument(0), "")


def itoa(c: Caller) -> int:
    """`char *itoa(int value, char *string, int base)`: only a decimal number has a sign."""
    value = signed(c.argument(0))
    negative = value < 0 and c.argument(2) == 10
    return _write_number(c, -value if negative else c.argument(0), "-" if negative else "")


def _write_number(c: Caller, value: int, sign: str) -> int:
    base = c.argument(2)
    if not 2 <= base <= 36:
        c.store(c.argument(1), b"\0")
        return 0
    c.store(c.argument(1), (sign + in_base(value, base)).encode() + b"\0")
    return c.argument(1)


LIBC: Mapping[str, RomFunction] = MappingProxyType(
    {
        **{f.__name__: f for f in (memset, bzero, memmove, memcmp, memchr, memrchr, memccpy)},
        **{f.__name__: f for f in (strlen, strnlen, strcpy, strncpy, strcat, strncat, strlcpy, strlcat, strcmp)},
        **{f.__name__: f for f in (strncmp, strcasecmp, strncasecmp, strchr, strrchr, strstr, strcasestr, strspn)},
        **{f.__name__: f for f in (strcspn, strsep, strtok_r, strlwr, strupr, toupper, tolower, strtol, strtoul)},
        **{f.__name__: f for f in (atoi, utoa, itoa)},
        "memcpy": memmove,
        "strcoll": strcmp,
        "atol": atoi,
        "abs": absolute,
        "labs": absolute,
        "isalnum": _is(_LETTERS | _DIGITS),
        "isalpha": _is(_LETTERS),
        "isascii": _is(frozenset(range(128))),
        "isblank": _is(frozenset(b" \t")),
        "iscntrl": _is(frozenset({*range(32), 127})),
        "isdigit": _is(_DIGITS),
        "isgraph": _is(_PRINTED - {0x20}),
        "islower": _is(_LOWER),
        "isprint": _is(_PRINTED),
        "ispunct": _is(_PUNCTUATION),
        "isspace": _is(_SPACE),
        "isupper": _is(_UPPER),
        "toascii": lambda c: c.argument(0) & 0x7F,
    }
)
"""By the name of the ROM function."""
