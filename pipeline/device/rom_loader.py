"""The ROM loader's reading half, spoken directly: what a warm verify needs, and nothing else.

esptool is 0.1 s of imports, which a run that writes nothing can do without; whoever writes takes esptool, on the same
port, from the state that this leaves. Knows SLIP, eight commands and the efuse words of three chips (ESP32, ESP32-S3,
ESP32-C3; sources: the chips' technical reference manuals and esptool's targets). Does not reset, and writes no flash.
Invariant: an answer counts only with a whole frame, the command's number and a good status; everything else raises
LoaderError within the timeout, however much noise arrives.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS, chip_name

SYNC, WRITE_REG, READ_REG, SET_PARAMS, ATTACH = 0x08, 0x09, 0x0A, 0x0B, 0x0D
READ_SLOW, MD5, SECURITY_INFO = 0x0E, 0x13, 0x14

SYNC_DATA = b"\x07\x07\x12\x20" + b"\x55" * 32
SYNC_TRIES = 5
SYNC_TIMEOUT_S = 0.1
TIMEOUT_S = 3.0
MD5_S_PER_MB = 8.0
"""esptool's limit, also for an S3 that hashes at its slow boot clock."""

NOISE_LIMIT = 1 << 16
"""Bytes that may arrive while one answer is waited for."""

READ_BLOCK = 64
"""The ROM's only size of a read."""

MAGIC_REG, MAGIC_ESP32 = 0x40001000, 0x00F01D83
SECURE_BOOT, SECURE_DOWNLOAD = 1 << 0, 1 << 2


class Watchdogs(NamedTuple):
    """Registers of the RTC watchdog and of the super watchdog. Source: the chips' technical reference manuals, section
    "Low-power management" (RTC_CNTL_WDTCONFIG0, _WDTWPROTECT, _SWD_CONF, _SWD_WPROTECT)."""

    config: int
    protect: int
    super_config: int
    super_protect: int


WATCHDOGS = {
    "esp32c3": Watchdogs(0x60008090, 0x600080A8, 0x600080AC, 0x600080B0),
    "esp32s3": Watchdogs(0x60008098, 0x600080B0, 0x600080B4, 0x600080B8),
}
UNLOCK, UNLOCK_SUPER, FEED_ITSELF = 0x50D83AA1, 0x8F1D312A, 1 << 31


def reads(chip: str) -> bool:
    """Does this module know the chip's efuses? For the others esptool is used from the start."""
    return CHIPS[chip].efuse_base != 0


class LoaderError(RuntimeError):
    """No answer, or one that makes no sense. A RuntimeError, as esptool's FatalError is."""


class OtherChip(LoaderError):
    """The chip is not the one that was expected."""


class SecureDownload(LoaderError):
    """The loader answers hardly anything: Secure Download Mode is burnt in."""


class Identity(NamedTuple):
    """Of the chip: the revision is major * 100 + minor, the MAC lower case with colons."""

    chip_id: int | None
    mac: str
    revision: int
    flash_encryption: bool
    secure_boot: bool


