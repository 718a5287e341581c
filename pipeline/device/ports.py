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
from pipeline.config.values import RESET_COMMAND
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
        port = _open_url(name, device.port)
    else:
        port = _open_serial(name, pick(name) if device.port == AUTO else device.port)
    if device.reset.startswith(RESET_COMMAND):
        from pipeline.device.command_reset import CommandResetPort

        return CommandResetPort(port, device.reset.removeprefix(RESET_COMMAND), root, _where(name, device.port))
    return port


def flash_file(name: str, device: DeviceConfig, root: Path) -> Path:
    """Where the flash of an in-process board lies: `flash_file`, else one file per device under `.deploy/boards`."""
    return root / (device.flash_file or f".deploy/boards/{name}.flash")


def _open_virtual(name: str, device: DeviceConfig, root: Path, clock: SystemClock, flash_size: int) -> Any:
    from virtualboard.chip_table import chip_named
    from virtualboard.machine import rom_of
    from virtualboard.nor import BoardBusy, FlashError
    from virtualboard.port import DEFAULT_MAC, open_virtual
    from virtualboard.rom_elf import RomElfError
    from virtualboard.timing import BadTiming

    faults = planted_faults(device.port)
    assert isinstance(faults, list), "deploy.toml was checked when it was read [this is a bug]"
    path = flash_file(name, device, root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        named = root / device.rom_elf if device.rom_elf else None
        rom_elf = rom_of(chip_named(device.chip), named, os.environ)
        port = open_virtual(
            device.chip,
            path,
            device.mac or DEFAULT_MAC,
            flash_size,
            timing=device.timing,
            usb=device.reset == "usb" and chip_named(device.chip).usb,
            faults=faults,
            rom_elf=rom_elf,
        )
    except BoardBusy as busy:
        raise _busy(name, device.port, str(busy)) from None
    except (BadTiming, FlashError, OSError, RomElfError) as error:
        raise _no_board(name, device.port, path, error) from None
    clock.follow(lambda: port.clock.skew_s)
    return port


def _no_board(name: str, port: str, path: Path, error: Exception) -> DeviceError:
    """Why there is no board in this process: a mistake in deploy.toml, or a disk that does not take its flash (`path`).
    Never a port's failure, since no cable could help."""
    from virtualboard.nor import FlashError

    cause = error.__cause__ if isinstance(error, FlashError) else error
    where = _where(name, port)
    if isinstance(cause, OSError):
        failure = fail(
            FailureCategory.CACHE_ERROR,
            stage=Stage.VERIFY_FLASH,
            where=where,
            message=f"the flash file {path} of the virtual board cannot be used: {cause.strerror or cause}",
            hint="free disk space, make the file writable, or name another one with the device's `flash_file`",
        )
        return DeviceError(failure)
    fact, _, hint = str(error).partition("\n")
    # what the board's own command line prints has a place and `error:` before the fact; ours is `where`
    fact = ": ".join(part for part in fact.split(": error: ") if part)
    hint = hint[:1].lower() + hint[1:]
    return DeviceError(
        fail(FailureCategory.CONFIG_ERROR, stage=Stage.VERIFY_FLASH, where=where, message=fact, hint=hint)
    )


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
    """Open a port again that vanished: under the name that its board has now. Raises OSError while it is gone, or while
    nobody can say which port is the same board's."""
    if hasattr(port, "rejoin"):  # a lent one: its owner looks for the board
        port.rejoin()
        return
    with contextlib.suppress(OSError):
        port.close()
    if hasattr(port, "current_name"):  # a virtual board knows
        port.port = port.current_name
        _open_again(port)
        return
    if hasattr(port, "usb") and port.usb.known:
        port.port = find_again(port.usb, port.port)
    port.open()


def _open_again(port: Any) -> None:
    from virtualboard.nor import FlashError

    try:
        port.open()
    except FlashError as error:
        raise OSError(errno.EBUSY, str(error).partition("\n")[0], port.port) from None


def reset_of(device: DeviceConfig, port: Any) -> str:
    """By which sequence the board on this port is reset: a key of `connect.LEAN`."""
    if device.reset.startswith(RESET_COMMAND):
        return "classic"
    if device.reset != "auto":
        return device.reset
    usb = getattr(port, "usb", None)  # only a serial port of this machine knows
    if usb is not None and usb.native:
        return "usb"
    return "instant" if device.is_virtual else "classic"


def find_again(before: UsbId, name: str) -> str:
    """The port that the board which was on port `name` has now. Raises OSError(ENODEV) unless exactly one can be it:
    cheap bridges all have one serial number, and names are given out again, so that the place on the hub decides, and
    where the system names none, a device that has no double."""
    found = [(device, usb) for device, usb in _usb_ports() if usb.same_device(before)]
    there = [(device, usb) for device, usb in found if usb.location == before.location]
    if before.location and len(there) == 1:
        return there[0][0]
    # A chip's own port has its MAC as serial number: it is the same board wherever it was plugged in.
    unique = before.native and bool(before.serial)
    if len(found) == 1 and before.doubles == 0 and (unique or not (before.location and found[0][1].location)):
        return found[0][0]
    seen = ", ".join(f"{device} (at {usb.location or 'an unknown place'})" for device, usb in found) or "none"
    raise OSError(errno.ENODEV, f"no port is surely the board that was {name}; alike: {seen}", name)


class UsbId(NamedTuple):
    """What the system knows of the USB device behind a port. `location`: its place on the hubs (`1-2.3`), where the
    system names one; `doubles`: how many others with the same vendor, product and serial number there were."""

    serial: str = ""
    vid: int | None = None
    pid: int | None = None
    location: str = ""
    doubles: int = 0

    @property
    def known(self) -> bool:
        """Is there anything by which the device could be found again?"""
        return bool(self.serial or self.location or self.vid is not None)

    def same_device(self, other: UsbId) -> bool:
        """Do both describe themselves alike?"""
        return (self.vid, self.pid, self.serial) == (other.vid, other.pid, other.serial)

    @property
    def native(self) -> bool:
        """The chip's own USB-Serial/JTAG, whose lines are messages to its reset logic, not wires."""
        return (self.vid, self.pid) == (ESPRESSIF_VID, JTAG_SERIAL_PID)


def _usb_ports() -> list[tuple[str, UsbId]]:
    from serial.tools import list_ports

    ports = [p for p in list_ports.comports() if p.vid is not None or p.serial_number]
    return [
        (str(p.device), UsbId(p.serial_number or "", p.vid, p.pid, getattr(p, "location", None) or "")) for p in ports
    ]


def _usb_id(path: str) -> UsbId:
    real = os.path.realpath(path)
    every = _usb_ports()
    mine = next((usb for device, usb in every if os.path.realpath(device) == real), UsbId())
    alike = sum(usb.same_device(mine) for _, usb in every) if mine.known else 0
    return mine._replace(doubles=max(0, alike - 1))


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


SERVED_HINT = "start what serves the port, or correct the device's `port` in deploy.toml"

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


def pick(name: str) -> str:
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
    hint = SERVED_HINT if "://" in port else None
    if code in (errno.EACCES, errno.EPERM) or isinstance(error, PermissionError):
        category = FailureCategory.PORT_PERMISSION
        message = "this user may not open the port"
    elif (
        code in (errno.EISDIR, errno.ENOTTY) or f"({errno.ENOTTY}, " in text
    ):  # pyserial keeps termios' error as a text
        message = "that is no serial port"
        hint = f"name the board's port in deploy.toml (present: {_present()})"
    elif code not in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        message = f"the port cannot be opened: {text}"
    elif not port.startswith("rfc2217:"):
        message = f"no such port (present: {_present()})"
    failure: Failure = fail(
        category, stage=Stage.VERIFY_FLASH, where=_where(name, port), message=message, hint=hint, detail=text
    )
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
