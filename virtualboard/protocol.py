"""What the ROM loader and the stub have in common: requests, replies, and the commands that both answer alike.

A request is `00 op len16 chk32 data`, a reply `01 op len16 value32 data status` (SLIP around both is not its business).
Does not know UART, lines or time: a command's duration and its consequence are values in the `Outcome`.
Invariant: any byte string gives an Outcome, never an exception.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from virtualboard.bus import Bus
from virtualboard.chips import ChipModel, flash_crypt_count, key_purposes
from virtualboard.named_values import NamedValues
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


class SetBaud(NamedValues):
    """The UART changes its rate after the reply."""

    baud: int


class RunRam(NamedValues):
    """The CPU jumps to `entry` in RAM. `stub` is the generation of the flasher stub that lies there, or None.

    `segments`: address and bytes of what was sent into RAM before.
    """

    entry: int
    stub: int | None
    segments: tuple[tuple[int, bytes], ...] = ()


class BootFlash(NamedValues):
    """The loader ends and the chip boots what is in flash (`cause` as the ROM would print it)."""

    cause: int


class RestartLoader(NamedValues):
    """The stub gives way to the ROM loader."""


class ResetChip(NamedValues):
    """The chip resets itself after `after_s` and samples its straps again."""

    after_s: float
    cause: int


Then = SetBaud | RunRam | BootFlash | RestartLoader | ResetChip

CAUSE_POWERON, CAUSE_SOFTWARE, CAUSE_RTC_WATCHDOG = 0x01, 0x03, 0x10


class Outcome(NamedValues):
    """What the host will see: `frames` (without SLIP) after `busy_s` seconds of work, then the consequence.

    For `after_s` seconds more the loader hears nothing: it works on what it has acknowledged.
    """

    frames: tuple[bytes, ...] = ()
    busy_s: float = 0.0
    then: Then | None = None
    after_s: float = 0.0


class Request(NamedValues):
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


class Answer(NamedValues):
    """What a handler decided. `error` 0 is success; its meaning belongs to ROM or stub. `silent`: there is no reply."""

    data: bytes = b""
    error: int = 0
    busy_s: float = 0.0
    then: Then | None = None
    silent: bool = False


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


class Errors(NamedValues):
    """The codes by which ROM and stub tell the same mistakes apart."""

    length: int
    checksum: int
    sequence: int
    no_begin: int


# The largest part that esptool knows (DETECTED_FLASH_SIZES); also bounds the work that one command can ask for.
_MAX_SIZE = 1 << 27


class Target:
    """The flash behind a loader: bounded operations that say how long they take.

    `size` is what the loader believes the part holds (the ROM's default, then SPI_SET_PARAMS). Addresses beyond the
    real part, or beyond the `address_bits` that the loader sends, wrap around, as they do on the wire: a loader that
    was told too large a size writes, and verifies, the wrong place.
    """

    def __init__(self, flash: NorFlash, timing: Timing, size: int, address_bits: int) -> None:
        self.flash = flash
        self.size = size
        self._period = min(1 << address_bits, flash.size)
        self._timing = timing

    def set_size(self, size: int) -> None:
        """What SPI_SET_PARAMS says."""
        self.size = min(size, _MAX_SIZE)

    def fits(self, offset: int, n: int) -> bool:
        """Whether the region lies inside."""
        return offset + n <= self.size

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes."""
        return b"".join(self.flash.read(at, size) for at, size in self._pieces(offset, n))

    def erase(self, start: int, end: int) -> float:
        """Erase every sector that `start`..`end` touches; returns seconds."""
        first = start - start % SECTOR_SIZE
        n = max(0, -(-end // SECTOR_SIZE) * SECTOR_SIZE - first)
        for at, size in self._pieces(first, n):
            self.flash.erase(at, size)
        return self._timing.erase_s(first, n)

    def erase_chip(self) -> float:
        """Erase the whole part, whatever its size is believed to be; returns seconds."""
        self.flash.erase(0, self.flash.size)
        return self._timing.erase_s(0, self.flash.size)

    def program(self, offset: int, data: bytes) -> float:
        """Program; returns seconds."""
        done = 0
        for at, size in self._pieces(offset, len(data)):
            self.flash.program(at, data[done : done + size])
            done += size
        return -(-len(data) // PAGE_SIZE) * self._timing.program_page_s

    def md5(self, offset: int, n: int) -> tuple[bytes, float]:
        """Digest (16 bytes) and seconds."""
        seconds = n * self._timing.md5_byte_s
        pieces = list(self._pieces(offset, n))
        if len(pieces) == 1:
            return self.flash.md5(*pieces[0]), seconds
        digest = hashlib.md5(usedforsecurity=False)
        for piece in pieces:
            digest.update(self.flash.read(*piece))
        return digest.digest(), seconds

    def _pieces(self, offset: int, n: int) -> Iterator[tuple[int, int]]:
        """The region as (offset, size) in the real part."""
        while n > 0:
            at = offset % self._period
            size = min(n, self._period - at)
            yield at, size
            offset, n = offset + size, n - size


Handler = Callable[[bytes, int], Answer]
BlockCheck = Callable[[bytes, int, int, int], tuple[bytes, int]]
"""Data of a MEM_DATA, its checksum, the expected number, the bytes still announced -> payload and error."""


class RamUpload:
    """MEM_BEGIN, MEM_DATA, MEM_END: code and data sent into RAM, then a jump. `check` is the loader's strictness."""

    def __init__(
        self,
        chip: ChipModel,
        bus: Bus,
        errors: Errors,
        recognise: Callable[[ChipModel, int, Sequence[bytes], Sequence[int]], int | None],
        check: BlockCheck,
    ):
        self._chip = chip
        self._bus = bus
        self._errors = errors
        self._recognise = recognise
        self._check = check
        self._at: int | None = None
        self._seq = 0
        self.remaining = 0
        self._segments: list[tuple[int, int]] = []  # address, bytes received

    @property
    def begun(self) -> bool:
        """Whether a MEM_BEGIN waits for its data."""
        return self._at is not None

    def begin(self, data: bytes, _check: int) -> Answer:
        if len(data) != 16:
            return Answer(error=self._errors.length)
        self.remaining, _blocks, _block_size, self._at = struct.unpack("<4I", data)
        self._seq = 0
        self._segments = [*self._segments[1 - _MAX_SEGMENTS :], (self._at, 0)]
        return Answer()

    def block(self, data: bytes, check: int) -> Answer:
        if self._at is None:
            return Answer(error=self._errors.no_begin)
        payload, error = self._check(data, check, self._seq, self.remaining)
        if error not in (self._errors.sequence, self._errors.length):
            self._seq += 1
        if error:
            return Answer(error=error)
        start, received = self._segments[-1]
        self._bus.store(start + received, payload)
        self._segments[-1] = (start, received + len(payload))
        self.remaining = max(0, self.remaining - len(payload))
        return Answer()

    def end(self, data: bytes, _check: int) -> Answer:
        if len(data) != 8:
            return Answer(error=self._errors.length)
        stay, entry = struct.unpack("<II", data)
        self._at, self.remaining = None, 0
        return Answer(then=None if stay else self.jump(entry))

    def jump(self, entry: int) -> RunRam:
        """Execute what has been uploaded so far, from `entry`."""
        segments, self._segments = self._segments, []
        uploaded = tuple((at, self._bus.load(at, n)) for at, n in segments if n <= _MAX_SEGMENT)
        stub = self._recognise(self._chip, entry, [data for _, data in uploaded], [at for at, _ in uploaded])
        return RunRam(entry, stub, uploaded)


def described(frame: bytes, outcome: Outcome) -> str:
    """One command and what came of it, in words for a person."""
    if len(frame) < 8 or frame[0] != 0:
        return f"{len(frame)} bytes that are no command"
    names = {
        **{FLASH_BEGIN: "FLASH_BEGIN", FLASH_DATA: "FLASH_DATA", FLASH_END: "FLASH_END", MEM_BEGIN: "MEM_BEGIN"},
        **{MEM_END: "MEM_END", MEM_DATA: "MEM_DATA", SYNC: "SYNC", WRITE_REG: "WRITE_REG", READ_REG: "READ_REG"},
        **{SPI_SET_PARAMS: "SPI_SET_PARAMS", SPI_ATTACH: "SPI_ATTACH", READ_FLASH_SLOW: "READ_FLASH_SLOW"},
        **{CHANGE_BAUDRATE: "CHANGE_BAUDRATE", DEFL_BEGIN: "DEFL_BEGIN", DEFL_DATA: "DEFL_DATA", DEFL_END: "DEFL_END"},
        **{SPI_FLASH_MD5: "SPI_FLASH_MD5", GET_SECURITY_INFO: "GET_SECURITY_INFO", ERASE_FLASH: "ERASE_FLASH"},
        **{ERASE_REGION: "ERASE_REGION", READ_FLASH: "READ_FLASH", RUN_USER_CODE: "RUN_USER_CODE"},
    }
    name = names.get(frame[1], "unknown command")
    answer = "no answer" if not outcome.frames else f"{len(outcome.frames)} x {len(outcome.frames[0])} bytes"
    return f"{name} ({frame[1]:#04x}), {len(frame) - 8} bytes: {answer}"


def security_info(chip: ChipModel) -> bytes:
    """The answer to GET_SECURITY_INFO: flags, crypt count, seven key purposes, chip id, API version (esptool,
    `get_security_info`). The last purpose reads 0x0C on a virgin C3."""
    flags = chip.security.secure_boot | chip.security.secure_download << 2
    purposes = (*key_purposes(chip.security), *bytes(4), 0x0C)
    info = struct.pack("<IB7B", flags, flash_crypt_count(chip.security), *purposes)
    return info if chip.short_security_info else info + struct.pack("<II", chip.security_chip_id or 0, 3)


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
