"""Into a chip's ROM loader, and who is there: the first half of a loader session.

Knows modem lines and the two ways to speak to a loader. Does not read or write flash. The lean way is tried first: the
chip is known from the configuration, so nothing is detected, esptool is not even imported, and EN is held low no longer
than a reset circuit needs. Where it gets no answer, esptool's own reset strategies follow, and the session says so;
then whatever else the caller knows to try (`recovery.py`).
Invariant: `connect` returns a synchronised loader of the expected chip, or raises with the port closed.
"""

from __future__ import annotations

import errno
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.device.rom_loader import (
    TIMEOUT_S,
    WATCHDOGS,
    Identity,
    LoaderError,
    OtherChip,
    RomLoader,
    SecureDownload,
    reads,
    set_timeout,
)
from pipeline.device.serial_link import NO_LINES, NO_LINES_HINT, say_channel
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.flash_model import DeviceFacts
from pipeline.model import FailureCategory, Reason, Stage

Step = tuple[bool, bool, float]
"""DTR, RTS, seconds held."""

SHORT: tuple[Step, ...] = ((False, True, 0.010), (True, False, 0.030), (False, False, 0.0))
"""EN low, then IO0 low while EN rises, then both free: enough for the usual 1 uF at EN."""

CLASSIC: tuple[Step, ...] = ((False, True, 0.1), (True, False, 0.05), (False, False, 0.0))
"""The same with esptool's times (ClassicReset)."""

USB: tuple[Step, ...] = (
    (False, False, 0.1),
    (True, False, 0.1),
    (True, True, 0.0),
    (False, True, 0.1),
    (False, False, 0.0),
)
"""For the chip's own USB-Serial/JTAG, where the lines are messages to its reset logic (USBJTAGSerialReset)."""

SHORT_USB: tuple[Step, ...] = tuple((dtr, rts, 0.01 if held_s else 0.0) for dtr, rts, held_s in USB)
"""The same with ten frames of the bus for each message: there is no capacitor that would need more."""

INSTANT: tuple[Step, ...] = tuple((dtr, rts, 0.0) for dtr, rts, _ in CLASSIC)
"""For boards without a capacitor: the virtual ones in this process."""

LEAN = {"classic": (SHORT, CLASSIC), "usb": (SHORT_USB, USB), "instant": (INSTANT, INSTANT)}
"""The sequences tried before esptool's own, by the device's `reset`."""

AGAIN = {"classic": CLASSIC, "usb": USB, "instant": INSTANT}
"""The sequence for entering the loader once more."""

GARBLED = (ValueError, LookupError, struct.error)
"""What esptool raises beside its own errors when a reply passes its checks and still is nonsense."""

CP2102, JTAG_SERIAL = (0x10C4, 0xEA60), (0x303A, 0x1001)
"""USB vendor and product of a usual bridge, and of the chip's own port."""

STANDARD_TRIES = 4
"""Of esptool's strategies, which alternate short and long delays; with five syncs each, about 4 s."""


class Loader(NamedTuple):
    """A synchronised ROM loader: a RomLoader, or esptool's."""

    esp: Any
    facts: DeviceFacts
    reasons: tuple[Reason, ...] = ()


Recover = Callable[[Any, Exception], Loader]
"""Given the open port and why its loader does not answer: a loader all the same. Raises DeviceError, or as `enter`."""


