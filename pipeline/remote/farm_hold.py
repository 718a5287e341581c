"""Have a place of a farm: which one, whether it may be had, and how it is given back.

Knows what a place, a reservation and the record of a killed run mean. Does not know gRPC or processes: a `FarmClient`
speaks. Invariants: a place that somebody else has is never used without `take`; what is acquired or reserved here is
given back by `give_back`, and what was taken from us meanwhile is not; the record is written before the coordinator is
asked and removed after it was told, so that a place of ours is never without one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from pipeline.formats.labgrid import PlaceSeen, ResourceSeen
from pipeline.model import FailureCategory
from pipeline.records import json_text, parse_json
from pipeline.remote.farm_values import FarmClient, FarmError, FarmRecord, FarmRefusal, FarmRequest, HeldPlace
from pipeline.text import did_you_mean

BROKEN = "<broken>"
"""Who labgrid says has a resource that its exporter could not start."""
PORT_S = 10.0
"""How long an exporter may take to say where the serial port is, once the place is ours."""
POLL_S = 1.0
"""How often a reservation is asked about: one that nobody asks about for a minute ends."""

_C = FailureCategory


class RecordFile(Protocol):
    """Where the record lies."""

    def read(self) -> FarmRecord | None: ...
    def write(self, record: FarmRecord) -> None: ...
    def remove(self) -> None: ...


class FarmHold:
    """One request for a place. `acquire`, and whatever that gave, `give_back`. `waiting` is told what is waited for."""

    def __init__(
        self, client: FarmClient, request: FarmRequest, records: RecordFile, waiting: Callable[[str], None]
    ) -> None:
        self._client, self._request, self._records, self._waiting = client, request, records, waiting
        self._reservation = ""
        self._mine = ""
        """The place that we acquired and must release."""
        self._turns: int | None = None
        """How often its holder had changed when it was seen to be ours: once more, and it is ours no longer, whatever
        it says. None: not seen yet."""
        self._lost = self._noted = False

    # --- having it --------------------------------------------------------------------------------

    def acquire(self) -> HeldPlace | FarmRefusal:
        """The place, with the port of its board; or why not, and then nothing is ours. Raises FarmError."""
        left = self._records.read()
        if left is not None and (left.coordinator, left.user) != (self._client.address, self._client.user):
            left = None  # of another farm: nothing to say about this one
        healed = False
        if self._request.under:
            there = self._given(left)
            if there is not None:
                found = self._port(there)
                return found if isinstance(found, FarmRefusal) else found._replace(kept=True)
        elif left is not None:
            healed = self._heal(left)
        chosen = self._chosen()
        if isinstance(chosen, FarmRefusal):
            return chosen
        got = self._have(chosen)
        if isinstance(got, FarmRefusal):
            self.give_back()
            return got
        return got._replace(reservation=self._reservation, healed=healed)

    def _given(self, left: FarmRecord | None) -> PlaceSeen | None:
        """The place that whoever began us holds, under our name."""
        name = self._request.place or (left.place if left is not None else "")
        there = self._client.place(name) if name else None
        return there if there is not None and there.acquired == self._client.user else None

    def _heal(self, left: FarmRecord) -> bool:
        """Give back what a killed run of ours left; was there anything? The place is known by the time at which it was
        acquired: one that was acquired by hand since then is somebody's."""
        there = self._client.place(left.place)
        ours = there is not None and there.acquired == left.user and left.changed in (0.0, there.changed)
        if there is not None and ours:
            self._client.release(there.name, left.user)
        if left.reservation:
            with contextlib.suppress(FarmError):  # it may be over
                self._client.cancel(left.reservation)
        self._records.remove()
        self._client.settle()
        return ours

    def _chosen(self) -> PlaceSeen | FarmRefusal:
        if not self._request.place:
            return self._allocated(dict(self._request.tags))
        there = self._client.place(self._request.place)
        if there is not None:
            return there
        names = [each.name for each in self._client.places()]
        known = f"; there are: {', '.join(names)}" if names else "; it has none"
        fact = f"the coordinator {self._client.address} has no place '{self._request.place}'"
        close = did_you_mean(self._request.place, names)
        return FarmRefusal(_C.PORT_MISSING, fact + (close or known), "correct the place in `port`, or create it there")

    def _allocated(self, tags: Mapping[str, str]) -> PlaceSeen | FarmRefusal:
        """A place with these tags, reserved for us."""
        words = " ".join(f"{key}={value}" for key, value in tags.items())
        fit = [each for each in self._client.places() if tags.items() <= {**each.tags, "name": each.name}.items()]
        if not fit:
            seen = sorted({f"{key}={value}" for each in self._client.places() for key, value in each.tags.items()})
            fact = f"the coordinator {self._client.address} has no place with {words} (tags there: {', '.join(seen)})"
            return FarmRefusal(
                _C.PORT_MISSING, fact, "correct the tags in `port`, or set them: labgrid-client set-tags"
            )
        self._note(FarmRecord(self._client.address, "", self._client.user))
        found = self._client.reserve(tags)
        self._reservation = found.token
        self._note(FarmRecord(self._client.address, "", self._client.user, 0.0, found.token))
        waited_s = 0.0
        while not found.place and not found.over and waited_s < self._request.wait_s:
            if not waited_s:
                self._waiting(f"a place with {words}: {self._holders(fit)}")
            self._client.wait(lambda: False, POLL_S)
            if over := self._client.ended:
                raise FarmError(over)
            waited_s += POLL_S
            found = self._client.poll(found.token)
        self._client.settle()
        there = self._client.place(found.place) if found.place else None
        if there is not None:
            return there
        self.give_back()
        fact = f"no place with {words} became free within {self._request.wait_s:g} s: {self._holders(fit)}"
        return FarmRefusal(_C.PORT_BUSY, fact, "wait until one of them is released, then run again")

    def _holders(self, places: list[PlaceSeen]) -> str:
        now = [self._client.place(each.name) or each for each in places]
        return ", ".join(f"'{each.name}' is {self._held_by(each) or 'free'}" for each in now)

    def _held_by(self, place: PlaceSeen) -> str:
        """`acquired by HOST/USER`; `""` when nobody has it."""
        if place.acquired:
            return f"acquired by {place.acquired}"
        if not place.reservation or place.reservation == self._reservation:
            return ""
        owner = next((each.owner for each in self._client.reservations() if each.token == place.reservation), "")
        return "" if owner == self._client.user else f"reserved for {owner or 'somebody'}"

    def _have(self, place: PlaceSeen) -> HeldPlace | FarmRefusal:
        taken = ""
        if place.acquired and self._request.take:
            taken = place.acquired
            self._client.release(place.name, taken)
        elif held := self._held_by(place):
            return self._busy(place, held)
        elif not place.serial_ports(self._client.resources()):
            return self._no_port(place)
        self._note(FarmRecord(self._client.address, place.name, self._client.user, 0.0, self._reservation))
        try:
            self._client.acquire(place.name)
        except FarmError as error:
            return self._refused(place, str(error))
        self._mine = place.name
        self._client.settle()
        self._turns = self._client.turns(place.name)
        now = self._client.place(place.name) or place
        self._note(FarmRecord(self._client.address, now.name, self._client.user, now.changed, self._reservation))
        found = self._port(now)
        return found if isinstance(found, FarmRefusal) else found._replace(taken=taken)

    def _busy(self, place: PlaceSeen, held: str) -> FarmRefusal:
        fact = f"place '{place.name}' is {held}"
        hint = "wait until it is released, choose another place, or take it over with --take --reason TEXT"
        if place.acquired == self._client.user:
            fact += ", which is this user's name too: by hand, or by another machine of that name"
            hint = f"set LG_PLACE={place.name} to work in what you acquired, or labgrid-client -p {place.name} release"
        return FarmRefusal(_C.PORT_BUSY, fact, hint)

    def _refused(self, place: PlaceSeen, said: str) -> FarmRefusal:
        """The coordinator would not give it: somebody was faster, or something of it is not to be had."""
        self._client.settle()
        now = self._client.place(place.name) or place
        if held := self._held_by(now):
            return self._busy(now, held)
        others = [each for each in now.serial_ports(self._client.resources()) if each.acquired]
        hint = "look at the exporter's log on the board's machine, then run again"
        if others and others[0].acquired == BROKEN:
            fact = f"the exporter '{others[0].exporter}' could not make the serial port of place '{now.name}' ready"
            return FarmRefusal(_C.PORT_MISSING, fact, hint)
        if others:
            owner = self._client.place(others[0].acquired)
            by = f" ({self._held_by(owner)})" if owner is not None and owner.acquired else ""
            fact = f"the board of place '{now.name}' is in use by place '{others[0].acquired}'{by}"
            return FarmRefusal(_C.PORT_BUSY, fact, "wait until that place is released, then run again")
        return FarmRefusal(_C.PORT_MISSING, f"place '{now.name}' cannot be acquired: {said}", hint)

    # --- its port ---------------------------------------------------------------------------------

    def _port(self, place: PlaceSeen) -> HeldPlace | FarmRefusal:
        """Where its board can be opened, as soon as the exporter says so."""

        def open_now() -> list[ResourceSeen]:
            ports = place.serial_ports(self._client.resources())
            return [each for each in ports if each.acquired == place.name and each.params.get("port")]

        self._client.wait(lambda: bool(open_now()), PORT_S)
        found, wanted = open_now(), self._request.resource
        if not found:
            return self._no_port(place)
        names = {place.called(each): each for each in found}
        if wanted and wanted not in names:
            fact = f"place '{place.name}' has no serial port '{wanted}'{did_you_mean(wanted, names)}"
            return FarmRefusal(_C.PORT_MISSING, fact, f"name one of {', '.join(sorted(names))} after the # in `port`")
        if len(found) > 1 and not wanted:
            fact = f"place '{place.name}' has {len(found)} serial ports: {', '.join(sorted(names))}"
            return FarmRefusal(_C.PORT_AMBIGUOUS, fact, f'name one: port = "labgrid://{place.name}#{min(names)}"')
        return self._reached(place, names[wanted] if wanted else found[0])

    def _reached(self, place: PlaceSeen, port: ResourceSeen) -> HeldPlace | FarmRefusal:
        host, number = str(port.params.get("host", "")), port.params["port"]
        if port.extra.get("proxy_required"):
            fact = f"the board of place '{place.name}' at {host} can only be reached through {port.extra.get('proxy')}"
            hint = 'forward its port by ssh, and name that: port = "rfc2217://localhost:PORT"'
            return FarmRefusal(_C.PORT_MISSING, fact, hint)
        shown = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
        scheme = "socket" if port.params.get("protocol") == "raw" else "rfc2217"
        return HeldPlace(place.name, self._client.address, f"{scheme}://{shown}", shown)

    def _no_port(self, place: PlaceSeen) -> FarmRefusal:
        wanted = ", ".join(each.text for each in place.patterns) or "nothing: it has no match"
        fact = f"place '{place.name}' has no serial port now (it matches {wanted})"
        return FarmRefusal(_C.PORT_MISSING, fact, "start the exporter on the board's machine, or correct its matches")

    # --- giving it back -----------------------------------------------------------------------------

    def lost_to(self) -> str | None:
        """Who has the place that was ours, `""` for nobody; None while it is ours."""
        if not self._mine or self._turns in (None, self._client.turns(self._mine)):
            return None
        self._lost = True
        now = self._client.place(self._mine)
        return "" if now is None else now.acquired

    def give_back(self) -> str:
        """Release what was acquired here and cancel what was reserved; what could not be done, `""` if all was.
        Idempotent."""
        try:
            if self._mine and self.lost_to() is None:
                self._client.release(self._mine, self._client.user)
            if self._reservation:
                self._client.cancel(self._reservation)
        except FarmError as error:
            return str(error)
        if (self._mine or self._reservation or self._noted) and not self._lost:
            self._records.remove()  # of a place that was taken over, the record is the taker's
        self._mine = self._reservation = ""
        self._noted = False
        return ""

    def _note(self, record: FarmRecord) -> None:
        self._noted = True
        with contextlib.suppress(OSError):
            self._records.write(record)


class FarmRecordFile:
    """A FarmRecord as JSON. One that is damaged is none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> FarmRecord | None:
        try:
            value = parse_json(self._path.read_text(encoding="utf-8"))
            return FarmRecord(
                str(value["coordinator"]),
                str(value["place"]),
                str(value["user"]),
                float(value["changed"]),
                str(value["reservation"]),
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, record: FarmRecord) -> None:
        """Raises OSError."""
        from cache.durable import write_atomic

        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, json_text(record._asdict()).encode(), durable=False, mode=0o600)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
