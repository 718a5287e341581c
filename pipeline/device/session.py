"""One loader session with one board: reading from its ROM, writing through esptool in this process.

Answers MD5s from the ROM, and imports esptool, raises the baud rate and uploads the stub only when something must be
written (the upload is the largest part of an esptool run at 115200). Decides nothing: what is compared or written is
its caller's business. How the loader is entered: `connect.py`.
Invariant: nothing is written before `write` is called; every error of esptool or of the port leaves as a DeviceError
with a named category.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pipeline.chips import CHIPS, ROM_REACH
from pipeline.device import connect as connecting
from pipeline.device.connect import Loader, Recover
from pipeline.device.flash_baud import ROM_BAUD, start_stub
from pipeline.device.rom_loader import RomLoader
from pipeline.device.serial_link import PortLink
from pipeline.effects.api import Progress
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.flash_model import DeviceFacts, Image, Region
from pipeline.model import FailureCategory, Stage


class EspSession:
    """`FlashSession` on an open pyserial-like `port`. Construct with `connect`."""

    def __init__(
        self, loader: Loader, port: Any, where: str, link: Callable[[], PortLink], baud: int, reset: str
    ) -> None:
        self._loader = loader
        self._esp = loader.esp
        self._port = port
        self._where = where
        self._link = link
        self._baud = baud
        self._reset = reset
        self.reasons = loader.reasons
        """What did not go the lean way."""
        self._prepared = False
        self._spent = False

    @property
    def port(self) -> str:
        return str(self._port.port)

    @property
    def facts(self) -> DeviceFacts:
        return self._loader.facts

    @property
    def round_trips(self) -> int:
        return int(self._esp.commands)

    @property
    def baud(self) -> int:
        return self._baud

    @property
    def is_checked(self) -> bool:
        return self._reset == "usb"

    # --- reading --------------------------------------------------------------------------------

    def md5(self, offset: int, size: int) -> str:
        self._reach(offset + size)
        return str(self._guard(lambda: self._esp.flash_md5sum(offset, size), FailureCategory.SYNC_FAILED, "read MD5"))

    def read(self, offset: int, size: int) -> bytes:
        self._reach(offset + size)
        what = f"read {size} bytes at {offset:#x}"
        return bytes(self._guard(lambda: self._esp.read_flash(offset, size), FailureCategory.SYNC_FAILED, what))

    def flash_size(self) -> int | None:
        self._prepare()
        self._take_esptool()
        asked = partial(self._esp.flash_id, cache=False)
        found: int = self._guard(asked, FailureCategory.SYNC_FAILED, "read the flash chip's id")
        # JEDEC: manufacturer, type, capacity; 0x12 to 0x1c are 256 KiB to 256 MiB, and some series begin at 0x32
        capacity = found >> 16 & 0xFF
        exponent = capacity - 0x20 if 0x32 <= capacity <= 0x3A else capacity
        return 1 << exponent if 0x12 <= exponent <= 0x1C else None

    def is_protected(self) -> bool:
        self._take_esptool()
        asked = partial(connecting.protection, self._esp)
        _, encrypted, secure = self._guard(asked, FailureCategory.SYNC_FAILED, "read the protection by efuse")
        return bool(encrypted or secure)

    def _reach(self, end: int) -> None:
        """Be able to address flash up to `end`: beyond what the ROM's commands reach only a stub can, and only on some
        chips; elsewhere the address would wrap around, and other bytes would answer."""
        reach = CHIPS[self.facts.chip].flash_reach
        if end > reach:
            message = f"flash up to {end:#x} cannot be addressed on {self.facts.chip}, whose loader reaches {reach:#x}"
            hint = f"move what lies there below {reach:#x}"
            raise DeviceError(
                fail(FailureCategory.CONFIG_ERROR, stage=None, where=self._where, message=message, hint=hint)
            )
        if end > ROM_REACH:
            self._start_stub()
        self._prepare()

    def _prepare(self) -> None:
        """Tell the loader which flash is attached: two commands instead of the 57 of esptool's `attach_flash`."""
        if self._prepared:
            return
        if not self._esp.IS_STUB:
            self._guard(lambda: self._esp.flash_spi_attach(0), FailureCategory.SYNC_FAILED, "attach the flash")
        size = self.facts.flash_size
        self._guard(lambda: self._esp.flash_set_parameters(size), FailureCategory.SYNC_FAILED, "set the flash size")
        self._prepared = True

    # --- writing --------------------------------------------------------------------------------

    def write(self, image: Image, data: bytes, runs: Sequence[Region], progress: Progress) -> int:
        self._reach(image.end)
        self._start_stub()
        pieces = [(run.offset, data[run.offset - image.offset : run.end - image.offset]) for run in runs]
        total = sum(len(piece) for _, piece in pieces)
        done = 0
        for offset, piece in pieces:

            def programmed(size: int, before: int = done) -> None:
                progress(image.name, before + size, total)

            self._guard(
                partial(self._program, offset, piece, programmed),
                FailureCategory.WRITE_FAILED,
                f"write {image.name} at {offset:#x}",
                stage=Stage.REFLASH,
            )
            done += len(piece)
        return total

    def _take_esptool(self) -> None:
        """From here on esptool speaks, on the port that the lean loader has synchronised."""
        if isinstance(self._esp, RomLoader):
            so_far, self._esp = self.round_trips, connecting.esptool_loader(self._port, self.facts.chip, self._reset)
            self._esp.commands = so_far

    def _start_stub(self) -> None:
        """The faster rate first, since the stub's upload profits from it, then the stub."""
        if self._esp.IS_STUB:
            return
        self._take_esptool()
        rom, reset = self._esp, self._reset
        started = self._guard(
            lambda: start_stub(rom, self._baud, lambda: connecting.enter_again(rom, self._port, reset)),
            FailureCategory.SYNC_FAILED,
            "start the flasher stub",
        )
        self._esp, self._baud = started.esp, started.baud
        self.reasons += started.reasons
        connecting.count_commands(self._esp, rom.commands)
        self._prepared = False
        self._prepare()

    def _program(self, offset: int, data: bytes, programmed: Callable[[int], None]) -> None:
        """Write one run, deflated. Three round trips and one per 16 KB, where `write_flash` takes ten (efuse checks and
        an MD5 per run; ours is asked once, over the region)."""
        from esptool.loader import ERASE_WRITE_TIMEOUT_PER_MB, timeout_per_mb

        packed, size = zlib.compress(data, 9), self._esp.FLASH_WRITE_SIZE
        inflater = zlib.decompressobj()
        self._esp.flash_defl_begin(len(data), len(packed), offset)
        arrived = timeout_s = 0.0
        for number, start in enumerate(range(0, len(packed), size)):
            block = packed[start : start + size]
            inflated = len(inflater.decompress(block))
            # a block is acknowledged before it is written: the answer to it may have to wait for the one before
            before_s, timeout_s = timeout_s, timeout_per_mb(ERASE_WRITE_TIMEOUT_PER_MB, inflated)
            self._esp.flash_defl_block(block, number, timeout=max(3.0, before_s + timeout_s))
            arrived += inflated
            programmed(int(arrived))
        # "stay in the loader": waits for the last block, and fails if not all of it arrived
        self._esp.flash_defl_finish(False, timeout=max(3.0, timeout_s))

    # --- end ------------------------------------------------------------------------------------

    def into_monitor(self, baud: int) -> PortLink:
        link = self._link()
        link.set_baud(baud)
        self._spent = True
        return link

    def close(self) -> None:
        if not self._spent:
            self._spent = True
            with contextlib.suppress(DeviceError, OSError):
                # we put the chip into its loader; whatever happened since, it must not stay there
                self._link().release_reset()
            self._port.close()

    def _guard(
        self,
        call: Callable[[], Any],
        category: FailureCategory,
        what: str,
        *,
        stage: Stage = Stage.VERIFY_FLASH,
    ) -> Any:
        try:
            return call()
        except (RuntimeError, *connecting.GARBLED) as error:  # LoaderError, and esptool's FatalError
            text = connecting.fact_of(error)
            if connecting.gone(self._port):
                category = FailureCategory.PORT_MISSING
            raise DeviceError(
                fail(category, stage=stage, where=self._where, message=f"cannot {what}: {text}", detail=str(error))
            ) from None
        except OSError as error:  # pyserial's SerialException is one
            kind = category if stage is Stage.REFLASH else FailureCategory.PORT_MISSING
            raise DeviceError(
                fail(kind, stage=stage, where=self._where, message=f"cannot {what}: the port failed: {error}")
            ) from None


def connect(
    port: Any,
    chip: str,
    where: str,
    link: Callable[[], PortLink],
    flash_size: int,
    reset: str,
    baud: int = ROM_BAUD,
    *,
    recover: Recover | None = None,
    known: str | None = None,
) -> EspSession:
    """Enter the loader and read the identity (`recover`, `known`: see `connect.connect`); `baud` is used once something
    is written, unless the line did not even take the ROM's rate."""
    loader = connecting.connect(port, chip, where, flash_size, reset, recover, known)
    return EspSession(loader, port, where, link, min(baud, port.baudrate) if port.baudrate < ROM_BAUD else baud, reset)
