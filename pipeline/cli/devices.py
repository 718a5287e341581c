"""`doit devices`: look at the project, the system's ports and the leases, and let `shelf/listing.py` say what was seen.

Opens no port. Does not know doit. Invariant: returns what belongs on stdout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.durable import read_text
from pipeline.device.leases import board_name, user_shelf
from pipeline.device.probe import free_ports
from pipeline.records import json_text
from pipeline.report.history import by_device
from pipeline.report.history_file import read_history
from pipeline.shelf.listing import configured_rows, discovered_rows, listing_json, listing_text

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
    discovered = discovered_rows(free_ports(), every) if all_of_them else []
    if as_json:
        return json_text(listing_json(rows, discovered), indent=1) + "\n"
    return listing_text(rows, discovered)
