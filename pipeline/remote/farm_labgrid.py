"""A session with labgrid's coordinator over gRPC: what it says is kept as it is now, what is asked has a deadline.

Knows labgrid's calls and its stream of updates. Does not know which place is wanted, or what for. One thread reads the
stream; whoever waits is woken by what it brings. Invariants: no call waits longer than its deadline; a session that
ended says so to every later call; nothing of labgrid's own code is used.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.formats.labgrid import (
    CALLS,
    CLIENT_IN,
    SERVICE,
    STREAM,
    PlaceSeen,
    ReservationSeen,
    ResourceSeen,
    UnreadableMessage,
    Update,
    filters_of,
    read_answer,
    read_stream,
    reservation_of,
)
from pipeline.formats.protobuf import encode
from pipeline.remote.farm_values import FarmError

CONNECT_S = 5.0
"""A coordinator that does not answer by then is not there."""
CALL_S = 15.0
"""The coordinator itself gives an exporter 10 s to hand a resource over."""
KEEPALIVE_MS = 10_000


class LabgridSession:
    """Open with `open_session`; `close` it. `stopped`: true when nobody wants what is waited for any more."""

    def __init__(self, channel: Any, address: str, user: str, stopped: Callable[[], bool]) -> None:
        self.address, self.user = address, user
        self._channel, self._stopped = channel, stopped
        self._to_send: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._places: dict[str, PlaceSeen] = {}
        self._turns: dict[str, int] = {}
        self._resources: dict[tuple[str, str, str], ResourceSeen] = {}
        self._synced, self._asked, self._ended = 0, 0, ""
        # Messages are bytes here: what they mean is read by whoever asked, who can say what is wrong.
        self._calls = {name: channel.unary_unary(f"{SERVICE}{name}") for name in CALLS}
        self._stream = channel.stream_stream(STREAM)(self._outgoing())
        threading.Thread(target=self._read, name="hotplate-farm-stream", daemon=True).start()

    def begin(self, timeout_s: float) -> None:
        """Say who we are, and see what there is. Raises FarmError."""
        self._send(startup={"version": "hotplate", "name": self.user})
        self._send(subscribe={"all_places": True})
        self._send(subscribe={"all_resources": True})
        self.settle(timeout_s)

    # --- what is seen -----------------------------------------------------------------------------

    def place(self, name: str) -> PlaceSeen | None:
        """The place of this name or alias."""
        with self._changed:
            found = self._places.get(name)
            return found or next((each for each in self._places.values() if name in each.aliases), None)

    def turns(self, place: str) -> int:
        """How often its holder was seen to change."""
        with self._changed:
            return self._turns.get(place, 0)

    def places(self) -> Sequence[PlaceSeen]:
        with self._changed:
            return sorted(self._places.values())

    def resources(self) -> Sequence[ResourceSeen]:
        with self._changed:
            return [self._resources[key] for key in sorted(self._resources)]

    def settle(self, timeout_s: float = CALL_S) -> None:
        """What the coordinator knew when it was asked is seen now."""
        self._asked += 1
        asked = self._asked
        self._send(sync={"id": asked})
        if not self.wait(lambda: self._synced >= asked, timeout_s):
            raise FarmError(self.ended or f"the coordinator {self.address} did not answer within {timeout_s:g} s")

    def wait(self, happened: Callable[[], bool], timeout_s: float) -> bool:
        """Until something seen makes it true, the time is over, nobody wants it any more, or the session ended."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not happened():
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or self.ended:
                    return False
                self._changed.wait(left_s)
            return True

    def wake(self) -> None:
        """Whoever waits looks again."""
        with self._changed:
            self._changed.notify_all()

    @property
    def ended(self) -> str:
        """Why the session is over, or that nobody wants it any more; `""`: neither."""
        return self._ended or ("nobody waits for the place any more" if self._stopped() else "")

    # --- what is asked ----------------------------------------------------------------------------

    def acquire(self, place: str) -> None:
        self._call("AcquirePlace", placename=place)

    def release(self, place: str, user: str) -> None:
        """From this user, if it is still acquired by that one."""
        self._call("ReleasePlace", placename=place, fromuser=user)

    def reserve(self, tags: Mapping[str, str]) -> ReservationSeen:
        """Ask for any place with these tags."""
        return self._reservation("CreateReservation", filters=filters_of(tags))

    def poll(self, token: str) -> ReservationSeen:
        """How far it is; it ends by itself when nobody asks for a minute."""
        return self._reservation("PollReservation", token=token)

    def cancel(self, token: str) -> None:
        self._call("CancelReservation", token=token)

    def reservations(self) -> Sequence[ReservationSeen]:
        return [reservation_of(each) for each in self._call("GetReservations")["reservations"]]

    def _reservation(self, call: str, **fields: Any) -> ReservationSeen:
        try:
            return reservation_of(self._call(call, **fields)["reservation"])
        except UnreadableMessage:
            raise FarmError(f"the coordinator {self.address} answered {call} without a reservation") from None

    def close(self) -> None:
        """Idempotent."""
        self._to_send.put(None)
        self._stream.cancel()
        self._channel.close()

    def _call(self, name: str, **fields: Any) -> dict[str, Any]:
        import grpc

        try:
            return read_answer(name, self._calls[name](encode(CALLS[name][0], fields), timeout=CALL_S))
        except grpc.RpcError as error:
            raise FarmError(_told(error, self.address)) from None
        except UnreadableMessage:
            raise FarmError(f"the coordinator {self.address} gave an answer to {name} that cannot be read") from None
        except ValueError as error:  # a closed channel
            raise FarmError(self._ended or str(error)) from None

    def _send(self, **kind: Any) -> None:
        self._to_send.put(encode(CLIENT_IN, kind))

    def _outgoing(self) -> Iterator[bytes]:
        while (message := self._to_send.get()) is not None:
            yield message

    # --- the thread that reads ----------------------------------------------------------------------

    def _read(self) -> None:
        import grpc

        ended = f"the coordinator {self.address} ended the connection"
        try:
            for data in self._stream:
                synced, updates = read_stream(data)
                with self._changed:
                    for update in updates:
                        self._take(update)
                    self._synced = max(self._synced, synced)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            ended = _told(error, self.address)
        except UnreadableMessage:
            ended = f"the coordinator {self.address} said what cannot be read"
        with self._changed:
            self._ended = ended
            self._changed.notify_all()

    def _take(self, update: Update) -> None:
        if update.place is not None:
            name = update.place.name
            before = self._places.get(name)
            if before is not None and before.acquired != update.place.acquired:
                self._turns[name] = self._turns.get(name, 0) + 1
            self._places[name] = update.place
        if update.resource is not None:
            self._resources[update.resource.key] = update.resource
        if update.gone_resource is not None:
            self._resources.pop(update.gone_resource, None)
        self._places.pop(update.gone_place, None)


def open_session(
    address: str, user: str, stopped: Callable[[], bool] = lambda: False, timeout_s: float = CONNECT_S
) -> LabgridSession:
    """A session with the coordinator at `address` under this user's name. Raises FarmError when it does not answer,
    ImportError without gRPC."""
    import grpc

    # Through no proxy: a coordinator is a machine of the lab. It knows sessions by their connections, so that each has
    # one of its own; and it is asked now and then whether it is still there.
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
        ("grpc.http2.max_pings_without_data", 0),
    )
    channel = grpc.insecure_channel(address, options=options)
    try:
        grpc.channel_ready_future(channel).result(timeout=timeout_s)
    except grpc.FutureTimeoutError:
        channel.close()
        raise FarmError(f"the coordinator {address} did not answer within {timeout_s:g} s") from None
    session = LabgridSession(channel, address, user, stopped)
    try:
        session.begin(timeout_s)
    except FarmError:
        session.close()
        raise
    return session


def _told(error: Any, address: str) -> str:
    """One fact from what gRPC says."""
    import grpc

    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"what listens at {address} is no coordinator of labgrid ({details})"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"the coordinator {address} did not answer within {CALL_S:g} s"
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"the coordinator {address} cannot be reached: {details}"
    return details or code.name
