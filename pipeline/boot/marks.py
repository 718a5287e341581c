"""The instants of a boot: what marks each, declared once, and why one is missing on some transport.

Pure; does not know how a mark is taken. Invariant: every `MarkName` has exactly one row, and a mark that a transport or
a readiness gate cannot give has its reason here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.config.until import Until
from pipeline.model import MarkName


class Transport(StrEnum):
    """Ways to a board that differ in which instants can be seen."""

    VIRTUAL = "virtual"
    SERIAL = "serial"
    RFC2217 = "rfc2217"
    SOCKET = "socket"


class MarkRow(NamedTuple):
    """`marker`: what is taken for this instant. `missing`: why not, by transport."""

    marker: str
    missing: Mapping[Transport, str] = MappingProxyType({})


_NO_LINES = MappingProxyType({Transport.SOCKET: "a socket has no DTR and RTS, so that nobody can reset the board"})

MARKS: Mapping[MarkName, MarkRow] = MappingProxyType(
    {
        MarkName.RESET_RELEASED: MarkRow("EN rises: just before RTS is let go", _NO_LINES),
        MarkName.PORT_OPEN: MarkRow("the port can be read: before the reset where it stays open, else when it is back"),
        MarkName.REENUMERATED: MarkRow("the port that was gone was opened again"),
        MarkName.FIRST_BYTE: MarkRow("the read that returned the first byte after the reset"),
        MarkName.ROM_BANNER: MarkRow("`ESP-ROM:` or `rst:0x` of the last boot"),
        MarkName.APP_START: MarkRow("the first line that neither ROM nor bootloader prints"),
        MarkName.FIRST_LINE: MarkRow("the first line that is not empty"),
        MarkName.FIRST_JSONRPC: MarkRow("the first byte of the first valid JSON-RPC 2.0 message of the last boot"),
        MarkName.HEALTH: MarkRow("the first byte of the answer to `health` that passed the readiness gate"),
    }
)


def transport_of(port: str) -> Transport:
    """The transport of a device's `port`."""
    scheme = port.partition(":")[0] if "://" in port or port.startswith("virtual:") else ""
    known = {"virtual": Transport.VIRTUAL, "rfc2217": Transport.RFC2217, "socket": Transport.SOCKET}
    return known.get(scheme, Transport.SERIAL)


def unavailable(port: str, until: Until) -> dict[str, str]:
    """Why marks will be missing whatever the device does, by mark name."""
    transport = transport_of(port)
    told = {name.value: row.missing[transport] for name, row in MARKS.items() if transport in row.missing}
    if not until.speaks_rpc:
        told[MarkName.FIRST_JSONRPC.value] = f"readiness.until is '{until.text}': no JSON-RPC is expected"
    return told
