"""The selected devices: is there a port, may it be opened, who has it, and with `probe` also: which board answers?

Opens a port only with `probe`, which resets the board behind it. Does not know builds. Invariant: whatever would make
a deploy to the device fail before its first write, and can be seen from here, is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.config.schema import DeployConfig, DeviceConfig
from pipeline.config.values import FARM_PORT
from pipeline.device import ports
from pipeline.device.leases import LEASE_VARIABLE, Shelf, board_name
from pipeline.device.port_state import PortState, present_ports, state_of
from pipeline.doctor.findings import DoctorFinding, bad, note, of_failure, ok, warning
from pipeline.errors import DeployError

EXECUTED = "esp32c3"
"""The chip whose virtual board executes what is in its flash."""

ROM_DIRECTORY = "ESP_ROM_ELF_DIR"
_NEEDS_ROM = ("esp-idf", "prebuilt")


def examine_ports() -> Iterator[DoctorFinding]:
    """Every serial port of this machine."""
    found = present_ports()
    if not found:
        yield note("ports", "no USB serial port is present")
    for state in found:
        what = "looks like an ESP32 board" if state.board else state.text or "a serial port"
        if not state.allowed:
            yield warning(f"port {state.port}", f"{what}; this user may not open it", _permission(state))
        elif state.holder:
            yield note(f"port {state.port}", f"{what}; open in {state.holder}")
        else:
            yield ok(f"port {state.port}", what)


def examine_devices(
    root: Path, config: DeployConfig, devices: Sequence[DeviceConfig], shelf: Shelf, *, probe: bool, service: bool
) -> Iterator[DoctorFinding]:
    """Each of `devices`. `service`: the resident service runs, and its hold of a port is none in the way."""
    if not devices:
        yield ok("device", "none is declared: a program for this machine")
    for device in devices:
        area = f"device {device.name}"
        holder = shelf.holder(board_name(device, root))
        if holder is not None and str(holder.pid) not in os.environ.get(LEASE_VARIABLE, ""):
            hint = "wait until that has ended, or take it over with --take"
            yield bad(area, f"{device.port} is leased to {holder.text}", hint)
        if device.is_virtual:
            yield from _virtual(area, root, config, device)
        elif "://" in device.port:
            yield from _asked(area, device, device.port, probe=probe)
        else:
            yield from _serial(area, device, probe=probe, service=service)


def _virtual(area: str, root: Path, config: DeployConfig, device: DeviceConfig) -> Iterator[DoctorFinding]:
    until = config.readiness.until
    known = config.firmware is not None or config.toolchain.kind not in _NEEDS_ROM
    if known and device.chip != EXECUTED and not until.startswith("line:"):
        fact = f"a virtual {device.chip} executes no firmware, so that readiness.until = '{until}' never comes"
        yield bad(area, fact, "let the flash be enough with until = 'line:not executed', or name a real port")
        return
    flash = ports.flash_file(device.name, device, root)
    holder = ports.describe_holders(str(flash))
    if holder:
        hint = "wait until that has ended, or stop it: two boards cannot have one flash"
        yield bad(area, f"its flash {flash} is open in {holder}", hint)
        return
    if not known:
        yield ok(area, "a virtual board in this process; its chip is what the build will be for")
        return
    yield ok(area, f"a virtual {device.chip} in this process")
    named = device.rom_elf or os.environ.get(ROM_DIRECTORY, "")
    if device.chip == EXECUTED and config.toolchain.kind in _NEEDS_ROM and not named:
        fact = "firmware of ESP-IDF calls the chip's mask ROM, of which the virtual board has a part only"
        hint = f"set {ROM_DIRECTORY} to Espressif's esp-rom-elfs (ESP-IDF's export.sh does), or rom_elf in deploy.toml"
        yield note(area, fact, hint)


def _serial(area: str, device: DeviceConfig, *, probe: bool, service: bool) -> Iterator[DoctorFinding]:
    try:
        port = ports.pick(device.name) if device.port == ports.AUTO else device.port
    except DeployError as error:
        yield of_failure(area, error.failure)
        return
    state = state_of(port)
    if not state.exists:
        present = ", ".join(one.port for one in present_ports()) or "none"
        yield bad(area, f"{port} is not there (present: {present})", "plug the board in, or correct the port")
    elif not state.allowed:
        yield bad(area, f"this user may not open {port}", _permission(state))
    elif state.holder and not service:
        yield bad(area, f"{port} is open in {state.holder}", "close that program, or let `doit serve` own the port")
    else:
        yield from _asked(area, device, port, probe=probe and not state.holder)


def _asked(area: str, device: DeviceConfig, port: str, *, probe: bool) -> Iterator[DoctorFinding]:
    """What answers there, where it may be asked."""
    if port.startswith(FARM_PORT):
        yield note(
            area, f"{port} is acquired by a deploy, and not looked at here", "ask the farm: labgrid-client places"
        )
        return
    if not probe:
        hint = "ask the board with `doit doctor --probe`: it resets the board and writes nothing"
        yield note(area, f"{port} was not opened", hint)
        return
    from pipeline.device.probe import probe as ask

    try:
        found = ask(port)
    except DeployError as error:
        yield of_failure(area, error.failure)
        return
    said = f"{found.chip} with MAC {found.mac} answers on {port}"
    if found.chip != device.chip:
        yield bad(area, f"{said}, but the build is for {device.chip}", "correct the chip, or choose another port")
    elif device.mac and found.mac != device.mac:
        yield bad(area, f"{said}, but deploy.toml says {device.mac}", "correct the mac, or choose another port")
    else:
        yield ok(area, said)


def _permission(state: PortState) -> str:
    if not state.group:
        return "give yourself the right to read and write it"
    if state.member:
        return f"log in again: you are in the group {state.group}, but this session began before"
    if state.group == "root":
        return "install a udev rule for it (ESP-IDF and PlatformIO have one), then plug it in again"
    return f"run `sudo usermod -aG {state.group} $USER`, then log in again"