class RomLoader:
    """On an open port whose chip waits in its ROM. Methods that esptool's loaders have too are named as there."""

    IS_STUB = False

    def __init__(self, port: Any, chip: str) -> None:
        self._port = port
        self._chip = chip
        self._pending = b""
        self.commands = 0

    def sync(self) -> None:
        """Until the ROM answers. Raises LoaderError after a few tries."""
        for attempt in range(SYNC_TRIES):
            self._port.reset_input_buffer()
            self._pending = b""
            try:
                value, _ = self._command(SYNC, SYNC_DATA, timeout_s=SYNC_TIMEOUT_S)
            except LoaderError:
                if attempt == SYNC_TRIES - 1:
                    raise
                continue
            # The ROM answers eight times; the other seven are skipped as answers to nothing.
            if value == 0:
                raise LoaderError("a flasher stub is running, not the ROM")
            return

    def identify(self) -> Identity:
        """Chip, MAC, revision and protection. Raises OtherChip, SecureDownload."""
        if self._chip == "esp32":
            return self._identify_esp32()
        try:
            info = self._check(SECURITY_INFO, b"", 20)
        except LoaderError:
            self._refuse_esp32()
            raise
        flags, crypt_count, _, chip_id, _ = struct.unpack("<IB7sII", info)
        if chip_id != CHIPS[self._chip].image_chip_id:
            raise OtherChip(f"This chip is {chip_name(chip_id)}, not {self._chip}")
        if flags & SECURE_DOWNLOAD:
            raise SecureDownload("secure download mode")
        encrypted = crypt_count.bit_count() % 2 == 1
        return Identity(chip_id, *self._block1(), encrypted, bool(flags & SECURE_BOOT))

    def _refuse_esp32(self) -> None:
        """The one chip that does not know the question says by its magic that it is another one. Raises OtherChip."""
        magic = 0
        with contextlib.suppress(LoaderError):
            magic = self.read_reg(MAGIC_REG)
        if magic == MAGIC_ESP32:
            raise OtherChip(f"This chip is esp32, not {self._chip}")

    def _block1(self) -> tuple[str, int]:
        """MAC and revision of an S3 or C3."""
        base = CHIPS[self._chip].efuse_base
        block1 = base + 0x44
        mac0, mac1, word3, word5 = (self.read_reg(block1 + 4 * n) for n in (0, 1, 3, 5))
        minor = (word5 >> 23 & 1) << 3 | word3 >> 18 & 7
        revision = (word5 >> 24 & 3) * 100 + minor
        if self._chip == "esp32s3" and minor & 7 == 0 and word3 >> 24 & 7 == 1 and self.read_reg(base + 0x6C) & 3 == 1:
            revision = 0  # block version 1.1 is only on chips v0.0, whose major version bits mean something else
        return _mac(mac1, mac0), revision

    def _identify_esp32(self) -> Identity:
        magic = self.read_reg(MAGIC_REG)
        if magic != MAGIC_ESP32:
            raise OtherChip(f"This chip is of magic {magic:#010x}, not esp32")
        base = CHIPS["esp32"].efuse_base
        word0, word1, word2, word3, word5, word6 = (self.read_reg(base + 4 * n) for n in (0, 1, 2, 3, 5, 6))
        bits = (self.read_reg(0x3FF6607C) >> 31) << 2 | (word5 >> 20 & 1) << 1 | word3 >> 15 & 1
        revision = {1: 1, 3: 2, 7: 3}.get(bits, 0) * 100 + (word5 >> 24 & 3)
        encrypted = (word0 >> 20 & 0x7F).bit_count() % 2 == 1
        secure = bool(word6 & 1 << 4 or (revision >= 300 and word6 & 1 << 5))
        return Identity(None, _mac(word2, word1), revision, encrypted, secure)

    # --- commands -------------------------------------------------------------------------------

    def read_reg(self, address: int) -> int:
        """A 32-bit register."""
        value, data = self._command(READ_REG, struct.pack("<I", address))
        _status(READ_REG, data, 0)
        return value

    def write_reg(self, address: int, value: int) -> None:
        """All 32 bits of a register."""
        self._check(WRITE_REG, struct.pack("<IIII", address, value, 0xFFFFFFFF, 0), 0)

    def stop_watchdogs(self) -> None:
        """After a reset through the chip's own USB two of them go on, and would reset it in the midst of a write. For a
        chip of WATCHDOGS."""
        dog = WATCHDOGS[self._chip]
        self.write_reg(dog.protect, UNLOCK)
        self.write_reg(dog.config, 0)
        self.write_reg(dog.protect, 0)
        self.write_reg(dog.super_protect, UNLOCK_SUPER)
        self.write_reg(dog.super_config, self.read_reg(dog.super_config) | FEED_ITSELF)
        self.write_reg(dog.super_protect, 0)

    def flash_spi_attach(self, hspi: int) -> None:
        """Make the flash pins ready."""
        self._check(ATTACH, struct.pack("<II", hspi, 0), 0)

    def flash_set_parameters(self, size: int) -> None:
        """How large the flash is; the rest as esptool sends it."""
        self._check(SET_PARAMS, struct.pack("<IIIIII", 0, size, 0x10000, 0x1000, 256, 0xFFFF), 0)

    def flash_md5sum(self, offset: int, size: int) -> str:
        """As the ROM computes it: 32 hexadecimal digits in ASCII."""
        timeout_s = max(TIMEOUT_S, MD5_S_PER_MB * size / 1e6)
        return self._check(MD5, struct.pack("<IIII", offset, size, 0, 0), 32, timeout_s).decode("ascii", "replace")

    def read_flash(self, offset: int, size: int) -> bytes:
        """Slow: 64 bytes a round trip."""
        data = b""
        while len(data) < size:
            data += self._check(READ_SLOW, struct.pack("<II", offset + len(data), READ_BLOCK), READ_BLOCK)
        return data[:size]

    def _check(self, op: int, data: bytes, size: int, timeout_s: float = TIMEOUT_S) -> bytes:
        """`size` bytes of answer, the status checked."""
        _, answer = self._command(op, data, timeout_s)
        _status(op, answer, size)
        return answer[:size]

    def _command(self, op: int, data: bytes, timeout_s: float = TIMEOUT_S) -> tuple[int, bytes]:
        """One round trip: the answer's value and its data with the status."""
        self.commands += 1
        frame = struct.pack("<BBHI", 0, op, len(data), 0) + data
        self._port.write(b"\xc0" + frame.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0")
        set_timeout(self._port, timeout_s)
        seen = 0
        while seen < NOISE_LIMIT:
            *candidates, self._pending = self._pending.split(b"\xc0")
            for index, candidate in enumerate(candidates):
                answer = _decode(candidate)
                if answer is not None and answer[0] == op:
                    self._pending = b"\xc0".join((*candidates[index + 1 :], self._pending))
                    return answer[1], answer[2]
            arrived = self._port.read(max(1, self._port.in_waiting))
            if not arrived:
                raise LoaderError(f"no answer to command {op:#04x} within {timeout_s:g} s")
            seen += len(arrived)
            self._pending += arrived
        raise LoaderError(f"{seen} bytes of noise instead of an answer to command {op:#04x}")


def _decode(candidate: bytes) -> tuple[int, int, bytes] | None:
    """Command, value and data of what stood between two frame marks; None when it is no answer."""
    raw = candidate.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
    if len(raw) < 10 or raw[0] != 1:
        return None
    op, size, value = struct.unpack_from("<xBHI", raw)
    return (op, value, raw[8:]) if size == len(raw) - 8 else None


def _status(op: int, data: bytes, size: int) -> None:
    """The status follows the answer; an answer that is too short is a status alone."""
    status = data[size : size + 2] if len(data) >= size + 2 else data[:2]
    if len(data) < size + 2 or status[0] != 0:
        raise LoaderError(f"command {op:#04x} was refused with status {status.hex()}")


def _mac(high: int, low: int) -> str:
    return ":".join(f"{byte:02x}" for byte in struct.pack(">II", high, low)[2:])


def set_timeout(port: Any, timeout_s: float) -> None:
    """Set a port's read timeout. pyserial's RFC 2217 client renegotiates the whole line (>= 100 ms) in its public
    setter, for what is a value on the client's side."""
    if type(port).__module__ == "serial.rfc2217":
        port._timeout = timeout_s
    elif port.timeout != timeout_s:
        port.timeout = timeout_s
