"""Newly found boards as tables of deploy.toml: text in, text out, with every comment where it was.

tomlkit keeps what a person wrote; it is imported here, when it is needed. Does not know ports or files. Invariant: the
text that comes out means what the one before meant, and the new devices; a board that is known is not added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeployConfig


class NewDevice(NamedTuple):
    """A board that is in no table yet. `why_not`: why nothing is built for it; it is disabled then."""

    name: str
    chip: str
    mac: str
    port: str
    why_not: str = ""


def named(config: DeployConfig, boards: Sequence[tuple[str, str, str]], known: Mapping[str, str]) -> list[NewDevice]:
    """Those of `boards` (chip, MAC, port) that no device is, each once, with names that nobody has. `known`: MAC of
    devices that name none -> device."""
    macs = {device.mac for device in config.devices if device.mac} | set(known)
    names = {device.name for device in config.devices}
    found = []
    for chip, mac, port in boards:
        if mac in macs:
            continue
        macs.add(mac)
        name = _free_name(f"{chip}-{mac.replace(':', '')[-4:]}", names)
        names.add(name)
        chips = {config.toolchain.chip, *(device.chip for device in config.devices if device.enabled)}
        why_not = "" if chip in chips else f"no profile builds for {chip}"
        found.append(NewDevice(name, chip, mac, port, why_not))
    return found


def _free_name(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name


def with_devices(text: str, config: DeployConfig, new: Sequence[NewDevice]) -> str:
    """The text with a table for each of them at its end. Where the only device so far was the default because it was
    alone, it says so from now on."""
    import tomlkit

    document: Any = tomlkit.parse(text)
    if len(config.devices) == 1 and not config.devices[0].default:
        document["device"][config.devices[0].name]["default"] = True
    eol = "\r\n" if "\r\n" in text else "\n"
    lines = []
    for device in new:
        lines += ["", f"[device.{_key(device.name)}]", f'chip = "{device.chip}"', f"mac = {_string(device.mac)}"]
        lines += [f"port = {_string(device.port)}"]
        if device.why_not:
            lines += [f"enabled = false  # {device.why_not}"]
    before = str(tomlkit.dumps(document))
    return before + ("" if before.endswith(("\n", "\r\n")) or not before else eol) + eol.join([*lines, ""])


def _key(name: str) -> str:
    import tomlkit

    return str(tomlkit.key(name).as_string())


def _string(value: str) -> str:
    import tomlkit

    return str(tomlkit.string(value).as_string())
