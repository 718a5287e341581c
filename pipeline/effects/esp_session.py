"""One loader session with one board, through esptool in this process.

Puts the chip into its ROM loader, asks who it is, answers MD5s from the ROM, and uploads the stub only when something
must be written (the upload is the largest part of an esptool run at 115200). Knows esptool; decides nothing: what is
compared or written is its caller's business.
Invariant: nothing is written before `write` is called; every error of esptool or of the port leaves as a DeviceError
with a named category.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

from pipeline.core.failures import fail
from pipeline.core.model import DeviceFacts, FailureCategory, Image, Reason, Region, Stage
from pipeline.effects.api import Progress
from pipeline.effects.flash_baud import ROM_BAUD, start_stub
from pipeline.effects.links import PortLink
from pipeline.errors import DeviceError

CLASSIC = ((False, True, 0.1), (True, False, 0.05), (False, False, 0.0))
"""(DTR, RTS, seconds held): EN low, then IO0 low while EN rises, then both free. esptool's ClassicReset."""

INSTANT = tuple((dtr, rts, 0.0) for dtr, rts, _ in CLASSIC)
"""The same for boards without a capacitor: the virtual ones."""

GARBLED = (ValueError, LookupError, struct.error)
"""What esptool raises beside its own errors when a reply passes its checks and still is nonsense."""

CONNECT_TRIES = 4
"""Resets before `sync_failed`. With esptool's five syncs of 0.1 s each, about 3 s; esptool itself tries 7 times."""


