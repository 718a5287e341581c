"""What the ROM loader and the stub have in common: requests, replies, and the commands that both answer alike.

A request is `00 op len16 chk32 data`, a reply `01 op len16 value32 data status` (SLIP around both is not its business).
Does not know UART, lines or time: a command's duration and its consequence are values in the `Outcome`.
Invariant: any byte string gives an Outcome, never an exception.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from virtualboard.bus import Bus
from virtualboard.chips import Chip
from virtualboard.nor import PAGE_SIZE, SECTOR_SIZE, NorFlash
from virtualboard.timing import Timing

FLASH_BEGIN, FLASH_DATA, FLASH_END = 0x02, 0x03, 0x04
MEM_BEGIN, MEM_END, MEM_DATA = 0x05, 0x06, 0x07
SYNC, WRITE_REG, READ_REG = 0x08, 0x09, 0x0A
SPI_SET_PARAMS, SPI_ATTACH, READ_FLASH_SLOW, CHANGE_BAUDRATE = 0x0B, 0x0D, 0x0E, 0x0F
DEFL_BEGIN, DEFL_DATA, DEFL_END, SPI_FLASH_MD5, GET_SECURITY_INFO = 0x10, 0x11, 0x12, 0x13, 0x14
ERASE_FLASH, ERASE_REGION, READ_FLASH, RUN_USER_CODE = 0xD0, 0xD1, 0xD2, 0xD3

# No stub is near these; they bound what a client can make the board remember and read back.
_MAX_SEGMENTS = 16
_MAX_SEGMENT = 1 << 20

SYNC_MAGIC = b"\x07\x07\x12\x20"
SYNC_REPLIES = 8


# NamedTuples rather than dataclasses: making the class is eight times cheaper, and a warm run imports this module.


class SetBaud(NamedTuple):
    """The UART changes its rate after the reply."""

    baud: int


class RunRam(NamedTuple):
    """The CPU jumps to `entry` in RAM. `stub` is the generation of the flasher stub that lies there, or None."""

    entry: int
    stub: int | None


class BootFlash(NamedTuple):
    """The loader ends and the chip boots what is in flash (`cause` as the ROM would print it)."""

    cause: int


class RestartLoader(NamedTuple):
    """The stub gives way to the ROM loader."""


class ResetChip(NamedTuple):
    """The chip resets itself after `after_s` and samples its straps again."""

    after_s: float
    cause: int


Then = SetBaud | RunRam | BootFlash | RestartLoader | ResetChip

CAUSE_POWERON, CAUSE_SOFTWARE, CAUSE_RTC_WATCHDOG = 0x01, 0x03, 0x10


class Outcome(NamedTuple):
    """What the host will see: `frames` (without SLIP) after `busy_s` seconds of work, then the consequence.

    For `after_s` seconds more the loader hears nothing: it works on what it has acknowledged.
    """

    frames: tuple[bytes, ...] = ()
    busy_s: float = 0.0
    then: Then | None = None
    after_s: float = 0.0


class Request(NamedTuple):
    """A parsed frame. `complete` is False when the length field and the data disagree."""

    op: int
    data: bytes
    checksum: int
    complete: bool

    @staticmethod
    def parse(frame: bytes) -> Request | None:
        """None when the frame is no request at all: too short, or a reply."""
        if len(frame) < 8 or frame[0] != 0x00:
            return None
        _, op, length, check = struct.unpack_from("<BBHI", frame)
        return Request(op, frame[8:], check, length == len(frame) - 8)


class Answer(NamedTuple):
    """What a command's handler decided. `error` 0 is success; its meaning belongs to ROM or stub."""

    data: bytes = b""
    error: int = 0
    busy_s: float = 0.0
    then: Then | None = None


def reply(op: int, value: int, body: bytes) -> bytes:
    """A reply frame; `body` is data and status."""
    return struct.pack("<BBHI", 0x01, op, len(body), value) + body


def checksum(data: bytes) -> int:
    """XOR of all bytes, seeded with EF, as the loader protocol defines it."""
    # Folding a big number in half is a hundred times faster than a loop over 16 kB.
    value, n = int.from_bytes(data, "little"), len(data)
    while n > 1:
        half = (n + 1) // 2
        value = value & (1 << 8 * half) - 1 ^ value >> 8 * half
        n = half
    return value ^ 0xEF


class Errors(NamedTuple):
    """The codes by which ROM and stub tell the same mistakes apart."""

    length: int
    checksum: int
    sequence: int
    no_begin: int


