"""Messages of labgrid's coordinator (labgrid 26.0), and of what it says as values: field numbers, and names of calls.

Tables for `protobuf`, with those fields alone that we say or read. Does not know a transport or what is wanted.
Invariant: the numbers are labgrid's; what cannot be read is an UnreadableMessage, and never half a value.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from cache.named_tuple import NamedTuple
from pipeline.formats.protobuf import Field, Table, WireKind, decode

_I, _B, _S, _D, _M = WireKind.INT, WireKind.BOOL, WireKind.STRING, WireKind.BYTES, WireKind.MESSAGE

SERVICE = "/labgrid.Coordinator/"
STREAM = f"{SERVICE}ClientStream"

_TEXTS: Table = (Field(1, "key", _S), Field(2, "value", _S))
_VALUE: Table = (
    Field(1, "bool", _B),
    Field(2, "int", _I),
    Field(3, "uint", _I),
    Field(5, "string", _S),
)
_VALUES: Table = (Field(1, "key", _S), Field(2, "value", _M, table=_VALUE))

CLIENT_IN: Table = (
    Field(1, "sync", _M, table=(Field(1, "id", _I),)),
    Field(2, "startup", _M, table=(Field(1, "version", _S), Field(2, "name", _S))),
    Field(3, "subscribe", _M, table=(Field(2, "all_places", _B), Field(3, "all_resources", _B))),
)
_PATH: Table = (Field(1, "exporter", _S), Field(2, "group", _S), Field(3, "name", _S))
_RESOURCE: Table = (
    Field(1, "path", _M, table=_PATH),
    Field(2, "cls", _S),
    Field(3, "params", _M, repeated=True, table=_VALUES),
    Field(4, "extra", _M, repeated=True, table=_VALUES),
    Field(5, "acquired", _S),
)
_MATCH: Table = tuple(Field(n, name, _S) for n, name in enumerate(("exporter", "group", "cls", "name", "rename"), 1))
PLACE: Table = (
    Field(1, "name", _S),
    Field(2, "aliases", _S, repeated=True),
    Field(4, "tags", _M, repeated=True, table=_TEXTS),
    Field(5, "matches", _M, repeated=True, table=_MATCH),
    Field(6, "acquired", _S),
    Field(11, "reservation", _S),
)
PLACE_CHANGED = 10
_UPDATE: Table = (
    Field(1, "resource", _M, table=_RESOURCE),
    Field(2, "del_resource", _M, table=_PATH),
    Field(3, "place", _D),
    Field(4, "del_place", _S),
)
CLIENT_OUT: Table = (
    Field(1, "sync", _M, table=(Field(1, "id", _I),)),
    Field(2, "updates", _M, repeated=True, table=_UPDATE),
)
_FILTERS: Table = (
    Field(1, "key", _S),
    Field(2, "value", _M, table=(Field(1, "filter", _M, repeated=True, table=_TEXTS),)),
)
_RESERVATION: Table = (
    Field(1, "owner", _S),
    Field(2, "token", _S),
    Field(3, "state", _I),
    Field(6, "allocations", _M, repeated=True, table=_TEXTS),
)
_TOKEN: Table = (Field(1, "token", _S),)
_RESERVED: Table = (Field(1, "reservation", _M, table=_RESERVATION),)

CALLS: Mapping[str, tuple[Table, Table]] = {
    "AcquirePlace": ((Field(1, "placename", _S),), ()),
    "ReleasePlace": ((Field(1, "placename", _S), Field(2, "fromuser", _S)), ()),
    "CreateReservation": ((Field(1, "filters", _M, repeated=True, table=_FILTERS),), _RESERVED),
    "CancelReservation": (_TOKEN, ()),
    "PollReservation": (_TOKEN, _RESERVED),
    "GetReservations": ((), (Field(1, "reservations", _M, repeated=True, table=_RESERVATION),)),
}
"""Call -> its question and its answer."""

SERIAL = "NetworkSerialPort"
"""Class of every serial port that an exporter offers, whatever it is on its own machine."""
_OVER = frozenset((3, 4))
"""States of a reservation: expired, invalid."""


class UnreadableMessage(Exception):
    """These bytes are no message of labgrid's."""


class MatchPattern(NamedTuple):
    """Which resources belong to a place; `name` and `rename` may be `""`."""

    exporter: str
    group: str
    cls: str
    name: str = ""
    rename: str = ""

    @property
    def text(self) -> str:
        """As labgrid writes it."""
        return "/".join(word for word in (self.exporter, self.group, self.cls, self.name) if word)


