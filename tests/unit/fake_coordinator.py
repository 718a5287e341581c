"""A coordinator of labgrid in this process: its calls over real gRPC, without its exporters.

Follows labgrid 26.0.1's coordinator in what a client can see: a place belongs to `HOST/USER`, not to a
connection; acquiring one twice is refused; reservations are scheduled when they are made and whenever a place is free.
`tests/e2e/test_labgrid.py` runs the same story against the real one.
"""

from __future__ import annotations

import queue
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from pipeline.formats.labgrid import CALLS, CLIENT_IN, CLIENT_OUT, PLACE, PLACE_CHANGED
from pipeline.formats.protobuf import decode, encode


class FakeCoordinator:
    """Serving on loopback from the constructor to `close`. `add` places with a board each."""

    def __init__(self) -> None:
        self.places: dict[str, dict[str, Any]] = {}
        self.resources: dict[str, dict[str, Any]] = {}
        self.reservations: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.breaks: set[str] = set()
        """Places whose exporter cannot start their port."""
        self._clients: dict[str, tuple[str, queue.SimpleQueue[bytes | None]]] = {}
        self._lock = threading.RLock()
        self._server = grpc.server(ThreadPoolExecutor(16), options=(("grpc.so_reuseport", 0),))
        handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(self._serving(name)) for name in CALLS}
        handlers["ClientStream"] = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("labgrid.Coordinator", handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def add(self, name: str, port: int, *, protocol: str = "rfc2217", late: bool = False, **tags: str) -> None:
        """A place with one serial port; `late`: its number is known once it is acquired, as with ser2net."""
        match = {"exporter": "rack", "group": name, "cls": "*"}
        self.places[name] = {"name": name, "tags": tags, "matches": [match], "acquired": "", "changed": time.time()}
        self.resources[name] = {"host": "127.0.0.1", "port": port, "protocol": protocol, "late": late, "acquired": ""}

    def acquire(self, name: str, user: str) -> str:
        """As `labgrid-client acquire` does; what the coordinator says against it."""
        with self._lock:
            place = self.places.get(name)
            if place is None:
                return f"Place {name} does not exist"
            if place["acquired"]:
                return f"Place {name} is already acquired"
            if (token := self._token_of(name)) and self.reservations[token]["owner"] != user:
                return f"Place {name} was not reserved for {user}"
            if name in self.breaks:
                self.resources[name]["acquired"] = "<broken>"
                self._publish([self._resource(name)])
                return f"Failed to acquire resources for place {name}"
            self._own(name, user)
        return ""

    def release(self, name: str) -> None:
        with self._lock:
            self._own(name, "")
            self._schedule()

    def touch(self, name: str) -> None:
        """As a change of its tags does."""
        with self._lock:
            self._own(name, self.places[name]["acquired"])

    def holder(self, name: str) -> str:
        return str(self.places[name]["acquired"])

    def close(self) -> None:
        for _, updates in list(self._clients.values()):
            updates.put(None)
        self._server.stop(0).wait()

    # --- inside -----------------------------------------------------------------------------------

    def _own(self, name: str, user: str) -> None:
        self.places[name].update(acquired=user, changed=time.time())
        self.resources[name]["acquired"] = name if user else ""
        self._publish([self._resource(name), {"place": self._place(name)}])

    def _publish(self, updates: list[dict[str, Any]]) -> None:
        for _, client in self._clients.values():
            client.put(encode(CLIENT_OUT, {"updates": updates}))

    def _place(self, name: str) -> bytes:
        place = self.places[name]
        tags = [{"key": key, "value": value} for key, value in place["tags"].items()]
        fields = {key: place[key] for key in ("name", "matches", "acquired")}
        data = encode(PLACE, {**fields, "tags": tags, "reservation": self._token_of(name)})
        return data + bytes((PLACE_CHANGED << 3 | 1,)) + struct.pack("<d", place["changed"])

    def _resource(self, name: str) -> dict[str, Any]:
        seen = self.resources[name]
        port = {"int": seen["port"]} if seen["acquired"] or not seen["late"] else {}
        params = {"host": {"string": seen["host"]}, "port": port, "protocol": {"string": seen["protocol"]}}
        return {
            "resource": {
                "path": {"exporter": "rack", "group": name, "name": "NetworkSerialPort"},
                "cls": "NetworkSerialPort",
                "params": [{"key": key, "value": value} for key, value in params.items()],
                "acquired": seen["acquired"],
            }
        }

    def _token_of(self, place: str) -> str:
        return next((token for token, each in self.reservations.items() if each["place"] == place), "")

    def _schedule(self) -> None:
        for token, each in self.reservations.items():
            free = [name for name, place in self.places.items() if not place["acquired"] and not self._token_of(name)]
            fit = [name for name in free if each["tags"].items() <= self.places[name]["tags"].items()]
            if not each["place"] and fit:
                self.reservations[token]["place"] = fit[0]
                self._publish([{"place": self._place(fit[0])}])

    def _stream(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        updates: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        peer = context.peer()

        def read() -> None:
            for data in messages:
                said = decode(CLIENT_IN, data) or {}
                with self._lock:
                    self._said(peer, said, updates)
            updates.put(None)

        threading.Thread(target=_quietly, args=(read,), daemon=True).start()
        context.add_callback(lambda: updates.put(None))
        while (data := updates.get()) is not None:
            yield data
        self._clients.pop(peer, None)

    def _said(self, peer: str, said: dict[str, Any], updates: queue.SimpleQueue[bytes | None]) -> None:
        if said["startup"]:
            self._clients[peer] = (said["startup"]["name"], updates)
        if said["sync"]:
            updates.put(encode(CLIENT_OUT, {"sync": said["sync"]}))
        if said["subscribe"] and said["subscribe"]["all_places"]:
            updates.put(encode(CLIENT_OUT, {"updates": [{"place": self._place(name)} for name in self.places]}))
        if said["subscribe"] and said["subscribe"]["all_resources"]:
            updates.put(encode(CLIENT_OUT, {"updates": [self._resource(name) for name in self.resources]}))

    def _serving(self, name: str) -> Any:
        def serve(data: bytes, context: Any) -> bytes:
            asked = decode(CALLS[name][0], data) or {}
            with self._lock:
                self.calls.append(name)
                user = self._clients.get(context.peer(), ("", None))[0]
                found = getattr(self, f"_{name}")(asked, user)
            if isinstance(found, str):
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, found)
            return encode(CALLS[name][1], found)

        return serve

    def _AcquirePlace(self, asked: dict[str, Any], user: str) -> dict[str, Any] | str:
        return self.acquire(asked["placename"], user) or {}

    def _ReleasePlace(self, asked: dict[str, Any], user: str) -> dict[str, Any] | str:
        del user
        if self.places[asked["placename"]]["acquired"] == asked["fromuser"]:
            self.release(asked["placename"])
        return {}

    def _CreateReservation(self, asked: dict[str, Any], user: str) -> dict[str, Any] | str:
        token = f"T{len(self.calls)}"
        tags = {each["key"]: each["value"] for each in asked["filters"][0]["value"]["filter"]}
        self.reservations[token] = {"owner": user, "tags": tags, "place": ""}
        self._schedule()
        return {"reservation": self._reservation(token)}

    def _PollReservation(self, asked: dict[str, Any], user: str) -> dict[str, Any] | str:
        del user
        return {"reservation": self._reservation(asked["token"])}

    def _CancelReservation(self, asked: dict[str, Any], user: str) -> dict[str, Any] | str:
        del user
        if self.reservations.pop(asked["token"], None) is None:
            return f"Reservation {asked['token']} does not exist"
        self._schedule()
        return {}

    def _GetReservations(self, asked: dict[str, Any], user: str) -> dict[str, Any] | str:
        del asked, user
        return {"reservations": [self._reservation(token) for token in self.reservations]}

    def _reservation(self, token: str) -> dict[str, Any]:
        each = self.reservations[token]
        allocations = [{"key": "main", "value": each["place"]}] if each["place"] else []
        return {"owner": each["owner"], "token": token, "state": int(bool(each["place"])), "allocations": allocations}


def _quietly(read: Any) -> None:
    """A client that is gone ends the messages with an exception."""
    try:
        read()
    except Exception:
        return
