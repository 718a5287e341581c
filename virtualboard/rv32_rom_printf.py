"""The text of the mask ROM's `ets_printf`, which is no `printf` of C.

Knows its conversions and RISC-V's variadic convention; does not know where the text goes. Invariant: whatever the
template and the arguments are, a text comes back, of a bounded length for each conversion.

Measured on the ROM of an ESP32-C3 (revision 3), each form by itself: it knows d, D, u, U, x, X, p, c, s and %, with
`-`, `0`, a width and `l`, `ll`; a precision only fills up with zeros, a `c` is never padded, `p` is always 0x and eight
digits, and of the long ones only `lld` shows 64 bits. What it does not know it copies, and goes on behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from virtualboard.rv32_caller import Caller, signed

_CONVERSION = rb"(?s)%(?P<flags>[-0]*)(?P<width>\d*)(?P<precision>\.\d*)?(?P<long>l*)(?P<kind>.)"
_MAX_WIDTH = 1 << 12
_HEXADECIMAL = {"x": "x", "X": "X"}


class Arguments:
    """Those that follow `first` fixed ones of a call, in order."""

    def __init__(self, c: Caller, first: int) -> None:
        self._word, self._at = c.argument, first

    def word(self) -> int:
        self._at += 1
        return self._word(self._at - 1)

    def pair(self) -> int:
        """64 bits: an aligned pair of words."""
        self._at += self._at & 1
        low = self.word()
        return low | self.word() << 32


def formatted(c: Caller, template: bytes, arguments: Arguments) -> bytes:
    """The text of `template` with its arguments; each line ends as on a terminal, however the template does it."""
    text = re.sub(_CONVERSION, lambda match: _converted(c.text, match, arguments), template)
    return text.replace(b"\r", b"").replace(b"\n", b"\r\n")


def _converted(text_at: Callable[[int, int], bytes], match: re.Match[bytes], arguments: Arguments) -> bytes:
    kind = match["kind"].decode("latin-1")
    width = min(int(match["width"] or 0), _MAX_WIDTH)
    if kind == "%" and not width:
        return b"%"
    if kind == "c":
        return bytes([arguments.word() & 0xFF])
    if kind == "p":
        return b"0x%08x" % arguments.word()
    if kind == "s":
        address = arguments.word()
        text = text_at(address, 1 << 16) if address else b"<null>"
    elif kind in "dDuUxX":
        text = _number(kind, len(match["long"]) >= 2, arguments)
    else:
        return b"%" + match["kind"] + b" " * width
    if b"-" in match["flags"]:
        return text.ljust(width)
    return _zeros(text, width) if b"0" in match["flags"] or match["precision"] else text.rjust(width)


def _number(kind: str, is_long: bool, arguments: Arguments) -> bytes:
    value = arguments.pair() if is_long else arguments.word()
    if kind in "dD":
        return b"%d" % signed(value, 64 if is_long else 32)
    return format(value & 0xFFFFFFFF, _HEXADECIMAL.get(kind, "d")).encode()


def _zeros(text: bytes, width: int) -> bytes:
    sign = text[:1] if text[:1] == b"-" else b""
    return sign + text[len(sign) :].rjust(width - len(sign), b"0")
