"""Open the port of a device: a virtual board in this process, an RFC 2217 server, or a real serial port.

Turns what the operating system says into failures with a name: missing, busy (with the holder), not permitted,
ambiguous. Knows nothing of the loader protocol or of firmware.
Invariant: a port that could not be opened is not held; a port is opened without resetting the chip.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeviceConfig
from pipeline.effects.clock import SystemClock
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Stage

VIRTUAL = "virtual:"
AUTO = "auto"

ESPRESSIF_VID = 0x303A
JTAG_SERIAL_PID = 0x1001
BRIDGE_VIDS = frozenset({ESPRESSIF_VID, 0x10C4, 0x1A86, 0x0403})
"""USB vendors behind which ESP32 boards sit: Espressif itself, CP210x, CH34x, FTDI."""


def open_port(name: str, device: DeviceConfig, root: Path, clock: SystemClock, flash_size: int) -> Any:
    """A pyserial-like object for `device`, open at the ROM's 115200 baud; `flash_size` (bytes) is that of a virtual
    board. Raises DeviceError."""
    if device.port.startswith(VIRTUAL):
        return _open_virtual(name, device, root, clock, flash_size)
    if "://" in device.port:
        return _open_url(name, device.port)
    return _open_serial(name, _pick(name) if device.port == AUTO else device.port)


def flash_file(name: str, device: DeviceConfig, root: Path) -> Path:
    """Where the flash of an in-process board lies: `flash_file`, else one file per device under `.deploy/boards`."""
    return root / (device.flash_file or f".deploy/boards/{name}.flash")


def _open_virtual(name: str, device: DeviceConfig, root: Path, clock: SystemClock, flash_size: int) -> Any:
    from virtualboard.nor import BoardBusy, FlashError
    from virtualboard.port import DEFAULT_MAC, open_virtual
    from virtualboard.timing import BadTiming

    faults = planted_faults(device.port)
    assert isinstance(faults, list), "deploy.toml was checked when it was read [this is a bug]"
    path = flash_file(name, device, root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        port = open_virtual(
            device.chip, path, device.mac or DEFAULT_MAC, flash_size, timing=device.timing, faults=faults
        )
    except BadTiming as bad:
        fact, _, hint = str(bad).partition("\n")
        where = _where(name, device.port)
        raise DeviceError(
            fail(FailureCategory.CONFIG_ERROR, stage=Stage.VERIFY_FLASH, where=where, message=fact, hint=hint)
        ) from None
    except BoardBusy as busy:
        raise _busy(name, device.port, str(busy)) from None
    except FlashError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise _refused(name, str(path), cause) from None
    except OSError as error:
        raise _refused(name, str(path), error) from None
    clock.follow(lambda: port.clock.skew_s)
    return port


def planted_faults(port: str) -> list[Any] | tuple[str, str]:
    """The faults that `virtual:?fault=KIND[:KEY=VALUE,...]` plants, one per `fault`; or what is wrong, and a hint."""
    query = port.removeprefix(VIRTUAL)
    if not query:
        return []
    from urllib.parse import parse_qsl

    from virtualboard.faults import BadFault, parse_fault

    hint = f'write it like port = "{VIRTUAL}?fault=panic:boot=0.2"'
    try:
        pairs = parse_qsl(query.removeprefix("?"), keep_blank_values=True, strict_parsing=True)
    except ValueError:
        pairs = []
    if not query.startswith("?") or not pairs:
        return f"'{query}' is nothing that a virtual board's port can have", hint
    for key, _ in pairs:
        if key != "fault":
            return f"a virtual board's port has no '{key}'", hint
    try:
        return [parse_fault(text) for _, text in pairs]
    except BadFault as error:
        fact, _, advice = str(error).partition("\n")
        return f"the fault cannot be planted: {fact}", f"correct it: {advice}"


def reopen(port: Any) -> None:
    """Open a port again that vanished: under the name that its board has now. Raises OSError while it is gone."""
    before = port.port
    with contextlib.suppress(OSError):
        port.close()
    if hasattr(port, "current_name"):  # a virtual board knows
        port.port = port.current_name
    elif hasattr(port, "usb") and port.usb.serial:
        port.port = _with_serial(port.usb.serial) or before
    port.open()


def _with_serial(number: str) -> str:
    """The port of the USB device with this serial number, `""` when there is none."""
    from serial.tools import list_ports

    return next((str(p.device) for p in list_ports.comports() if p.serial_number == number), "")


class UsbId(NamedTuple):
    """What the system knows of the USB device behind a port; by its serial number it is found under another name."""

    serial: str = ""
    vid: int | None = None
    pid: int | None = None

    @property
    def native(self) -> bool:
        """The chip's own USB-Serial/JTAG, whose lines are messages to its reset logic, not wires."""
        return (self.vid, self.pid) == (ESPRESSIF_VID, JTAG_SERIAL_PID)


