"""The ESP32's flash encryption as its stub asks for it, where FLASH_CRYPT_CONFIG is 0: every block then has one key.

Does not know flash or efuses. Invariant: `encrypt` keeps the length. AES comes from `cryptography`, which esptool
needs too; without it there is no encryption. Source: ESP-IDF, "Flash Encryption" (ESP32): AES-256 with encryption and
decryption exchanged, on blocks of 16 bytes with their bytes reversed. Not modelled: the tweak, XTS of later chips.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

BLOCK = 16


def cipher_of(key: bytes) -> Callable[[bytes], bytes] | None:
    """What turns plain bytes into those that lie in flash; None without the package. `key`: 32 bytes as burnt."""
    try:
        ciphers = importlib.import_module("cryptography.hazmat.primitives.ciphers")
    except ImportError:
        return None
    aes = ciphers.Cipher(ciphers.algorithms.AES(key[::-1]), ciphers.modes.ECB())

    def encrypt(data: bytes) -> bytes:
        whole = data + b"\xff" * (-len(data) % BLOCK)
        actor = aes.decryptor()
        blocks = (whole[at : at + BLOCK][::-1] for at in range(0, len(whole), BLOCK))
        return b"".join(bytes(actor.update(block))[::-1] for block in blocks)[: len(data)]

    return encrypt