def connect(
    port: Any,
    chip: str,
    where: str,
    flash_size: int,
    reset: str,
    recover: Recover | None = None,
    known: str | None = None,
) -> Loader:
    """Reset the chip on `port` into its loader, sync, and read its identity (no write, no stub).

    `reset` is a key of LEAN; `recover` is asked once nothing here helped. `known`: the MAC that this board had last;
    any other identity is believed only when it is read twice ("": whatever it is; None: once is enough). Raises
    DeviceError: sync_failed, wrong_device (another chip than `chip`), port_missing, protected_device. Closes the port
    when it raises.
    """
    try:
        say_channel(port, "loader")
        lean: Loader | None = None
        reasons: tuple[Reason, ...] = ()
        try:
            lean, reasons = _lean(port, chip, flash_size, reset, known)
            return lean or _standard(port, chip, flash_size, reset, reasons, known)
        except (RuntimeError, OSError, *GARBLED) as error:
            if recover is None or not _is_silence(error):
                raise
            found = recover(port, error)
            return found._replace(reasons=(*reasons, *found.reasons))
    except (RuntimeError, OSError, *GARBLED) as error:  # esptool's FatalError is a RuntimeError, pyserial's an OSError
        vanished = gone(port)
        port.close()
        text = fact_of(error)
        category, message, hint = FailureCategory.SYNC_FAILED, f"no loader: {text}", None
        if getattr(error, "errno", None) == errno.ENOTTY:
            message, hint = f"no loader: {NO_LINES}", NO_LINES_HINT
        elif vanished:
            category, message = FailureCategory.PORT_MISSING, f"the port vanished: {text}"
        elif _is_other_chip(error):
            category, message = FailureCategory.WRONG_DEVICE, f"expected {chip}: {text}"
        elif isinstance(error, SecureDownload):
            category, message = FailureCategory.PROTECTED_DEVICE, "the board is in Secure Download Mode (efuse)"
        raise DeviceError(
            fail(category, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=hint, detail=str(error))
        ) from None
    except BaseException:
        port.close()
        raise


def _is_silence(error: Exception) -> bool:
    """Is it the board that does not answer? Not another chip, not a protected one, not a port without lines."""
    named = isinstance(error, (OtherChip, SecureDownload)) or _is_other_chip(error)
    return not named and getattr(error, "errno", None) != errno.ENOTTY


def _lean(
    port: Any, chip: str, flash_size: int, reset: str, known: str | None
) -> tuple[Loader | None, tuple[Reason, ...]]:
    """Ours, without esptool; or why it did not do."""
    if not reads(chip):
        return None, (Reason("standard-connect", "loader", "lean", f"{chip} is esptool's"),)
    if reset == "usb" and chip not in WATCHDOGS:
        return None, (Reason("standard-connect", "loader", "lean", f"the watchdogs of an {chip} on its own USB"),)
    last = ""
    for sequence in LEAN[reset]:
        rom = RomLoader(port, chip)
        port.reset_input_buffer()
        play(port, sequence)
        try:
            rom.sync()
            found = facts_of(identified(rom), chip, flash_size)
            if _is_news(found, known) and facts_of(identified(rom), chip, flash_size) != found:
                raise LoaderError("garbled answers: two identities that differ")
            if reset == "usb":
                rom.stop_watchdogs()
        except (OtherChip, SecureDownload):
            raise
        except LoaderError as error:
            last = str(error)
            continue
        return Loader(rom, found), ()
    return None, (Reason("standard-connect", "loader", "the lean reset got no answer", last),)


def _is_news(found: DeviceFacts, known: str | None) -> bool:
    """Is it somebody else than last time, or protected? Replies have no checksum, and a MAC that was garbled on its way
    would be another board in the report and in the journal."""
    return known is not None and (found.mac != known or found.flash_encryption or found.secure_boot)


def facts_of(found: Identity, chip: str, flash_size: int) -> DeviceFacts:
    """What the ROM says of itself, as facts about a board whose flash is taken to have `flash_size` bytes."""
    return DeviceFacts(
        chip=chip,
        mac=found.mac,
        chip_id=found.chip_id,
        revision=found.revision,
        flash_size=flash_size,
        flash_encryption=found.flash_encryption,
        secure_boot=found.secure_boot,
    )