def _usb_id(path: str) -> UsbId:
    from serial.tools import list_ports

    real = os.path.realpath(path)
    found = (p for p in list_ports.comports() if os.path.realpath(p.device) == real)
    return next((UsbId(p.serial_number or "", p.vid, p.pid) for p in found), UsbId())


def _open_url(name: str, url: str) -> Any:
    import serial

    if url.startswith("rfc2217:") and "ign_set_control" not in url:
        _be_impatient()
    try:
        port = serial.serial_for_url(url, do_not_open=True)
        port.baudrate = 115200
        # esptool changes the timeout around each command unless it already is its default of 3 s, and pyserial's
        # RFC 2217 client renegotiates the whole line (>= 100 ms) each time
        port.timeout = 3
        port.open()
    except (OSError, ValueError, serial.SerialException) as error:
        if isinstance(error, ValueError):
            raise DeviceError(
                fail(
                    FailureCategory.CONFIG_ERROR,
                    stage=Stage.VERIFY_FLASH,
                    where=_where(name, url),
                    message=f"the port URL cannot be used: {error}",
                )
            ) from None
        raise _refused(name, url, error) from None
    return port


RFC2217_POLL_S = 0.002


def _be_impatient() -> None:
    """pyserial's RFC 2217 client looks for the server's answers every 50 ms, about six times in each open, and sleeps
    300 ms in each close: 0.7 s of every run for nothing. Its sleeps are polls with deadlines of their own, so it may
    look more often. (With `ign_set_control` they are not: then it sleeps because no answer will come.)"""
    import types

    from serial import rfc2217

    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, RFC2217_POLL_S))

    vars(rfc2217)["time"] = types.SimpleNamespace(time=time.time, sleep=sleep)


def _open_serial(name: str, path: str) -> Any:
    import serial

    port: Any = serial.Serial()
    port.port = path
    port.baudrate = 115200
    port.timeout = 3
    port.exclusive = True if sys.platform != "win32" else None
    # asserting both lines leaves EN and IO0 high on the two-transistor circuit: opening must not reset the chip
    port.dtr = True
    port.rts = True
    try:
        port.open()
    except (OSError, serial.SerialException) as error:
        raise _refused(name, path, error) from None
    port.usb = _usb_id(path)  # pyserial does not keep it, and a port that left cannot be asked
    return port


def _pick(name: str) -> str:
    """The one port that looks like a board. Raises DeviceError(port_missing | port_ambiguous)."""
    from serial.tools import list_ports

    found = sorted(p.device for p in list_ports.comports() if p.vid in BRIDGE_VIDS)
    if len(found) == 1:
        return str(found[0])
    category = FailureCategory.PORT_AMBIGUOUS if found else FailureCategory.PORT_MISSING
    message = (
        f'port = "auto" matches {len(found)} ports: {", ".join(found)}'
        if found
        else 'port = "auto" matches no USB serial port of an ESP32 board'
    )
    raise DeviceError(fail(category, stage=Stage.VERIFY_FLASH, where=_where(name, AUTO), message=message))


def _where(name: str, port: str) -> str:
    return f"device {name} on {port}"


def _busy(name: str, port: str, holder: str) -> DeviceError:
    message = f"the port is in use: {holder}" if holder else "the port is in use by another process"
    return DeviceError(
        fail(FailureCategory.PORT_BUSY, stage=Stage.VERIFY_FLASH, where=_where(name, port), message=message)
    )


def _refused(name: str, port: str, error: Exception) -> DeviceError:
    """The failure behind an OSError or pyserial's wrapping of one."""
    code = getattr(error, "errno", None)
    text = str(error)
    if code in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "exclusively lock" in text or "Resource busy" in text:
        return _busy(name, port, describe_holders(port))
    category = FailureCategory.PORT_MISSING
    message = "no such port"
    if code in (errno.EACCES, errno.EPERM) or isinstance(error, PermissionError):
        category = FailureCategory.PORT_PERMISSION
        message = "this user may not open the port"
    elif code not in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        message = f"the port cannot be opened: {text}"
    elif not port.startswith("rfc2217:"):
        message = f"no such port (present: {_present()})"
    failure: Failure = fail(category, stage=Stage.VERIFY_FLASH, where=_where(name, port), message=message, detail=text)
    return DeviceError(failure)


def _present() -> str:
    try:
        from serial.tools import list_ports

        names: Sequence[str] = sorted(p.device for p in list_ports.comports())
    except (ImportError, OSError):
        names = ()
    return ", ".join(names) or "none"


def describe_holders(port: str) -> str:
    """`pid 42 (screen /dev/ttyUSB0)` of each process that has `port` open, from /proc; `""` where nobody can see."""
    proc = Path("/proc")
    if not proc.is_dir():
        return ""
    try:
        target = os.path.realpath(port)
    except OSError:
        return ""
    holders = []
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if any(os.path.realpath(fd) == target for fd in (entry / "fd").iterdir()):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                holders.append(f"pid {entry.name} ({command[:60]})")
        except OSError:
            continue  # gone meanwhile, or another user's
    return ", ".join(holders)