class ResourceSeen(NamedTuple):
    """Something that an exporter offers. `params`: host, port, protocol; `extra`: how its machine is reached;
    `acquired`: by which place. Values that labgrid does not know yet are not there."""

    exporter: str
    group: str
    name: str
    cls: str = ""
    params: Mapping[str, Any] = {}
    extra: Mapping[str, Any] = {}
    acquired: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.exporter, self.group, self.name

    def matches(self, pattern: MatchPattern) -> bool:
        """Does a place with this pattern have it?"""
        pairs = ((self.exporter, pattern.exporter), (self.group, pattern.group), (self.cls, pattern.cls))
        named = not pattern.name or fnmatchcase(self.name, pattern.name)
        return named and all(fnmatchcase(mine, wanted) for mine, wanted in pairs)


class PlaceSeen(NamedTuple):
    """A place. `acquired`: by whom, `HOST/USER` or `""`; `changed`: when the coordinator touched it last, in seconds of
    its clock, so that an acquisition is known again by it; `reservation`: the token of the one that has it."""

    name: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = {}
    patterns: tuple[MatchPattern, ...] = ()
    acquired: str = ""
    changed: float = 0.0
    reservation: str = ""

    def serial_ports(self, resources: Sequence[ResourceSeen]) -> list[ResourceSeen]:
        """Its serial ports, of all that there is."""
        return [each for each in resources if each.cls == SERIAL and any(map(each.matches, self.patterns))]

    def called(self, resource: ResourceSeen) -> str:
        """What the resource is called in this place."""
        return next((each.rename for each in self.patterns if resource.matches(each) and each.rename), resource.name)


class ReservationSeen(NamedTuple):
    """`place`: what was allocated, `""`: nothing yet; `over`: nothing will be any more."""

    token: str
    owner: str = ""
    place: str = ""
    over: bool = False


class Update(NamedTuple):
    """One thing that the coordinator says: a place, a resource, or the name of one that is gone."""

    place: PlaceSeen | None = None
    resource: ResourceSeen | None = None
    gone_place: str = ""
    gone_resource: tuple[str, str, str] | None = None


def read_stream(data: bytes) -> tuple[int, list[Update]]:
    """One message of the stream: which `sync` it answers (0: none), and what is new."""
    message = _decoded(CLIENT_OUT, data)
    sync = message["sync"]
    return (sync["id"] if sync else 0), [_update(each) for each in message["updates"]]


def read_answer(call: str, data: bytes) -> dict[str, Any]:
    """The answer to one of CALLS."""
    return _decoded(CALLS[call][1], data)


def reservation_of(value: Mapping[str, Any] | None) -> ReservationSeen:
    """From the field of an answer."""
    if value is None:
        raise UnreadableMessage
    return ReservationSeen(
        value["token"], value["owner"], _texts(value["allocations"]).get("main", ""), value["state"] in _OVER
    )


def filters_of(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """What CreateReservation asks for."""
    return [{"key": "main", "value": {"filter": [{"key": key, "value": value} for key, value in tags.items()]}}]


def _decoded(table: Table, data: bytes) -> dict[str, Any]:
    found = decode(table, data)
    if found is None:
        raise UnreadableMessage
    return found


def _update(value: Mapping[str, Any]) -> Update:
    gone = value["del_resource"]
    return Update(
        _place(value["place"]) if value["place"] else None,
        _resource(value["resource"]) if value["resource"] else None,
        value["del_place"],
        (gone["exporter"], gone["group"], gone["name"]) if gone else None,
    )


def _place(data: bytes) -> PlaceSeen:
    value = _decoded(PLACE, data)
    patterns = tuple(MatchPattern(**each) for each in value["matches"])
    changed = _double(data, PLACE_CHANGED)
    aliases = tuple(sorted(value["aliases"]))
    return PlaceSeen(
        value["name"], aliases, _texts(value["tags"]), patterns, value["acquired"], changed, value["reservation"]
    )


def _resource(value: Mapping[str, Any]) -> ResourceSeen:
    path = value["path"] or {"exporter": "", "group": "", "name": ""}
    params, extra = _plain(value["params"]), _plain(value["extra"])
    return ResourceSeen(path["exporter"], path["group"], path["name"], value["cls"], params, extra, value["acquired"])


def _texts(entries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {each["key"]: each["value"] for each in entries}


def _plain(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the kinds of a value one is set, or none (Python's None); an empty text, 0 and False are as good as none."""
    found = {each["key"]: next(filter(None, (each["value"] or {}).values()), None) for each in entries}
    return {name: value for name, value in found.items() if value is not None}


def _double(data: bytes, number: int) -> float:
    """A field of 64 bits of a sound message; 0.0 where it is not there."""
    at, found = 0, 0.0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 1:
            if tag >> 3 == number:
                (found,) = struct.unpack_from("<d", data, at)
            at += 8
        elif tag & 7 == 0:
            _, at = _varint(data, at)
        elif tag & 7 == 2:
            size, at = _varint(data, at)
            at += size
        else:
            at += 4
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
