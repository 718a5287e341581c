"""A flash write and a flash read of the flasher stub while they are under way, in both generations.

Does not know frames' headers, UART or time. Invariant: what is written lies inside the region that was announced; a
read sends each byte once, in order, then the MD5 of what it sent.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable

from virtualboard.nor import SECTOR_SIZE
from virtualboard.protocol import Target

INFLATE, NOT_ENOUGH, TOO_MUCH = 0xC7, 0xC8, 0xC9
_ERASE_BLOCK = 0x10000
_INFLATE_BUFFER = 0x8000  # the stub inflates into a window of this size and writes when it is full
MAX_READ_BLOCK = 0x1000
_MAX_IN_FLIGHT = 0x10000  # bounds what an odd client can ask for at once


class StubWrite:
    """A write of `size` bytes at `offset`: erases just ahead of the bytes, in blocks of 64 KiB where they fit whole.

    `encrypt` is applied to whole blocks, as esptool sends them. `erase_ahead`: generation 2 begins to erase before the
    first block arrives.
    """

    def __init__(
        self,
        target: Target,
        offset: int,
        size: int,
        *,
        inflate: bool,
        erase_ahead: bool,
        encrypt: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.remaining = size
        self.inflate = inflate
        self.finished = False  # the compressed stream has ended
        self._target = target
        self._encrypt = encrypt
        self._at = offset
        self._erased_to = offset - offset % SECTOR_SIZE
        self._erase_end = -(-(offset + size) // SECTOR_SIZE) * SECTOR_SIZE
        self._inflater = zlib.decompressobj()
        self._inflated = bytearray()
        self._error = 0
        # The first erase runs while the first block is on its way; what it takes is part of that block's time.
        self._ahead_s = self._erase_next() if erase_ahead else 0.0

    def restart(self) -> None:
        """Block number 0 begins the compressed stream again."""
        self._inflater = zlib.decompressobj()
        self._inflated.clear()
        self.finished = False

    def put(self, payload: bytes) -> tuple[float, int]:
        """Write one block; returns seconds and an error."""
        seconds, self._ahead_s = self._ahead_s, 0.0
        if not self.inflate:
            # The last block is padded beyond what was announced.
            return seconds + self._write(payload[: self.remaining]), 0
        try:
            while not self.finished:
                out = self._inflater.decompress(payload, _INFLATE_BUFFER - len(self._inflated))
                payload = self._inflater.unconsumed_tail
                self._inflated += out
                self.finished = self._inflater.eof
                full = len(self._inflated) == _INFLATE_BUFFER
                if self.finished or full:
                    if len(self._inflated) > self.remaining:
                        return seconds, TOO_MUCH
                    seconds += self._write(bytes(self._inflated))
                    self._inflated.clear()
                elif not payload:
                    break
        except zlib.error:
            return seconds, INFLATE
        return seconds, 0

    def _write(self, data: bytes) -> float:
        end = self._at + len(data)
        seconds = 0.0
        while self._erased_to < min(end, self._erase_end):
            seconds += self._erase_next()
        seconds += self._target.program(self._at, data if self._encrypt is None else self._encrypt(data))
        self._at, self.remaining = end, self.remaining - len(data)
        return seconds

    def _erase_next(self) -> float:
        left = self._erase_end - self._erased_to
        if left <= 0:
            return 0.0
        step = _ERASE_BLOCK if self._erased_to % _ERASE_BLOCK == 0 and left >= _ERASE_BLOCK else SECTOR_SIZE
        start, self._erased_to = self._erased_to, self._erased_to + step
        return self._target.erase(start, self._erased_to)


class StubRead:
    """A read of `n` bytes at `offset` in blocks, each acknowledged with the number of bytes received, then the MD5.

    Generation 1 (`in_flight` given) sends while less than so many bytes are unacknowledged. Generation 2 (None) counts
    acknowledgements, one block for each, and looks at the number only at the end.
    """

    def __init__(self, target: Target, offset: int, n: int, block: int, in_flight: int | None) -> None:
        self._target = target
        self._offset = offset
        self._n = n
        self._block = block
        self._in_flight = None if in_flight is None else min(in_flight, _MAX_IN_FLIGHT)
        self._sent = 0
        self._acknowledged = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.done = False

    def start(self) -> tuple[bytes, ...]:
        """What follows the reply."""
        return self._more() if self._n else self._end()

    def frame(self, frame: bytes) -> tuple[tuple[bytes, ...], bool]:
        """What a frame from the host brings, and whether the read has consumed it."""
        if len(frame) != 4:
            # The read breaks off. Generation 2 then sees a command in the frame, generation 1 has lost it.
            return self._end(), self._in_flight is not None
        (self._acknowledged,) = struct.unpack("<I", frame)
        beyond = self._in_flight is not None and self._acknowledged > self._sent
        frames = () if beyond else self._more()
        if beyond or (self._sent == self._n and self._acknowledged >= self._n):
            frames += self._end()
        return frames, True

    def _more(self) -> tuple[bytes, ...]:
        """The blocks that may go out now."""
        frames: list[bytes] = []
        while self._sent < self._n:
            if self._in_flight is None:
                if frames:
                    break
            elif self._sent - self._acknowledged >= self._in_flight:
                break
            data = self._target.read(self._offset + self._sent, min(self._block, self._n - self._sent))
            self._sent += len(data)
            self._md5.update(data)
            frames.append(data)
        return tuple(frames)

    def _end(self) -> tuple[bytes, ...]:
        self.done = True
        return (self._md5.digest(),)
