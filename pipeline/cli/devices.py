"""`doit devices`: look at the project, the system's ports and the leases, and let `shelf/listing.py` say what was seen.

Opens no port; asks the farms of boards that are theirs. Does not know doit. Invariant: returns what belongs on stdout.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cache.durable import read_text
from pipeline.device.leases import board_name, user_shelf
from pipeline.device.probe import free_ports
from pipeline.records import json_text
from pipeline.report.history import by_device
from pipeline.report.history_file import read_history
from pipeline.shelf.listing import BoardRow, configured_rows, discovered_rows, listing_json, listing_text

if TYPE_CHECKING:
    from pipeline.config.schema import DeviceConfig
    from pipeline.run.project import Project


def devices_text(project: Project, *, all_of_them: bool, as_json: bool) -> str:
    """The selected devices, or all of them and the ports that none of them names."""
    leases = user_shelf(project.state_dir)

    def lease_of(device: DeviceConfig) -> str:
        holder = leases.holder(board_name(device, project.root))
        return "" if holder is None else holder.text

    def last_mac(device: DeviceConfig) -> str:
        try:
            return read_text(project.devices_dir / f"{device.name}.mac").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    history = by_device(read_history(project.reports_dir).rows)
    every = configured_rows(project.config.devices, last_mac, history, lease_of)
    chosen = {device.name for device in project.all_devices}
    rows = every if all_of_them else [row for row in every if row.name in chosen]
    rows = _with_places(project, rows)
    discovered = discovered_rows(free_ports(), every) if all_of_them else []
    if as_json:
        return json_text(listing_json(rows, discovered), indent=1) + "\n"
    return listing_text(rows, discovered)


def _with_places(project: Project, rows: list[BoardRow]) -> list[BoardRow]:
    """What farms say of those of these boards that are theirs; each farm is asked once."""
    in_farms = {device.name: device for device in project.config.devices if device.is_in_farm}
    wanted = [row for row in rows if row.name in in_farms]
    if not wanted:
        return rows
    from pipeline.formats.farm_url import FarmUrl, farm_coordinator, parse_farm_url
    from pipeline.remote.farm_look import look
    from pipeline.remote.farm_place import farm_user

    asked: dict[str, dict[str, FarmUrl]] = {}
    for row in wanted:
        url = parse_farm_url(row.port)
        assert isinstance(url, FarmUrl), "deploy.toml was checked when it was read [this is a bug]"
        asked.setdefault(farm_coordinator(url, os.environ), {})[row.name] = url
    said: dict[str, str] = {}
    for address, urls in asked.items():
        told = look(address, farm_user(), list(urls.values()))
        said.update({name: shown.text for name, shown in zip(urls, told, strict=True)})
    return [row._replace(place=said.get(row.name, "")) for row in rows]
