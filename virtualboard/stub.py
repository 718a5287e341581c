"""The flasher stub: recognised when it is uploaded, then answered for as the stub's own code would.

The stub's machine code is not executed. Its behaviour is that of esp-flasher-stub (generation 2, esptool's default) and
of the legacy stub (generation 1), as far as esptool can see it. Does not know UART or time. Invariant: a block is
acknowledged before it is written, and an error found then is the answer to the next command, which is not executed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from virtualboard import protocol as p
from virtualboard.bus import Bus
from virtualboard.chips import Chip
from virtualboard.nor import SECTOR_SIZE, NorFlash
from virtualboard.protocol import Answer, Handler, Outcome
from virtualboard.timing import INSTANT, Timing

BAD_LENGTH, BAD_CHECKSUM, UNKNOWN, FAILED, NO_BEGIN, INFLATE, TOO_MUCH = 0xC0, 0xC1, 0xC3, 0xC4, 0xC6, 0xC7, 0xC9
GREETING = b"OHAI"
_ERRORS = p.Errors(length=BAD_LENGTH, checksum=BAD_CHECKSUM, sequence=BAD_LENGTH, no_begin=NO_BEGIN)


def recognise(chip: Chip, entry: int, segments: list[bytes]) -> int | None:
    """Generation of the flasher stub among the uploaded segments, or None when it is another program.

    Compared with the stubs of the installed esptool by the hash of their code; without esptool by the entry point.
    """
    shipped = list(_shipped(chip.name))
    if not shipped:
        return chip.stub_entries.get(entry)
    hashes = {hashlib.sha256(segment).digest() for segment in segments}
    for generation, start, digest in shipped:
        if start == entry and digest in hashes:
            return generation
    return None


def _shipped(name: str) -> Iterator[tuple[int, int, bytes]]:
    """Generation, entry point and SHA-256 of the code of each stub that the installed esptool ships for a chip."""
    spec = importlib.util.find_spec("esptool")
    for folder in spec.submodule_search_locations or () if spec else ():
        for generation in (2, 1):
            path = Path(folder, "targets", "stub_flasher", str(generation), f"{name}.json")
            if path.is_file():
                stub = json.loads(path.read_text(encoding="ascii"))
                yield generation, stub["entry"], hashlib.sha256(base64.b64decode(stub["text"])).digest()


class StubLoader:
    """A running stub. `generation` 1 returns to the ROM when asked to reboot, generation 2 stays."""

    def __init__(self, chip: Chip, flash: NorFlash, bus: Bus, generation: int, timing: Timing = INSTANT) -> None:
        self._chip = chip
        self._generation = generation
        self._target = p.Target(flash, timing, flash.size)
        self._write: _StubWrite | None = None
        self._reader: _StubRead | None = None
        self._deferred = 0
        self._value = 0
        bus.spi.attach()  # the stub attaches the flash when it starts
        ram = p.RamUpload(chip, bus, _ERRORS, recognise)
        self._handlers: Mapping[int, Handler] = {
            **p.register_commands(bus, _ERRORS, self._leave),
            p.MEM_BEGIN: ram.begin,
            p.MEM_DATA: ram.block,
            p.MEM_END: ram.end,
            p.FLASH_BEGIN: self._flash_begin,
            p.FLASH_DATA: self._data,
            p.FLASH_END: self._flash_end,
            p.DEFL_BEGIN: self._defl_begin,
            p.DEFL_DATA: self._data,
            p.DEFL_END: self._flash_end,
            p.SYNC: lambda _data, _check: Answer(),
            p.SPI_ATTACH: lambda _data, _check: Answer(),
            p.SPI_SET_PARAMS: self._set_params,
            p.CHANGE_BAUDRATE: self._change_baud,
            p.SPI_FLASH_MD5: self._md5,
            p.ERASE_FLASH: self._erase_flash,
            p.ERASE_REGION: self._erase_region,
            p.READ_FLASH: self._read_flash,
            p.RUN_USER_CODE: lambda _data, _check: Answer(),
        } | ({} if chip.security_chip_id is None else {p.GET_SECURITY_INFO: self._security_info})

    def handle(self, frame: bytes) -> Outcome:
        """Answer one frame; while a read is under way a frame of 4 bytes is its acknowledgement."""
        if self._reader is not None:
            if len(frame) == 4:
                return self._read_on(struct.unpack("<I", frame)[0])
            self._reader = None  # the host has given up reading
        request = p.Request.parse(frame)
        if request is None:
            return Outcome()
        self._value = 0
        answer = self._answer(request)
        copies = p.SYNC_REPLIES if request.op == p.SYNC else 1
        frames = (p.reply(request.op, self._value, answer.data + bytes([answer.error, 0])),) * copies
        if self._reader is not None:
            frames += (self._reader.start(),)
            self._reader = self._reader if self._reader.blocks_left else None
        after_s = 0.0
        if self._write is not None:
            after_s = self._write.flush()
            self._deferred = self._write.take_error()
        return Outcome(frames, answer.busy_s, answer.then, after_s)

    def _answer(self, request: p.Request) -> Answer:
        if self._deferred:
            error, self._deferred = self._deferred, 0
            return Answer(error=error)
        handler = self._handlers.get(request.op)
        if handler is None:
            return Answer(error=UNKNOWN)
        return handler(request.data, request.checksum) if request.complete else Answer(error=BAD_LENGTH)

    def _leave(self, value: int) -> None:
        self._value = value

    def _security_info(self, _data: bytes, _check: int) -> Answer:
        return Answer(struct.pack("<IB7BII", 0, 0, *bytes(6), 0x0C, self._chip.security_chip_id, 3))

    def _set_params(self, data: bytes, _check: int) -> Answer:
        if len(data) != 24:
            return Answer(error=BAD_LENGTH)
        self._target.size = min(struct.unpack_from("<I", data, 4)[0], self._target.flash.size)
        return Answer()

    def _change_baud(self, data: bytes, _check: int) -> Answer:
        if len(data) != 8:
            return Answer(error=BAD_LENGTH)
        return Answer(then=p.SetBaud(struct.unpack_from("<I", data)[0]))

    def _md5(self, data: bytes, _check: int) -> Answer:
        if len(data) != 16:
            return Answer(error=BAD_LENGTH)
        offset, n = struct.unpack_from("<II", data)
        if not self._target.fits(offset, n):
            return Answer(error=FAILED)
        digest, seconds = self._target.md5(offset, n)
        return Answer(digest, busy_s=seconds)

    def _erase_flash(self, _data: bytes, _check: int) -> Answer:
        return Answer(busy_s=self._target.erase(0, self._target.flash.size))

    def _erase_region(self, data: bytes, _check: int) -> Answer:
        if len(data) != 8:
            return Answer(error=BAD_LENGTH)
        offset, n = struct.unpack("<II", data)
        if offset % SECTOR_SIZE or n % SECTOR_SIZE or not self._target.fits(offset, n):
            return Answer(error=FAILED)
        return Answer(busy_s=self._target.erase(offset, offset + n))

    def _flash_begin(self, data: bytes, _check: int) -> Answer:
        return self._begin(data, inflate=False)

    def _defl_begin(self, data: bytes, _check: int) -> Answer:
        return self._begin(data, inflate=True)

    def _begin(self, data: bytes, *, inflate: bool) -> Answer:
        if len(data) not in (16, 20):
            return Answer(error=BAD_LENGTH)
        size, _blocks, _block_size, offset = struct.unpack_from("<4I", data)
        if not self._target.fits(offset, size):
            return Answer(error=FAILED)
        self._write = _StubWrite(self._target, offset, size, inflate=inflate)
        return Answer()

    def _data(self, data: bytes, check: int) -> Answer:
        if self._write is None:
            return Answer(error=NO_BEGIN)
        payload, error = p.parse_block(data, check, None, _ERRORS)
        if error:
            return Answer(error=error)
        self._write.queue(struct.unpack_from("<I", data, 4)[0], payload)
        return Answer()

    def _flash_end(self, data: bytes, _check: int) -> Answer:
        if len(data) != 4:
            return Answer(error=BAD_LENGTH)
        write, self._write = self._write, None
        if write is None:
            return Answer(error=NO_BEGIN)
        if write.remaining:
            return Answer(error=BAD_LENGTH)
        reboot = struct.unpack("<I", data)[0] == 0
        return Answer(then=p.RestartLoader() if reboot and self._generation == 1 else None)

    def _read_flash(self, data: bytes, _check: int) -> Answer:
        if len(data) != 16:
            return Answer(error=BAD_LENGTH)
        offset, n, block, _in_flight = struct.unpack("<4I", data)
        if not self._target.fits(offset, n) or not block:
            return Answer(error=FAILED)
        self._reader = _StubRead(self._target, offset, n, block)
        return Answer()

    def _read_on(self, acknowledged: int) -> Outcome:
        reader = self._reader
        if reader is None:
            return Outcome()
        frames, done = reader.acknowledge(acknowledged)
        if done:
            self._reader = None
        return Outcome(frames)


class _StubWrite:
    """A flash write under way: erases sector by sector just ahead of the bytes, trims padding past the end."""

    def __init__(self, target: p.Target, offset: int, size: int, *, inflate: bool) -> None:
        self.remaining = size
        self._target = target
        self._at = offset
        self._erased_to = offset
        self._inflate = inflate
        self._inflater = zlib.decompressobj()
        self._queued = b""
        self._error = 0

    def queue(self, seq: int, payload: bytes) -> None:
        """Take a block; it is written after the acknowledgement, by `flush`."""
        if seq == 0:
            self._inflater = zlib.decompressobj()
        self._queued = payload

    def flush(self) -> float:
        """Write the queued block; returns seconds. What goes wrong is kept for `take_error`."""
        payload, self._queued = self._queued, b""
        if not payload:
            return 0.0
        if self._inflate:
            try:
                payload = self._inflater.decompress(payload, self.remaining + 1)
            except zlib.error:
                self._error = INFLATE
                return 0.0
            if len(payload) > self.remaining:
                self._error = TOO_MUCH
        payload = payload[: self.remaining]
        end = self._at + len(payload)
        seconds = 0.0
        if end > self._erased_to:
            seconds += self._target.erase(self._erased_to, end)
            self._erased_to = -(-end // SECTOR_SIZE) * SECTOR_SIZE
        seconds += self._target.program(self._at, payload)
        self._at, self.remaining = end, self.remaining - len(payload)
        return seconds

    def take_error(self) -> int:
        """The error of the last `flush`, once."""
        error, self._error = self._error, 0
        return error


class _StubRead:
    """READ_FLASH under way: one block in flight, each acknowledged with the bytes received so far, then the MD5."""

    def __init__(self, target: p.Target, offset: int, n: int, block: int) -> None:
        self._flash = target.flash
        self._offset = offset
        self._n = n
        self._block = block
        self._sent = 0
        self.blocks_left = n > 0

    def start(self) -> bytes:
        """The first block; the digest when there is nothing to read."""
        return self._next() if self._n else self._flash.md5(self._offset, 0)

    def acknowledge(self, received: int) -> tuple[tuple[bytes, ...], bool]:
        """Frames to send next, and whether the read is over."""
        if received < self._sent:
            return (), False
        if self._sent < self._n:
            return (self._next(),), False
        return (self._flash.md5(self._offset, self._n),), True

    def _next(self) -> bytes:
        n = min(self._block, self._n - self._sent)
        data = self._flash.read(self._offset + self._sent, n)
        self._sent += n
        return data