def identified(rom: RomLoader) -> Identity:
    """Who answers. Replies have no checksum: another chip is believed when it says so twice. Raises LoaderError."""
    try:
        return rom.identify()
    except OtherChip as first:
        try:
            return rom.identify()
        except OtherChip as second:
            if str(second) == str(first):
                raise
            raise LoaderError(f"garbled answers: first {first}, then {second}") from None


def _standard(
    port: Any, chip: str, flash_size: int, reset: str, reasons: tuple[Reason, ...], known: str | None
) -> Loader:
    """esptool's reset strategies and its reading of the chip; one retry if the answers make no sense."""
    esptool = load_esptool()
    esp = esptool_loader(port, chip, reset)
    mode = "usb-reset" if reset == "usb" else "default-reset"
    _connect_esptool(esp, port, mode)

    def identity() -> DeviceFacts:
        found = identify(esp, chip, flash_size)
        if _is_news(found, known) and identify(esp, chip, flash_size) != found:
            raise esptool.FatalError("garbled answers: two identities that differ")
        return found

    try:
        facts = identity()
    except esptool.FatalError as error:
        if _is_other_chip(error):
            raise
        reasons += (Reason("retried", "loader", "", str(error).splitlines()[0]),)
        _connect_esptool(esp, port, mode)
        facts = identity()
    esp._post_connect()  # stops the watchdogs of a chip on its own USB, which else reset it while flash is written
    return Loader(esp, facts, reasons)


def _connect_esptool(esp: Any, port: Any, mode: str) -> None:
    """By esptool's strategies, on a port that stays open whatever comes of it."""
    esp._port = _KeptOpen(port)
    esp.connect(mode=mode, attempts=STANDARD_TRIES, detecting=True, warnings=False)
    esp._port = port
    esp.flush_input()  # which also makes esptool read from `port` itself again


class _KeptOpen:
    """`port`, for esptool: it closes a port whose chip does not answer, which ends the lease of a lent one and the life
    of a board in this process. One that vanished it closes too, to open it again, and that it may."""

    def __init__(self, port: Any) -> None:
        vars(self).update(_real=port, _closed=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)

    def isOpen(self) -> bool:
        return not self._closed and bool(self._real.isOpen())

    def close(self) -> None:
        vars(self).update(_closed=True)

    def open(self) -> None:
        if not hasattr(self._real, "rejoin"):  # a lent one comes back without being closed
            self._real.close()
        vars(self).update(_closed=False)
        self._real.open()


def enter_again(esp: Any, port: Any, reset: str) -> None:
    """Reset into the ROM once more, with esptool's times. Raises esptool.FatalError."""
    port.reset_input_buffer()
    play(port, AGAIN[reset])
    esp.connect(mode="no-reset", attempts=1, detecting=True, warnings=False)


def esptool_loader(port: Any, chip: str, reset: str) -> Any:
    """esptool's loader object on an open port, at the port's rate: silent, and counting its round trips in `commands`.
    Sends nothing."""
    esptool = load_esptool()
    set_timeout(port, TIMEOUT_S)
    esp = esptool.CHIP_DEFS[chip](port, port.baudrate)
    esp.cache["usb_vid"], esp.cache["usb_pid"] = _usb_ids(port, reset)
    count_commands(esp, 0)
    return esp


_LOADING = threading.Lock()


def load_esptool() -> Any:
    """esptool, imported whole and made silent. Its modules import each other in a circle: to a second thread that comes
    meanwhile, Python gives what there is so far."""
    with _LOADING:
        import esptool
        from esp_pylib.logger import EspLog

        EspLog.set_logger(_quiet_logger())
        esptool.loader.HexFormatter = Unseen
        return esptool


def _usb_ids(port: Any, reset: str) -> tuple[int, int]:
    """By these esptool decides whether to stop watchdogs and to send small blocks; told, it does not look through all
    USB ports for them. A port of which nothing is known stands for a bridge."""
    usb = getattr(port, "usb", None)
    if usb is not None and usb.vid is not None:
        return usb.vid, usb.pid
    return JTAG_SERIAL if reset == "usb" else CP2102