class EspSession:
    """`FlashSession` on an open pyserial-like `port`. Construct with `connect`."""

    def __init__(
        self,
        esp: Any,
        port: Any,
        where: str,
        link: Callable[[], PortLink],
        facts: DeviceFacts,
        counter: list[int],
        baud: int,
        enter_again: Callable[[], object],
    ) -> None:
        self._esp = esp
        self._port = port
        self._where = where
        self._link = link
        self._facts = facts
        self._counter = counter
        self._baud = baud
        self._enter_again = enter_again
        self._reasons: tuple[Reason, ...] = ()
        self._prepared = False
        self._spent = False

    @property
    def port(self) -> str:
        return str(self._port.port)

    @property
    def facts(self) -> DeviceFacts:
        return self._facts

    @property
    def round_trips(self) -> int:
        return self._counter[0]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return self._reasons

    def md5(self, offset: int, size: int) -> str:
        self._prepare()
        return str(self._guard(lambda: self._esp.flash_md5sum(offset, size), FailureCategory.SYNC_FAILED, "read MD5"))

    def read(self, offset: int, size: int) -> bytes:
        self._prepare()
        what = f"read {size} bytes at {offset:#x}"
        return bytes(self._guard(lambda: self._esp.read_flash(offset, size), FailureCategory.SYNC_FAILED, what))

    def write(self, image: Image, data: bytes, runs: Sequence[Region], progress: Progress) -> int:
        import esptool.cmds

        self._prepare()
        self._run_stub()
        pieces = [(run.offset, data[run.offset - image.offset : run.end - image.offset]) for run in runs]
        total = sum(len(piece) for _, piece in pieces)
        done = 0

        def bar(current: int, whole: int) -> None:
            progress(image.name, done + (current * len(piece) // whole if whole else 0), total)

        _BAR.set(bar)
        for offset, piece in pieces:
            self._guard(
                partial(esptool.cmds.write_flash, self._esp, [(offset, piece)], "keep", "keep", "keep"),
                FailureCategory.WRITE_FAILED,
                f"write {image.name} at {offset:#x}",
                stage=Stage.REFLASH,
            )
            done += len(piece)
            progress(image.name, done, total)
        return total

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

    def _prepare(self) -> None:
        """Tell the ROM which flash is attached: two commands instead of esptool's 57 round trips of `attach_flash`."""
        if self._prepared:
            return
        self._prepared = True
        if not self._esp.IS_STUB:
            self._guard(lambda: self._esp.flash_spi_attach(0), FailureCategory.SYNC_FAILED, "attach the flash")
        size = self._facts.flash_size
        self._guard(lambda: self._esp.flash_set_parameters(size), FailureCategory.SYNC_FAILED, "set the flash size")

    def _run_stub(self) -> None:
        if self._esp.IS_STUB:
            return
        # presetting the ids spares a scan of all USB ports and a 2 KB block limit on chips with native USB
        self._esp.cache["usb_vid"], self._esp.cache["usb_pid"] = 0x10C4, 0xEA60
        started = self._guard(
            lambda: start_stub(self._esp, self._baud, self._enter_again),
            FailureCategory.SYNC_FAILED,
            "start the flasher stub",
        )
        self._esp, self._baud, self._reasons = started
        _count_commands(self._esp, self._counter)
        self._prepared = False
        self._prepare()

    def _guard(
        self,
        call: Callable[[], Any],
        category: FailureCategory,
        what: str,
        *,
        stage: Stage = Stage.VERIFY_FLASH,
    ) -> Any:
        import esptool

        try:
            return call()
        except (esptool.FatalError, *GARBLED) as error:
            text = _fact(error)
            if _gone(self._port):
                category = FailureCategory.PORT_MISSING
            elif "MD5 of file does not match" in text or "Verification failed" in text:
                category = FailureCategory.VERIFY_MISMATCH
            raise DeviceError(
                fail(category, stage=stage, where=self._where, message=f"cannot {what}: {text}", detail=str(error))
            ) from None
        except OSError as error:  # pyserial's SerialException is one
            kind = category if stage is Stage.REFLASH else FailureCategory.PORT_MISSING
            raise DeviceError(
                fail(kind, stage=stage, where=self._where, message=f"cannot {what}: the port failed: {error}")
            ) from None


def connect(
    port: Any, chip: str, where: str, link: Callable[[], PortLink], flash_size: int, reset: str, baud: int = ROM_BAUD
) -> EspSession:
    """Reset the chip on `port` into its loader, sync, and read its identity (no write, no stub).

    `reset` is `classic` or `instant`; `baud` is used once something is written. Raises DeviceError: sync_failed,
    wrong_device (another chip than `chip`), port_missing. Closes the port when it raises.
    """
    import esptool
    from esp_pylib.logger import EspLog

    EspLog.set_logger(_quiet_logger())
    try:
        esp = esptool.CHIP_DEFS[chip](port)
        counter = _count_commands(esp, [0])
        enter = partial(_enter_loader, esp, port, CLASSIC if reset == "classic" else INSTANT)
        enter()
        facts = _identify(esp, chip, where, flash_size)
    except (esptool.FatalError, OSError, *GARBLED) as error:
        gone = _gone(port)
        port.close()
        text = _fact(error)
        category = FailureCategory.WRONG_DEVICE if "This chip is" in text else FailureCategory.SYNC_FAILED
        message = f"expected {chip}: {text}" if category is FailureCategory.WRONG_DEVICE else f"no loader: {text}"
        if gone:
            category, message = FailureCategory.PORT_MISSING, f"the port vanished: {text}"
        raise DeviceError(
            fail(category, stage=Stage.VERIFY_FLASH, where=where, message=message, detail=str(error))
        ) from None
    except BaseException:
        port.close()
        raise
    return EspSession(esp, port, where, link, facts, counter, baud, enter)


def _gone(port: Any) -> bool:
    """Can the port not even be asked what waits in it?"""
    try:
        return bool(port.is_open and port.in_waiting < 0)
    except OSError:
        return True


def _fact(error: Exception) -> str:
    return f"{error}".splitlines()[0] if f"{error}" else type(error).__name__


def _enter_loader(esp: Any, port: Any, sequence: Sequence[tuple[bool, bool, float]]) -> None:
    """Reset into the loader and sync, a few times. Raises esptool.FatalError with the last cause."""
    import esptool

    last: Exception | None = None
    for _ in range(CONNECT_TRIES):
        port.reset_input_buffer()
        for dtr, rts, held_s in sequence:
            # RTS last on the way down and up, so that EN never moves while IO0 is undecided
            port.setDTR(dtr)
            port.setRTS(rts)
            if held_s:
                time.sleep(held_s)
        try:
            esp.connect(mode="no-reset", attempts=1, detecting=True, warnings=False)
        except esptool.FatalError as error:
            last = error
            if not port.is_open:
                port.open()
            continue
        return
    raise esptool.FatalError(str(last))


def _identify(esp: Any, chip: str, where: str, flash_size: int) -> DeviceFacts:
    """Who is it? Chip id from the ROM (C3, S3...), else the magic register; MAC and revision from efuse."""
    import esptool

    chip_id: int | None = None
    if esp.USES_MAGIC_VALUE:
        magic = esp.read_reg(esp.CHIP_DETECT_MAGIC_REG_ADDR)
        if magic != esp.MAGIC_VALUE:
            raise esptool.FatalError(f"This chip is of magic {magic:#010x}, not {esp.CHIP_NAME}")
        encrypted, secure = bool(esp.get_flash_encryption_enabled()), bool(esp.get_secure_boot_enabled())
    else:
        info = esp.get_security_info()
        chip_id = info["chip_id"]
        if chip_id != esp.IMAGE_CHIP_ID:
            names = {c.IMAGE_CHIP_ID: c.CHIP_NAME for c in esptool.CHIP_DEFS.values() if not c.USES_MAGIC_VALUE}
            raise esptool.FatalError(f"This chip is {names.get(chip_id, f'of id {chip_id}')}, not {esp.CHIP_NAME}")
        encrypted = bin(info["flash_crypt_cnt"]).count("1") % 2 == 1
        secure = bool(info["parsed_flags"]["SECURE_BOOT_EN"])
    mac = ":".join(f"{byte:02x}" for byte in esp.read_mac("BASE_MAC"))
    return DeviceFacts(
        chip=chip,
        mac=mac,
        chip_id=chip_id,
        revision=esp.get_chip_revision(),
        flash_size=flash_size,
        flash_encryption=encrypted,
        secure_boot=secure,
    )


def _count_commands(esp: Any, counter: list[int]) -> list[int]:
    """Count the round trips of this loader object; the stub's object goes on with the ROM's counter."""
    command = esp.command

    def counted(*args: Any, **kwargs: Any) -> Any:
        counter[0] += 1
        return command(*args, **kwargs)

    esp.command = counted
    return counter


_BAR: ContextVar[Callable[[int, int], None] | None] = ContextVar("_BAR", default=None)
"""Progress of the write in this thread. esptool has one logger for the process, and boards are written side by side."""


def _quiet_logger() -> Any:
    """A logger for esptool that prints nothing and passes progress on: its text is for its own command line."""
    from esp_pylib.logger import EspLogBase

    class Quiet(EspLogBase):  # type: ignore[misc]
        def print(self, *args: Any, **kwargs: Any) -> None: ...
        def err(self, *args: Any, suggestion: str | None = None) -> None: ...
        def warn(self, *args: Any, suggestion: str | None = None) -> None: ...
        def note(self, *args: Any) -> None: ...
        def hint(self, *args: Any) -> None: ...
        def debug(self, *args: Any) -> None: ...
        def set_verbosity(self, mode: Any) -> None: ...
        def progress_bar(
            self, cur_iter: int, total_iters: int, prefix: str = "", suffix: str = "", bar_length: int = 30
        ) -> None:
            bar = _BAR.get()
            if bar is not None:
                bar(cur_iter, total_iters)

    return Quiet()
