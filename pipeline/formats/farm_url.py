"""A place of a board farm as the port of a device: `labgrid://[HOST[:PORT]/]PLACE[#RESOURCE]`, `labgrid://[...]?TAG=VALUE`.

Pure: texts in, values out. Does not know where a coordinator is by default, or whether a place exists.
Invariant: what `parse_farm_url` gives names either one place or at least one tag, never both.
"""

from __future__ import annotations

from collections.abc import Mapping

from cache.named_tuple import NamedTuple

DEFAULT_PORT = 20408
"""Where labgrid's coordinator listens unless it is told otherwise."""

_EXAMPLE = 'write it like port = "labgrid://esp-1", "labgrid://lab:20408/esp-1" or "labgrid://?chip=esp32c3&pool=ci"'


class FarmUrl(NamedTuple):
    """`coordinator`: `host:port`, `""` for the usual one. Either `place`, or `tags` that a place must have. `resource`:
    which of several serial ports of the place, by its name."""

    coordinator: str = ""
    place: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    resource: str = ""


class BadFarmUrl(NamedTuple):
    """What is wrong with a port, after "is ", and a hint."""

    fact: str
    hint: str


def parse_farm_url(port: str) -> FarmUrl | BadFarmUrl:
    """What the port names; or what is wrong with it."""
    from urllib.parse import parse_qsl, unquote, urlsplit

    try:
        parts = urlsplit(port)
        number = parts.port
        tags = tuple(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)) if parts.query else ()
    except ValueError as error:
        return BadFarmUrl(f"'{port}', which cannot be read: {error}", _EXAMPLE)
    if parts.username is not None:
        return BadFarmUrl(f"'{port}', which names a user, which a coordinator of labgrid does not ask for", _EXAMPLE)
    resource = unquote(parts.fragment)
    has_path = parts.path.startswith("/")
    coordinator = parts.netloc if has_path else ""
    place = unquote(parts.path[1:] if has_path else parts.netloc)
    if not has_path and number is not None:
        return BadFarmUrl(f"'{port}', which names a coordinator, but no place", _EXAMPLE)
    if coordinator and number is None:
        coordinator = f"{coordinator.rstrip(':')}:{DEFAULT_PORT}"
    if bool(place) == bool(tags):
        both = "a place and tags, which choose a place" if place else "neither a place nor tags"
        return BadFarmUrl(f"'{port}', which names {both}", _EXAMPLE)
    empty = next((name for name, value in tags if not name or not value), None)
    if empty is not None:
        return BadFarmUrl(f"'{port}', which has a tag without a value: '{empty}'", _EXAMPLE)
    if len({name for name, _ in tags}) < len(tags):
        return BadFarmUrl(f"'{port}', which has two values for one tag, which no place can have", _EXAMPLE)
    return FarmUrl(coordinator, place, tags, resource)


def farm_coordinator(url: FarmUrl, environment: Mapping[str, str]) -> str:
    """Where the coordinator is, as labgrid's own client finds it: `host:port`."""
    if url.coordinator:
        return url.coordinator
    named = environment.get("LG_COORDINATOR", "") or f"127.0.0.1:{DEFAULT_PORT}"
    return named if ":" in named.rpartition("]")[2] else f"{named}:{DEFAULT_PORT}"
