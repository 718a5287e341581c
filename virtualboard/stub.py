"""The flasher stub: recognised when it is uploaded, then answered for as the stub's own code would.

The stub's machine code is not executed. Its behaviour is that of espressif/esp-flasher-stub (generation 2, esptool's
default; `src/command_handler.c`) and espressif/esptool-legacy-flasher-stub (generation 1; `stub_flasher.c`), down to
their error codes. Does not know UART or time. Invariant: a block is acknowledged before it is written; an error found
then is the answer to the next command, which is not executed (generation 1: the next block or the end of the write).

Not modelled: encrypted writes but for those of an ESP32 whose FLASH_CRYPT_CONFIG is 0, and generation 2's NAND
commands, which are plug-ins.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from virtualboard import protocol as p
from virtualboard.bus import Bus
from virtualboard.chips import ChipModel
from virtualboard.named_values import NamedValues
from virtualboard.nor import SECTOR_SIZE, NorFlash
from virtualboard.protocol import Answer, Handler, Outcome
from virtualboard.stub_flash import MAX_READ_BLOCK, NOT_ENOUGH, TOO_MUCH, StubRead, StubWrite
from virtualboard.timing import INSTANT, Timing

BAD_LENGTH, BAD_CHECKSUM, BAD_BLOCK, UNKNOWN, FAILED, NO_BEGIN = 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC6
NOT_IMPLEMENTED = 0xFF
GREETING = b"OHAI"
# As a word 0x4941484F: `lui` of 0x49415 to any register, `addi` of -0x7B1, which is 0x84F in twelve bits.
_SMALLEST_STUB = 0x800
_GREETING_UPPER, _GREETING_LOWER = rb"[\x37\xb7][\x50-\x5f]\x41\x49", 0x84F
_ERRORS = p.Errors(length=BAD_LENGTH, checksum=BAD_CHECKSUM, sequence=BAD_LENGTH, no_begin=NO_BEGIN)
_SYNC_LENGTH = 36
_MAX_BLOCK = 0x4000
_CIPHER_BLOCK = 16
_DATA_OF_GENERATION_2 = 0xD00
"""Generation 1 keeps its data at BA8 to C00 of a page of 4 KiB, whatever the chip, generation 2 at D60 to F0C."""


class Dialect(NamedValues):
    """How a generation answers where they differ.

    `refusal` is the code of a command with a wrong length or impossible parameters: generation 1 makes a truth value of
    it, so that every such code is 1. `sticky`: an error of a write stays until the next begin, and only commands of
    that write tell it.
    """

    unknown: int
    refusal: int
    impossible: int
    early_end: int
    sticky: bool
    reboots: bool


_DIALECTS = {
    1: Dialect(NOT_IMPLEMENTED, refusal=1, impossible=1, early_end=NOT_ENOUGH, sticky=True, reboots=True),
    2: Dialect(UNKNOWN, refusal=BAD_LENGTH, impossible=FAILED, early_end=BAD_LENGTH, sticky=False, reboots=False),
}


class KnownStub(NamedValues):
    """A flasher stub: whose answers it gives, and by what it is known."""

    generation: int
    by: str


def recognise(chip: ChipModel, entry: int, segments: Sequence[bytes], addresses: Sequence[int] = ()) -> int | None:
    """Generation of the flasher stub among the uploaded segments, or None when it is another program."""
    known = identify(chip, entry, segments, addresses)
    return None if known is None else known.generation


def identify(chip: ChipModel, entry: int, segments: Sequence[bytes], addresses: Sequence[int] = ()) -> KnownStub | None:
    """The flasher stub among the uploaded segments, or None when it is another program.

    Compared with the stubs of the installed esptool by the hash of their code; without esptool by the entry point. Any
    other stub, of another esptool or of a tool that brings its own, is known by its greeting (`greets`), or else by
    speaking SLIP (`speaks_slip`), and its generation by where it keeps its data.
    """
    shipped = list(_shipped(chip.name))
    if not shipped and entry in chip.stub_entries:
        return KnownStub(chip.stub_entries[entry], "its entry point, which is that of a stub of esptool 5.6")
    hashes = {hashlib.sha256(segment).digest() for segment in segments}
    for generation, start, digest in shipped:
        if start == entry and digest in hashes:
            return KnownStub(generation, "its bytes: it is the installed esptool's")
    generation = 2 if any(at % 0x1000 >= _DATA_OF_GENERATION_2 for at in addresses) else 1
    if any(map(greets, segments)):
        return KnownStub(generation, "its greeting: it is not the installed esptool's")
    if any(map(speaks_slip, segments)):
        return KnownStub(generation, "speaking SLIP: nothing else of it is known")
    return None


@functools.cache
def _slip_bytes() -> tuple[tuple[re.Pattern[bytes], re.Pattern[bytes]], ...]:
    """Code that loads the byte which ends a frame, and the one which escapes, by architecture."""
    return tuple(
        (re.compile(load + end, re.DOTALL), re.compile(load + escape, re.DOTALL))
        for load, end, escape in (
            (rb"[\x13\x93][\x00-\x0f]", rb"\x00\x0c", rb"\xb0\x0d"),  # RISC-V: li rd, 0xC0; li rd, 0xDB
            (b"[" + bytes(range(2, 256, 16)) + rb"]\xa0", rb"\xc0", rb"\xdb"),  # Xtensa: movi
        )
    )


@functools.cache
def _greeting_letters() -> tuple[re.Pattern[bytes], ...]:
    """One letter after the other, as the stubs in Rust send them: RISC-V's `li`, Xtensa's `movi.n` in reverse."""
    lows, registers = (rb"\xf0", rb"\x80", rb"\x10", rb"\x90"), rb"[\x13\x93][\x00-\x0f]"
    narrow = (rb"\x4c[\x90-\x9f]", rb"\x4c[\x10-\x1f]", rb"\x4c[\x80-\x8f]", rb"\x4c[\xf0-\xff]")
    return tuple(
        re.compile(rb".{0,16}?".join(letters), re.DOTALL)
        for letters in ([registers + low + rb"\x04" for low in lows], narrow)
    )


def speaks_slip(code: bytes) -> bool:
    """Whether this is code of a size that a stub has, and loads the bytes which end and escape a SLIP frame.

    So do all stubs, those in C and in Rust, on either architecture; of programs for RAM hardly any other does."""
    return len(code) >= _SMALLEST_STUB and any(
        end.search(code) and escape.search(code) for end, escape in _slip_bytes()
    )


def greets(code: bytes) -> bool:
    """Whether this code says "OHAI", which is the first thing that a stub does: as text (Xtensa: in a literal pool or
    in its data), put together by RISC-V's `lui` and `addi`, or letter by letter, as those in Rust do that esptool 4.8
    to 4.11 had for who asked for them. True of every stub of esptool 3.0 to 5.6.
    """
    if GREETING in code or any(letters.search(code) for letters in _greeting_letters()):
        return True
    for match in re.finditer(_GREETING_UPPER, code):
        (first,) = struct.unpack("<I", match.group())
        if _adds(code[match.end() : match.end() + 64], first >> 7 & 31, _GREETING_LOWER):
            return True
    return False


def _adds(code: bytes, register: int, immediate: int) -> bool:
    """Whether an `addi` of `immediate` to `register` is among these instructions."""
    words = (int.from_bytes(code[at : at + 4], "little") for at in range(0, len(code) - 3, 2))
    return any(w & 0x707F == 0x13 and w >> 20 == immediate and w >> 15 & 31 == register for w in words)


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

    def __init__(self, chip: ChipModel, flash: NorFlash, bus: Bus, generation: int, timing: Timing = INSTANT) -> None:
        self._chip = chip
        self._bus = bus
        self._generation = generation
        self._dialect = _DIALECTS[generation]
        self._target = p.Target(flash, timing, flash.size, chip.stub_address_bits)
        self._write: StubWrite | None = None
        self._queued: tuple[int, bytes] | None = None
        self._reader: StubRead | None = None
        self._error = 0  # found after an acknowledgement
        self._value = 0
        bus.spi.attach()  # the stub attaches the flash when it starts
        check = _check_block_1 if generation == 1 else _check_block_2
        self._ram = ram = p.RamUpload(chip, bus, _ERRORS._replace(length=self._dialect.refusal), recognise, check)
        registers = p.register_commands(bus, _ERRORS, self._leave)
        self._handlers: Mapping[int, Handler] = {
            p.READ_REG: registers[p.READ_REG],
            p.WRITE_REG: registers[p.WRITE_REG] if generation == 1 else _not_enough(registers[p.WRITE_REG]),
            p.MEM_BEGIN: self._exactly(16, ram.begin),
            p.MEM_DATA: ram.block,
            p.MEM_END: self._exactly(8, self._mem_end),
            p.FLASH_BEGIN: lambda data, _check: self._begin(data, inflate=False),
            p.FLASH_DATA: self._data,
            p.FLASH_END: self._flash_end,
            p.DEFL_BEGIN: lambda data, _check: self._begin(data, inflate=True),
            p.DEFL_DATA: self._data,
            p.DEFL_END: self._flash_end,
            p.SYNC: lambda data, _check: Answer(error=0 if len(data) == _SYNC_LENGTH else BAD_LENGTH),
            p.SPI_ATTACH: self._exactly(4, lambda _data, _check: Answer()),
            p.SPI_SET_PARAMS: self._exactly(24, self._set_params),
            p.CHANGE_BAUDRATE: self._change_baud,
            p.SPI_FLASH_MD5: self._exactly(16, self._md5),
            p.ERASE_FLASH: self._erase_flash,
            p.ERASE_REGION: self._exactly(8, self._erase_region),
            p.READ_FLASH: self._read_flash,
            p.RUN_USER_CODE: self._run_user_code,
            p.GET_SECURITY_INFO: self._exactly(0, self._security_info),
        }

    def handle(self, frame: bytes) -> Outcome:
        """Answer one frame; while a read is under way a frame of 4 bytes is its acknowledgement."""
        before: tuple[bytes, ...] = ()
        if self._reader is not None:
            before, consumed = self._reader.frame(frame)
            if self._reader.done:
                self._reader = None
            if consumed:
                return Outcome(before)
        request = p.Request.parse(frame)
        if request is None:
            # Generation 2 looks at the direction, and answers what is no request.
            wrong = self._generation == 2 and len(frame) >= 8
            return Outcome((*before, p.reply(frame[1], 0, bytes([UNKNOWN, 0]))) if wrong else before)
        self._value = 0
        answer = self._answer(request)
        if answer.silent:
            return Outcome(before, answer.busy_s, answer.then)
        copies = p.SYNC_REPLIES if request.op == p.SYNC and not answer.error else 1
        frames = (*before, *(p.reply(request.op, self._value, answer.data + bytes([answer.error, 0])),) * copies)
        if self._reader is not None:
            frames += self._reader.start()
            self._reader = None if self._reader.done else self._reader
        return Outcome(frames, answer.busy_s, answer.then, self._flush())

    def _answer(self, request: p.Request) -> Answer:
        if self._error and not self._dialect.sticky:
            error, self._error = self._error, 0
            return Answer(error=error)
        handler = self._handlers.get(request.op)
        if handler is None:
            return Answer(error=self._dialect.unknown)
        return handler(request.data, request.checksum) if request.complete else Answer(error=BAD_LENGTH)

    def _flush(self) -> float:
        """Write the acknowledged block; returns seconds. What goes wrong is kept for a later answer."""
        if self._queued is None or self._write is None:
            return 0.0
        (seq, payload), self._queued = self._queued, None
        if seq == 0 and self._generation == 2:
            self._write.restart()
        seconds, error = self._write.put(payload)
        if not error and self._generation == 1 and self._write.finished and self._write.remaining:
            error = NOT_ENOUGH
        self._error = error or self._error
        return seconds

    def _exactly(self, length: int, handler: Handler) -> Handler:
        """`handler` for data of this length; else the generation's refusal."""
        return lambda data, check: handler(data, check) if len(data) == length else Answer(error=self._dialect.refusal)

    # --- commands ---------------------------------------------------------------------------------

    def _leave(self, value: int) -> None:
        self._value = value

    def _mem_end(self, data: bytes, check: int) -> Answer:
        if self._generation == 2 and not self._ram.begun:
            return Answer(error=NO_BEGIN)
        if self._generation == 1 and self._ram.remaining:
            return Answer(error=self._dialect.refusal)
        return self._ram.end(data, check)

    def _security_info(self, _data: bytes, _check: int) -> Answer:
        if self._chip.security_chip_id is None:
            return Answer(error=NOT_IMPLEMENTED)
        return Answer(p.security_info(self._chip))

    def _set_params(self, data: bytes, _check: int) -> Answer:
        self._target.set_size(struct.unpack_from("<I", data, 4)[0])
        return Answer()

    def _change_baud(self, data: bytes, _check: int) -> Answer:
        if len(data) != 8:
            return Answer(error=BAD_LENGTH)
        return Answer(then=p.SetBaud(struct.unpack_from("<I", data)[0]))

    def _md5(self, data: bytes, _check: int) -> Answer:
        offset, n = struct.unpack_from("<II", data)
        if not self._target.fits(offset, n):
            return Answer(error=self._dialect.impossible)
        digest, seconds = self._target.md5(offset, n)
        return Answer(digest, busy_s=seconds)

    def _erase_flash(self, data: bytes, _check: int) -> Answer:
        if data and self._generation == 1:
            return Answer(error=self._dialect.refusal)
        return Answer(busy_s=self._target.erase_chip())

    def _erase_region(self, data: bytes, _check: int) -> Answer:
        offset, n = struct.unpack("<II", data)
        if offset % SECTOR_SIZE or n % SECTOR_SIZE:
            return Answer(error=self._dialect.refusal)
        if not self._target.fits(offset, n):
            return Answer(error=self._dialect.impossible)
        return Answer(busy_s=self._target.erase(offset, offset + n))

    def _begin(self, data: bytes, *, inflate: bool) -> Answer:
        if len(data) not in (16, 20):
            return Answer(error=self._dialect.refusal)
        size, _blocks, block_size, offset = struct.unpack_from("<4I", data)
        if self._generation == 1 and block_size > _MAX_BLOCK:
            return Answer(error=BAD_BLOCK)
        encrypt = self._bus.encryption() if any(data[16:]) else None
        if not self._target.fits(offset, size) or (any(data[16:]) and (encrypt is None or offset % _CIPHER_BLOCK)):
            return Answer(error=self._dialect.impossible)
        self._error = 0
        ahead = self._generation == 2
        self._write = StubWrite(self._target, offset, size, inflate=inflate, erase_ahead=ahead, encrypt=encrypt)
        return Answer()

    def _data(self, data: bytes, check: int) -> Answer:
        write = self._write
        if write is None:
            return Answer(error=NO_BEGIN)
        if len(data) < 16:
            return Answer(error=BAD_LENGTH if write.inflate or self._generation == 1 else NOT_ENOUGH)
        length, seq = struct.unpack_from("<II", data)
        if write.inflate and self._generation == 2 and not write.remaining:
            return Answer(error=TOO_MUCH)
        if length != len(data) - 16:
            return Answer(error=BAD_LENGTH if self._generation == 1 else TOO_MUCH)
        if p.checksum(data[16:]) != check & 0xFF:
            return Answer(error=BAD_CHECKSUM)
        if self._error:
            return Answer(error=self._error)
        self._queued = (seq, data[16:])
        return Answer()

    def _flash_end(self, data: bytes, _check: int) -> Answer:
        if len(data) != 4:
            return Answer(error=BAD_LENGTH)
        if self._write is None:
            return Answer(error=NO_BEGIN)
        if self._write.remaining:
            return Answer(error=self._dialect.early_end)
        self._write = None
        reboot = struct.unpack("<I", data)[0] == 0 and self._dialect.reboots and not self._error
        return Answer(error=self._error, then=p.RestartLoader() if reboot else None)

    def _read_flash(self, data: bytes, _check: int) -> Answer:
        if len(data) != 16:
            return Answer(error=BAD_LENGTH)
        offset, n, block, in_flight = struct.unpack("<4I", data)
        if not self._target.fits(offset, n) or not block:
            return Answer(error=FAILED)
        if block > MAX_READ_BLOCK:
            # The stub's buffer is smaller: after the reply nothing comes.
            self._error = 0 if self._dialect.sticky else BAD_LENGTH
            return Answer()
        self._reader = StubRead(self._target, offset, n, block, in_flight if self._generation == 1 else None)
        return Answer()

    def _run_user_code(self, _data: bytes, _check: int) -> Answer:
        """Never answered. Generation 1 returns to the ROM, which starts what is in flash; generation 2 does nothing."""
        return Answer(then=p.BootFlash(p.CAUSE_SOFTWARE) if self._generation == 1 else None, silent=True)


def _check_block_1(data: bytes, _check: int, _seq: int, remaining: int) -> tuple[bytes, int]:
    """MEM_DATA in generation 1: no checksum, no number, words only."""
    payload = data[16:]
    if len(payload) > remaining:
        return b"", TOO_MUCH
    return (b"", BAD_LENGTH) if len(payload) % 4 else (payload, 0)


def _check_block_2(data: bytes, _check: int, _seq: int, remaining: int) -> tuple[bytes, int]:
    """MEM_DATA in generation 2: no checksum, no number."""
    if len(data) < 16:
        return b"", NOT_ENOUGH
    (length,) = struct.unpack_from("<I", data)
    if length > remaining or length != len(data) - 16:
        return b"", TOO_MUCH
    return data[16:], 0


def _not_enough(handler: Handler) -> Handler:
    """WRITE_REG of generation 2 has a code of its own for a wrong length."""

    def handle(data: bytes, check: int) -> Answer:
        return handler(data, check) if data and len(data) % 16 == 0 else Answer(error=NOT_ENOUGH)

    return handle
