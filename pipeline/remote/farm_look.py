"""What a farm says of places right now, for people: where the board is, and who has it.

Asks the coordinator and acquires nothing. Does not know devices. Invariant: a farm that does not answer is a line of
text, within a deadline.
"""

from __future__ import annotations

from collections.abc import Sequence

from cache.named_tuple import NamedTuple
from pipeline.formats.farm_url import FarmUrl
from pipeline.formats.labgrid import PlaceSeen, ResourceSeen
from pipeline.remote.farm_values import FarmError

LOOK_S = 2.0


class PlaceShown(NamedTuple):
    """`place`, and `host` of its board, as far as they are known; `holder`: `HOST/USER`, `""` for nobody; `trouble`:
    why nothing else is known."""

    coordinator: str
    place: str = ""
    host: str = ""
    holder: str = ""
    trouble: str = ""

    @property
    def text(self) -> str:
        """In one line."""
        if self.trouble:
            return self.trouble
        host = f", board at {self.host}" if self.host else ", no exporter has its board now"
        return (
            f"place {self.place} of {self.coordinator}{host}, {f'acquired by {self.holder}' if self.holder else 'free'}"
        )


def look(address: str, user: str, urls: Sequence[FarmUrl]) -> list[PlaceShown]:
    """For each of these ports of one coordinator. Of a port with tags, all places that fit are one line."""
    from pipeline.remote.farm_labgrid import open_session

    try:
        session = open_session(address, user, timeout_s=LOOK_S)
    except FarmError as error:
        return [PlaceShown(address, trouble=str(error)) for _ in urls]
    except ImportError as error:
        fact = f"the Python package {error.name} is missing: pip install 'hotplate[farm]'"
        return [PlaceShown(address, trouble=fact) for _ in urls]
    try:
        places, resources = session.places(), session.resources()
    finally:
        session.close()
    return [_shown(address, url, places, resources) for url in urls]


def _shown(address: str, url: FarmUrl, places: Sequence[PlaceSeen], resources: Sequence[ResourceSeen]) -> PlaceShown:
    if url.place:
        there = next((each for each in places if url.place in (each.name, *each.aliases)), None)
        if there is None:
            return PlaceShown(address, url.place, trouble=f"{address} has no place '{url.place}'")
        hosts = sorted({str(each.params.get("host", each.exporter)) for each in there.serial_ports(resources)})
        return PlaceShown(address, there.name, ", ".join(hosts), there.acquired)
    fit = [each for each in places if dict(url.tags).items() <= {**each.tags, "name": each.name}.items()]
    free = sum(not each.acquired for each in fit)
    return PlaceShown(address, trouble=f"{len(fit)} places of {address} have its tags, {free} of them free")
