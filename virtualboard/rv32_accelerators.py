"""The ESP32-C3's hash accelerator, with the part of the DMA that feeds it, and its random numbers.

Knows registers; does not know a CPU. Invariant: equal inputs give equal outputs, the random numbers too: they are those
of a generator whose seed is the board's, so that a run can be repeated.

Addresses: ESP32-C3 Technical Reference Manual, chapters 2 (DMA), 20 (SHA); ESP-IDF, `soc/esp32c3`. Algorithms: FIPS
180-4. AES, RSA, HMAC and the digital signature peripheral are not modelled.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import struct
from collections.abc import Callable
from typing import Any

from virtualboard.rv32_registers import RegisterBlock

_BLOCK = 64
_M32 = 0xFFFFFFFF
_START = {
    0: (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0),
    1: (*(0xC1059ED8, 0x367CD507, 0x3070DD17, 0xF70E5939, 0xFFC00B31, 0x68581511, 0x64F98FA7, 0xBEFA4FA4),),
    2: (*(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),),
}
"""Mode of the accelerator -> initial state of SHA-1, SHA-224, SHA-256."""
_ALGORITHMS = ("sha1", "sha224", "sha256")


@functools.cache
def _round_constants() -> tuple[int, ...]:
    """First 32 bits of the fractional parts of the cube roots of the first 64 primes."""
    primes: list[int] = []
    candidate = 2
    while len(primes) < 64:
        if all(candidate % prime for prime in primes):
            primes.append(candidate)
        candidate += 1
    constants = []
    for prime in primes:
        root = 0
        for bit in range(34, -1, -1):  # the cube root, times 2**32, by bisection
            if (root | 1 << bit) ** 3 <= prime << 96:
                root |= 1 << bit
        constants.append(root & _M32)
    return tuple(constants)


def _right(value: int, by: int) -> int:
    return (value >> by | value << 32 - by) & _M32


def compress(mode: int, state: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    """One step of the hash: `state` after 64 more bytes."""
    words = list(struct.unpack(">16I", block))
    return _compress_1(state, words) if mode == 0 else _compress_2(state, words)


def _compress_1(state: tuple[int, ...], w: list[int]) -> tuple[int, ...]:
    for t in range(16, 80):
        w.append(_right(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 31))
    a, b, c, d, e = state
    for t, word in enumerate(w):
        if t < 20:
            f, k = b & c | ~b & d, 0x5A827999
        elif t < 40:
            f, k = b ^ c ^ d, 0x6ED9EBA1
        elif t < 60:
            f, k = b & c | b & d | c & d, 0x8F1BBCDC
        else:
            f, k = b ^ c ^ d, 0xCA62C1D6
        a, b, c, d, e = _right(a, 27) + f + e + k + word & _M32, a, _right(b, 2), c, d
    return tuple(x + y & _M32 for x, y in zip(state, (a, b, c, d, e), strict=True))


def _compress_2(state: tuple[int, ...], w: list[int]) -> tuple[int, ...]:
    for t in range(16, 64):
        s0 = _right(w[t - 15], 7) ^ _right(w[t - 15], 18) ^ w[t - 15] >> 3
        s1 = _right(w[t - 2], 17) ^ _right(w[t - 2], 19) ^ w[t - 2] >> 10
        w.append(w[t - 16] + s0 + w[t - 7] + s1 & _M32)
    constants = _round_constants()
    a, b, c, d, e, f, g, h = state
    for t in range(64):
        s1 = _right(e, 6) ^ _right(e, 11) ^ _right(e, 25)
        t1 = h + s1 + (e & f ^ ~e & g) + constants[t] + w[t]
        s0 = _right(a, 2) ^ _right(a, 13) ^ _right(a, 22)
        t2 = s0 + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = t1 + t2 & _M32, a, b, c, d + t1 & _M32, e, f, g
    return tuple(x + y & _M32 for x, y in zip(state, (a, b, c, d, e, f, g, h), strict=True))


class _Running:
    """A hash from a known state on. Blocks are only worked off when the state is asked for; a message that was hashed
    from its beginning and ends with the padding of the standard is given to hashlib, which is a hundred times as fast
    as `compress`."""

    def __init__(self, mode: int, state: tuple[int, ...]) -> None:
        self.mode, self._state = mode, state
        self._waiting = bytearray()
        self._fresh = state == _START[mode]

    def add(self, block: bytes) -> None:
        self._waiting += block

    def state(self) -> tuple[int, ...]:
        if self._waiting:
            finished = self._finished() if self._fresh and self.mode != 1 else None
            if finished is not None:
                return finished
            for at in range(0, len(self._waiting), _BLOCK):
                self._state = compress(self.mode, self._state, bytes(self._waiting[at : at + _BLOCK]))
            self._waiting.clear()
            self._fresh = False
        return self._state

    def _finished(self) -> tuple[int, ...] | None:
        """The state, where the last block ends the message."""
        size = int.from_bytes(self._waiting[-8:], "big") // 8
        padding = b"\x80" + bytes((-size - 9) % _BLOCK) + (size * 8).to_bytes(8, "big")
        if size + len(padding) != len(self._waiting) or self._waiting[size:] != padding:
            return None
        digest = hashlib.new(_ALGORITHMS[self.mode], self._waiting[:size], usedforsecurity=False).digest()
        return struct.unpack(f">{len(digest) // 4}I", digest)


class Sha(RegisterBlock):
    """The SHA accelerator (0x6003B000). `read_dma(n)`: the next bytes that the DMA has for it."""

    MODE, BLOCKS, START, CONTINUE, BUSY, DMA_START, DMA_CONTINUE = 0x00, 0x0C, 0x10, 0x14, 0x18, 0x1C, 0x20
    HASH, MESSAGE = 0x40, 0x80

    def __init__(self, read_dma: Callable[[int], bytes]) -> None:
        super().__init__()
        self._read_dma = read_dma
        self._running: _Running | None = None

    def read(self, offset: int) -> int:
        if offset == self.BUSY:
            return 0
        if self.HASH <= offset < self.MESSAGE:
            self._settle()
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if self.HASH <= offset < self.MESSAGE:
            self._settle()
            self._running = None  # another hash goes on from here
        super().write(offset, value)
        if value & 1 and offset in (self.START, self.CONTINUE, self.DMA_START, self.DMA_CONTINUE):
            self._go(first=offset in (self.START, self.DMA_START), dma=offset >= self.DMA_START)

    def _go(self, *, first: bool, dma: bool) -> None:
        mode = self.stored.get(self.MODE, 0) & 3
        if mode not in _START:
            return
        if first:
            self._running = _Running(mode, _START[mode])
        elif self._running is None or self._running.mode != mode:
            words = [self.stored.get(self.HASH + 4 * i, 0) for i in range(len(_START[mode]))]
            self._running = _Running(mode, tuple(int.from_bytes(w.to_bytes(4, "little"), "big") for w in words))
        assert self._running is not None
        if dma:
            self._running.add(self._read_dma(_BLOCK * (self.stored.get(self.BLOCKS, 0) & 0x3F)))
        else:
            words = [self.stored.get(self.MESSAGE + 4 * i, 0) for i in range(_BLOCK // 4)]
            self._running.add(struct.pack("<16I", *words))

    def _settle(self) -> None:
        if self._running is not None:
            for index, word in enumerate(self._running.state()):
                self.stored[self.HASH + 4 * index] = int.from_bytes(word.to_bytes(4, "little"), "big")


class Dma(RegisterBlock):
    """The general DMA (0x6003F000), of which only the way from memory to the hash accelerator is modelled.

    `load` reads memory, and gives zeros where there is none."""

    CHANNELS, SHA = 3, 7
    OUT_EOF = 1 << 4 | 1 << 8 | 1 << 3
    LINK_START, LINK_RESTART = 1 << 21, 1 << 22

    def __init__(self, load: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._load = load
        self._waiting = bytearray()

    def read(self, offset: int) -> int:
        if offset < 0x30 and offset & 0xF == 0x4:  # masked status
            return super().read(offset - 4) & super().read(offset + 4)
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset < 0x30 and offset & 0xF == 0xC:
            self.stored[offset - 12] = self.stored.get(offset - 12, 0) & ~value
            return
        super().write(offset, value)
        channel, register = divmod(offset - 0x70, 0xC0)
        if 0 <= channel < self.CHANNELS and register == 0x70 and value & (self.LINK_START | self.LINK_RESTART):
            self._walk(channel, 0x3FC00000 | value & 0xFFFFF)

    def take(self, n: int) -> bytes:
        """The next `n` bytes for the hash accelerator; zeros where software has provided less."""
        taken = bytes(self._waiting[:n])
        del self._waiting[:n]
        return taken.ljust(n, b"\0")

    def _walk(self, channel: int, at: int) -> None:
        if self.stored.get(0x70 + 0xC0 * channel + 0x90, 0) & 0x3F != self.SHA:
            return
        seen: set[int] = set()
        self._waiting.clear()
        while at and at not in seen and len(self._waiting) < 1 << 20:
            seen.add(at)
            head, buffer, after = struct.unpack("<3I", self._load(at, 12))
            self._waiting += self._load(buffer, head >> 12 & 0xFFF)
            at = 0 if head >> 30 & 1 else after
        self.stored[0x10 * channel] = self.stored.get(0x10 * channel, 0) | self.OUT_EOF


class SystemControl(RegisterBlock):
    """SYSCON (0x60026000), of which the random number register is modelled."""

    RANDOM = 0xB0

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    @functools.cached_property
    def _dice(self) -> Any:
        return importlib.import_module("random").Random(self._seed)

    def read(self, offset: int) -> int:
        return int(self._dice.getrandbits(32)) if offset == self.RANDOM else super().read(offset)
