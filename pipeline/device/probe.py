"""Who is behind a port of which nothing is known: chip and MAC, from the chip's loader.

Resets the chip into its loader and back into its application; writes nothing. Does not know deploy.toml. Invariant: the
port is closed when this ends, and the chip was released from its loader.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from cache.named_tuple import NamedTuple
from pipeline.chips import CHIPS
from pipeline.config.schema import DeviceConfig
from pipeline.device import ports
from pipeline.device.connect import GARBLED, fact_of, load_esptool
from pipeline.device.rom_loader import set_timeout
from pipeline.effects.clock import SystemClock
from pipeline.errors import DeviceError
from pipeline.failures import fail
from pipeline.model import FailureCategory, Stage

TRIES = 2


class FoundBoard(NamedTuple):
    """`native`: the port is the chip's own USB, whose serial number is the MAC."""

    port: str
    chip: str
    mac: str
    native: bool = False


class FreePort(NamedTuple):
    """A port of this machine behind which a board may be. `mac`: where the port itself tells."""

    port: str
    mac: str = ""


def free_ports() -> list[FreePort]:
    """The ports that look like a board's; others are never asked anything. By the name that stays, if there is one."""
    from serial.tools import list_ports

    found = []
    for port in sorted(list_ports.comports(), key=lambda port: str(port.device)):
        if port.vid in ports.BRIDGE_VIDS:
            native = (port.vid, port.pid) == (ports.ESPRESSIF_VID, ports.JTAG_SERIAL_PID)
            found.append(FreePort(_lasting_name(str(port.device)), _mac_of(port.serial_number or "") if native else ""))
    return found


def _lasting_name(port: str) -> str:
    """The link in /dev/serial/by-id that leads to `port`: a number may be another board's tomorrow."""
    with contextlib.suppress(OSError):
        for link in sorted(Path("/dev/serial/by-id").iterdir()):
            if link.resolve() == Path(port).resolve():
                return str(link)
    return port


def _mac_of(serial: str) -> str:
    digits = serial.replace(":", "").lower()
    if len(digits) != 12 or not all(digit in "0123456789abcdef" for digit in digits):
        return ""
    return ":".join(digits[n : n + 2] for n in range(0, 12, 2))


def probe(port: str) -> FoundBoard:
    """Ask the chip on `port`. Raises DeviceError: port_missing, port_busy, port_permission, sync_failed, and
    wrong_device for a chip that nothing here knows."""
    esptool = load_esptool()
    opened = ports.open_port("new", DeviceConfig("new", "", port), Path.cwd(), SystemClock(), 0)
    try:
        set_timeout(opened, 3)
        esp = esptool.detect_chip(opened, connect_attempts=TRIES)
        mac = ":".join(f"{byte:02x}" for byte in esp.read_mac("BASE_MAC"))
        chip = str(esp.CHIP_NAME).lower().replace("-", "")
        with contextlib.suppress(RuntimeError, OSError):
            esp.hard_reset()
    except (RuntimeError, OSError, *GARBLED) as error:
        raise _failed(FailureCategory.SYNC_FAILED, port, f"no loader answers: {fact_of(error)}") from None
    finally:
        with contextlib.suppress(OSError):
            opened.close()
    if chip not in CHIPS:
        raise _failed(FailureCategory.WRONG_DEVICE, port, f"the chip is {chip}, which is not known here")
    usb = getattr(opened, "usb", None)
    return FoundBoard(port, chip, mac, bool(usb is not None and usb.native))


def _failed(category: FailureCategory, port: str, message: str) -> DeviceError:
    return DeviceError(fail(category, stage=Stage.VERIFY_FLASH, where=port, message=message))
