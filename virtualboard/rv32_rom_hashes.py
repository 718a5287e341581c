"""The mask ROM's checksums and hashes, done by the host.

Does not know a CPU. The state of a hash is kept here, by the address of the caller's context, which itself stays as it
was. Invariant: a context that was never begun gives no digest.

Meanings: ESP-IDF, `esp32c3/rom/crc.h` (with the CRCs' parameters), `rom/md5_hash.h`, `rom/sha.h`; `rom/miniz.h`.
"""

from __future__ import annotations

import hashlib
import importlib
import zlib
from collections.abc import Mapping
from typing import Any

from virtualboard.rv32_caller import Caller, RomFunction

_SHA = ("sha1", "sha224", "sha256")


def reflected(crc: int, data: bytes, polynomial: int, bits: int) -> int:
    """A CRC whose bits go out low first, with its value inverted before and after."""
    mask = (1 << bits) - 1
    crc ^= mask
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
    return crc ^ mask


def straight(crc: int, data: bytes, polynomial: int, bits: int) -> int:
    """The same with the high bit first."""
    mask, top = (1 << bits) - 1, 1 << bits - 1
    crc ^= mask
    for byte in data:
        crc ^= byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc & top else 0)) & mask
    return crc ^ mask


def _data(c: Caller) -> bytes:
    return c.load(c.argument(1), c.argument(2))


def _crc(function: Any, polynomial: int, bits: int) -> RomFunction:
    return lambda c: int(function(c.argument(0) & (1 << bits) - 1, _data(c), polynomial, bits))


def esp_crc8(c: Caller) -> int:
    """`uint8_t esp_crc8(const uint8_t *p, unsigned len)`: the CRC-8 of a MAC address in efuse (polynomial 0x31)."""
    return reflected(0xFF, c.load(c.argument(0), c.argument(1)), 0x8C, 8) ^ 0xFF


class RomHashes:
    """The functions with their state."""

    def __init__(self) -> None:
        self._running: dict[int, Any] = {}

    @property
    def table(self) -> Mapping[str, RomFunction]:
        """By the name of the ROM function."""
        return {
            "crc32_le": lambda c: zlib.crc32(_data(c), c.argument(0)),
            "crc32_be": _crc(straight, 0x04C11DB7, 32),
            "crc16_le": _crc(reflected, 0x8408, 16),
            "crc16_be": _crc(straight, 0x1021, 16),
            "crc8_le": _crc(reflected, 0xE0, 8),
            "crc8_be": _crc(straight, 0x07, 8),
            "esp_crc8": esp_crc8,
            "mz_crc32": lambda c: zlib.crc32(_data(c), c.argument(0)) if c.argument(1) else 0,
            "mz_adler32": lambda c: zlib.adler32(_data(c), c.argument(0)) if c.argument(1) else 1,
            "MD5Init": lambda c: self._begin(c, "md5"),
            "MD5Update": self._update,
            "MD5Final": lambda c: self._finish(c, context=1, digest=0),
            "md5_vector": self._md5_vector,
            "hmac_md5": self._hmac_md5,
            "ets_sha_init": self._sha_init,
            "ets_sha_update": self._update,
            "ets_sha_finish": lambda c: self._finish(c, context=0, digest=1),
            "ets_sha_clone": self._clone,
            # Nothing to switch on; only SHA-512/t has something to do at its start.
            **dict.fromkeys(("ets_sha_enable", "ets_sha_disable", "ets_sha_starts"), lambda _c: 0),
        }

    def _begin(self, c: Caller, algorithm: str) -> int:
        self._running[c.argument(0)] = hashlib.new(algorithm, usedforsecurity=False)
        return 0

    def _sha_init(self, c: Caller) -> int:
        return self._begin(c, _SHA[c.argument(1)]) if c.argument(1) < len(_SHA) else 1

    def _update(self, c: Caller) -> int:
        digest = self._running.get(c.argument(0))
        if digest is not None:
            digest.update(_data(c))
        return 0

    def _finish(self, c: Caller, *, context: int, digest: int) -> int:
        done = self._running.pop(c.argument(context), None)
        if done is not None:
            c.store(c.argument(digest), done.digest())
        return 0

    def _clone(self, c: Caller) -> int:
        """`int ets_sha_clone(SHA_CTX *dst, const SHA_CTX *src)`"""
        source = self._running.get(c.argument(1))
        if source is not None:
            self._running[c.argument(0)] = source.copy()
        return 0

    def _md5_vector(self, c: Caller) -> int:
        """`int md5_vector(size_t n, const uint8_t *addr[], const size_t *len, uint8_t *mac)`"""
        digest = hashlib.md5(usedforsecurity=False)
        for index in range(min(c.argument(0), 1 << 10)):
            digest.update(c.load(c.word(c.argument(1) + 4 * index), c.word(c.argument(2) + 4 * index)))
        c.store(c.argument(3), digest.digest())
        return 0

    def _hmac_md5(self, c: Caller) -> int:
        """`int hmac_md5(const uint8_t *key, size_t key_len, const uint8_t *data, size_t data_len, uint8_t *mac)`"""
        key, data = c.load(c.argument(0), c.argument(1)), c.load(c.argument(2), c.argument(3))
        c.store(c.argument(4), importlib.import_module("hmac").digest(key, data, "md5"))
        return 0