class Target:
    """The flash behind a loader: bounded operations that say how long they take.

    `size` is what the loader believes the part holds (the ROM's default, then SPI_SET_PARAMS).
    """

    def __init__(self, flash: NorFlash, timing: Timing, size: int) -> None:
        self.flash = flash
        self.size = min(size, flash.size)
        self._timing = timing

    def fits(self, offset: int, n: int) -> bool:
        """Whether the region lies inside."""
        return offset + n <= self.size

    def erase(self, start: int, end: int) -> float:
        """Erase every sector that `start`..`end` touches; returns seconds."""
        first = start - start % SECTOR_SIZE
        n = max(0, -(-end // SECTOR_SIZE) * SECTOR_SIZE - first)
        self.flash.erase(first, n)
        return n // SECTOR_SIZE * self._timing.erase_sector_s

    def program(self, offset: int, data: bytes) -> float:
        """Program; returns seconds."""
        self.flash.program(offset, data)
        return -(-len(data) // PAGE_SIZE) * self._timing.program_page_s

    def md5(self, offset: int, n: int) -> tuple[bytes, float]:
        """Digest (16 bytes) and seconds."""
        return self.flash.md5(offset, n), n * self._timing.md5_byte_s


Handler = Callable[[bytes, int], Answer]


class RamUpload:
    """MEM_BEGIN, MEM_DATA, MEM_END: code and data sent into RAM, then a jump."""

    def __init__(self, chip: Chip, bus: Bus, errors: Errors, recognise: Callable[[Chip, int, list[bytes]], int | None]):
        self._chip = chip
        self._bus = bus
        self._errors = errors
        self._recognise = recognise
        self._at: int | None = None
        self._seq = 0
        self._segments: list[tuple[int, int]] = []  # address, bytes received

    def begin(self, data: bytes, _check: int) -> Answer:
        if len(data) != 16:
            return Answer(error=self._errors.length)
        self._at = struct.unpack("<4I", data)[3]
        self._seq = 0
        self._segments = [*self._segments[-_MAX_SEGMENTS:], (self._at, 0)]
        return Answer()

    def block(self, data: bytes, check: int) -> Answer:
        if self._at is None:
            return Answer(error=self._errors.no_begin)
        payload, error = parse_block(data, check, self._seq, self._errors)
        if error not in (self._errors.sequence, self._errors.length):
            self._seq += 1
        if error:
            return Answer(error=error)
        start, received = self._segments[-1]
        self._bus.store(start + received, payload)
        self._segments[-1] = (start, received + len(payload))
        return Answer()

    def end(self, data: bytes, _check: int) -> Answer:
        if len(data) != 8:
            return Answer(error=self._errors.length)
        stay, entry = struct.unpack("<II", data)
        segments, self._segments, self._at = self._segments, [], None
        if stay:
            return Answer()
        uploaded = [self._bus.load(at, n) for at, n in segments if n <= _MAX_SEGMENT]
        return Answer(then=RunRam(entry, self._recognise(self._chip, entry, uploaded)))


def parse_block(data: bytes, check: int, seq: int | None, errors: Errors) -> tuple[bytes, int]:
    """Payload and error of a *_DATA command: `len seq 0 0 payload`. `seq` None accepts any number."""
    if len(data) < 16:
        return b"", errors.length
    length, got_seq = struct.unpack_from("<II", data)
    payload = data[16:]
    if length != len(payload):
        return b"", errors.length
    if seq is not None and got_seq != seq:
        return b"", errors.sequence
    if checksum(payload) != check & 0xFF:
        return b"", errors.checksum
    return payload, 0


def register_commands(bus: Bus, errors: Errors, left: Callable[[int], None]) -> Mapping[int, Handler]:
    """READ_REG (its value goes to `left`, the reply's value field) and WRITE_REG (n records of four words)."""

    def read(data: bytes, _check: int) -> Answer:
        if len(data) != 4:
            return Answer(error=errors.length)
        left(bus.read32(struct.unpack("<I", data)[0]))
        return Answer()

    def write(data: bytes, _check: int) -> Answer:
        if not data or len(data) % 16:
            return Answer(error=errors.length)
        delay_us = 0
        for address, value, mask, delay in struct.iter_unpack("<4I", data):
            bus.write32(address, value, mask)
            delay_us += delay
        due = bus.take_watchdog()
        then = None if due is None else ResetChip(due, CAUSE_RTC_WATCHDOG)
        return Answer(busy_s=delay_us / 1e6, then=then)

    return {READ_REG: read, WRITE_REG: write}
