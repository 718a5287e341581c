"""The ROM loader (`--no-stub`): what the mask ROM answers in download mode, byte for byte where that is known.

Source of the answers: a transcript of real ESP32 and ESP32-C3 ROMs, which ROM behaviour is odd in: `value` is left over
from the last READ_REG or SYNC, an unknown command repeats the previous reply's opcode, a block with a bad checksum is
consumed. In Secure Download Mode the ROM keeps the commands that write flash, and treats every other one as unknown:
esptool recognises an ESP32-S2 in that mode by exactly this. Does not know UART or time. Invariant: what was
acknowledged is in flash.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

from virtualboard import protocol as p
from virtualboard.bus import Bus
from virtualboard.chips import ChipModel
from virtualboard.nor import NorFlash
from virtualboard.protocol import Answer, Handler, Outcome
from virtualboard.timing import INSTANT, Timing

INVALID, FAILED, BAD_CHECKSUM, READ_FAILED, READ_LENGTH, INFLATE = 0x05, 0x06, 0x07, 0x09, 0x0A, 0x0B
DEFAULT_FLASH_SIZE = 0x200000  # until SPI_SET_PARAMS
_SLOW_READ = 64
_ADDRESS_BITS = 24
# What esptool uses in Secure Download Mode; it never asks for registers, memory, flash contents or digests then.
_SECURE_COMMANDS = frozenset(
    {
        *(p.SYNC, p.GET_SECURITY_INFO, p.CHANGE_BAUDRATE, p.SPI_ATTACH, p.SPI_SET_PARAMS),
        *(p.FLASH_BEGIN, p.FLASH_DATA, p.FLASH_END, p.DEFL_BEGIN, p.DEFL_DATA, p.DEFL_END),
    }
)


class LoaderModel:
    """One session from the entry into download mode to the reset or to the stub."""

    def __init__(self, chip: ChipModel, flash: NorFlash, bus: Bus, timing: Timing = INSTANT) -> None:
        self._chip = chip
        self._bus = bus
        self._target = p.Target(flash, timing, DEFAULT_FLASH_SIZE, _ADDRESS_BITS)
        self._write: _RomWrite | None = None
        self._value = 0
        self._last_op = 0
        self._digest = bytes(32)
        errors = p.Errors(length=INVALID, checksum=BAD_CHECKSUM, sequence=INVALID, no_begin=chip.no_begin_error)
        self._errors = errors
        self._ram = ram = p.RamUpload(chip, bus, errors, _recognise, self._check_block)
        handlers: dict[int, Handler] = {
            **p.register_commands(bus, errors, self._leave),
            p.MEM_BEGIN: ram.begin,
            p.MEM_DATA: ram.block,
            p.MEM_END: self._mem_end,
            p.FLASH_BEGIN: self._flash_begin,
            p.FLASH_DATA: self._data,
            p.FLASH_END: self._flash_end,
            p.DEFL_BEGIN: self._defl_begin,
            p.DEFL_DATA: self._data,
            p.DEFL_END: self._flash_end,
            p.SYNC: self._sync,
            p.SPI_ATTACH: self._attach,
            p.SPI_SET_PARAMS: self._set_params,
            p.READ_FLASH_SLOW: self._read_slow,
            p.CHANGE_BAUDRATE: self._change_baud,
            p.SPI_FLASH_MD5: self._md5,
        } | ({} if chip.security_chip_id is None else {p.GET_SECURITY_INFO: self._security_info})
        if chip.security.secure_download:
            handlers = {op: handler for op, handler in handlers.items() if op in _SECURE_COMMANDS}
        self._handlers: Mapping[int, Handler] = handlers

    def handle(self, frame: bytes) -> Outcome:
        """Answer one frame; what is no request is ignored."""
        request = p.Request.parse(frame)
        if request is None:
            return Outcome()
        handler = self._handlers.get(request.op)
        if handler is None or not request.complete:
            copies = p.SYNC_REPLIES if self._last_op == p.SYNC else 1
            return Outcome((p.reply(self._last_op, self._value, bytes([1, INVALID, 0, 0])),) * copies)
        answer = handler(request.data, request.checksum)
        self._last_op = request.op
        if answer.silent:
            return Outcome((), answer.busy_s, answer.then)
        status = bytes([1, answer.error, 0, 0]) if answer.error else bytes(4)
        frame = p.reply(request.op, self._value, answer.data + status)
        copies = p.SYNC_REPLIES if request.op == p.SYNC and not answer.error else 1
        return Outcome((frame,) * copies, answer.busy_s, answer.then)

    def _leave(self, value: int) -> None:
        self._value = value

    def _sync(self, data: bytes, _check: int) -> Answer:
        if not data.startswith(p.SYNC_MAGIC):
            return Answer(error=INVALID)
        self._value = int.from_bytes(p.SYNC_MAGIC, "little")
        return Answer()

    def _security_info(self, _data: bytes, _check: int) -> Answer:
        return Answer(p.security_info(self._chip))

    def _check_block(self, data: bytes, check: int, seq: int, _remaining: int) -> tuple[bytes, int]:
        return p.parse_block(data, check, seq, self._errors)

    def _mem_end(self, data: bytes, check: int) -> Answer:
        answer = self._ram.end(data, check)
        if self._chip.security.secure_boot and self._chip.rom_read_pointer is not None:
            # This ROM does not jump to RAM when secure boot is on (esptool, `run_stub`).
            return answer._replace(then=None)
        return answer

    def _attach(self, data: bytes, _check: int) -> Answer:
        if len(data) not in (4, 8):
            return Answer(error=INVALID)
        self._bus.spi.attach()
        return Answer()

    def _set_params(self, data: bytes, _check: int) -> Answer:
        if len(data) != 24:
            return Answer(error=INVALID)
        self._target.set_size(struct.unpack_from("<I", data, 4)[0])
        return Answer()

    def _change_baud(self, data: bytes, _check: int) -> Answer:
        if len(data) != 8:
            return Answer(error=INVALID)
        return Answer(then=p.SetBaud(struct.unpack_from("<I", data)[0]))

    def _read_slow(self, data: bytes, _check: int) -> Answer:
        if len(data) != 8:
            return Answer(error=INVALID)
        pointer = self._chip.rom_read_pointer
        if pointer is not None and (entry := self._bus.read32(pointer)):
            # esptool's detour: the ROM's read function has been replaced by the stub, and does not come back.
            return Answer(then=self._ram.jump(entry), silent=True)
        offset, n = struct.unpack("<II", data)
        if n > _SLOW_READ or not self._target.fits(offset, n):
            return Answer(error=READ_LENGTH)
        return Answer(self._target.read(offset, n).ljust(_SLOW_READ, b"\xff"))

    def _md5(self, data: bytes, _check: int) -> Answer:
        if len(data) != 16:
            return Answer(error=INVALID)
        offset, n = struct.unpack_from("<II", data)
        if not self._target.fits(offset, n):
            return Answer(self._digest, error=READ_FAILED)
        digest, seconds = self._target.md5(offset, n)
        self._digest = digest.hex().encode()
        return Answer(self._digest, busy_s=seconds)

    def _flash_begin(self, data: bytes, _check: int) -> Answer:
        return self._begin(data, inflate=False)

    def _defl_begin(self, data: bytes, _check: int) -> Answer:
        return self._begin(data, inflate=True)

    def _begin(self, data: bytes, *, inflate: bool) -> Answer:
        if len(data) != 4 * self._chip.begin_words:
            return Answer(error=INVALID)
        size, blocks, _block_size, offset = struct.unpack_from("<4I", data)
        if any(data[16:]):
            return Answer(error=FAILED)  # an encrypted write: the board does not encrypt
        if not self._target.fits(offset, size):
            return Answer(error=FAILED)
        self._write = _RomWrite(self._target, offset, size, blocks, inflate=inflate)
        return Answer(busy_s=self._target.erase(offset, offset + size) if size else 0.0)

    def _data(self, data: bytes, check: int) -> Answer:
        write = self._write
        if write is None:
            return Answer(error=self._errors.no_begin)
        if write.seq >= write.blocks:
            return Answer(error=INVALID)
        payload, error = p.parse_block(data, check, write.seq, self._errors)
        if error == BAD_CHECKSUM:
            write.skip(len(data) - 16)
        if error:
            return Answer(error=error)
        return write.put(payload)

    def _flash_end(self, data: bytes, _check: int) -> Answer:
        if len(data) != 4:
            return Answer(error=INVALID)
        error = FAILED if self._write is None else 0
        self._write = None
        # 0 asks for a reboot, 1 for "run user code"; both end in the firmware that lies in flash.
        return Answer(error=error, then=p.BootFlash(p.CAUSE_SOFTWARE))


def _recognise(chip: ChipModel, entry: int, segments: Sequence[bytes], addresses: Sequence[int] = ()) -> int | None:
    from virtualboard.stub import recognise  # few hosts upload one

    return recognise(chip, entry, segments, addresses)


class _RomWrite:
    """A flash write under way. The ROM erased everything at its begin; blocks only program."""

    def __init__(self, target: p.Target, offset: int, size: int, blocks: int, *, inflate: bool) -> None:
        self.seq = 0
        self.blocks = blocks
        self._target = target
        self._at = offset
        self._remaining = size
        self._inflater = zlib.decompressobj() if inflate else None

    def skip(self, n: int) -> None:
        """A block that was refused for its checksum is consumed all the same."""
        self.seq += 1
        if self._inflater is None:
            self._at += n

    def put(self, payload: bytes) -> Answer:
        """Program one block."""
        self.seq += 1
        if self._inflater is not None:
            try:
                payload = self._inflater.decompress(payload, self._remaining + 1)
            except zlib.error:
                return Answer(error=INFLATE)
            if len(payload) > self._remaining:
                return Answer(error=INFLATE)
            self._remaining -= len(payload)
        if not self._target.fits(self._at, len(payload)):
            return Answer(error=FAILED)
        seconds = self._target.program(self._at, payload)
        self._at += len(payload)
        return Answer(busy_s=seconds)
