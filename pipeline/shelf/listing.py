"""What there is to say about each board: its table, how surely its port leads to it, who has it, its last deploy.

Reads the history and the ports that the system lists; opens no port. Does not know doit or the terminal. Invariant:
every device of deploy.toml has one row, and a port that a row names is no discovered board besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.config.schema import DeviceConfig
from pipeline.device.probe import FreePort
from pipeline.report.history import HistoryRow
from pipeline.text import visible

LISTING_SCHEMA = 1


class BoardRow(NamedTuple):
    """One line. `identity`: `board` (the MAC is fixed, by deploy.toml or by the port), `chip` (the chip is checked, and
    any board of it accepted), `path` (nothing is known but the port). `lease`: who has it, `""`: nobody. `place`: what
    the farm says of a board of its own."""

    name: str
    chip: str
    mac: str
    port: str
    identity: str
    profile: str = ""
    groups: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    enabled: bool = True
    lease: str = ""
    last: HistoryRow | None = None
    place: str = ""


def configured_rows(
    devices: Sequence[DeviceConfig],
    last_mac: Callable[[DeviceConfig], str],
    history: Mapping[str, Sequence[HistoryRow]],
    lease_of: Callable[[DeviceConfig], str],
) -> list[BoardRow]:
    """The devices of deploy.toml. `last_mac`: the MAC that was seen there last; `history`: device -> its deploys;
    `lease_of`: who has the device, in words."""
    return [
        BoardRow(
            device.name,
            device.chip,
            device.mac or last_mac(device),
            device.port,
            "board" if device.mac else "chip",
            device.profile,
            device.groups,
            device.tags,
            device.enabled,
            lease_of(device),
            history[device.name][-1] if history.get(device.name) else None,
        )
        for device in devices
    ]


def discovered_rows(free: Sequence[FreePort], known: Sequence[BoardRow]) -> list[BoardRow]:
    """Ports that look like a board's and that no device names."""
    ports = {_real(row.port) for row in known}
    macs = {row.mac for row in known if row.mac}
    return [
        BoardRow("", "", each.mac, each.port, "board" if each.mac else "path")
        for each in free
        if _real(each.port) not in ports and (not each.mac or each.mac not in macs)
    ]


def _real(port: str) -> str:
    return str(Path(port).resolve()) if port.startswith("/") else port


def listing_json(configured: Sequence[BoardRow], discovered: Sequence[BoardRow]) -> dict[str, Any]:
    """As data; what is not known is null."""
    return {
        "schema": LISTING_SCHEMA,
        "devices": list(map(_as_json, configured)),
        "discovered": [{key: _as_json(row)[key] for key in ("port", "mac", "identity")} for row in discovered],
    }


def _as_json(row: BoardRow) -> dict[str, Any]:
    value = {**row._asdict(), "mac": row.mac or None, "lease": row.lease or None, "place": row.place or None}
    last = row.last
    value["last"] = last and {
        "transaction_id": last.transaction_id,
        "started_at": last.started_at,
        "outcome": last.outcome,
    }
    return {key: list(item) if type(item) is tuple else item for key, item in value.items()}


def listing_text(configured: Sequence[BoardRow], discovered: Sequence[BoardRow]) -> str:
    """A table for people."""
    head = ("device", "chip", "mac", "port", "identity", "profile", "groups", "lease", "last")
    rows = [head, *map(_cells, configured)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{row.name}: {visible(row.place)}" for row in configured if row.place]
    for row in discovered:
        lines.append(f"new: {visible(row.port)}{f' ({row.mac})' if row.mac else ''}: in no table of deploy.toml")
    if discovered:
        lines.append("hint: run `doit devices:discover` to add them")
    return "\n".join(lines) + "\n"


def _cells(row: BoardRow) -> tuple[str, ...]:
    name = row.name if row.enabled else f"{row.name} (disabled)"
    groups = ",".join((*row.groups, *(f"#{tag}" for tag in row.tags)))
    last = "never deployed" if row.last is None else f"{row.last.outcome or '-'} {row.last.transaction_id}"
    cells = (name, row.chip, row.mac or "-", row.port, row.identity, row.profile, groups or "-", row.lease or "-", last)
    return tuple(map(visible, cells))
