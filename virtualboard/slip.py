"""SLIP framing as the ROM loader uses it: C0 ends and begins a frame, DB DC is C0, DB DD is DB.

Does not know what a frame means. Invariant: bytes outside frames, broken escapes and oversized frames cost that frame
only; the decoder holds at most `limit` bytes whatever arrives.
"""

from __future__ import annotations

END = 0xC0
ESC = 0xDB
_ESCAPED = {0xDC: 0xC0, 0xDD: 0xDB}

# The length field of a request has 16 bits; 8 bytes of header come before the data.
MAX_FRAME = 0xFFFF + 8


def encode(payload: bytes) -> bytes:
    """One frame with its delimiters."""
    return b"\xc0" + payload.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


class SlipDecoder:
    """Turns a byte stream, cut anywhere, into frames."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._frame: bytearray | None = None  # None: outside a frame

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, in order. Empty frames do not count."""
        frames: list[bytes] = []
        pieces = data.split(b"\xc0")
        for index, piece in enumerate(pieces):
            if index:
                self._delimiter(frames)
            if self._frame is not None:
                self._frame += piece
                # An escape doubles a byte at most, so twice the limit is certainly too long.
                if len(self._frame) > 2 * self._limit:
                    self._frame = None
        return frames

    def _delimiter(self, frames: list[bytes]) -> None:
        # As in the ROM, a C0 that closes a frame does not open the next: what follows is noise until another C0.
        raw = self._frame
        self._frame = None if raw else bytearray()
        frame = _unescape(bytes(raw)) if raw else None
        if frame is not None and len(frame) <= self._limit:
            frames.append(frame)


def _unescape(raw: bytes) -> bytes | None:
    """The bytes meant, or None when an escape is broken."""
    if ESC not in raw:
        return raw
    head, *rest = raw.split(b"\xdb")
    out = bytearray(head)
    for part in rest:
        if not part or part[0] not in _ESCAPED:
            return None
        out.append(_ESCAPED[part[0]])
        out += part[1:]
    return bytes(out)