def gone(port: Any) -> bool:
    """Can the port not even be asked what waits in it?"""
    try:
        return bool(port.is_open and port.in_waiting < 0)
    except OSError:
        return True


def fact_of(error: Exception) -> str:
    """The first line of what an exception says."""
    return f"{error}".splitlines()[0] if f"{error}" else type(error).__name__


def _is_other_chip(error: Exception) -> bool:
    return str(error).startswith("This chip is")


def play(port: Any, sequence: Sequence[Step]) -> None:
    """Set the lines as `sequence` says."""
    for dtr, rts, held_s in sequence:
        # RTS last on the way down and up, so that EN never moves while IO0 is undecided
        port.setDTR(dtr)
        port.setRTS(rts)
        if held_s:
            time.sleep(held_s)


def identify(esp: Any, chip: str, flash_size: int) -> DeviceFacts:
    """Who is it? Chip id from the ROM (C3, S3...), else the magic register; MAC and revision from efuse."""
    import esptool

    if esp.USES_MAGIC_VALUE:
        magic = esp.read_reg(esp.CHIP_DETECT_MAGIC_REG_ADDR)
        if magic != esp.MAGIC_VALUE:
            raise esptool.FatalError(f"This chip is of magic {magic:#010x}, not {esp.CHIP_NAME}")
    chip_id, encrypted, secure = protection(esp)
    if chip_id is not None and chip_id != esp.IMAGE_CHIP_ID:
        names = {c.IMAGE_CHIP_ID: c.CHIP_NAME for c in esptool.CHIP_DEFS.values() if not c.USES_MAGIC_VALUE}
        raise esptool.FatalError(f"This chip is {names.get(chip_id, f'of id {chip_id}')}, not {esp.CHIP_NAME}")
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


def protection(esp: Any) -> tuple[int | None, bool, bool]:
    """Of esptool's loader: the chip id, where it has one; is flash encryption on, and secure boot? Asked anew."""
    if esp.USES_MAGIC_VALUE:
        return None, bool(esp.get_flash_encryption_enabled()), bool(esp.get_secure_boot_enabled())
    info = esp.get_security_info(cache=False)
    encrypted = bin(info["flash_crypt_cnt"]).count("1") % 2 == 1
    return info["chip_id"], encrypted, bool(info["parsed_flags"]["SECURE_BOOT_EN"])


def count_commands(esp: Any, so_far: int) -> None:
    """Count the round trips of an esptool object in its attribute `commands`."""
    esp.commands, command = so_far, esp.command

    def counted(op: int | None = None, *args: Any, **kwargs: Any) -> Any:
        esp.commands += op is not None  # without: reads one more answer, such as the seven further ones to a sync
        return command(op, *args, **kwargs)

    esp.command = counted


class Unseen:
    """In place of esptool's `HexFormatter`: each packet is dumped in hex for a trace, also when nobody traces, and that
    was a quarter of a write's CPU time."""

    def __init__(self, *_: Any) -> None: ...

    def __str__(self) -> str:
        return ""


def _quiet_logger() -> Any:
    """A logger for esptool that prints nothing: its text is for its own command line."""
    from esp_pylib.logger import EspLogBase

    class SilentLogger(EspLogBase):  # type: ignore[misc]
        def print(self, *args: Any, **kwargs: Any) -> None: ...
        def err(self, *args: Any, suggestion: str | None = None) -> None: ...
        def warn(self, *args: Any, suggestion: str | None = None) -> None: ...
        def note(self, *args: Any) -> None: ...
        def hint(self, *args: Any) -> None: ...
        def debug(self, *args: Any) -> None: ...
        def set_verbosity(self, mode: Any) -> None: ...
        def progress_bar(
            self, cur_iter: int, total_iters: int, prefix: str = "", suffix: str = "", bar_length: int = 30
        ) -> None: ...

    return SilentLogger()
