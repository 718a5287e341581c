"""Have a board for a while: its lease between processes and, where it is a farm's, its place between machines.

Knows both and in which order they are taken: the lease first, so that of this user's processes one at a time speaks to
the farm, and what a killed one left is known for that. Opens no port. Invariant: after `release` neither is ours; a
board of which one cannot be had is not had at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.device.leases import board_name, user_shelf
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Reason, Stage

if TYPE_CHECKING:
    from pipeline.client.holder import Holder
    from pipeline.config.schema import DeviceConfig
    from pipeline.device.leases import BoardLease, TakenOver
    from pipeline.remote.farm_place import FarmPlace

PLACE_VARIABLE = "LG_PLACE"
"""labgrid's own: the place that the user works in, and has acquired."""


class HeldBoard:
    """A board that this process works with. `place`: that of its farm, None for a board with a port of its own."""

    def __init__(self, lease: BoardLease, place: FarmPlace | None = None) -> None:
        self._lease = lease
        self.place = place

    @property
    def token(self) -> str:
        """For HOTPLATE_LEASE of child processes."""
        return self._lease.token

    @property
    def taken(self) -> TakenOver | None:
        """From whom the lease was taken."""
        return self._lease.taken

    @property
    def port(self) -> str:
        """What to open instead of the device's `port`; `""`: that."""
        return self.place.held.port if self.place is not None else ""

    def lost(self, where: str) -> Failure | None:
        """Why it is no longer ours: somebody took it over."""
        lost = self._lease.lost(where)
        if lost is None and self.place is not None and (why := self.place.lost()):
            message = f"place '{self.place.held.place}' is ours no longer: {why}"
            hint = "talk to its holder, then acquire the board again"
            return fail(FailureCategory.PORT_BUSY, stage=Stage.VERIFY_FLASH, where=where, message=message, hint=hint)
        return lost

    def reasons(self, device: str) -> tuple[Reason, ...]:
        """What is news about having it."""
        found = []
        if self.taken is not None:
            why = self.taken.reason or "no reason was given"
            found.append(Reason("lease-taken", device, self.taken.before.text, why))
        if self.place is not None:
            held = self.place.held
            found.append(Reason("farm-place", device, f"{held.place} of {held.coordinator}", f"board at {held.shown}"))
            if held.healed:
                found.append(Reason("farm-place-healed", device, "left by a killed run of this user", "released"))
            if held.taken:
                found.append(Reason("farm-place-taken", device, held.taken, held.place))
        return tuple(found)

    def release(self) -> str:
        """What could not be given back, `""` if all was. Idempotent."""
        try:
            return self.place.release() if self.place is not None else ""
        finally:
            self._lease.release()


def hold_board(
    device: DeviceConfig,
    root: Path,
    state_dir: Path,
    holder: Holder,
    *,
    take: bool = False,
    environment: Mapping[str, str] = os.environ,
    waiting: Callable[[str], None] = lambda text: None,
) -> HeldBoard | Failure:
    """Lease `device` and acquire its place, until `release`. A port_busy failure names who has it; `take` takes both
    over. `waiting` is told what is waited for: only a place that is chosen by its tags is."""
    shelf = user_shelf(state_dir, environment)
    name = board_name(device, root, environment)
    lease = shelf.hold(name, holder, device.where, take=take)
    if isinstance(lease, Failure) or not device.is_in_farm:
        return lease if isinstance(lease, Failure) else HeldBoard(lease)
    try:
        record = shelf.beside(name, "farm")
        place = _place(device, record, take=take, under=lease.of_parent, environment=environment, waiting=waiting)
    except BaseException:
        lease.release()
        raise
    if isinstance(place, Failure):
        lease.release()
        return place
    return HeldBoard(lease, place)


def _place(
    device: DeviceConfig,
    record: Path,
    *,
    take: bool,
    under: bool,
    environment: Mapping[str, str],
    waiting: Callable[[str], None],
) -> FarmPlace | Failure:
    from pipeline.formats.farm_url import FarmUrl, farm_coordinator, parse_farm_url
    from pipeline.remote.farm_place import acquire, farm_user
    from pipeline.remote.farm_values import FarmRefusal, FarmRequest

    url = parse_farm_url(device.port)
    assert isinstance(url, FarmUrl), "deploy.toml was checked when it was read [this is a bug]"
    given = bool(url.place) and environment.get(PLACE_VARIABLE) == url.place
    request = FarmRequest(
        farm_coordinator(url, environment),
        farm_user(environment),
        str(record),
        url.place,
        url.tags,
        url.resource,
        take,
        under or given,
    )
    got = acquire(request, waiting)
    if not isinstance(got, FarmRefusal):
        return got
    return fail(got.category, stage=Stage.VERIFY_FLASH, where=device.where, message=got.message, hint=got.hint)
